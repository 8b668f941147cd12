//! Limits of a billing period hold for the whole of it, also when another period decided in between.

use serde_json::{Value, json};
use subledger::domain::account::{Account, Changes};
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, decide};
use subledger::domain::draft::Draft;
use subledger::domain::event::{EVENT_VERSION, Event};
use subledger::domain::ids::AccountId;
use subledger::domain::rejection::Rejection;
use subledger::domain::standing::check;
use uuid::Uuid;

use crate::fold::{Fold, account};
use crate::router::merge;
use crate::subscription::{DAY, JANUARY};

const SELLER: &str = r#"
[features.calls]
name = "Calls"
kind = "metered"
[plans.free]
name = "Free"
default = true
rank = 0
credits = "none"
features = { calls = { limit = 10, per = "period" } }
[plans.pro]
name = "Pro"
rank = 1
credits = "none"
grace_days = 3
features = { calls = { limit = 1000, per = "period" } }
prices.yearly = { stripe_price_id = "price_pro", currency = "usd", unit_amount = 1000, interval = "year" }
"#;

/// An account's state, and the log that it came of.
struct Played {
    fold: Fold,
    account: Account,
    log: Vec<Event>,
    events: usize,
}

impl Played {
    fn new() -> Self {
        let mut played = Self { fold: Fold::of_seller(SELLER), account: account("user_1"), log: Vec::new(), events: 0 };
        played.decide(JANUARY - 10 * DAY, &Command::Open { stripe_customer_id: None }).expect("opened");
        played
    }

    fn decide(&mut self, at: i64, command: &Command) -> Result<(), Rejection> {
        self.events += 1;
        let mut changes = Changes::default();
        let mut draft = Draft::new(&mut self.account, &mut changes);
        let decided = decide(&mut draft, command, self.fold.context_at(at)).map(|_| ());
        self.log.extend(draft.events);
        decided
    }

    fn calls(&mut self, at: i64, quantity: i64) -> bool {
        let charge = Charge::Feature { feature: "calls".to_owned(), quantity };
        let debit = Command::Debit { debit: Uuid::from_u128(self.events as u128), charge };
        self.decide(at, &debit).is_ok()
    }

    fn left(&self, at: i64) -> (&str, i64) {
        let answer = check(&self.account.credits, &self.fold.catalog, "calls", 1, self.fold.context_at(at).now);
        let plan = if answer.plan == Some("pro") { "pro" } else { "free" };
        (plan, answer.remaining.expect("a limit"))
    }

    fn tell(&mut self, event_type: &str, at: i64, object: Value) {
        let id = format!("evt_{}", self.events);
        let body = json!({"id": id, "type": event_type, "created": at, "data": {"object": object}});
        let command = self.fold.command(&body);
        self.decide(at, &command).expect("taken in");
    }

    fn subscription(&mut self, at: i64, began: i64, status: &str, is_paused: bool) {
        let paused = if is_paused { json!({"behavior": "void"}) } else { Value::Null };
        let shown = json!({"object": "subscription", "id": "sub_1", "customer": "cus_1", "status": status,
            "created": JANUARY, "current_period_start": began, "current_period_end": began + 365 * DAY,
            "pause_collection": paused, "latest_invoice": format!("in_{began}"),
            "items": {"data": [{"id": "si_1", "price": {"id": "price_pro"}, "quantity": 1}]}});
        self.tell("customer.subscription.updated", at, shown);
    }

    fn bill(&mut self, event_type: &str, at: i64, status: &str) {
        let paid = if status == "paid" { 1000 } else { 0 };
        let bill = json!({"object": "invoice", "id": "in_2", "customer": "cus_1", "currency": "usd", "status": status,
            "subscription": "sub_1", "billing_reason": "subscription_cycle", "subtotal": 1000, "total": 1000,
            "amount_due": 1000, "amount_paid": paid, "attempt_count": 1, "lines": {"data": []}});
        self.tell(event_type, at, bill);
    }

    /// The same out of the log alone, and out of what is stored.
    fn assert_kept(&self) {
        let mut rebuilt = account("user_1");
        for event in &self.log {
            let stored = event.payload().expect("JSON");
            let read = Event::read(event.name(), EVENT_VERSION, &stored).expect("readable");
            rebuilt.evolve(&read, &mut Changes::default());
        }
        assert_eq!(rebuilt.credits, self.account.credits);
        let stored = serde_json::to_string(&rebuilt.credits).expect("JSON");
        assert_eq!(
            serde_json::from_str::<subledger::domain::credit::Credits>(&stored).expect("readable"),
            rebuilt.credits
        );
    }
}

#[test]
fn a_period_that_decides_again_has_its_uses() {
    let mut played = Played::new();
    assert!(played.calls(JANUARY - DAY, 4));
    played.subscription(JANUARY, JANUARY, "active", false);
    assert_eq!(played.left(JANUARY), ("pro", 1000));
    assert!(played.calls(JANUARY, 990));
    for (day, of_free, of_pro) in [(1, 6, 10), (2, 5, 9), (3, 4, 8)] {
        let at = JANUARY + day * DAY;
        played.subscription(at, JANUARY, "active", true);
        assert_eq!(played.left(at), ("free", of_free), "day {day}");
        assert!(!played.calls(at, of_free + 1) && played.calls(at, 1));
        played.subscription(at + 60, JANUARY, "active", false);
        assert_eq!(played.left(at + 60), ("pro", of_pro), "day {day}");
        assert!(!played.calls(at + 60, of_pro + 1) && played.calls(at + 60, 1));
        played.assert_kept();
    }
    // The free plan's next month is another period, and the year goes on.
    let later = JANUARY + 40 * DAY;
    played.subscription(later, JANUARY, "active", true);
    assert_eq!(played.left(later), ("free", 10));
    assert!(played.calls(later, 1));
    let starts: Vec<i64> = played.account.credits.usage.others.iter().map(|other| other.start).collect();
    assert_eq!(starts, [JANUARY], "what is over is forgotten");
    played.subscription(later + 60, JANUARY, "active", false);
    assert_eq!(played.left(later + 60), ("pro", 7));
    // So is the year, once the next one has begun.
    let renewed = JANUARY + 365 * DAY;
    played.subscription(renewed, renewed, "active", false);
    assert_eq!(played.left(renewed), ("pro", 1000));
    assert!(played.calls(renewed, 1));
    assert!(played.account.credits.usage.others.is_empty());
    played.assert_kept();
}

#[test]
fn what_was_used_before_the_grace_ended_counts_when_the_payment_comes() {
    let mut played = Played::new();
    let failed = JANUARY + 365 * DAY;
    played.subscription(JANUARY, JANUARY, "active", false);
    played.subscription(failed, failed, "past_due", false);
    played.bill("invoice.payment_failed", failed, "open");
    assert!(played.calls(failed + DAY, 990));
    assert_eq!(played.left(failed + 4 * DAY), ("free", 10));
    assert!(played.calls(failed + 4 * DAY, 1));
    played.bill("invoice.paid", failed + 5 * DAY, "paid");
    played.subscription(failed + 5 * DAY, failed, "active", false);
    assert_eq!(played.left(failed + 5 * DAY), ("pro", 10));
    assert!(!played.calls(failed + 5 * DAY, 11) && played.calls(failed + 5 * DAY, 10));
    played.assert_kept();
}

/// An account turns out to be older: by a link, or by what Stripe tells of its customer.
#[test]
fn the_month_of_an_account_that_is_older_than_was_known_has_its_uses() {
    let older = JANUARY - 25 * DAY;
    let customer = json!({"object": "customer", "id": "cus_1"});
    let mut told = Played::new();
    assert!(told.calls(JANUARY, 9));
    told.tell("customer.created", older, customer.clone());
    assert_eq!(told.left(JANUARY), ("free", 1));
    told.assert_kept();

    let mut linked = Played::new();
    assert!(linked.calls(JANUARY, 5));
    let (user, stream) = (AccountId::new("user_1").expect("valid"), AccountId::new("cus_1").expect("valid"));
    for is_stream_older in [true, false] {
        let mut other = Played::new();
        other.account = Account::new(stream.clone());
        other.tell("customer.created", if is_stream_older { older } else { JANUARY - 9 * DAY }, customer.clone());
        assert!(other.calls(JANUARY, 4));
        let mut accounts = [(user.clone(), linked.account.clone()), (stream.clone(), other.account)].into();
        merge(&linked.fold, &mut accounts, &stream, &user, linked.fold.context_at(JANUARY));
        let both = Played { account: accounts.remove(&user).expect("there"), ..Played::new() };
        assert_eq!(both.left(JANUARY), ("free", 1), "{is_stream_older}");
    }
}
