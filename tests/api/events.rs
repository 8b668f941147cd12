//! `/v1/events`: the feed of the log.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

/// Follows the feed from a cursor to its end.
async fn follow(app: &TestApp, query: &str, limit: usize) -> (Vec<Value>, String) {
    let mut events = Vec::new();
    let mut after = String::new();
    loop {
        let cursor = if after.is_empty() { String::new() } else { format!("&after={after}") };
        let page = app.get(&format!("/v1/events?limit={limit}{query}{cursor}")).await.expect(200);
        let data = page["data"].as_array().expect("events");
        events.extend(data.iter().cloned());
        after = page["next_cursor"].as_str().expect("always a cursor").to_owned();
        if page["has_more"] == false {
            return (events, after);
        }
        assert_eq!(data.len(), limit);
    }
}

/// That nothing is missing or twice, and each partition is in order.
fn assert_gapless(events: &[Value]) {
    let mut positions: BTreeMap<i64, i64> = BTreeMap::new();
    for event in events {
        let number = |field: &str| event[field].as_i64().expect("a number");
        let last = positions.entry(number("partition")).or_default();
        assert_eq!(number("position"), *last + 1, "in partition {}", number("partition"));
        *last += 1;
    }
}

async fn events_in_log(app: &TestApp) -> i64 {
    app.database().await.query_one("select count(*) from events", &[]).await.expect("a count").get(0)
}

#[tokio::test]
async fn the_whole_log_comes_in_pages_of_any_size_without_gaps() {
    on_both(async |app: TestApp| {
        for n in 0..5 {
            app.deliver_all(&sign_up(&format!("cus_{n}"), PRO, START)).await;
            app.debit(&format!("cus_{n}"), &format!("key-{n}"), json!({"amount": 1})).await.expect(201);
        }
        for limit in [1, 7, 1_000] {
            let (events, _) = follow(&app, "", limit).await;
            assert_gapless(&events);
            assert_eq!(events.len() as i64, events_in_log(&app).await);
        }
        let (_, end) = follow(&app, "", 100).await;
        let nothing = app.get(&format!("/v1/events?after={end}")).await.expect(200);
        assert_eq!(nothing, json!({"data": [], "has_more": false, "next_cursor": end}));
        app.debit("cus_0", "key-9", json!({"amount": 2})).await.expect(201);
        let news = app.get(&format!("/v1/events?after={end}")).await.expect(200);
        assert_eq!(news["data"].as_array().expect("events").len(), 1);
        assert_eq!(
            (&news["data"][0]["type"], &news["data"][0]["account"]),
            (&json!("credits_debited"), &json!("cus_0"))
        );
        assert_eq!(news["data"][0]["payload"]["amount"], 2);
    })
    .await;
}

#[tokio::test]
async fn no_event_is_skipped_when_clocks_disagree() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        // What one replica wrote may bear a later time than what another wrote after it.
        for (n, seconds) in [3_600, 0, 1_800, -3_600, 60].into_iter().enumerate() {
            app.clock.set(START + seconds);
            app.debit("user_1", &format!("key-{n}"), json!({"amount": 1})).await;
            app.put_account(&format!("other_{n}"), json!({})).await;
        }
        for limit in [1, 2, 3] {
            let (events, _) = follow(&app, "", limit).await;
            assert_gapless(&events);
            assert_eq!(events.len() as i64, events_in_log(&app).await);
        }
    })
    .await;
}

/// Only one event in sixteen is indexed by its account; the others are found from there.
#[tokio::test]
async fn any_stretch_of_an_accounts_events_is_found() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.put_account("user_2", json!({})).await.expect(201);
    for n in 0..40 {
        for name in ["user_1", "user_2"] {
            app.debit(name, &format!("{name}-{n}"), json!({"amount": 1})).await;
            app.grant(name, 1).await;
        }
    }
    let database = app.database().await;
    let last: i64 = database
        .query_one("select max(version) from events where account_id = 'user_1'", &[])
        .await
        .expect("a number")
        .get(0);
    assert!(last > 64, "{last} events are too few to tell");
    for after in 0..=last {
        for most in [None, Some(1), Some(5), Some(16), Some(17), Some(last)] {
            let rows = database
                .query("select account_id, version from account_events('user_1', $1, $2)", &[&after, &most])
                .await
                .expect("events");
            let found: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
            let end = most.map_or(last, |most: i64| last.min(after + most));
            assert_eq!(found, (after + 1..=end).collect::<Vec<_>>(), "after {after}, at most {most:?}");
            assert!(rows.iter().all(|row| row.get::<_, &str>(0) == "user_1"));
        }
    }
    let nobody = database.query("select 1 from account_events('user_3')", &[]).await.expect("events");
    assert!(nobody.is_empty());
}

#[tokio::test]
async fn the_events_of_one_type_are_found_behind_many_of_others() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    app.grant("user_1", 1_000).await;
    for n in 0..230 {
        app.debit("user_1", &format!("key-{n}"), json!({"amount": 1})).await.expect(201);
    }
    app.grant("user_1", 1).await;
    let (granted, _) = follow(&app, "&account=user_1&type=credits_granted", 50).await;
    let sources = granted.iter().map(|event| (&event["payload"]["lot"]["granted"], &event["version"]));
    let first_and_last: Vec<_> = sources.filter(|(credits, _)| **credits == 1_000 || **credits == 1).collect();
    assert_eq!(first_and_last.len(), 2, "{granted:#?}");
    assert!(first_and_last[1].1.as_i64() > Some(230), "{granted:#?}");
    let all = app.database().await;
    let all = all.query_one("select count(*) from events where type = 'credits_granted'", &[]).await;
    assert_eq!(granted.len() as i64, all.expect("a count").get::<_, i64>(0));
}

#[tokio::test]
async fn one_accounts_events_come_in_the_order_of_its_versions() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.deliver_all(&sign_up("cus_2", PRO, START)).await;
    for name in ["user_1", "cus_1"] {
        let (events, end) = follow(&app, &format!("&account={name}"), 2).await;
        let versions: Vec<i64> = events.iter().map(|event| event["version"].as_i64().expect("a version")).collect();
        assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>());
        assert!(events.iter().all(|event| event["account"] == "user_1"));
        assert_eq!(end, versions.len().to_string());
    }
    let position = app.debit("user_1", "key-1", json!({"amount": 1})).await.expect(201)["position"].clone();
    app.get(&format!("/v1/events?account=user_1&min_position={position}")).await.expect(200);
    let late = format!("/v1/events?account=user_1&min_position={}", i64::MAX);
    app.get(&late).await.problem(409, "position_not_reached");
    app.get("/v1/events?account=nobody").await.problem(404, "account_not_found");
}

#[tokio::test]
async fn events_of_some_types_only() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        app.debit("cus_1", "key-1", json!({"amount": 1})).await.expect(201);
        for account in ["", "&account=cus_1"] {
            let (events, _) = follow(&app, &format!("&type=credits_granted,credits_debited{account}"), 1).await;
            let types: Vec<&Value> = events.iter().map(|event| &event["type"]).collect();
            assert_eq!(types, ["credits_granted", "credits_debited"]);
        }
        let (none, _) = follow(&app, "&type=moon_landed", 10).await;
        assert_eq!(none, Vec::<Value>::new());
    })
    .await;
}

#[tokio::test]
async fn cursors_that_this_feed_never_gave_are_refused() {
    let app = TestApp::with(Setup { partitions: 64, ..Setup::default() }).await;
    app.put_account("user_1", json!({})).await.expect(201);
    let too_large = vec!["9223372036854775808"; 64].join(".");
    let negative = vec!["-1"; 64].join(".");
    for after in ["5", "x", "", "1.2.3", &too_large, &negative] {
        app.get(&format!("/v1/events?after={after}")).await.problem(400, "invalid_parameter");
    }
    for after in ["x", "", "1.2", "-1", "9223372036854775808"] {
        app.get(&format!("/v1/events?account=user_1&after={after}")).await.problem(400, "invalid_parameter");
    }
    for limit in ["0", "1001", "x"] {
        app.get(&format!("/v1/events?limit={limit}")).await.problem(400, "invalid_parameter");
    }
}
