//! What the tests share.

use std::path::PathBuf;

use serde_json::Value;
use subledger_simulator::{Answer, ApiVersion, Card, Entered, Outcome, Request, SeedPrice, Settings, World, time};

/// 2026-03-10T12:00:00Z, when every world of these tests begins.
pub const START: i64 = 1_773_144_000;

pub fn world() -> World {
    world_with(Settings::default())
}

/// A world with some prices: `basic` at 9.99 a month, `pro` at 29.99, `yearly` at 290.00, `free`, and a pack at 10.00.
pub fn world_with(settings: Settings) -> World {
    let mut world = World::new(settings, START);
    for (product, name) in [("prod_basic", "Basic"), ("prod_pro", "Pro"), ("prod_pack", "Pack")] {
        world.seed_product(product, name, serde_json::json!({}));
    }
    let recurring = [
        ("price_basic", "prod_basic", 999, "month"),
        ("price_pro", "prod_pro", 2_999, "month"),
        ("price_yearly", "prod_pro", 29_000, "year"),
        ("price_free", "prod_basic", 0, "month"),
    ];
    for (id, product, unit_amount, interval) in recurring {
        world.seed_price(&SeedPrice {
            id: Some(id.to_owned()),
            product: product.to_owned(),
            lookup_key: None,
            currency: "usd".to_owned(),
            unit_amount,
            interval: Some(interval.to_owned()),
            interval_count: 1,
        });
    }
    world.seed_price(&SeedPrice {
        id: Some("price_pack".to_owned()),
        product: "prod_pack".to_owned(),
        currency: "usd".to_owned(),
        unit_amount: 1_000,
        ..SeedPrice::default()
    });
    world
}

pub fn request(method: &str, path: &str, form: &str) -> Request {
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        parameters: form.as_bytes().to_vec(),
        idempotency_key: None,
        version: None,
    }
}

pub fn ask(world: &mut World, method: &str, path: &str, form: &str) -> Answer {
    world.handle(&request(method, path, form))
}

/// The object that a call answers, which must succeed.
pub fn call(world: &mut World, method: &str, path: &str, form: &str) -> Value {
    let answer = ask(world, method, path, form);
    assert_eq!(answer.status, 200, "{method} {path} {form}: {}", answer.body);
    answer.body
}

pub fn post(world: &mut World, path: &str, form: &str) -> Value {
    call(world, "POST", path, form)
}

pub fn get(world: &mut World, path: &str) -> Value {
    call(world, "GET", path, "")
}

/// The error that a call answers, which must be refused.
pub fn refusal(world: &mut World, method: &str, path: &str, form: &str) -> (u16, Value) {
    let answer = ask(world, method, path, form);
    assert!(answer.status >= 400, "{method} {path} {form}: {}", answer.body);
    (answer.status, answer.body["error"].clone())
}

pub fn id(object: &Value) -> String {
    object["id"].as_str().expect("an id").to_owned()
}

pub fn entered(card: Card) -> Entered {
    Entered { card, email: Some("ada@example.com".to_owned()), name: Some("Ada".to_owned()), promotion_code: None }
}

/// A customer subscribes through Checkout; answers the session.
pub fn subscribe(world: &mut World, price: &str, more: &str) -> Value {
    let form = format!(
        "mode=subscription&line_items[0][price]={price}&line_items[0][quantity]=1&client_reference_id=user_1\
         &success_url=https://app.example.com/done&cancel_url=https://app.example.com{more}"
    );
    let session = post(world, "checkout/sessions", &form);
    let outcome = world.pay_session(&id(&session), &entered(Card::Good)).expect("a payable session");
    assert_eq!(outcome, Outcome::Completed);
    get(world, &format!("checkout/sessions/{}", id(&session)))
}

pub fn subscription_of(session: &Value) -> String {
    session["subscription"].as_str().expect("a subscription").to_owned()
}

/// A customer with a card that behaves so, as its default.
pub fn customer_with(world: &mut World, card: &str) -> String {
    let customer = id(&post(world, "customers", "email=ada@example.com&name=Ada"));
    let method = id(&post(world, &format!("payment_methods/{card}/attach"), &format!("customer={customer}")));
    post(world, &format!("customers/{customer}"), &format!("invoice_settings[default_payment_method]={method}"));
    customer
}

/// The kinds of the events from a place in the record on.
pub fn kinds(world: &World, from: usize) -> Vec<&'static str> {
    world.events_from(from).iter().map(|event| event.kind).collect()
}

pub fn recorded(world: &World) -> usize {
    world.events_from(0).len()
}

pub fn advance_months(world: &mut World, months: i64) {
    let target = time::add_months(world.now(), months).expect("a time");
    world.advance_to(target);
}

pub fn advance_days(world: &mut World, days: i64) {
    let target = world.now() + days * time::DAY_S;
    world.advance_to(target);
}

pub fn newest() -> ApiVersion {
    ApiVersion::default()
}

/// The folder of third-party samples beside the repository, if it is there; says so if not.
pub fn shared(path: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared").join(path);
    if folder.exists() {
        return Some(folder);
    }
    eprintln!("NOT TESTED: {} is not there", folder.display());
    None
}
