//! `DELETE /v1/admin/accounts/{account}/personal-data`: what names a person is gone, and everything else stays.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

/// What names Ada, wherever it may have got to.
const PERSONAL: [&str; 4] = ["ada@example.com", "Lovelace", "St James", "analytical"];

/// Every table's rows that name her.
async fn traces(app: &TestApp) -> Vec<String> {
    let client = app.database().await;
    let tables =
        "select relname::text from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace";
    let mut found = Vec::new();
    for row in client.query(tables, &[]).await.expect("tables") {
        let table: String = row.get(0);
        let rows = match table.as_str() {
            "inbox" => client.query("select convert_from(body, 'utf8') from inbox", &[]).await,
            _ => client.query(&format!("select t::text from {table} t"), &[]).await,
        };
        let rows = rows.expect("rows").into_iter().map(|row| row.get::<_, String>(0));
        let personal = rows.filter(|row| PERSONAL.iter().any(|personal| row.contains(personal)));
        found.extend(personal.map(|row| format!("{table}: {row}")));
    }
    found
}

/// Her customer, as Stripe tells of it.
fn customer(id: &str) -> Value {
    json!({
        "id": id, "object": "customer", "created": START, "email": "ada@example.com", "name": "Ada Lovelace",
        "address": {"line1": "12 St James's Square"}, "metadata": {},
    })
}

/// An account with a profile, and StripeEvents that were applied, made no use of, and parked.
async fn live(app: &TestApp) {
    let known = json!({"stripe_customer_id": "cus_ada", "email": "ada@example.com", "metadata": {"job": "analytical"}});
    app.put_account("user_ada", known).await.expect(201);
    app.deliver_all(&sign_up("cus_ada", PRO, START)).await;
    app.deliver(&event("customer.updated", START, customer("cus_ada"))).await;
    let unused = json!({"id": "src_1", "object": "source", "customer": "cus_ada", "owner": {"name": "Ada Lovelace"}});
    assert_eq!(app.deliver(&event("customer.source.created", START, unused)).await, "ignored");
    let unreadable =
        json!({"id": "evt_parked", "data": {"object": {"currency": "zzz", "customer_name": "Ada Lovelace"}}});
    let invoice = invoice("cus_ada", "in_parked", "sub_ada", PRO, START);
    assert_eq!(app.deliver(&with(event("invoice.paid", START, invoice), unreadable)).await, "parked");
}

async fn erase(app: &TestApp, account: &str) -> Value {
    let path = format!("/v1/admin/accounts/{account}/personal-data");
    app.call(Method::DELETE, &path).send().await.expect(200)
}

#[tokio::test]
async fn nothing_that_names_a_person_is_left_in_any_table() {
    let app = TestApp::start().await;
    live(&app).await;
    let before = app.available("user_ada").await;
    let others = event("customer.updated", START, with(customer("cus_grace"), json!({"name": "Grace Hopper"})));
    app.deliver(&with(others, json!({"data": {"object": {"email": "grace@example.com", "address": null}}}))).await;
    assert!(traces(&app).await.len() >= 4, "the test sees what is there");

    let erased = erase(&app, "cus_ada").await;
    let told = (&erased["account"], &erased["profile_erased"], &erased["parked_redacted"]);
    assert_eq!(told, (&json!("user_ada"), &json!(true), &json!(1)));
    assert!(erased["inbox_erased"].as_u64() >= Some(4), "{erased}");
    assert_eq!(traces(&app).await, Vec::<String>::new());

    let account = app.get("/v1/accounts/user_ada").await.expect(200);
    assert_eq!((&account["email"], &account["metadata"], &account["plan"]), (&Value::Null, &json!({}), &json!("pro")));
    assert_eq!(app.available("user_ada").await, before);
    let parked = app.get("/v1/admin/parked").await.expect(200);
    assert_eq!(parked["data"][0]["stripe_event_id"], "evt_parked");
    let stored = app.database().await;
    let others = "select count(*) from inbox where convert_from(body, 'utf8') like '%grace@example.com%'";
    let left: i64 = stored.query_one(others, &[]).await.expect("a count").get(0);
    assert_eq!(left, 1, "nobody else's are touched");
}

#[tokio::test]
async fn what_was_erased_stays_away_until_a_caller_gives_it_anew() {
    let app = TestApp::start().await;
    live(&app).await;
    let told = event("customer.updated", START, customer("cus_ada"));
    assert_ne!(app.deliver(&told).await, "duplicate");
    erase(&app, "user_ada").await;
    // The same event again, news of the same customer, and a stream that turns out to be hers.
    assert_eq!(app.deliver(&told).await, "duplicate");
    app.deliver(&event("customer.updated", START + 5, customer("cus_ada"))).await;
    app.deliver(&event("customer.created", START, customer("cus_second"))).await;
    app.put_account("user_ada", json!({"stripe_customer_id": "cus_second"})).await.expect(200);
    assert_eq!(app.get("/v1/accounts/user_ada").await.expect(200)["email"], Value::Null);
    assert_eq!(erase(&app, "user_ada").await["profile_erased"], false);
    assert_eq!(traces(&app).await, Vec::<String>::new());

    app.put_account("user_ada", json!({"email": "ada@example.com"})).await.expect(200);
    assert_eq!(app.get("/v1/accounts/user_ada").await.expect(200)["email"], "ada@example.com");
}

#[tokio::test]
async fn a_parked_event_can_be_applied_after_its_account_was_erased() {
    let app = TestApp::start().await;
    live(&app).await;
    erase(&app, "user_ada").await;
    // As if a fix had come: what could not be read now can be.
    let mended = "update inbox set body = convert_to(replace(convert_from(body, 'utf8'), '\"zzz\"', '\"usd\"'), 'utf8')
        where stripe_event_id = 'evt_parked'";
    app.database().await.batch_execute(mended).await.expect("mended");
    let retried = app.call(Method::POST, "/v1/admin/parked/evt_parked/retry").send().await.expect(200);
    assert_eq!(retried["status"], "applied");
    assert_eq!(traces(&app).await, Vec::<String>::new());
}

#[tokio::test]
async fn only_accounts_that_exist_are_erased() {
    let app = TestApp::start().await;
    let path = "/v1/admin/accounts/user_nobody/personal-data";
    app.call(Method::DELETE, path).send().await.problem(404, "account_not_found");
    app.call(Method::DELETE, "/v1/admin/accounts/a%20b/personal-data").send().await.problem(400, "invalid_parameter");
    let key = app.post("/v1/admin/keys", json!({"scope": "bill"})).await.expect(201)["key"].clone();
    let key = key.as_str().expect("a key");
    app.call(Method::DELETE, path).key(key).send().await.problem(403, "forbidden");
}
