//! A mixed load whose every effect is accounted for: what was acknowledged is in the log once, and what was not, at most
//! once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use subledger::app::write_path::work::Key;

use super::client::{Caller, Reply};
use super::ground::Ground;
use super::story::{now, sale};
use super::support::shuffle::Random;

/// Accounts that all clients work on.
pub const ACCOUNTS: usize = 8;

/// A command of the load.
#[derive(Debug, Clone)]
pub struct Order {
    key: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A StripeEvent that sells credits.
    Sell {
        account: String,
        credits: i64,
    },
    Grant {
        account: String,
        amount: i64,
    },
    Debit {
        account: String,
        amount: i64,
    },
    Open {
        account: String,
        customer: String,
    },
}

impl Order {
    fn random(name: &str, random: &mut Random) -> Self {
        let account = format!("user_{}", random.below(ACCOUNTS));
        let amount = 1 + random.below(20) as i64;
        let kind = match random.below(10) {
            0..3 => Kind::Sell { account, credits: amount },
            3 => Kind::Grant { account, amount },
            4 => Kind::Open { account: format!("user_{name}"), customer: format!("cus_{name}") },
            // Some ask for more than there ever is.
            5 => Kind::Debit { account, amount: 1_000_000 },
            _ => Kind::Debit { account, amount },
        };
        Self { key: name.to_owned(), kind }
    }

    pub async fn send(&self, caller: &Caller) -> Result<Reply, reqwest::Error> {
        match &self.kind {
            Kind::Sell { account, credits } => {
                caller.deliver(&sale(&self.key, account, *credits).to_string(), now()).await
            }
            Kind::Grant { account, amount } => caller.grant(account, &self.key, *amount).await,
            Kind::Debit { account, amount } => caller.debit(account, &self.key, *amount).await,
            Kind::Open { account, customer } => caller.link(account, customer).await,
        }
    }
}

/// What the clients know.
#[derive(Debug, Default)]
pub struct Books {
    pub acknowledged: Vec<(Order, Reply)>,
    /// Nobody said what became of these.
    pub open: Vec<Order>,
}

impl Books {
    pub fn absorb(&mut self, other: Self) {
        self.acknowledged.extend(other.acknowledged);
        self.open.extend(other.open);
    }

    /// Enters what came of an order. Answers whether it is settled.
    fn enter(&mut self, order: Order, reply: Result<Reply, reqwest::Error>) -> bool {
        match reply {
            Ok(reply) if reply.status == 503 => {
                self.open.push(order);
                false
            }
            Ok(reply) => {
                let told = matches!((&order.kind, reply.status), (Kind::Debit { .. }, 402) | (_, 200 | 201));
                assert!(told, "{order:?}: {reply:?}");
                self.acknowledged.push((order, reply));
                true
            }
            Err(_) => {
                self.open.push(order);
                false
            }
        }
    }

    /// Asks again for what is open, until it is settled.
    pub async fn retry_open(&mut self, caller: &Caller) {
        for order in std::mem::take(&mut self.open) {
            let mut tries = 0;
            while !self.enter(order.clone(), order.send(caller).await) {
                self.open.pop();
                tries += 1;
                assert!(tries < 600, "never settled: {order:?}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Works until told to stop, each order once.
pub async fn work(name: String, seed: u64, address: SocketAddr, stop: Arc<AtomicBool>) -> Books {
    let (caller, mut random, mut books) = (Caller::new(address), Random(seed), Books::default());
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let order = Order::random(&format!("{name}x{n}"), &mut random);
        let reply = order.send(&caller).await;
        if !books.enter(order, reply) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    books
}

/// The log holds what was acknowledged, exactly once; of what is open, each thing at most once; and nothing else.
pub async fn audit(ground: &Ground, books: &Books, hint: &str) {
    ground.assert_whole(hint).await;
    let (mut debits, mut debited, mut grants, mut sold) = (0, 0, 0, 0);
    for (order, reply) in &books.acknowledged {
        match &order.kind {
            Kind::Debit { amount, .. } if reply.status == 201 => {
                (debits, debited) = (debits + 1, debited + amount);
                once(ground, "credits_debited", "{debit}", reply.json()["id"].as_str(), hint).await;
            }
            Kind::Debit { .. } => {}
            Kind::Grant { .. } => {
                grants += 1;
                once(ground, "credits_granted", "{lot,id}", reply.json()["id"].as_str(), hint).await;
            }
            Kind::Sell { .. } => {
                sold += 1;
                let id = format!("evt_{}", order.key);
                once(ground, "checkout_session_observed", "{stripe_event_id}", Some(&id), hint).await;
            }
            Kind::Open { account, customer } => {
                let linked = format!(
                    "select count(*) from stripe_links where stripe_id = '{customer}' and account_id = '{account}'"
                );
                assert_eq!(ground.count(&linked).await, 1, "{hint}: {order:?}");
            }
        }
    }
    for order in &books.open {
        match &order.kind {
            Kind::Debit { amount, .. } if was_done(ground, order).await => {
                (debits, debited) = (debits + 1, debited + amount);
            }
            Kind::Grant { .. } if was_done(ground, order).await => grants += 1,
            Kind::Sell { .. } if was_done(ground, order).await => sold += 1,
            _ => {}
        }
    }
    let count = |name: &str| format!("select count(*) from events where type = '{name}'");
    assert_eq!(ground.count(&count("credits_debited")).await, debits, "{hint}: debits");
    let logged =
        "select coalesce(sum((payload ->> 'amount')::bigint), 0)::bigint from events where type = 'credits_debited'";
    assert_eq!(ground.count(logged).await, debited, "{hint}: credits debited");
    assert_eq!(ground.count(&count("checkout_session_observed")).await, sold, "{hint}: sales");
    let by_source = |source: &str| {
        format!(
            "select count(*) from events where type = 'credits_granted' and payload #>> '{{lot,source}}' = '{source}'"
        )
    };
    assert_eq!(ground.count(&by_source("manual")).await, grants, "{hint}: grants");
    assert_eq!(ground.count(&by_source("pack")).await, sold, "{hint}: packs");
    let below_zero = "select count(*) from events where (payload ->> 'available')::bigint < 0";
    assert_eq!(ground.count(below_zero).await, 0, "{hint}: overspent");
}

async fn once(ground: &Ground, event: &str, place: &str, id: Option<&str>, hint: &str) {
    let id = id.expect("an id");
    let found = format!("select count(*) from events where type = '{event}' and payload #>> '{place}' = '{id}'");
    assert_eq!(ground.count(&found).await, 1, "{hint}: {event} {id}");
}

/// Whether the store says that an order had an effect.
async fn was_done(ground: &Ground, order: &Order) -> bool {
    let key = match &order.kind {
        Kind::Sell { .. } => Key::of_stripe_event(&format!("evt_{}", order.key)),
        _ => Key::of_request(&order.key, &[]),
    };
    let digest = key.key;
    let refused = "outcome::text like '%Err%'";
    let done =
        format!("select count(*) from idempotency where key = '{digest}' and (outcome is null or not {refused})");
    ground.count(&done).await == 1
}
