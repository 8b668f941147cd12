//! Whoever gets past the grants and the trigger is found out.

use serde_json::Value;
use subledger::app::upkeep::rebuild::rebuild;
use subledger::app::upkeep::verify::{Anchor, Difference, VerifyOptions, verify};
use tokio_postgres::error::SqlState;

use super::ledger::{Ledger, connect, story};

async fn worked_with(partitions: i16) -> Ledger {
    let ledger = Ledger::new(partitions).await;
    for event in &story("t") {
        ledger.receive(event).await;
    }
    for name in ["user_1", "user_2"] {
        ledger.open(name).await;
        ledger.grant(name, 100).await;
        for _ in 0..3 {
            ledger.debit(name, 7).await.result.expect("accepted");
        }
    }
    ledger.assert_clean().await;
    ledger
        .admin
        .batch_execute("create table kept as select * from events; create table kept_heads as table heads")
        .await
        .expect("kept");
    ledger
}

/// Puts everything back.
async fn restore(ledger: &Ledger) {
    ledger
        .tamper("delete from events; insert into events select * from kept; delete from heads; insert into heads select * from kept_heads")
        .await;
    rebuild(&ledger.database, std::sync::Arc::new(|_, _| {})).await.expect("rebuilt");
    ledger.assert_clean().await;
}

async fn differences(ledger: &Ledger) -> Vec<Difference> {
    let report = ledger.verify().await;
    assert_eq!(report.differences, report.listed.len() as u64);
    assert_eq!(report.is_clean(), report.listed.is_empty());
    report.listed
}

fn has(found: &[Difference], table: &str, what: &str, at: Option<(i16, i64)>) -> bool {
    found.iter().any(|difference| {
        (difference.table, difference.what) == (table, what)
            && at.is_none_or(|(partition_id, position)| {
                (difference.partition_id, difference.position) == (Some(partition_id), Some(position))
            })
    })
}

/// Where the first debit of user_1 stands.
async fn a_debit(ledger: &Ledger) -> (i16, i64, i64) {
    let row = ledger
        .admin
        .query_one(
            "select partition_id, position, version from events
             where account_id = 'user_1' and type = 'credits_debited' order by version limit 1",
            &[],
        )
        .await
        .expect("an event");
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_changed_is_found_out_at_the_very_event() {
    for partitions in [1, 64] {
        let mut ledger = worked_with(partitions).await;
        let (partition_id, position, version) = a_debit(&ledger).await;
        let place = format!("partition_id = {partition_id} and position = {position}");
        let at = Some((partition_id, position));

        // Each field of an event, and only that event's hash.
        for change in [
            "payload = replace(payload::text, '\"amount\":7', '\"amount\":6')::json",
            "at = at + interval '1 microsecond'",
            "type = 'credits_expired'",
            "type_version = 3",
            "previous_position = 0",
            "hash = sha256('other')",
        ] {
            ledger.tamper(&format!("update events set {change} where {place}")).await;
            let found = differences(&ledger).await;
            assert!(has(&found, "events", "hash", at), "{change}: {found:#?}");
            let hashes = found.iter().filter(|difference| difference.what == "hash").count();
            assert!(hashes <= if change.starts_with("hash") { 2 } else { 1 }, "{change}: {found:#?}");
            restore(&ledger).await;
        }

        // White space in JSON changes nothing but the bytes, and still is a change.
        ledger.tamper(&format!("update events set payload = (payload::text || ' ')::json where {place}")).await;
        let found = differences(&ledger).await;
        assert!(has(&found, "events", "hash", at) && found.len() == 1, "{found:#?}");
        restore(&ledger).await;

        ledger.tamper(&format!("delete from events where {place}")).await;
        let found = differences(&ledger).await;
        assert!(has(&found, "events", "position", Some((partition_id, position + 1))), "{found:#?}");
        assert!(found.iter().any(|difference| {
            difference.expected.contains(&format!("positions {position} to {position} are missing"))
        }));
        assert!(has(&found, "events", "version", None) && has(&found, "balances", "state", None), "{found:#?}");
        restore(&ledger).await;

        // Two debits change places.
        ledger
            .tamper(&format!(
                "update events set position = 1000, version = 1000 where {place};
                 update events set position = {position}, version = {version}
                 where partition_id = {partition_id} and position = {position} + 1;
                 update events set position = {position} + 1, version = {version} + 1
                 where partition_id = {partition_id} and position = 1000"
            ))
            .await;
        let found = differences(&ledger).await;
        assert!(has(&found, "events", "hash", at), "{found:#?}");
        assert!(has(&found, "events", "hash", Some((partition_id, position + 1))), "{found:#?}");
        restore(&ledger).await;

        // An event moves to where it does not belong, with a hash made for it.
        ledger.tamper(&format!("update events set account_id = 'user_3', version = 1 where {place}")).await;
        let found = differences(&ledger).await;
        assert!(has(&found, "events", "hash", at) && has(&found, "events", "version", None), "{found:#?}");
        restore(&ledger).await;

        ledger.tamper("insert into events select 1000, 1, 'user_9', 1, 0, type, type_version, at, payload, hash from events limit 1").await;
        let found = differences(&ledger).await;
        assert!(has(&found, "events", "partition_id", Some((1000, 1))), "{found:#?}");
        restore(&ledger).await;
        ledger.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_was_changed_is_found_out() {
    let mut ledger = worked_with(4).await;
    let (partition_id, ..) = a_debit(&ledger).await;
    for (change, what) in [("position = position + 1", "position"), ("hash = sha256('x')", "hash")] {
        ledger
            .admin
            .batch_execute(&format!("update heads set {change} where partition_id = {partition_id}"))
            .await
            .expect("changed");
        let found = differences(&ledger).await;
        assert!(has(&found, "heads", what, None) && found.len() == 1, "{found:#?}");
        restore(&ledger).await;
    }
    ledger
        .admin
        .batch_execute(&format!("delete from heads where partition_id = {partition_id}"))
        .await
        .expect("changed");
    let found = differences(&ledger).await;
    assert!(has(&found, "heads", "row", None) && found.len() == 1, "{found:#?}");
    restore(&ledger).await;
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_cut_off_with_its_head_is_found_by_rows_or_keys_and_else_only_by_an_anchor() {
    let mut ledger = worked_with(1).await;
    // A key points to the last event.
    let last = story("last").remove(0);
    ledger.receive(&last).await;
    let anchors = ledger.assert_clean().await.anchors;
    let cut = "
        delete from events where position = (select max(position) from events);
        update heads set (position, hash) = (select position, hash from events order by position desc limit 1)";
    ledger.tamper(cut).await;
    let found = differences(&ledger).await;
    // The rows of the account whose only event is gone.
    assert!(has(&found, "balances", "row", None) && has(&found, "stripe_links", "row", None), "{found:#?}");
    assert!(has(&found, "idempotency", "position", None), "{found:#?}");

    // With the rows taken back too, the key still tells.
    rebuild(&ledger.database, std::sync::Arc::new(|_, _| {})).await.expect("rebuilt");
    let found = differences(&ledger).await;
    assert!(has(&found, "idempotency", "position", None) && found.len() == 1, "{found:#?}");

    // Whoever takes that back as well leaves no trace inside the database.
    ledger
        .admin
        .batch_execute("delete from idempotency where position > (select position from heads)")
        .await
        .expect("deleted");
    ledger.assert_clean().await;

    // An anchor kept elsewhere tells.
    let options = VerifyOptions { anchors: anchors.clone(), ..VerifyOptions::default() };
    let found = verify(&ledger.database, &options).await.expect("verified").listed;
    assert!(has(&found, "events", "last position", None) && found.len() == 1, "{found:#?}");

    // So does it when other events were written in the place of those.
    ledger.open("user_5").await;
    ledger.assert_clean().await;
    let found = verify(&ledger.database, &options).await.expect("verified").listed;
    assert!(
        has(&found, "events", "hash at the anchor", Some((0, anchors[0].position))) && found.len() == 1,
        "{found:#?}"
    );

    // Anchors survive being written down.
    let text = serde_json::to_string(&anchors).expect("json");
    assert_eq!(serde_json::from_str::<Vec<Anchor>>(&text).expect("anchors"), anchors);
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_the_log_does_not_say_is_found_out_and_named() {
    let mut ledger = worked_with(4).await;
    let cases = [
        (
            "update balances set available = available + 1 where account_id = 'user_1'",
            "balances",
            "available",
            "user_1",
            None,
        ),
        (
            "update balances set state = replace(state::text, '\"remaining\":79', '\"remaining\":80')::json where account_id = 'user_1'",
            "balances",
            "state",
            "user_1",
            None,
        ),
        (
            "update balances set version = version + 1 where account_id = 'user_2'",
            "balances",
            "version",
            "user_2",
            None,
        ),
        (
            "update balances set position = position - 1 where account_id = 'user_2'",
            "balances",
            "position",
            "user_2",
            None,
        ),
        (
            "update balances set partition_id = 3 - partition_id where account_id = 'user_2'",
            "balances",
            "partition_id",
            "user_2",
            None,
        ),
        ("delete from balances where account_id = 'user_2'", "balances", "row", "user_2", None),
        ("insert into balances values ('nobody', 0, 1, 1, 5, '{}')", "balances", "row", "nobody", None),
        (
            "update billing_objects set state = replace(state::text, '900', '901')::json where object_id = 'in_t'",
            "billing_objects",
            "state",
            "user_t",
            Some("invoice in_t"),
        ),
        (
            "update billing_objects set sort_at = sort_at + interval '1 s' where object_id = 'in_t'",
            "billing_objects",
            "sort_at",
            "user_t",
            Some("invoice in_t"),
        ),
        (
            "delete from billing_objects where object_id = 'sub_t'",
            "billing_objects",
            "row",
            "user_t",
            Some("subscription sub_t"),
        ),
        (
            "insert into billing_objects select account_id, kind, 'in_forged', partition_id, sort_at, state from billing_objects where object_id = 'in_t'",
            "billing_objects",
            "row",
            "user_t",
            Some("invoice in_forged"),
        ),
        (
            "insert into billing_objects values ('nobody', 'invoice', 'in_x', 0, now(), '{}')",
            "billing_objects",
            "row",
            "nobody",
            Some("invoice in_x"),
        ),
        (
            "update stripe_links set account_id = 'user_1' where stripe_id = 'cus_t'",
            "stripe_links",
            "account_id",
            "user_t",
            Some("cus_t"),
        ),
        ("delete from stripe_links where stripe_id = 'pi_t'", "stripe_links", "account_id", "user_t", Some("pi_t")),
        (
            "insert into stripe_links values ('cus_forged', 'user_1', 0)",
            "stripe_links",
            "row",
            "user_1",
            Some("cus_forged"),
        ),
        (
            "insert into stripe_links values ('cus_forged', 'nobody', 0)",
            "stripe_links",
            "row",
            "nobody",
            Some("cus_forged"),
        ),
    ];
    for (change, table, what, account, key) in cases {
        let changed = ledger.admin.execute(change, &[]).await.expect(change);
        assert_eq!(changed, 1, "{change}");
        let found = differences(&ledger).await;
        let named = found.iter().any(|difference| {
            (difference.table, difference.what, difference.account_id.as_deref()) == (table, what, Some(account))
                && (key.is_none() || difference.key.as_deref() == key)
        });
        assert!(named, "{change}: {found:#?}");
        let expected = if table == "stripe_links" && change.starts_with("update") { 2 } else { 1 };
        assert_eq!(found.len(), expected, "{change}: {found:#?}");
        restore(&ledger).await;
    }
    // The service spends from rows, so what it takes from a forged one is in the log, and stays in it.
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_differences_are_counted_and_some_listed() {
    let mut ledger = worked_with(4).await;
    ledger.admin.batch_execute("insert into balances select 'ghost_' || n, 0, 1, 1, 0, '{}' from generate_series(1, 500) n; update balances set available = available + 1 where account_id like 'user%'").await.expect("changed");
    let options = VerifyOptions { listed: 7, ..VerifyOptions::default() };
    let report = verify(&ledger.database, &options).await.expect("verified");
    assert_eq!((report.differences, report.listed.len()), (503, 7), "{:#?}", report.listed);
    let json: Value = serde_json::to_value(&report).expect("json");
    assert_eq!(json["differences"], 503);
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_refuses_change_by_the_service_and_by_its_owner() {
    let mut ledger = worked_with(1).await;
    let service = ledger.database.connect().await.expect("connected");
    let whole = ledger.one::<i64>("select count(*) from events").await;
    let changes = [
        "update events set account_id = 'x'",
        "delete from events",
        "truncate events",
        "update events set account_id = 'x' where false",
    ];
    for change in changes {
        let error = service.batch_execute(change).await.expect_err("refused");
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{change}");
        let owner = connect(&ledger.url).await;
        let error = owner.batch_execute(change).await.expect_err("refused");
        assert_eq!(error.code(), Some(&SqlState::RESTRICT_VIOLATION), "{change}");
        // A replica's settings switch ordinary triggers off, not this one.
        owner.batch_execute("set session_replication_role = replica").await.expect("set");
        let error = owner.batch_execute(change).await.expect_err("refused");
        assert_eq!(error.code(), Some(&SqlState::RESTRICT_VIOLATION), "{change}");
    }
    for guarded in [
        "alter table events disable trigger all",
        "drop table events",
        "delete from heads",
        "update ledger set partitions = 2",
        "delete from idempotency",
        "update idempotency set position = 0",
        "create table x ()",
    ] {
        let error = service.batch_execute(guarded).await.expect_err("refused");
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{guarded}");
    }
    assert_eq!(ledger.one::<i64>("select count(*) from events").await, whole);
    ledger.stop().await;
}
