//! Periods of several months: each has as many months of credits as were paid for, whatever day of the month the
//! subscription is billed on, and whoever looks at the account when.

use chrono::{DateTime, TimeZone, Utc};
use serde_json::{Value, json};
use subledger::domain::account::Account;
use subledger::domain::command::Command;
use subledger::domain::credit::{Lot, LotSource};

use crate::fold::{End, Fold, account, difference};
use crate::subscription::{DAY, available, months_later};
use crate::support::shuffle::each_permutation;

const SELLER: &str = r#"
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
rollover = "none"
[plans.small.prices]
month = { stripe_price_id = "price_small_1", currency = "usd", unit_amount = 1000, interval = "month" }
quarter = { stripe_price_id = "price_small_3", currency = "usd", unit_amount = 3000, interval = "month", interval_count = 3 }
half = { stripe_price_id = "price_small_6", currency = "usd", unit_amount = 6000, interval = "month", interval_count = 6 }
year = { stripe_price_id = "price_small_12", currency = "usd", unit_amount = 12000, interval = "year" }
[plans.large]
name = "Large"
rank = 2
credits = 500
rollover = "none"
[plans.large.prices]
month = { stripe_price_id = "price_large_1", currency = "usd", unit_amount = 5000, interval = "month" }
quarter = { stripe_price_id = "price_large_3", currency = "usd", unit_amount = 15000, interval = "month", interval_count = 3 }
"#;

fn with_rollover(rollover: &str) -> Fold {
    Fold::of_seller(&SELLER.replace("rollover = \"none\"", &format!("rollover = {rollover}")))
}

fn noon(year: i32, month: u32, day: u32) -> i64 {
    Utc.with_ymd_and_hms(year, month, day, 12, 0, 0).single().expect("a day").timestamp()
}

fn told(at: i64, lines: &[Value]) -> Value {
    let amount: i64 = lines.iter().filter_map(|line| line["amount"].as_i64()).sum();
    let id = format!("in_{at}");
    json!({"id": format!("evt_{at}"), "type": "invoice.paid", "created": at, "data": {"object": {
        "object": "invoice", "id": id, "customer": "cus_1", "currency": "usd", "status": "paid",
        "subscription": "sub_1", "billing_reason": "subscription_cycle", "payment_intent": format!("pi_{id}"),
        "created": at, "subtotal": amount, "total": amount, "amount_paid": amount.max(0), "lines": {"data": lines}}}})
}

/// What Stripe bills every so many months, counted from an anchor.
#[derive(Debug, Clone, Copy)]
struct Billing {
    anchor: i64,
    months: u32,
}

impl Billing {
    fn edge(self, period: u32, month: u32) -> i64 {
        months_later(self.anchor, period * self.months + month)
    }

    /// The n-th period's start and end.
    fn period(self, n: u32) -> (i64, i64) {
        (self.edge(n, 0), self.edge(n + 1, 0))
    }

    fn line(self, nth: usize, plan: &str, amount: i64, period: (i64, i64), proration: bool) -> Value {
        json!({"id": format!("il_{}_{nth}", period.0), "amount": amount, "subscription": "sub_1",
            "subscription_item": "si_1", "price": {"id": format!("price_{plan}_{}", self.months)}, "quantity": 1,
            "proration": proration, "period": {"start": period.0, "end": period.1}})
    }

    fn price(self, plan: &str) -> i64 {
        i64::from(self.months) * if plan == "small" { 1000 } else { 5000 }
    }

    fn paid(self, n: u32, plan: &str) -> Value {
        let period = self.period(n);
        told(period.0, &[self.line(1, plan, self.price(plan), period, false)])
    }

    /// Within the n-th period.
    fn changed(self, n: u32, from: &str, to: &str, at: i64) -> Value {
        let (start, end) = self.period(n);
        let left = |plan: &str| self.price(plan) * (end - at) / (end - start);
        let given_up = self.line(1, from, -left(from), (at, end), true);
        told(at, &[given_up, self.line(2, to, left(to), (at, end), true)])
    }
}

/// Hears of each thing when it happens, and is looked at every so many seconds.
fn watched(fold: &Fold, events: &[Value], every: i64, until: i64) -> Account {
    let mut account = account("user_1");
    let mut last = None;
    for event in events {
        let at = event["created"].as_i64().expect("a time");
        look(fold, &mut account, last.map(|last| last + every), every, at);
        fold.apply(&mut account, &fold.command(event), fold.context_at(at));
        last = Some(at);
    }
    look(fold, &mut account, last.map(|last| last + every), every, until);
    fold.apply(&mut account, &Command::Settle, fold.context_at(until));
    account
}

fn look(fold: &Fold, account: &mut Account, from: Option<i64>, every: i64, until: i64) {
    let mut at = from.unwrap_or(until);
    while at < until {
        fold.apply(account, &Command::Settle, fold.context_at(at));
        at += every;
    }
}

/// All orders of the events after the first so many.
fn in_any_order(fold: &Fold, events: &[Value], first: usize, now: i64) -> End {
    let commands: Vec<Command> = events.iter().map(|event| fold.command(event)).collect();
    let straight: Vec<usize> = (0..commands.len()).collect();
    let end = fold.end_at(fold.context_at(now), &commands, &straight);
    each_permutation(commands.len() - first, |order| {
        let order: Vec<usize> = (0..first).chain(order.iter().map(|at| at + first)).collect();
        let got = fold.end_at(fold.context_at(now), &commands, &order);
        assert!(got == end, "with {order:?}:\n{}", difference(&got, &end));
    });
    end
}

fn day(at: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(at, 0).expect("a time")
}

/// Every day of the month, and one of a leap year.
fn anchors() -> impl Iterator<Item = i64> {
    [28, 29, 30, 31].into_iter().map(|day| noon(2026, 1, day)).chain([noon(2024, 2, 29), noon(2025, 8, 31)])
}

#[test]
fn a_period_grants_as_many_months_as_it_has() {
    let fold = with_rollover("\"all\"");
    for (anchor, months) in anchors().flat_map(|anchor| [3, 6, 12].map(|months| (anchor, months))) {
        let billing = Billing { anchor, months };
        for n in 0..(48 / months) {
            let event = [billing.paid(n, "small")];
            let last = billing.period(n).1 - 1;
            let story = format!("{months} months from {}, the {n}th time", day(anchor));
            for every in [DAY, 400 * DAY] {
                let account = watched(&fold, &event, every, last);
                assert_eq!(available(&fold, &account, last), 100 * i64::from(months), "{story}");
                let causes = account.credits.lots.iter().filter(|lot| lot.source == LotSource::Plan).count();
                assert_eq!(causes, months as usize, "{story}");
            }
        }
    }
}

#[test]
fn no_day_is_without_credits_and_none_has_those_of_two_months() {
    let fold = Fold::of_seller(SELLER);
    for (anchor, months) in anchors().flat_map(|anchor| [3, 6, 12].map(|months| (anchor, months))) {
        let billing = Billing { anchor, months };
        let mut account = account("user_1");
        for n in 0..(48 / months) {
            let (start, end) = billing.period(n);
            fold.apply(&mut account, &fold.command(&billing.paid(n, "small")), fold.context_at(start));
            let edges: Vec<i64> = (0..months).map(|month| billing.edge(n, month)).collect();
            for at in
                edges.iter().flat_map(|edge| [edge - 1, *edge, edge + 3 * DAY]).filter(|at| (start..end).contains(at))
            {
                fold.apply(&mut account, &Command::Settle, fold.context_at(at));
                assert_eq!(available(&fold, &account, at), 100, "{months} months from {}, at {}", day(anchor), day(at));
            }
        }
    }
}

/// Where one of a period's ends lies in a month that has the anchor's day, each month begins on it.
#[test]
fn months_begin_on_the_day_that_the_subscription_is_billed_on() {
    let fold = with_rollover("\"all\"");
    let billing = Billing { anchor: noon(2026, 1, 31), months: 3 };
    for n in 0..4 {
        let account = watched(&fold, &[billing.paid(n, "small")], DAY, billing.period(n).1 - 1);
        let mut begun: Vec<_> = account.credits.lots.iter().map(|lot| lot.effective_at).collect();
        begun.sort_unstable();
        assert_eq!(begun, [0, 1, 2].map(|month| day(billing.edge(n, month))), "the {n}th quarter");
    }
}

#[test]
fn an_upgrade_that_was_taken_back_leaves_the_months_that_follow_whole() {
    let fold = Fold::of_seller(SELLER);
    let billing = Billing { anchor: noon(2026, 1, 31), months: 3 };
    let events = [
        billing.paid(0, "small"),
        billing.changed(0, "small", "large", noon(2026, 2, 10)),
        billing.changed(0, "large", "small", noon(2026, 2, 20)),
    ];
    for every in [DAY / 2, DAY, 10 * DAY] {
        for at in [noon(2026, 2, 28), noon(2026, 3, 30), noon(2026, 3, 31), noon(2026, 4, 29)] {
            let account = watched(&fold, &events, every, at);
            assert_eq!(available(&fold, &account, at), 100, "at {}, looked at every {every} s", day(at));
        }
    }
}

#[test]
fn an_upgrade_gives_its_months_on_the_days_of_its_period() {
    let fold = Fold::of_seller(SELLER);
    let billing = Billing { anchor: noon(2026, 1, 31), months: 3 };
    let events = [billing.paid(0, "small"), billing.changed(0, "small", "large", noon(2026, 3, 10))];
    let at = noon(2026, 3, 31);
    for every in [DAY / 2, 10 * DAY] {
        let account = watched(&fold, &events, every, at - 1);
        // 21 of 31 days of March.
        assert_eq!(available(&fold, &account, at - 1), 100 + 400 * 21 / 31);
        assert_eq!(available(&fold, &watched(&fold, &events, every, at), at), 500);
        let last = billing.period(0).1 - 1;
        assert_eq!(available(&fold, &watched(&fold, &events, every, last), last), 500);
    }
}

fn lots(end: &End) -> impl Iterator<Item = &Lot> {
    end.credits.lots.iter().chain(end.billing.closed_lots.values()).filter(|lot| lot.source == LotSource::Plan)
}

#[test]
fn changes_of_a_period_end_the_same_in_any_order() {
    for rollover in ["\"none\"", "\"all\"", "{ cap = 70 }"] {
        let fold = with_rollover(rollover);
        for (anchor, n) in [28, 29, 30, 31].into_iter().flat_map(|day| [0, 1].map(|n| (noon(2026, 1, day), n))) {
            let billing = Billing { anchor, months: 3 };
            let (start, end) = billing.period(n);
            let events = [
                billing.paid(n, "small"),
                billing.changed(n, "small", "large", start + 40 * DAY),
                billing.changed(n, "large", "small", start + 41 * DAY),
                billing.changed(n, "small", "large", start + 42 * DAY),
            ];
            // What is heard of a period later than Stripe tries to tell it no longer moves what a change has granted.
            for (first, at) in [(0, start + 42 * DAY + 60), (1, billing.edge(n, 2)), (1, end - 1)] {
                let got = in_any_order(&fold, &events, first, at);
                let of_base = lots(&got).filter(|lot| !lot.cause.contains("prorations"));
                let begun = (0..3).filter(|month| billing.edge(n, *month) <= at).count();
                assert!(of_base.count() <= begun, "{}", day(at));
            }
        }
    }
}

/// Of a ledger that began after the period was paid.
#[test]
fn a_change_of_a_period_that_nobody_told_of_is_granted_all_the_same() {
    let fold = Fold::of_seller(SELLER);
    for day in [28, 29, 30, 31] {
        let billing = Billing { anchor: noon(2026, 1, day), months: 3 };
        let at = noon(2026, 3, 10);
        let upgrade = [billing.changed(0, "small", "large", at)];
        let account = watched(&fold, &upgrade, DAY, at + 4 * DAY);
        assert!(available(&fold, &account, at + 4 * DAY) > 200, "from the {day}th");
        let last = billing.period(0).1 - 1;
        assert_eq!(available(&fold, &watched(&fold, &upgrade, DAY, last), last), 400, "from the {day}th");
    }
}

#[test]
fn what_rolls_over_lasts_to_the_end_of_the_month_that_follows() {
    let fold = with_rollover("{ cap = 30 }");
    let expiries = |months: u32, n: u32| {
        let billing = Billing { anchor: noon(2026, 1, 31), months };
        let account = watched(&fold, &[billing.paid(n, "small")], 400 * DAY, billing.period(n).1 - 1);
        let mut ends: Vec<_> = account.credits.lots.iter().filter_map(|lot| lot.expires_at).collect();
        ends.sort_unstable();
        (ends, billing)
    };
    let (ends, billing) = expiries(1, 0);
    assert_eq!(ends, [day(billing.edge(2, 0))], "31 March, and not the 28th");
    let (ends, billing) = expiries(3, 0);
    assert_eq!(ends, [3, 4].map(|month| day(billing.edge(0, month))), "the first month's have expired");
}
