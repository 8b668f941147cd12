//! Deliveries of events to webhook endpoints: signed, tried again when they are not taken, and spoilt on request.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::{Inner, State};
use crate::signature::sign;
use crate::world::{Event, Receiver};

/// An endpoint that has not answered by then has not taken the event.
const TIMEOUT: Duration = Duration::from_secs(20);
const LOGGED: usize = 10_000;

/// What goes wrong with deliveries; each share is from 0 to 1.
#[derive(Debug, Clone, Default)]
pub struct Spoiling {
    /// In any order, as far as they wait at the same time.
    pub shuffle: bool,
    /// Twice.
    pub duplicate: f64,
    /// Later, by up to so long.
    pub delay: Duration,
    /// Never.
    pub drop: f64,
    /// Sent, and the answer is not heard: so it comes again.
    pub unheard: f64,
    /// Cut within the body: so it comes again.
    pub cut: f64,
}

impl Spoiling {
    pub fn read(body: &Value) -> Self {
        let share = |key: &str| body[key].as_f64().unwrap_or_default();
        Self {
            shuffle: body["shuffle"].as_bool().unwrap_or_default(),
            duplicate: share("duplicate"),
            delay: Duration::from_millis(body["delay_ms"].as_u64().unwrap_or_default()),
            drop: share("drop"),
            unheard: share("unheard"),
            cut: share("cut"),
        }
    }
}

#[derive(Debug)]
pub struct Deliveries {
    /// How far each endpoint has been given the record.
    places: HashMap<String, usize>,
    waiting: VecDeque<Waiting>,
    /// How many are being sent, by endpoint: one at a time, so that order holds where nothing spoils it.
    under_way: HashMap<String, usize>,
    pub spoiling: Spoiling,
    /// From one try to the next, by the machine's clock.
    pub retry_delays: Vec<Duration>,
    log: VecDeque<Value>,
}

impl Default for Deliveries {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            waiting: VecDeque::new(),
            under_way: HashMap::new(),
            spoiling: Spoiling::default(),
            retry_delays: [1, 5, 30, 120].map(Duration::from_secs).to_vec(),
            log: VecDeque::new(),
        }
    }
}

#[derive(Debug, Clone)]
struct Waiting {
    event: Arc<Event>,
    receiver: Receiver,
    tries: usize,
    due: Instant,
}

/// How a delivery is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Unheard,
    Cut,
}

impl Deliveries {
    /// Whether nothing waits and nothing is under way.
    pub fn are_done(&self) -> bool {
        self.waiting.is_empty() && self.under_way.values().all(|count| *count == 0)
    }

    pub fn log(&self) -> Vec<Value> {
        self.log.iter().cloned().collect()
    }

    fn note(&mut self, waiting: &Waiting, outcome: Value) {
        if self.log.len() == LOGGED {
            self.log.pop_front();
        }
        self.log.push_back(json!({
            "event": waiting.event.id, "type": waiting.event.kind, "endpoint": waiting.receiver.id,
            "url": waiting.receiver.url, "try": waiting.tries + 1, "outcome": outcome,
        }));
    }
}

impl Inner {
    /// Queues what has happened since the last time.
    pub fn queue_deliveries(&mut self) {
        for receiver in self.world.receivers() {
            let place = self.deliveries.places.entry(receiver.id.clone()).or_insert(receiver.from);
            let events = self.world.events_from(*place).to_vec();
            *place += events.len();
            for event in events.into_iter().filter(|event| receiver.wants(event.kind)) {
                self.queue(event, &receiver);
            }
        }
    }

    fn queue(&mut self, event: Arc<Event>, receiver: &Receiver) {
        let spoiling = self.deliveries.spoiling.clone();
        let first = Waiting { event, receiver: receiver.clone(), tries: 0, due: Instant::now() };
        if self.chance.chance(spoiling.drop) {
            self.deliveries.note(&first, json!("dropped"));
            return;
        }
        let copies = if self.chance.chance(spoiling.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let mut waiting = first.clone();
            let longest_ms = u64::try_from(spoiling.delay.as_millis()).unwrap_or_default();
            if longest_ms > 0 {
                waiting.due += Duration::from_millis(self.chance.number() % (longest_ms + 1));
            }
            self.deliveries.waiting.push_back(waiting);
        }
    }

    /// Queues an event again, for every endpoint; answers whether there is such an event.
    pub fn send_again(&mut self, event_id: &str) -> bool {
        let found = self.world.events_from(0).iter().find(|event| event.id == event_id).cloned();
        let Some(event) = found else { return false };
        for receiver in self.world.receivers() {
            let due = Instant::now();
            self.deliveries.waiting.push_back(Waiting { event: event.clone(), receiver, tries: 0, due });
        }
        true
    }

    /// What can be sent now, and when something else can.
    fn ready(&mut self) -> (Vec<(Waiting, Way)>, Option<Instant>) {
        let now = Instant::now();
        let mut ready = Vec::new();
        let spoiling = self.deliveries.spoiling.clone();
        for receiver in self.world.receivers() {
            let busy = self.deliveries.under_way.entry(receiver.id.clone()).or_default();
            if *busy > 0 {
                continue;
            }
            let waiting = &mut self.deliveries.waiting;
            let is_due = |one: &&Waiting| one.receiver.id == receiver.id && one.due <= now;
            let count = waiting.iter().filter(is_due).count();
            if count == 0 {
                continue;
            }
            let chosen = if spoiling.shuffle { (self.chance.number() % count as u64) as usize } else { 0 };
            let place = waiting.iter().enumerate().filter(|(_, one)| is_due(one)).nth(chosen).map(|(place, _)| place);
            let Some(taken) = place.and_then(|place| waiting.remove(place)) else { continue };
            *busy += 1;
            let way = if self.chance.chance(spoiling.unheard) {
                Way::Unheard
            } else if self.chance.chance(spoiling.cut) {
                Way::Cut
            } else {
                Way::Whole
            };
            ready.push((taken, way));
        }
        let later = self.deliveries.waiting.iter().map(|one| one.due).filter(|due| *due > now).min();
        (ready, later)
    }

    fn finish(&mut self, mut waiting: Waiting, outcome: Result<u16, String>) {
        if let Some(busy) = self.deliveries.under_way.get_mut(&waiting.receiver.id) {
            *busy = busy.saturating_sub(1);
        }
        let taken = matches!(outcome, Ok(200..=299));
        self.deliveries.note(&waiting, outcome.map_or_else(|error| json!(error), |status| json!(status)));
        if taken {
            return;
        }
        if let Some(delay) = self.deliveries.retry_delays.get(waiting.tries) {
            waiting.due = Instant::now() + *delay;
            waiting.tries += 1;
            self.deliveries.waiting.push_back(waiting);
        }
    }
}

/// Delivers for ever.
pub async fn deliver(state: Arc<State>) {
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap_or_default();
    loop {
        let (ready, later) = {
            let mut inner = state.lock();
            inner.queue_deliveries();
            inner.ready()
        };
        for (waiting, way) in ready {
            let (state, client) = (state.clone(), client.clone());
            tokio::spawn(async move {
                let outcome = send(&client, &waiting, way).await;
                state.lock().finish(waiting, outcome);
                state.bell.notify_one();
            });
        }
        let until = later.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
        tokio::select! {
            () = state.bell.notified() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

async fn send(client: &reqwest::Client, waiting: &Waiting, way: Way) -> Result<u16, String> {
    let body = waiting.event.render(&waiting.receiver.version).to_string();
    // By the machine's clock, wherever the simulated one stands: receivers refuse old signatures.
    let signature = sign(&body, &waiting.receiver.secret, chrono::Utc::now().timestamp());
    if way == Way::Cut {
        cut(&waiting.receiver.url, &signature, &body).await?;
        return Err("cut".to_owned());
    }
    let request = client
        .post(&waiting.receiver.url)
        .header("Content-Type", "application/json; charset=utf-8")
        .header("Stripe-Signature", signature)
        .header("User-Agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
        .body(body);
    let response = request.send().await.map_err(|error| format!("not sent: {error}"))?;
    if way == Way::Unheard { Err("unheard".to_owned()) } else { Ok(response.status().as_u16()) }
}

/// Sends half of a body, and closes.
async fn cut(url: &str, signature: &str, body: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").ok_or("only http endpoints can be cut")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut connection = tokio::net::TcpStream::connect(&address).await.map_err(|error| error.to_string())?;
    let head = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nStripe-Signature: {signature}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let half = &body.as_bytes()[..body.len() / 2];
    connection.write_all(&[head.as_bytes(), half].concat()).await.map_err(|error| error.to_string())?;
    connection.shutdown().await.map_err(|error| error.to_string())
}
