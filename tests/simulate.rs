//! `subledger simulate`: the program is where it says and sells what the catalog says, and we understand what it tells.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use subledger::stripe::translate::{self, Settings};
use subledger_simulator::{ApiVersion, Card, Entered, Request, SeedPrice, World};

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn it_serves_what_the_catalog_sells() {
    subledger::crypto::install_provider();
    let catalog = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/catalog.toml");
    let child = Command::new(env!("CARGO_BIN_EXE_subledger"))
        .args(["--json", "simulate", "--listen", "127.0.0.1:0", "--catalog", catalog])
        .args(["--api-version", "2024-06-20", "--start", "2026-01-01T00:00:00Z"])
        .stdout(Stdio::piped())
        .spawn();
    let mut program = Program(child.expect("the program runs"));
    let mut line = String::new();
    let stdout = program.0.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    let printed: Value = serde_json::from_str(&line).expect("JSON");
    let base = printed["settings"]["STRIPE_API_BASE"].as_str().expect("where it is");
    assert_eq!(printed["settings"]["STRIPE_WEBHOOK_SECRETS"], "whsec_simulator");

    let key = printed["settings"]["STRIPE_SECRET_KEY"].as_str().expect("a key");
    let ask = async |path: &str| -> Value {
        let request = reqwest::Client::new().get(format!("{base}{path}")).bearer_auth(key);
        let response = request.send().await.expect("an answer");
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.expect("JSON")
    };
    let price = ask("/v1/prices/price_sample_basic_monthly").await;
    assert_eq!((price["unit_amount"].as_i64(), price["product"].as_str()), (Some(999), Some("prod_basic")));
    let packs = ask("/v1/prices?type=one_time").await;
    assert!(packs["data"].as_array().is_some_and(|packs| !packs.is_empty()), "{packs}");
    let event = &ask("/v1/events?limit=1").await["data"][0];
    assert_eq!(event["api_version"], "2024-06-20");
    let clock = ask("/_simulator/clock").await;
    assert!(clock["at"].as_str().is_some_and(|at| at.starts_with("2026-01-01T00:")), "{clock}");
}

#[test]
fn wrong_arguments_are_named() {
    for (arguments, says, code) in [
        (["--api-version", "newest"], "--api-version", 2),
        (["--start", "yesterday"], "--start", 2),
        (["--catalog", "/nowhere.toml"], "/nowhere.toml", 78),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_subledger"))
            .args(["simulate", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .output()
            .expect("the program runs");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{arguments:?}");
    }
}

/// Asks the world for something, which must be granted.
fn post(world: &mut World, path: &str, form: &str) -> Value {
    let request = Request {
        method: "POST".to_owned(),
        path: path.to_owned(),
        parameters: form.as_bytes().to_vec(),
        ..Request::default()
    };
    let answer = world.handle(&request);
    assert_eq!(answer.status, 200, "{path} {form}: {}", answer.body);
    answer.body
}

/// A sign-up, a pack, an upgrade, renewals, a refund, a failing card, and the end of it.
fn story() -> World {
    const START: i64 = 1_773_144_000;
    let mut world = World::new(subledger_simulator::Settings::default(), START);
    world.seed_product("prod_pro", "Pro", serde_json::json!({}));
    for (id, unit_amount, interval) in
        [("price_basic", 900, Some("month")), ("price_pro", 2_900, Some("month")), ("price_pack", 1_000, None)]
    {
        world.seed_price(&SeedPrice {
            id: Some(id.to_owned()),
            product: "prod_pro".to_owned(),
            currency: "usd".to_owned(),
            unit_amount,
            interval: interval.map(str::to_owned),
            ..SeedPrice::default()
        });
    }
    let entered =
        Entered { card: Card::Good, email: Some("ada@example.com".to_owned()), name: None, promotion_code: None };
    let buy = |world: &mut World, mode: &str, price: &str| {
        let form = format!(
            "mode={mode}&line_items[0][price]={price}&line_items[0][quantity]=1&client_reference_id=user_1\
             &success_url=https://app.example.com"
        );
        let session = post(world, "checkout/sessions", &form)["id"].as_str().expect("an id").to_owned();
        world.pay_session(&session, &entered).expect("payable");
        world.object(&session).expect("a session").clone()
    };
    let session = buy(&mut world, "subscription", "price_basic");
    let pack = buy(&mut world, "payment", "price_pack");
    let subscription = format!("subscriptions/{}", session["subscription"].as_str().expect("one"));
    world.advance_to(START + 10 * 86_400);
    let items = world.object(&subscription["subscriptions/".len()..]).expect("one")["items"]["data"].clone();
    let change = format!(
        "items[0][id]={}&items[0][price]=price_pro&proration_behavior=always_invoice",
        items[0]["id"].as_str().expect("an id")
    );
    post(&mut world, &subscription, &change);
    let intent = pack["payment_intent"].as_str().expect("one");
    post(&mut world, "refunds", &format!("payment_intent={intent}&amount=400"));
    world.advance_to(START + 40 * 86_400);
    world.change_card(session["customer"].as_str().expect("one"), Card::Declines).expect("a customer");
    world.advance_to(START + 120 * 86_400);
    world
}

#[test]
fn what_it_tells_is_understood_in_every_shape() {
    let world = story();
    let keys = vec!["user_id".to_owned()];
    for version in ["2024-06-20", "2025-08-27.basil", "2026-09-30.endive"] {
        let version = ApiVersion::parse(version).expect("a version");
        let mut understood = 0;
        for event in world.events_from(0) {
            let body = event.render(&version).to_string();
            let facts = translate::parse(body.as_bytes()).and_then(|(event, value)| {
                translate::translate(&event, &value, Settings { account_metadata_keys: &keys })
            });
            match facts {
                Ok(facts) => understood += usize::from(facts.is_some()),
                Err(error) => panic!("{} of {}: {error}\n{body}", event.kind, version.as_str()),
            }
        }
        assert!(understood > 50, "{understood}");
    }
    assert!(world.events_from(0).iter().any(|event| event.kind == "customer.subscription.deleted"));
}
