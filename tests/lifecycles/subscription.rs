//! One subscription as Stripe bills it: its invoices and their prorations, and a naive account of what its changes may
//! grant.

use chrono::{DateTime, Months, Utc};
use serde_json::{Value, json};
use subledger::domain::account::Account;
use subledger::domain::command::Command;

use crate::fold::{End, Fold, account, difference};
use crate::support::shuffle::each_permutation;

pub const JANUARY: i64 = 1_767_225_600;
pub const DAY: i64 = 86_400;

pub const SELLER: &str = r#"
[features.a]
name = "A"
kind = "boolean"
[plans.free]
name = "Free"
default = true
rank = 0
credits = "none"
[plans.small]
name = "Small"
rank = 1
credits = 100
plan_change = "prorated"
prices.monthly = { stripe_price_id = "price_small_month", currency = "usd", unit_amount = 1000, interval = "month" }
prices.yearly = { stripe_price_id = "price_small_year", currency = "usd", unit_amount = 10000, interval = "year" }
[plans.middle]
name = "Middle"
rank = 2
credits = 500
plan_change = "prorated"
prices.monthly = { stripe_price_id = "price_middle_month", currency = "usd", unit_amount = 3000, interval = "month" }
prices.yearly = { stripe_price_id = "price_middle_year", currency = "usd", unit_amount = 30000, interval = "year" }
[plans.big]
name = "Big"
rank = 3
credits = 2000
plan_change = "prorated"
prices.monthly = { stripe_price_id = "price_big_month", currency = "usd", unit_amount = 8000, interval = "month" }
prices.yearly = { stripe_price_id = "price_big_year", currency = "usd", unit_amount = 80000, interval = "year" }
"#;

pub const PLANS: [(&str, i64, i64); 3] = [("small", 100, 1000), ("middle", 500, 3000), ("big", 2000, 8000)];

/// What a customer is subscribed to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deal {
    pub plan: usize,
    pub seats: i64,
    pub yearly: bool,
}

pub const fn deal(plan: usize, seats: i64) -> Deal {
    Deal { plan, seats, yearly: false }
}

pub const SMALL: Deal = deal(0, 1);
pub const MIDDLE: Deal = deal(1, 1);
pub const BIG: Deal = deal(2, 1);

impl Deal {
    pub const fn yearly(self) -> Self {
        Self { yearly: true, ..self }
    }

    pub fn price(self) -> String {
        format!("price_{}_{}", PLANS[self.plan].0, if self.yearly { "year" } else { "month" })
    }

    pub fn amount(self) -> i64 {
        PLANS[self.plan].2 * self.seats * if self.yearly { 10 } else { 1 }
    }

    pub fn credits(self) -> i64 {
        PLANS[self.plan].1 * self.seats
    }

    pub fn months(self) -> u32 {
        if self.yearly { 12 } else { 1 }
    }
}

/// Stripe's part: one subscription, and the notifications that its changes give.
#[derive(Debug)]
pub struct Stripe {
    pub deal: Deal,
    /// How many there are of an add-on that no plan names; its price has the plan's interval.
    pub add_ons: i64,
    pub start: i64,
    pub end: i64,
    pub pending: Vec<Value>,
    invoices: usize,
    /// Each with the second in which it was sent.
    pub sent: Vec<(i64, Value)>,
    pub reference: Reference,
}

/// The high-water rule, told naively: along the story, by whoever knows all of it. Changes of one second are one.
#[derive(Debug, Default)]
pub struct Reference {
    window_end: i64,
    second: i64,
    pub sum: f64,
    high: f64,
    /// What changes may have granted in all before this window.
    before: f64,
}

impl Reference {
    pub fn enter(&mut self, second: i64, window_end: i64) {
        if second > self.second {
            self.high = self.high.max(self.sum);
        }
        self.second = second;
        if second >= self.window_end {
            *self = Self { window_end, second, before: self.most(), ..Self::default() };
        }
    }

    pub fn most(&self) -> f64 {
        self.before + self.high.max(self.sum)
    }
}

pub fn months_later(second: i64, months: u32) -> i64 {
    let at: DateTime<Utc> = DateTime::from_timestamp(second, 0).expect("a time");
    at.checked_add_months(Months::new(months)).expect("a time").timestamp()
}

impl Stripe {
    pub fn subscribe(deal: Deal, at: i64) -> Self {
        Self::subscribe_with(deal, 0, at)
    }

    pub fn subscribe_with(deal: Deal, add_ons: i64, at: i64) -> Self {
        let end = months_later(at, deal.months());
        let mut stripe = Self {
            deal,
            add_ons,
            start: at,
            end,
            pending: Vec::new(),
            invoices: 0,
            sent: Vec::new(),
            reference: Reference::default(),
        };
        let lines = stripe.period_lines();
        stripe.invoice(at, "subscription_create", lines);
        stripe.reference.enter(at, stripe.window(at).1);
        stripe
    }

    /// The month, or the monthly period, that a moment is in.
    pub fn window(&self, at: i64) -> (i64, i64) {
        let mut month = 0;
        while months_later(self.start, month + 1) <= at {
            month += 1;
        }
        (months_later(self.start, month), months_later(self.start, month + 1))
    }

    pub fn line(&mut self, deal: Deal, amount: i64, period: (i64, i64), proration: bool) -> Value {
        self.invoices += 1;
        json!({"id": format!("il_{}", self.invoices), "amount": amount, "subscription": "sub_1",
            "subscription_item": "si_1", "price": {"id": deal.price()}, "quantity": deal.seats, "proration": proration,
            "period": {"start": period.0, "end": period.1}})
    }

    fn add_on_line(&mut self, add_ons: i64, amount: i64, period: (i64, i64), proration: bool) -> Value {
        let mut line = self.line(self.deal, amount, period, proration);
        let interval = if self.deal.yearly { "year" } else { "month" };
        line["subscription_item"] = json!("si_add_on");
        line["price"]["id"] = json!(format!("price_add_on_{interval}"));
        line["quantity"] = json!(add_ons);
        line
    }

    fn add_on_amount(&self, add_ons: i64) -> i64 {
        700 * add_ons * if self.deal.yearly { 10 } else { 1 }
    }

    pub fn period_line(&mut self) -> Value {
        self.line(self.deal, self.deal.amount(), (self.start, self.end), false)
    }

    fn period_lines(&mut self) -> Vec<Value> {
        let mut lines = vec![self.period_line()];
        if self.add_ons > 0 {
            let amount = self.add_on_amount(self.add_ons);
            lines.push(self.add_on_line(self.add_ons, amount, (self.start, self.end), false));
        }
        lines
    }

    /// What is left of an amount when a period of it is left from `at` on.
    fn share(&self, amount: i64, at: i64) -> i64 {
        let length = i128::from(self.end - self.start);
        let left = i128::from(amount) * i128::from(self.end - at);
        i64::try_from((left + length / 2) / length).expect("an amount")
    }

    pub fn prorated(&mut self, deal: Deal, sign: i64, at: i64) -> Value {
        self.line(deal, sign * self.share(deal.amount(), at), (at, self.end), true)
    }

    fn prorated_add_ons(&mut self, add_ons: i64, sign: i64, at: i64) -> Option<Value> {
        let amount = sign * self.share(self.add_on_amount(add_ons), at);
        (add_ons > 0).then(|| self.add_on_line(add_ons, amount, (at, self.end), true))
    }

    pub fn invoice(&mut self, at: i64, reason: &str, lines: Vec<Value>) {
        self.invoices += 1;
        // Ids in no order: only times tell.
        let id = format!("in_{:03}", (self.invoices * 379) % 1000);
        let total: i64 = lines.iter().filter_map(|line| line["amount"].as_i64()).sum();
        let invoice = json!({"object": "invoice", "id": id, "customer": "cus_1", "currency": "usd", "status": "paid",
            "subscription": "sub_1", "billing_reason": reason, "payment_intent": format!("pi_{id}"), "created": at,
            "subtotal": total, "total": total, "amount_paid": total.max(0), "lines": {"data": lines}});
        self.send(at, "invoice.paid", invoice);
    }

    pub fn send(&mut self, at: i64, event_type: &str, object: Value) {
        let id = format!("evt_{}", self.sent.len());
        self.sent.push((at, json!({"id": id, "type": event_type, "created": at, "data": {"object": object}})));
    }

    /// Renews until `at`, as time passes.
    pub fn pass(&mut self, at: i64) {
        while self.end <= at {
            self.start = self.end;
            self.end = months_later(self.start, self.deal.months());
            let mut lines = std::mem::take(&mut self.pending);
            lines.extend(self.period_lines());
            self.invoice(self.start, "subscription_cycle", lines);
            self.reference.enter(self.start, self.window(self.start).1);
        }
    }

    /// Changes the plan, the seats or the interval, invoiced at once or with the next period.
    pub fn change(&mut self, to: Deal, at: i64, at_once: bool) {
        self.change_with(to, self.add_ons, at, at_once);
    }

    /// The same, and at once the number of add-ons.
    pub fn change_with(&mut self, to: Deal, add_ons: i64, at: i64, at_once: bool) {
        self.pass(at);
        let (from, window) = (self.deal, self.window(at));
        let left_of_window = (window.1 - at) as f64 / (window.1 - window.0) as f64;
        self.reference.enter(at, window.1);
        let mut given_up = vec![self.prorated(from, -1, at)];
        if (self.add_ons, from.yearly) != (add_ons, to.yearly) {
            given_up.extend(self.prorated_add_ons(self.add_ons, -1, at));
        }
        let mut lines = std::mem::take(&mut self.pending);
        lines.extend(given_up);
        let other_add_ons = self.add_ons != add_ons;
        (self.deal, self.add_ons) = (to, add_ons);
        if from.yearly != to.yearly {
            (self.start, self.end) = (at, months_later(at, to.months()));
            lines.extend(self.period_lines());
            self.reference.window_end = self.window(at).1;
            self.reference.sum += to.credits() as f64 - from.credits() as f64 * left_of_window;
            return self.invoice(at, "subscription_update", lines);
        }
        lines.push(self.prorated(to, 1, at));
        if other_add_ons {
            lines.extend(self.prorated_add_ons(add_ons, 1, at));
        }
        self.reference.sum += (to.credits() - from.credits()) as f64 * left_of_window;
        if at_once {
            self.invoice(at, "subscription_update", lines);
        } else {
            self.pending = lines;
        }
    }

    pub fn tell_status(&mut self, at: i64, status: &str) {
        let ended_at = (status == "canceled").then_some(at);
        let subscription = json!({"object": "subscription", "id": "sub_1", "customer": "cus_1", "status": status,
            "created": JANUARY, "current_period_start": self.start, "current_period_end": self.end, "ended_at": ended_at,
            "items": {"data": [{"id": "si_1", "price": {"id": self.deal.price()}, "quantity": self.deal.seats}]}});
        self.send(at, &format!("customer.subscription.{status}"), subscription);
    }

    pub fn commands(&self, fold: &Fold) -> Vec<Command> {
        self.sent.iter().map(|(_, body)| fold.command(body)).collect()
    }

    /// The account that hears of everything as it happens, and is looked at in between.
    pub fn live(&self, fold: &Fold, now: i64) -> Account {
        let mut account = account("user_1");
        for (at, body) in &self.sent {
            fold.apply(&mut account, &Command::Settle, fold.context_at(*at));
            fold.apply(&mut account, &fold.command(body), fold.context_at(*at));
        }
        fold.apply(&mut account, &Command::Settle, fold.context_at(now));
        account
    }

    pub fn in_any_order(&self, fold: &Fold, now: i64) -> End {
        let commands = self.commands(fold);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let end = fold.end_at(fold.context_at(now), &commands, &straight);
        each_permutation(commands.len(), |order| {
            let got = fold.end_at(fold.context_at(now), &commands, order);
            assert!(got == end, "with {order:?}:\n{}", difference(&got, &end));
        });
        assert_eq!(available(fold, &self.live(fold, now), now), end.credits.available_at(fold.context_at(now).now));
        end
    }
}

pub fn available(fold: &Fold, account: &Account, now: i64) -> i64 {
    account.credits.available_at(fold.context_at(now).now)
}
