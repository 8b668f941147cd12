//! Deliveries: signed, tried again, in order unless they are spoilt.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use serde_json::{Value, json};
use subledger_simulator::{ApiVersion, Clock, Endpoint, Options, Simulator, sign};

use crate::support::START;

const SECRET: &str = "whsec_test";

#[derive(Debug, Default)]
struct Received {
    events: Mutex<Vec<Value>>,
    /// How many are refused before the first is taken.
    refusals: Mutex<usize>,
}

/// A webhook endpoint that verifies signatures and keeps what it took.
struct Receiver {
    url: String,
    received: Arc<Received>,
}

impl Receiver {
    fn start() -> Self {
        let received = Arc::new(Received::default());
        let data = web::Data::from(received.clone());
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let app = move || App::new().app_data(data.clone()).route("/hook", web::post().to(take));
        tokio::spawn(HttpServer::new(app).workers(1).disable_signals().listen(listener).expect("listening").run());
        Self { url, received }
    }

    fn events(&self) -> Vec<Value> {
        self.received.events.lock().expect("unpoisoned").clone()
    }

    fn kinds(&self) -> Vec<String> {
        self.events().iter().map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    }
}

async fn take(request: HttpRequest, body: String, received: web::Data<Received>) -> HttpResponse {
    let header = request.headers().get("Stripe-Signature").and_then(|value| value.to_str().ok()).expect("a signature");
    let timestamp: i64 = header[2..].split(',').next().and_then(|text| text.parse().ok()).expect("a timestamp");
    assert_eq!(header, sign(&body, SECRET, timestamp));
    assert!((chrono::Utc::now().timestamp() - timestamp).abs() < 30, "signed by the machine's clock");
    let mut refusals = received.refusals.lock().expect("unpoisoned");
    if *refusals > 0 {
        *refusals -= 1;
        return HttpResponse::InternalServerError().finish();
    }
    received.events.lock().expect("unpoisoned").push(serde_json::from_str(&body).expect("JSON"));
    HttpResponse::Ok().finish()
}

pub async fn control(simulator: &Simulator, path: &str, body: Value) -> Value {
    let client = reqwest::Client::new();
    let url = format!("{}/_simulator/{path}", simulator.base_url());
    let response = client.post(url).body(body.to_string()).send().await.expect("an answer");
    assert!(response.status().is_success(), "{path}: {}", response.status());
    serde_json::from_slice(&response.bytes().await.expect("a body")).expect("JSON")
}

pub fn simulator(endpoints: Vec<Endpoint>) -> Simulator {
    let options = Options { clock: Clock::Standing(START), endpoints, ..Options::default() };
    Simulator::start(options).expect("a simulator")
}

fn make_customers(simulator: &Simulator, count: usize) -> Vec<String> {
    simulator.with_world(|world| {
        (0..count).map(|_| crate::support::id(&crate::support::post(world, "customers", ""))).collect()
    })
}

fn ids(events: &[Value]) -> Vec<String> {
    events.iter().map(|event| crate::support::id(&event["data"]["object"])).collect()
}

#[tokio::test]
async fn events_arrive_signed_and_in_order_and_each_endpoint_has_its_shape() {
    let (new, old) = (Receiver::start(), Receiver::start());
    let only = Endpoint {
        api_version: ApiVersion::parse("2024-06-20"),
        enabled_events: vec!["invoice.*".to_owned()],
        ..Endpoint::new(&old.url, SECRET)
    };
    let simulator = simulator(vec![Endpoint::new(&new.url, SECRET), only]);
    simulator.with_world(|world| {
        world.seed_product("prod_pro", "Pro", json!({}));
        world.seed_price(&subledger_simulator::SeedPrice {
            id: Some("price_pro".to_owned()),
            product: "prod_pro".to_owned(),
            currency: "usd".to_owned(),
            unit_amount: 2_999,
            interval: Some("month".to_owned()),
            ..Default::default()
        });
        crate::support::subscribe(world, "price_pro", "");
    });
    let moved = control(&simulator, "clock", json!({"by": {"months": 1, "hours": 2}, "settle": true})).await;
    assert!(moved["now"].as_i64() > Some(START));
    control(&simulator, "deliveries/settle", json!({})).await;
    let recorded = simulator
        .with_world(|world| crate::support::kinds(world, 0).iter().map(|kind| (*kind).to_owned()).collect::<Vec<_>>());
    assert_eq!(new.kinds(), recorded);
    assert!(old.kinds().iter().all(|kind| kind.starts_with("invoice.")) && old.kinds().len() > 5);
    let paid = |events: &[Value]| events.iter().find(|event| event["type"] == "invoice.paid").expect("one").clone();
    assert_eq!(paid(&old.events())["api_version"], "2024-06-20");
    assert!(paid(&old.events())["data"]["object"]["subscription"].is_string());
    assert!(paid(&new.events())["data"]["object"]["parent"].is_object());
    simulator.stop().await;
}

#[tokio::test]
async fn what_is_not_taken_comes_again() {
    let receiver = Receiver::start();
    let simulator = simulator(vec![Endpoint::new(&receiver.url, SECRET)]);
    control(&simulator, "deliveries/retries", json!({"delays_ms": [1, 1, 1]})).await;
    *receiver.received.refusals.lock().expect("unpoisoned") = 2;
    let made = make_customers(&simulator, 1);
    control(&simulator, "deliveries/settle", json!({})).await;
    assert_eq!(ids(&receiver.events()), made);
    let client = reqwest::Client::new();
    let log = client.get(format!("{}/_simulator/deliveries", simulator.base_url())).send().await.expect("an answer");
    let log: Value = serde_json::from_slice(&log.bytes().await.expect("a body")).expect("JSON");
    let outcomes: Vec<_> = log["data"].as_array().expect("data").iter().map(|one| one["outcome"].clone()).collect();
    assert_eq!(outcomes, [500, 500, 200]);
    simulator.stop().await;
}

#[tokio::test]
async fn deliveries_are_spoilt_on_request() {
    let receiver = Receiver::start();
    let simulator = simulator(vec![Endpoint::new(&receiver.url, SECRET)]);
    control(&simulator, "deliveries/retries", json!({"delays_ms": [1, 1, 1, 1, 1, 1, 1, 1]})).await;
    control(&simulator, "deliveries/faults", json!({"shuffle": true, "duplicate": 0.3, "unheard": 0.2, "cut": 0.2}))
        .await;
    let made = make_customers(&simulator, 60);
    control(&simulator, "deliveries/settle", json!({})).await;
    let seen = ids(&receiver.events());
    assert!(made.iter().all(|id| seen.contains(id)), "all of them came");
    assert!(seen.len() > made.len(), "some came twice");
    let firsts: Vec<&String> = made.iter().filter(|id| seen.contains(id)).collect();
    let mut in_order = seen.iter().filter(|id| made.contains(id)).collect::<Vec<_>>();
    in_order.dedup();
    assert_ne!(firsts, in_order, "in another order");

    control(&simulator, "deliveries/faults", json!({"drop": 1.0})).await;
    let lost = make_customers(&simulator, 1);
    control(&simulator, "deliveries/settle", json!({})).await;
    assert!(!ids(&receiver.events()).contains(&lost[0]), "lost");
    control(&simulator, "deliveries/faults", json!({})).await;
    let event = simulator.with_world(|world| world.events_from(0).last().expect("one").id.clone());
    control(&simulator, &format!("events/{event}/resend"), json!({})).await;
    control(&simulator, "deliveries/settle", json!({})).await;
    assert!(ids(&receiver.events()).contains(&lost[0]));
    simulator.stop().await;
}

/// Deliveries of so many customers' creation, spoilt in one way; answers what was made and what came.
async fn spoilt(fault: Value, count: usize) -> (Vec<String>, Vec<String>) {
    let receiver = Receiver::start();
    let simulator = simulator(vec![Endpoint::new(&receiver.url, SECRET)]);
    control(&simulator, "deliveries/retries", json!({"delays_ms": [1, 1]})).await;
    control(&simulator, "deliveries/faults", fault).await;
    let made = make_customers(&simulator, count);
    control(&simulator, "deliveries/settle", json!({})).await;
    let came = ids(&receiver.events());
    simulator.stop().await;
    (made, came)
}

#[tokio::test]
async fn each_way_of_spoiling_is_seen_by_itself() {
    let times = |came: &[String], id: &String| came.iter().filter(|other| *other == id).count();
    let sorted = |ids: &[String]| {
        let mut sorted = ids.to_vec();
        sorted.sort();
        sorted
    };
    let (made, came) = spoilt(json!({"duplicate": 1.0}), 3).await;
    assert!(made.iter().all(|id| times(&came, id) == 2), "twice each: {came:?}");
    let (made, came) = spoilt(json!({"unheard": 1.0}), 2).await;
    assert!(made.iter().all(|id| times(&came, id) == 3), "with each try: {came:?}");
    let (_, came) = spoilt(json!({"cut": 1.0}), 2).await;
    assert!(came.is_empty(), "half a body is none: {came:?}");
    for fault in [json!({"shuffle": true}), json!({"delay_ms": 200})] {
        let (made, came) = spoilt(fault.clone(), 40).await;
        assert_eq!(sorted(&made), sorted(&came), "{fault}: once each");
        assert_ne!(made, came, "{fault}: in another order");
    }
}
