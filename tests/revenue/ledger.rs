//! Accounts that hear of StripeEvents, and the books over all of them.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use subledger::domain::account::{Account, Changes};
use subledger::domain::billing::Observation;
use subledger::domain::catalog::Catalog;
use subledger::domain::command::{Command, decide};
use subledger::domain::draft::{Context, Draft};
use subledger::domain::event::Event;
use subledger::domain::ids::AccountId;
use subledger::domain::revenue::flows::{CreditFlows, PackUses, uses_of};
use subledger::domain::revenue::month::Month;
use subledger::domain::revenue::recurring::ToldSubscription;
use subledger::domain::revenue::{AccountFacts, Book, BookReport, Books, MonthFigures, PackMonth, PlanOf, Report};
use subledger::domain::stripe_object::StripeObject;
use subledger::stripe::translate::{self, Settings};

pub const SELLER: &str = r#"
[plans.free]
name = "Free"
default = true
rank = 0
[plans.small]
name = "Small"
rank = 1
credits = 100
prices.monthly = { stripe_price_id = "price_small", currency = "usd", unit_amount = 1000, interval = "month" }
prices.yearly = { stripe_price_id = "price_small_year", currency = "usd", unit_amount = 10000, interval = "year" }
prices.weekly = { stripe_price_id = "price_small_week", currency = "usd", unit_amount = 300, interval = "week" }
prices.monthly_eur = { stripe_price_id = "price_small_eur", currency = "eur", unit_amount = 900, interval = "month" }
[plans.big]
name = "Big"
rank = 2
credits = 500
prices.monthly = { stripe_price_id = "price_big", currency = "usd", unit_amount = 5000, interval = "month" }
[credit_packs.hundred]
name = "100 credits"
credits = 100
prices.usd = { stripe_price_id = "price_pack", currency = "usd", unit_amount = 1000 }
"#;

/// A price's amount, currency and interval.
pub fn terms(price: &str) -> (i64, &'static str, &'static str) {
    match price {
        "price_small" => (1_000, "usd", "month"),
        "price_small_year" => (10_000, "usd", "year"),
        "price_small_week" => (300, "usd", "week"),
        "price_small_eur" => (900, "eur", "month"),
        "price_big" => (5_000, "usd", "month"),
        "price_other" => (700, "usd", "month"),
        price => panic!("{price}"),
    }
}

pub fn second(day: &str) -> i64 {
    let day: NaiveDate = day.parse().expect("a day");
    day.and_hms_opt(12, 0, 0).expect("noon").and_utc().timestamp()
}

pub fn time(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).expect("a time")
}

/// Some accounts, each with what the log has of its subscriptions.
pub struct Ledger {
    pub catalog: Catalog,
    digest: String,
    accounts: BTreeMap<String, Told>,
    flows: BTreeMap<Month, CreditFlows>,
    told: u64,
}

struct Told {
    account: Account,
    snapshots: BTreeMap<String, Vec<ToldSubscription>>,
    pack_uses: PackUses,
}

impl Ledger {
    pub fn new() -> Self {
        Self::of_seller(SELLER)
    }

    pub fn of_seller(catalog: &str) -> Self {
        let catalog = Catalog::from_toml(catalog).expect("a catalog");
        let digest = catalog.digest();
        Self { catalog, digest, accounts: BTreeMap::new(), flows: BTreeMap::new(), told: 0 }
    }

    /// Has an account hear of an object, as a StripeEvent of that second shows it.
    pub fn tell(&mut self, account: &str, event_type: &str, at: i64, object: Value) {
        self.told += 1;
        let id = format!("evt_{}", self.told);
        let body = json!({"id": id, "type": event_type, "created": at, "data": {"object": object}});
        self.hear(account, &body, at);
    }

    /// Has an account hear of a StripeEvent at a time.
    pub fn hear(&mut self, account: &str, body: &Value, at: i64) {
        let keys = vec!["user_id".to_owned()];
        let text = body.to_string();
        let (event, value) = translate::parse(text.as_bytes()).expect("an envelope");
        let facts = translate::translate(&event, &value, Settings { account_metadata_keys: &keys }).expect("readable");
        let observations = facts.map(|facts| facts.observations).unwrap_or_default();
        self.act(account, &Command::Observe { observations, link: None, reconciled: None }, at);
    }

    pub fn act(&mut self, account: &str, command: &Command, at: i64) {
        assert!(self.act_if_allowed(account, command, at), "{command:?} is refused");
    }

    /// Has an account do something, and collects what the log then says, as the service does.
    pub fn act_if_allowed(&mut self, account: &str, command: &Command, at: i64) -> bool {
        let known = self.accounts.entry(account.to_owned()).or_insert_with(|| Told {
            account: Account::new(AccountId::new(account).expect("an id")),
            snapshots: BTreeMap::new(),
            pack_uses: PackUses::new(),
        });
        let mut changes = Changes::default();
        let mut draft = Draft::new(&mut known.account, &mut changes);
        let context = Context { catalog: &self.catalog, catalog_digest: &self.digest, now: time(at) };
        let is_allowed = decide(&mut draft, command, context).is_ok();
        let month = Month::of(time(at).date_naive());
        for event in draft.events {
            for used in uses_of(&event) {
                *known.pack_uses.entry(used.lot).or_default().entry(month).or_default() += used.amount;
            }
            if let Some(flows) = CreditFlows::of(&event) {
                self.flows.entry(month).or_default().add(&flows);
            }
            if let Event::StripeObserved(observation) = event
                && let Observation { created: observed_at, change, object, .. } = *observation
                && let StripeObject::Subscription(subscription) = object
            {
                let told = known.snapshots.entry(subscription.id.clone()).or_default();
                told.push(ToldSubscription { observed_at, change, subscription });
            }
        }
        is_allowed
    }

    pub fn report(&self, as_of: i64) -> Report {
        let mut books = Books::new(&self.catalog, time(as_of));
        for Told { account, snapshots, pack_uses } in self.accounts.values() {
            let billing = account.billing.as_ref().expect("loaded");
            books.add(&AccountFacts { billing, credits: &account.credits, snapshots, pack_uses });
        }
        let report = books.report(self.flows.clone());
        let kept = serde_json::to_string(&report).expect("JSON");
        assert_eq!(serde_json::from_str::<Report>(&kept).expect("readable"), report, "it is kept as JSON");
        report
    }
}

pub fn subscription(id: &str, price: &str, quantity: i64, status: &str, created: i64) -> Value {
    let (unit_amount, currency, interval) = terms(price);
    json!({"object": "subscription", "id": id, "customer": format!("cus_{id}"), "status": status, "created": created,
        "currency": currency, "current_period_start": created, "current_period_end": created + 31 * 86_400,
        "items": {"data": [{"id": format!("si_{id}"), "quantity": quantity, "price": {"id": price, "currency": currency,
            "unit_amount": unit_amount, "recurring": {"interval": interval, "interval_count": 1, "usage_type": "licensed"}}}]}})
}

/// A paid invoice with one line over a period.
pub fn invoice(id: &str, subscription: &str, price: &str, amount: i64, period: (i64, i64)) -> Value {
    json!({"object": "invoice", "id": id, "customer": format!("cus_{subscription}"), "subscription": subscription,
        "currency": terms(price).1, "status": "paid", "billing_reason": "subscription_cycle", "created": period.0,
        "subtotal": amount, "total": amount, "amount_due": amount, "amount_paid": amount, "amount_remaining": 0,
        "payment_intent": format!("pi_{id}"), "status_transitions": {"paid_at": period.0},
        "lines": {"data": [{"id": format!("il_{id}"), "amount": amount, "subscription": subscription, "quantity": 1,
            "subscription_item": format!("si_{subscription}"), "price": {"id": price}, "proration": false,
            "period": {"start": period.0, "end": period.1}}]}})
}

pub fn with(mut object: Value, changes: Value) -> Value {
    let (Value::Object(fields), Value::Object(changes)) = (&mut object, changes) else { panic!("objects") };
    fields.extend(changes);
    object
}

pub fn refund(invoice: &str, id: &str, amount: i64, at: i64) -> Value {
    json!({"object": "refund", "id": id, "payment_intent": format!("pi_{invoice}"), "charge": format!("ch_{invoice}"),
        "status": "succeeded", "currency": "usd", "amount": amount, "created": at})
}

pub fn book<'r>(report: &'r Report, currency: &str, plan: Option<&str>) -> Option<&'r BookReport> {
    let plan = plan.map_or(PlanOf::All, |plan| PlanOf::Plan(plan.to_owned()));
    let wanted = Book { currency: currency.to_owned(), plan };
    report.books.iter().find(|report| report.book == wanted)
}

pub fn month(report: &Report, currency: &str, plan: Option<&str>, month: &str) -> MonthFigures {
    let month: Month = month.parse().expect("a month");
    book(report, currency, plan).and_then(|book| book.months.get(&month)).copied().unwrap_or_default()
}

/// What must hold of every report.
pub fn assert_conserved(report: &Report) {
    let this_month = Month::of(report.as_of.date_naive());
    for BookReport { book, now, months } in &report.books {
        let (mut mrr, mut accounts) = (0, 0);
        for (month, figures) in months.range(..=this_month) {
            mrr += figures.new + figures.expansion + figures.reactivation - figures.contraction - figures.churn;
            accounts += figures.new_accounts + figures.reactivated_accounts;
            accounts -= figures.churned_accounts;
            assert_eq!((mrr, accounts), (figures.mrr_end, figures.accounts_end), "{book:?} at the end of {month}");
            for amount in [figures.new, figures.expansion, figures.reactivation, figures.contraction, figures.churn] {
                assert!(amount >= 0, "{book:?} in {month}");
            }
        }
        assert_eq!(mrr, now.mrr, "{book:?} now");
        assert!(now.past_due_mrr <= now.mrr && now.past_due_subscriptions <= now.active_subscriptions);
    }
    for (currency, money) in &report.money {
        assert_eq!(
            money.recognised + money.deferred + money.tax,
            money.paid + money.from_balance - money.returned,
            "{currency}: {money:?}"
        );
        let all = |of: fn(&MonthFigures) -> i128, is_all: bool| {
            let books = report.books.iter().filter(|report| report.book.currency == *currency);
            let books = books.filter(|report| (report.book.plan == PlanOf::All) == is_all);
            books.flat_map(|book| book.months.values()).map(of).sum::<i128>()
        };
        for is_all in [true, false] {
            assert_eq!(all(|figures| figures.recognised, is_all), money.recognised, "{currency} by month");
            assert_eq!(all(|figures| figures.deferred, is_all), money.deferred, "{currency} by month");
        }
    }
    for (currency, packs) in &report.packs {
        assert_eq!(packs.outstanding + packs.recognised, packs.paid - packs.returned, "{currency}: {packs:?}");
        assert!(packs.outstanding >= 0 && packs.recognised >= 0, "{currency}: {packs:?}");
        let all = |of: fn(&PackMonth) -> i128| report.pack_months[currency].values().map(of).sum::<i128>();
        let by_month = (all(|month| month.paid), all(|month| month.returned), all(|month| month.recognised));
        assert_eq!(by_month, (packs.paid, packs.returned, packs.recognised), "{currency} by month");
    }
    for (source, totals) in &report.credits {
        let gone = totals.spent + totals.breakage + totals.clawed_back;
        assert_eq!(totals.granted, gone + totals.outstanding, "{source}: {totals:?}");
    }
    // Plans add up to all, where movements within one are not told apart.
    for all in report.books.iter().filter(|report| report.book.plan == PlanOf::All) {
        let same = report.books.iter().filter(|one| one.book.currency == all.book.currency);
        let plans = same.filter(|one| one.book.plan != PlanOf::All);
        assert_eq!(plans.map(|one| one.now.mrr).sum::<i128>(), all.now.mrr);
    }
}
