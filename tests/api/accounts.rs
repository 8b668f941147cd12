//! `/v1/accounts/{account}`: opening, reading, and how a Stripe customer finds its account.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stripe::*;
use crate::support::*;

/// That everything the customer has is the account's, whichever name is used.
async fn assert_linked(app: &TestApp, account: &str, customer: &str) {
    for name in [account, customer] {
        let found = app.get(&format!("/v1/accounts/{name}")).await.expect(200);
        assert_eq!(found["id"], account);
        assert_eq!(found["stripe_customer_ids"], json!([customer]));
        assert_eq!(found["plan"], "pro");
        assert_eq!(app.available(name).await, PRO_CREDITS);
        let subscription = app.get(&format!("/v1/accounts/{name}/subscription")).await.expect(200);
        assert_eq!(subscription["stripe_customer_id"], customer);
    }
}

#[tokio::test]
async fn an_account_is_opened_once_and_then_added_to() {
    on_both(async |app: TestApp| {
        let opened = app.put_account("user_1", json!({"email": "ada@example.com"})).await.expect(201);
        assert_eq!((&opened["id"], &opened["plan"]), (&json!("user_1"), &json!("free")));
        assert_eq!(opened["opened_at"], rfc3339(START));
        assert_eq!((&opened["stripe_customer_ids"], &opened["metadata"]), (&json!([]), &json!({})));
        let added = app.put_account("user_1", json!({"metadata": {"team": "research"}})).await.expect(200);
        assert_eq!((&added["email"], &added["metadata"]), (&json!("ada@example.com"), &json!({"team": "research"})));
        assert!(added["position"].as_i64() >= opened["position"].as_i64());
        let same = app.call(Method::PUT, "/v1/accounts/user_1").send().await.expect(200);
        assert_eq!(same["email"], "ada@example.com");
        assert_eq!(app.get("/v1/accounts/user_1").await.expect(200), same);
    })
    .await;
}

#[tokio::test]
async fn an_account_that_was_never_heard_of_is_a_404_everywhere() {
    let app = TestApp::start().await;
    for part in ["", "/subscription", "/invoices", "/credits", "/credits/entries", "/entitlements"] {
        app.get(&format!("/v1/accounts/nobody{part}")).await.problem(404, "account_not_found");
        app.get(&format!("/v1/accounts/cus_nobody{part}")).await.problem(404, "account_not_found");
    }
    app.debit("nobody", "key-1", json!({"amount": 1})).await.problem(404, "account_not_found");
    app.grant("nobody", 1).await.problem(404, "account_not_found");
}

#[tokio::test]
async fn names_that_cannot_be_an_accounts_are_refused() {
    let app = TestApp::start().await;
    let long = "x".repeat(201);
    for name in ["a%20b", "a%09b", "a%2Fb", "%00", &long, "$system", "in_1", "pi_1", "sub_1"] {
        app.put_account(name, json!({})).await.problem(400, "invalid_parameter");
    }
    for name in ["x".repeat(200).as_str(), "a@b.example", "0", "%C3%A9t%C3%A9", "a:b;c"] {
        app.put_account(name, json!({})).await.expect(201);
        app.get(&format!("/v1/accounts/{name}")).await.expect(200);
    }
    app.get("/v1/accounts/$system").await.problem(400, "invalid_parameter");
}

#[tokio::test]
async fn bodies_that_cannot_be_an_accounts_are_refused() {
    let app = TestApp::start().await;
    let values = [
        json!({"stripe_customer_id": "user_1"}),
        json!({"stripe_customer_id": ""}),
        json!({"stripe_customer_id": "cus_a/b"}),
        json!({"stripe_customer_id": format!("cus_{}", "x".repeat(100))}),
        json!({"email": "ada"}),
        json!({"email": "@"}),
        json!({"email": "ada lovelace@example.com"}),
        json!({"email": format!("{}@example.com", "x".repeat(320))}),
    ];
    for body in values {
        app.put_account("user_1", body).await.problem(400, "invalid_parameter");
    }
    for body in [json!({"emial": "a@b"}), json!({"email": 5}), json!([]), json!("x"), json!({"metadata": "x"})] {
        app.put_account("user_1", body).await.problem(400, "invalid_body");
    }
    let broken = app.call(Method::PUT, "/v1/accounts/user_1").bytes(b"{\"email\":".to_vec()).send().await;
    broken.problem(400, "invalid_body");
    app.get("/v1/accounts/user_1").await.problem(404, "account_not_found");
}

#[tokio::test]
async fn a_customer_is_linked_by_its_id_before_or_after_its_events() {
    on_both(async |app: TestApp| {
        app.put_account("before", json!({"stripe_customer_id": "cus_before"})).await.expect(201);
        app.deliver_all(&sign_up("cus_before", PRO, START)).await;
        assert_linked(&app, "before", "cus_before").await;

        app.deliver_all(&sign_up("cus_after", PRO, START)).await;
        assert_eq!(app.get("/v1/accounts/cus_after").await.expect(200)["id"], "cus_after");
        app.put_account("after", json!({"stripe_customer_id": "cus_after"})).await.expect(201);
        assert_linked(&app, "after", "cus_after").await;
    })
    .await;
}

#[tokio::test]
async fn a_customer_is_linked_between_its_events() {
    let events = sign_up("cus_1", PRO, START);
    for cut in 0..=events.len() {
        let app = TestApp::start().await;
        app.deliver_all(&events[..cut]).await;
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await;
        app.deliver_all(&events[cut..]).await;
        assert_linked(&app, "user_1", "cus_1").await;
    }
}

#[tokio::test]
async fn a_checkout_links_by_client_reference_id_whenever_it_comes() {
    on_both(async |app: TestApp| {
        for (n, at) in [0, 2, 4].into_iter().enumerate() {
            let (account, customer) = (format!("user_{n}"), format!("cus_{n}"));
            let mut events = sign_up(&customer, PRO, START);
            let session = checkout(&customer, &format!("cs_{n}"), &format!("sub_{n}"), START);
            let session = with(session, json!({"client_reference_id": account}));
            events.insert(at, event("checkout.session.completed", START, session));
            app.deliver_all(&events).await;
            assert_linked(&app, &account, &customer).await;
        }
    })
    .await;
}

#[tokio::test]
async fn metadata_links_on_the_object_or_on_the_subscription_an_invoice_copies_it_from() {
    let app = TestApp::start().await;
    let of_subscription = with(subscription("cus_a", "sub_a", PRO, START), json!({"metadata": {"account_id": "a"}}));
    app.deliver_all(&[event("customer.subscription.created", START, of_subscription)]).await;
    let bill = invoice("cus_b", "in_b", "sub_b", PRO, START);
    let copied = json!({"parent": {"subscription_details": {"metadata": {"user_id": "b"}}}});
    app.deliver_all(&[event("invoice.paid", START, with(bill, copied))]).await;
    for (account, customer) in [("a", "cus_a"), ("b", "cus_b")] {
        let found = app.get(&format!("/v1/accounts/{customer}")).await.expect(200);
        assert_eq!(found["id"], account);
    }
}

/// A completed Checkout of a customer known only by e-mail.
fn checkout_by_email(customer: &str, email: &str) -> Value {
    let session = checkout(customer, &format!("cs_{customer}"), "sub_1", START);
    event("checkout.session.completed", START, with(session, json!({"customer_details": {"email": email}})))
}

#[tokio::test]
async fn an_email_address_links_whether_the_account_or_the_checkout_comes_first() {
    on_both(async |app: TestApp| {
        app.put_account("first", json!({"email": "first@example.com"})).await.expect(201);
        app.deliver_all(&sign_up("cus_first", PRO, START)).await;
        app.deliver(&checkout_by_email("cus_first", "First@Example.com")).await;
        assert_linked(&app, "first", "cus_first").await;

        app.deliver_all(&sign_up("cus_second", PRO, START)).await;
        app.deliver(&checkout_by_email("cus_second", "second@example.com")).await;
        assert_eq!(app.get("/v1/accounts/cus_second").await.expect(200)["id"], "cus_second");
        app.put_account("second", json!({"email": "second@example.com"})).await.expect(201);
        assert_linked(&app, "second", "cus_second").await;
    })
    .await;
}

#[tokio::test]
async fn an_email_address_that_two_accounts_carry_links_nobody() {
    let app = TestApp::start().await;
    app.put_account("one", json!({"email": "shared@example.com"})).await.expect(201);
    app.put_account("two", json!({"email": "shared@example.com"})).await.expect(201);
    app.deliver(&checkout_by_email("cus_1", "shared@example.com")).await;
    assert_eq!(app.get("/v1/accounts/cus_1").await.expect(200)["id"], "cus_1");
}

#[tokio::test]
async fn a_customer_that_merely_carries_the_address_is_not_linked_by_it() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"email": "ada@example.com"})).await.expect(201);
    let customer = json!({"id": "cus_1", "object": "customer", "created": START, "email": "ada@example.com"});
    app.deliver_all(&[event("customer.created", START, customer)]).await;
    assert_eq!(app.get("/v1/accounts/cus_1").await.expect(200)["id"], "cus_1");
}

#[tokio::test]
async fn a_customer_belongs_to_one_account_and_the_first_link_stands() {
    on_both(async |app: TestApp| {
        app.put_account("first", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        let taken = app.put_account("second", json!({"stripe_customer_id": "cus_1"})).await;
        taken.problem(409, "customer_linked_elsewhere");
        app.put_account("first", json!({"stripe_customer_id": "cus_1"})).await.expect(200);

        let session = with(checkout("cus_1", "cs_1", "sub_1", START), json!({"client_reference_id": "second"}));
        app.deliver(&event("checkout.session.completed", START, session)).await;
        assert_eq!(app.get("/v1/accounts/cus_1").await.expect(200)["id"], "first");
        assert_eq!(app.metric("subledger_conflicting_claims_total").await, 1.0);
    })
    .await;
}

#[tokio::test]
async fn an_account_may_have_several_customers() {
    let app = TestApp::start().await;
    for customer in ["cus_a", "cus_b"] {
        app.deliver_all(&sign_up(customer, PRO, START)).await;
        app.put_account("user_1", json!({"stripe_customer_id": customer})).await;
    }
    let account = app.get("/v1/accounts/user_1").await.expect(200);
    assert_eq!(account["stripe_customer_ids"], json!(["cus_a", "cus_b"]));
    assert_eq!(app.available("user_1").await, 2 * PRO_CREDITS);
}

#[tokio::test]
async fn what_a_payer_may_write_into_a_checkout_cannot_name_what_is_not_an_account() {
    let app = TestApp::start().await;
    app.deliver_all(&sign_up("cus_victim", PRO, START)).await;
    app.put_account("victim", json!({"stripe_customer_id": "cus_victim"})).await.expect(201);
    for (n, name) in ["$system", "cus_victim", "in_sub_victim_1", "a b", ""].into_iter().enumerate() {
        let (customer, session) = (format!("cus_{n}"), format!("cs_{n}"));
        let session = with(pack_checkout(&customer, &session, START), json!({"client_reference_id": name}));
        assert_eq!(app.deliver(&event("checkout.session.completed", START, session)).await, "applied", "{name}");
        assert_eq!(app.get(&format!("/v1/accounts/{customer}")).await.expect(200)["id"], customer);
        assert_eq!(app.available(&customer).await, PACK_CREDITS + FREE_CREDITS);
    }
    assert_eq!(app.available("victim").await, PRO_CREDITS);
}

#[tokio::test]
async fn credits_spent_before_the_link_stay_spent_after_it() {
    on_both(async |app: TestApp| {
        app.deliver_all(&sign_up("cus_1", PRO, START)).await;
        app.debit("cus_1", "key-1", json!({"amount": 120})).await.expect(201);
        app.put_account("user_1", json!({"stripe_customer_id": "cus_1"})).await.expect(201);
        assert_eq!(app.available("user_1").await, PRO_CREDITS - 120);
        assert!(app.debit("cus_1", "key-1", json!({"amount": 120})).await.is_replay());
        assert_eq!(app.available("user_1").await, PRO_CREDITS - 120);
    })
    .await;
}

#[tokio::test]
async fn the_address_the_caller_gave_outranks_stripes() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1", "email": "mine@example.com"})).await.expect(201);
    let customer = json!({"id": "cus_1", "object": "customer", "created": START, "email": "stripes@example.com"});
    app.deliver(&event("customer.updated", START, customer)).await;
    assert_eq!(app.get("/v1/accounts/user_1").await.expect(200)["email"], "mine@example.com");
}

#[tokio::test]
async fn a_read_waits_for_a_position_that_was_reached_and_gives_up_on_one_that_was_not() {
    on_both(async |app: TestApp| {
        app.put_account("user_1", json!({})).await.expect(201);
        let granted = app.grant("user_1", 5).await.expect(201);
        let position = granted["position"].as_i64().expect("a position");
        let parts = [
            "",
            "/credits",
            "/credits/entries",
            "/entitlements",
            "/entitlements/generation",
            "/subscriptions",
            "/invoices",
            "/payments",
            "/credit-purchases",
            "/payment-methods",
        ];
        for part in parts {
            app.get(&format!("/v1/accounts/user_1{part}?min_position={position}")).await.expect(200);
        }
        let late = format!("/v1/accounts/user_1/credits?min_position={}", position + 1_000);
        let problem = app.get(&late).await.problem(409, "position_not_reached");
        assert!(problem["detail"].as_str().expect("a detail").contains(&position.to_string()));
        for wrong in ["-1", "x", "1.5", "9223372036854775808", ""] {
            let path = format!("/v1/accounts/user_1/credits?min_position={wrong}");
            app.get(&path).await.problem(400, "invalid_parameter");
        }
    })
    .await;
}

#[tokio::test]
async fn a_waiting_read_answers_as_soon_as_the_position_is_reached() {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({})).await.expect(201);
    let mut position = app.grant("user_1", 5).await.expect(201)["position"].as_i64().expect("a position");
    // A second is waited at most, and a slow machine may need longer for a debit.
    for spent in 1..=5 {
        let path = format!("/v1/accounts/user_1/credits?min_position={}", position + 1);
        let key = format!("key-{spent}");
        let (credits, debit) = tokio::join!(app.get(&path), app.debit("user_1", &key, json!({"amount": 1})));
        position = debit.expect(201)["position"].as_i64().expect("a position");
        if credits.status == 200 || spent == 5 {
            assert_eq!(credits.expect(200)["available"], FREE_CREDITS + 5 - spent);
            return;
        }
    }
}
