//! The sweep: what time made due is put on record for accounts that nobody asks about.

use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

async fn types(app: &TestApp, account: &str) -> Vec<(String, i64)> {
    let page = app.get(&format!("/v1/accounts/{account}/credits/entries?limit=500")).await.expect(200);
    let entry = |entry: &Value| {
        (entry["type"].as_str().expect("a type").to_owned(), entry["amount"].as_i64().expect("an amount"))
    };
    page["data"].as_array().expect("entries").iter().map(entry).collect()
}

fn line(kind: &str, amount: i64) -> (String, i64) {
    (kind.to_owned(), amount)
}

#[tokio::test]
async fn refills_and_expiry_of_idle_accounts_are_recorded_once_by_any_number_of_replicas() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        app.put_account("user_2", json!({})).await.expect(201);
        app.deliver_all(&[
            event("customer.subscription.created", START, subscription("cus_1", "sub_1", PRO_YEARLY, START)),
            event("invoice.paid", START, invoice("cus_1", "in_1", "sub_1", PRO_YEARLY, START)),
        ])
        .await;
        let body = json!({"amount": 7, "expires_at": rfc3339(day(3))});
        app.post("/v1/accounts/user_2/credits/grants", body).await.expect(201);
        assert_eq!(app.service.sweep().await.expect("swept"), 0, "nothing is due yet");

        app.clock.set(day(31));
        assert_eq!(app.available("user_1").await, PRO_CREDITS);
        assert_eq!(types(&app, "user_1").await, [line("grant", 500)], "reads say it, and record nothing");
        let replica = TestApp::with(Setup {
            partitions: app.service.partitions,
            database_url: Some(app.database_url.clone()),
            ..Setup::default()
        })
        .await;
        replica.clock.set(day(31));
        let (here, there) = tokio::join!(app.service.sweep(), replica.service.sweep());
        assert!(here.expect("swept") + there.expect("swept") >= 2);
        let of_user_1 = [line("grant", 500), line("grant", 500), line("expiry", -500)];
        assert_eq!(types(&app, "user_1").await, of_user_1);
        // The free month's end is on record; the next one waits for a spender.
        let of_user_2 = [line("grant", 10), line("grant", 7), line("expiry", -7), line("expiry", -10)];
        assert_eq!(types(&app, "user_2").await, of_user_2);
        assert_eq!((app.available("user_1").await, app.available("user_2").await), (PRO_CREDITS, FREE_CREDITS));
        assert_eq!(app.service.sweep().await.expect("swept"), 0, "nothing is left to do");
        assert!(
            app.metric("subledger_swept_accounts_total").await + replica.metric("subledger_swept_accounts_total").await
                >= 2.0
        );
    })
    .await;
}
