//! Faults of answers: what took effect and what did not, and pages in a browser.

use std::time::Duration;

use reqwest::{Client, Response};
use serde_json::{Value, json};
use subledger_simulator::Simulator;

use crate::deliveries::{control, simulator};

async fn create(simulator: &Simulator, key: &str) -> Result<Response, reqwest::Error> {
    let client = Client::builder().timeout(Duration::from_secs(60)).build().expect("a client");
    let url = format!("{}/v1/customers", simulator.base_url());
    let request = client.post(url).header("Authorization", "Bearer sk_test_1").header("Idempotency-Key", key);
    request.header("Content-Type", "application/x-www-form-urlencoded").body("email=a@example.com").send().await
}

async fn body(response: Response) -> Result<Value, reqwest::Error> {
    let bytes = response.bytes().await?;
    Ok(serde_json::from_slice(&bytes).expect("JSON"))
}

fn customers(simulator: &Simulator) -> usize {
    simulator.with_world(|world| world.objects("customer").count())
}

#[tokio::test]
async fn what_takes_effect_before_it_fails_is_found_by_its_key() {
    let simulator = simulator(Vec::new());
    let mut expected = 0;
    for (kind, takes_effect) in [
        ("rate_limited", false),
        ("server_error", false),
        ("server_error_after", true),
        ("cut_before", false),
        ("cut_after", true),
        ("time_out", true),
    ] {
        control(&simulator, "faults", json!({"kind": kind, "path": "customers", "delay_ms": 50})).await;
        let first = match create(&simulator, kind).await {
            Ok(response) if response.status().is_success() => body(response).await.is_ok(),
            _ => false,
        };
        assert!(!first, "{kind} fails");
        expected += usize::from(takes_effect);
        assert_eq!(customers(&simulator), expected, "{kind}");
        let again = create(&simulator, kind).await.expect("an answer");
        assert_eq!(again.status(), 200);
        assert_eq!(again.headers().get("Idempotent-Replayed").is_some(), takes_effect, "{kind}");
        assert!(again.headers().get("Request-Id").is_some());
        expected += usize::from(!takes_effect);
        assert_eq!(customers(&simulator), expected, "{kind}: never twice");
    }
    simulator.stop().await;
}

#[tokio::test]
async fn a_fault_hits_what_it_is_for_and_as_often_as_it_says() {
    let simulator = simulator(Vec::new());
    let fault = json!({"kind": "rate_limited", "method": "POST", "path": "customers", "count": 2});
    control(&simulator, "faults", fault).await;
    let ask = async |method: &str, path: &str| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = Client::new().request(method, format!("{}/v1/{path}", simulator.base_url()));
        let request = request.header("Authorization", "Bearer sk_test_1");
        request.header("Content-Type", "application/x-www-form-urlencoded").body("").send().await.expect("an answer")
    };
    assert_eq!(ask("GET", "customers").await.status(), 200);
    assert_eq!(ask("POST", "products?name=x").await.status(), 200);
    for _ in 0..2 {
        let limited = ask("POST", "customers").await;
        assert_eq!(limited.status(), 429);
        assert_eq!(limited.headers().get("Retry-After").and_then(|value| value.to_str().ok()), Some("1"));
        assert_eq!(body(limited).await.expect("a body")["error"]["code"], "rate_limit");
    }
    assert_eq!(ask("POST", "customers").await.status(), 200);
    simulator.stop().await;
}

#[tokio::test]
async fn a_slow_request_holds_its_key() {
    let simulator = simulator(Vec::new());
    control(&simulator, "faults", json!({"kind": "slow", "path": "customers", "delay_ms": 3000})).await;
    // Whichever comes first is the slow one.
    let (one, other) = tokio::join!(create(&simulator, "k"), create(&simulator, "k"));
    let (one, other) = (one.expect("an answer"), other.expect("an answer"));
    let (taken, refused) = if one.status() == 200 { (one, other) } else { (other, one) };
    assert_eq!((taken.status().as_u16(), refused.status().as_u16()), (200, 409));
    assert_eq!(body(refused).await.expect("a body")["error"]["code"], "idempotency_key_in_use");
    assert_eq!(customers(&simulator), 1);
    simulator.stop().await;
}

#[tokio::test]
async fn keys_are_asked_for() {
    let simulator = simulator(Vec::new());
    let url = format!("{}/v1/customers", simulator.base_url());
    for (header, status) in [
        (None, 401),
        (Some("Bearer pk_live_1"), 401),
        (Some("Bearer sk_live_1"), 401),
        (Some("Bearer sk_test_1"), 200),
        (Some("Basic c2tfdGVzdF8xOg=="), 200),
    ] {
        let mut request = Client::new().get(&url);
        if let Some(header) = header {
            request = request.header("Authorization", header);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), status, "{header:?}");
    }
    simulator.stop().await;
}

#[tokio::test]
async fn a_customer_pays_in_a_browser() {
    let simulator = simulator(Vec::new());
    let session = simulator.with_world(|world| {
        world.seed_product("prod_pack", "Pack <1>", json!({}));
        world.seed_price(&subledger_simulator::SeedPrice {
            id: Some("price_pack".to_owned()),
            product: "prod_pack".to_owned(),
            currency: "usd".to_owned(),
            unit_amount: 1_000,
            ..Default::default()
        });
        let form = "mode=payment&line_items[0][price]=price_pack&line_items[0][quantity]=1\
            &success_url=https://app.example.com/done?session={CHECKOUT_SESSION_ID}";
        crate::support::post(world, "checkout/sessions", form)
    });
    let url = session["url"].as_str().expect("a url").to_owned();
    let client = Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let text =
        |response: Response| async { String::from_utf8_lossy(&response.bytes().await.expect("a body")).into_owned() };
    let shown = text(client.get(&url).send().await.expect("a page")).await;
    assert!(shown.contains("Pack &lt;1&gt;") && shown.contains("10.00 USD") && shown.contains(">Pay<"), "{shown}");
    let form = |card: &str| {
        let request = client.post(&url).header("Content-Type", "application/x-www-form-urlencoded");
        request.body(format!("card={card}&email=ada%40example.com"))
    };
    let declined = text(form("declines").send().await.expect("a page")).await;
    assert!(declined.contains("declined"), "{declined}");
    let paid = form("good").send().await.expect("a page");
    assert_eq!(paid.status(), 303);
    let expected = format!("https://app.example.com/done?session={}", crate::support::id(&session));
    assert_eq!(paid.headers().get("Location").and_then(|value| value.to_str().ok()), Some(expected.as_str()));
    let overview = text(client.get(simulator.base_url()).send().await.expect("a page")).await;
    assert!(overview.contains("Advance 1 month") && overview.contains("complete"));
    simulator.stop().await;
}
