//! `/v1/webhook-endpoints`: making, changing, listing and removing them, and all that is wrong with doing so.

use reqwest::Method;
use serde_json::{Value, json};
use subledger::app::outbound::OutboundSettings;
use subledger::domain::message::MESSAGE_TYPES;
use subledger::sealing::MasterKeys;

use crate::support::contract::DOCUMENT;
use crate::support::receiver::endpoint;
use crate::support::*;

#[tokio::test]
async fn an_endpoint_is_made_shown_changed_and_removed() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/v1/webhook-endpoints").await.expect(200), json!({"data": []}));
    let body = json!({"url": "https://example.com/a", "description": "billing", "event_types": ["hold_*", "hold_*"]});
    let made = app.post("/v1/webhook-endpoints", body).await.expect(201);
    let secret = made["secret"].as_str().expect("a secret");
    assert!(secret.starts_with("whsec_") && secret.len() > 40, "{secret}");
    let id = made["id"].as_str().expect("an id");
    let at = format!("/v1/webhook-endpoints/{id}");
    let shown = app.get(&at).await.expect(200);
    assert_eq!((&shown["event_types"], &shown["status"]), (&json!(["hold_*"]), &json!("enabled")));
    assert_eq!(shown["secret"], Value::Null, "it is shown once");
    let change = async |body: Value| app.call(Method::PATCH, &at).json(body).send().await.expect(200);
    let changed = change(json!({"url": "https://example.com/b", "enabled": false})).await;
    assert_eq!((&changed["url"], &changed["description"]), (&json!("https://example.com/b"), &json!("billing")));
    assert_eq!((&changed["status"], &changed["disabled_reason"]), (&json!("disabled"), &json!("requested")));
    app.clock.advance(chrono::Duration::seconds(5));
    let again = change(json!({"enabled": false, "description": null, "event_types": []})).await;
    assert_eq!(again["disabled_at"], changed["disabled_at"], "the same twice is the same once");
    assert_eq!((&again["description"], &again["event_types"]), (&Value::Null, &json!([])));
    assert_eq!(change(json!({"enabled": true})).await["disabled_at"], Value::Null);
    assert_eq!(app.get("/v1/webhook-endpoints").await.expect(200)["data"].as_array().expect("rows").len(), 1);
    app.call(Method::DELETE, &at).send().await.expect(204);
    app.get(&at).await.problem(404, "not_found");
    app.call(Method::DELETE, &at).send().await.problem(404, "not_found");
}

#[tokio::test]
async fn secrets_are_not_told_again_and_neither_in_the_log() {
    let app = TestApp::start().await;
    let (id, secret) = endpoint(&app, "https://example.com/a", &[]).await;
    for path in ["/v1/webhook-endpoints".to_owned(), format!("/v1/webhook-endpoints/{id}")] {
        assert!(!app.get(&path).await.text.contains(&secret[6..]));
    }
    assert!(!logs::text().contains(&secret[6..]), "it is in the log");
}

#[tokio::test]
async fn where_there_is_a_master_key_secrets_are_sealed_and_sign_all_the_same() {
    let master_keys = MasterKeys::parse(&MasterKeys::generate()).expect("a key");
    let setup = Setup::default();
    let outbound = OutboundSettings { master_keys, ..setup.outbound.clone() };
    let app = TestApp::with(Setup { outbound, ..setup }).await;
    let receiver = Receiver::start().await;
    let (_, secret) = endpoint(&app, &receiver.url(), &["account_opened"]).await;
    let stored = app.database().await.query_one("select secret from webhook_secrets", &[]).await.expect("a secret");
    assert!(stored.get::<_, Vec<u8>>(0).starts_with(b"sealed.v1:"));
    app.put_account("user_1", json!({})).await.expect(201);
    let message = receiver.wait_for(1).await[0].clone();
    let theirs = standardwebhooks::Webhook::new(&secret).expect("a secret");
    let at = message.header("webhook-timestamp").parse().expect("seconds");
    let expected = theirs.sign(message.id(), at, &message.text).expect("signed");
    assert_eq!(message.header("webhook-signature"), expected);
}

/// Whoever removes an endpoint and whoever delivers, fans out or replays meet at the same rows.
#[tokio::test]
async fn an_endpoint_is_removed_in_the_middle_of_its_work() {
    let app = TestApp::start().await;
    let receiver = Receiver::start().await;
    for n in 0..8 {
        app.put_account(&format!("user_{n}"), json!({})).await.expect(201);
    }
    for round in 0..10 {
        let (id, _) = endpoint(&app, &receiver.url(), &[]).await;
        let at = format!("/v1/webhook-endpoints/{id}");
        app.post(&format!("{at}/replay"), json!({"since": rfc3339(START)})).await.expect(202);
        for n in 0..8 {
            app.grant(&format!("user_{n}"), round + 1).await.expect(201);
        }
        app.call(Method::DELETE, &at).send().await.expect(204);
        app.get(&at).await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn urls_that_lead_into_this_network_are_refused() {
    let app = TestApp::with(Setup { outbound: OutboundSettings::default(), ..Setup::default() }).await;
    let (id, _) = endpoint(&app, "https://example.com/", &[]).await;
    for url in [
        "http://example.com/",
        "https://10.0.0.1/",
        "https://127.0.0.1:8080/",
        "https://2130706433/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:192.168.0.1]/",
        "https://user:word@example.com/",
        "ftp://example.com/",
        "nonsense",
        "",
    ] {
        let problem = app.post("/v1/webhook-endpoints", json!({"url": url})).await.problem(400, "invalid_parameter");
        assert!(problem["detail"].as_str().expect("a detail").starts_with("url: "), "{problem}");
        let patch = app.call(Method::PATCH, &format!("/v1/webhook-endpoints/{id}")).json(json!({"url": url}));
        patch.send().await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let app = TestApp::start().await;
    let (id, _) = endpoint(&app, "https://example.com/", &[]).await;
    let at = format!("/v1/webhook-endpoints/{id}");
    for body in [json!({}), json!([]), json!({"url": 5}), json!({"url": "https://example.com/", "secret": "mine"})] {
        app.post("/v1/webhook-endpoints", body).await.problem(400, "invalid_body");
    }
    for event_types in [json!(["moon_landed"]), json!(["invoice.paid*"]), json!([""]), json!(vec!["*"; 101])] {
        let body = json!({"url": "https://example.com/", "event_types": event_types});
        app.post("/v1/webhook-endpoints", body).await.problem(400, "invalid_parameter");
    }
    for description in ["x".repeat(201), "a\u{0}b".to_owned()] {
        let body = json!({"url": "https://example.com/", "description": description});
        app.post("/v1/webhook-endpoints", body).await.problem(400, "invalid_parameter");
    }
    for seconds in [-1, 2_592_001] {
        let body = json!({"overlap_seconds": seconds});
        app.post(&format!("{at}/rotate-secret"), body).await.problem(400, "invalid_parameter");
    }
    for body in
        [json!({}), json!({"after": "1.2"}), json!({"after": "x", "since": rfc3339(START)}), json!({"after": ""})]
    {
        app.post(&format!("{at}/replay"), body).await.problem(400, "invalid_parameter");
    }
    app.post(&format!("{at}/replay"), json!({"since": "yesterday"})).await.problem(400, "invalid_body");
    for query in ["status=lost", "limit=0", "limit=501", "cursor=x", "account=a%00b"] {
        app.get(&format!("{at}/deliveries?{query}")).await.problem(400, "invalid_parameter");
    }
}

#[tokio::test]
async fn what_does_not_exist_says_so() {
    let app = TestApp::start().await;
    let (id, _) = endpoint(&app, "https://example.com/", &[]).await;
    for at in ["/v1/webhook-endpoints/we_nobody".to_owned(), format!("/v1/webhook-endpoints/{id}/deliveries/evt_0-9")] {
        app.get(&at).await.problem(404, "not_found");
    }
    let nobody = "/v1/webhook-endpoints/we_nobody";
    app.get(&format!("{nobody}/deliveries")).await.problem(404, "not_found");
    app.call(Method::PATCH, nobody).json(json!({})).send().await.problem(404, "not_found");
    app.call(Method::POST, &format!("{nobody}/rotate-secret")).send().await.problem(404, "not_found");
    app.post(&format!("{nobody}/replay"), json!({"since": rfc3339(START)})).await.problem(404, "not_found");
    for of in [nobody.to_owned(), format!("/v1/webhook-endpoints/{id}")] {
        let retry = format!("{of}/deliveries/evt_0-9/retry");
        app.call(Method::POST, &retry).send().await.problem(404, "not_found");
    }
}

#[tokio::test]
async fn there_are_only_so_many() {
    let app = TestApp::start().await;
    let (id, _) = endpoint(&app, "https://example.com/", &[]).await;
    let more = "insert into webhook_endpoints
         select 'we_' || n, url, null, event_types, status, null, null, null, begins, created_at, updated_at
         from webhook_endpoints, generate_series(1, 99) n";
    app.database().await.execute(more, &[]).await.expect("more");
    let body = json!({"url": "https://example.com/"});
    app.post("/v1/webhook-endpoints", body.clone()).await.problem(422, "too_many_webhook_endpoints");
    app.call(Method::DELETE, &format!("/v1/webhook-endpoints/{id}")).send().await.expect(204);
    app.post("/v1/webhook-endpoints", body).await.expect(201);
}

#[tokio::test]
async fn deliveries_are_listed_newest_first_in_pages() {
    let app = TestApp::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = endpoint(&app, &receiver.url(), &["account_opened"]).await;
    for n in 0..5 {
        app.clock.set(START + n / 2);
        app.put_account(&format!("user_{n}"), json!({})).await.expect(201);
        receiver.wait_for(usize::try_from(n).expect("small") + 1).await;
    }
    let at = format!("/v1/webhook-endpoints/{id}/deliveries");
    let all = app.get(&at).await.expect(200)["data"].as_array().expect("rows").clone();
    let times: Vec<&str> = all.iter().filter_map(|row| row["created_at"].as_str()).collect();
    assert!(times.len() == 5 && times.is_sorted_by(|a, b| a >= b), "{times:?}");
    for limit in [1, 2, 5] {
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = app.get(&format!("{at}?limit={limit}{cursor}")).await.expect(200);
            let ids = page["data"].as_array().expect("rows").iter().map(|row| row["message_id"].clone());
            paged.extend(ids);
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(paged, all.iter().map(|row| row["message_id"].clone()).collect::<Vec<_>>());
    }
}

#[test]
fn the_contract_names_every_type_of_message() {
    let documented = &DOCUMENT["components"]["schemas"]["MessageType"]["enum"];
    assert_eq!(*documented, json!(MESSAGE_TYPES));
}
