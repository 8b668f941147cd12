//! What is owed is made good by all that came to be spendable, whether or not anybody looked then.

use proptest::prelude::*;
use serde_json::json;
use subledger::domain::account::{Account, Changes};
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, Grant, decide};
use subledger::domain::credit::LotSource;
use subledger::domain::draft::Draft;
use subledger::domain::event::Event;
use subledger::domain::settle::credits_at;
use uuid::Uuid;

use crate::fold::{Fold, account};
use crate::subscription::{DAY, JANUARY, months_later};

const SELLER: &str = r#"
[features.a]
name = "A"
kind = "boolean"
[plans.free]
name = "Free"
default = true
rank = 0
credits = 10
overage = { limit = 50 }
clawback = "debt"
[plans.small]
name = "Small"
rank = 1
credits = 100
overage = { limit = 500 }
clawback = "debt"
prices.yearly = { stripe_price_id = "price_small_year", currency = "usd", unit_amount = 10000, interval = "year" }
"#;

/// What a command comes to: its events, and whether it was refused.
fn act(fold: &Fold, account: &mut Account, command: &Command, now: i64) -> (Vec<Event>, bool) {
    let mut changes = Changes::default();
    let mut draft = Draft::new(account, &mut changes);
    let refused = decide(&mut draft, command, fold.context_at(now)).is_err();
    (draft.events, refused)
}

fn debit(amount: i64) -> Command {
    Command::Debit { debit: Uuid::from_u128(7), charge: Charge::Amount(amount) }
}

/// A spender asks for more than anybody may spend: only what the clock had made due is recorded.
fn look(fold: &Fold, account: &mut Account, now: i64) -> Vec<Event> {
    let (events, refused) = act(fold, account, &debit(1_000_000), now);
    assert!(refused);
    events
}

/// What may be spent, and what is owed.
fn seen(fold: &Fold, account: &Account, now: i64) -> (i64, i64) {
    let context = fold.context_at(now);
    let credits = credits_at(&account.id, &account.credits, context);
    (credits.available_at(context.now), credits.debt)
}

fn on_free_plan(fold: &Fold) -> Account {
    let mut account = account("user_1");
    fold.apply(&mut account, &Command::Open { stripe_customer_id: None }, fold.context_at(JANUARY));
    account
}

fn on_yearly_plan(fold: &Fold) -> Account {
    let mut account = account("user_1");
    let end = months_later(JANUARY, 12);
    let subscription = json!({"id": "evt_1", "type": "customer.subscription.created", "created": JANUARY, "data": {"object": {
        "object": "subscription", "id": "sub_1", "customer": "cus_1", "status": "active", "created": JANUARY,
        "current_period_start": JANUARY, "current_period_end": end,
        "items": {"data": [{"id": "si_1", "price": {"id": "price_small_year"}, "quantity": 1}]}}}});
    let invoice = json!({"id": "evt_2", "type": "invoice.paid", "created": JANUARY, "data": {"object": {
        "object": "invoice", "id": "in_1", "customer": "cus_1", "currency": "usd", "status": "paid",
        "subscription": "sub_1", "billing_reason": "subscription_create", "subtotal": 10000, "total": 10000,
        "amount_paid": 10000, "payment_intent": "pi_1", "lines": {"data": [{"id": "il_1", "amount": 10000,
            "subscription": "sub_1", "price": {"id": "price_small_year"}, "quantity": 1,
            "period": {"start": JANUARY, "end": end}}]}}}});
    for told in [subscription, invoice] {
        fold.apply(&mut account, &fold.command(&told), fold.context_at(JANUARY));
    }
    account
}

#[test]
fn free_months_that_nobody_asked_for_make_good_what_is_owed() {
    let fold = Fold::of_seller(SELLER);
    let mut watched = on_free_plan(&fold);
    assert!(!act(&fold, &mut watched, &debit(40), JANUARY).1);
    let mut asleep = watched.clone();
    look(&fold, &mut watched, JANUARY + 35 * DAY);
    let now = JANUARY + 65 * DAY;
    assert_eq!(seen(&fold, &watched, now), (-10, 10), "two months of ten each");
    assert_eq!(seen(&fold, &asleep, now), (-10, 10));
    let mut swept = asleep.clone();
    fold.apply(&mut swept, &Command::Settle, fold.context_at(now));
    assert_eq!(seen(&fold, &swept, now), (-10, 10));

    let after_years = months_later(JANUARY, 200);
    let events = look(&fold, &mut asleep, after_years);
    assert_eq!(seen(&fold, &asleep, after_years), (10, 0));
    let granted = events.iter().filter(|event| matches!(event, Event::CreditsGranted(_))).count();
    assert_eq!(granted, 3 + 1, "as many as make it good, and the month that runs");
    assert!(events.len() <= 10, "{events:#?}");
}

#[test]
fn months_before_a_debt_do_not_make_it_good() {
    let fold = Fold::of_seller(SELLER);
    let mut account = on_free_plan(&fold);
    look(&fold, &mut account, JANUARY);
    let at = JANUARY + 100 * DAY;
    let pack = json!({"id": "evt_1", "type": "checkout.session.completed", "created": at, "data": {"object": {
        "object": "checkout.session", "id": "cs_1", "mode": "payment", "status": "complete", "created": at,
        "payment_status": "paid", "amount_total": 1000, "currency": "usd", "payment_intent": "pi_1",
        "metadata": {"kind": "credit_pack", "credits": "50"}}}});
    let refund = json!({"id": "evt_2", "type": "refund.created", "created": at, "data": {"object": {
        "object": "refund", "id": "re_1", "currency": "usd", "amount": 1000, "status": "succeeded",
        "payment_intent": "pi_1"}}});
    fold.apply(&mut account, &fold.command(&pack), fold.context_at(at));
    // The running month's ten, and the pack.
    assert!(!act(&fold, &mut account, &debit(60), at).1);
    fold.apply(&mut account, &fold.command(&refund), fold.context_at(at + 1));
    assert_eq!(seen(&fold, &account, at + 2), (-50, 50));
    assert_eq!(seen(&fold, &account, JANUARY + 125 * DAY), (-40, 40), "May's ten");
}

#[test]
fn a_years_months_that_nobody_looked_at_make_good_what_is_owed() {
    let fold = Fold::of_seller(SELLER);
    let mut watched = on_yearly_plan(&fold);
    assert!(!act(&fold, &mut watched, &debit(300), JANUARY + 1).1);
    assert_eq!(watched.credits.debt, 200);
    let mut asleep = watched.clone();
    for week in 1..22 {
        look(&fold, &mut watched, JANUARY + week * 7 * DAY);
    }
    let now = months_later(JANUARY, 5) + DAY;
    assert_eq!(seen(&fold, &watched, now), (100, 0));
    assert_eq!(seen(&fold, &asleep, now), (100, 0));
    let events = look(&fold, &mut asleep, now);
    let granted = events.iter().filter(|event| matches!(event, Event::CreditsGranted(_))).count();
    assert_eq!(granted, 2 + 1, "as many as make it good, and the month that runs");
}

#[test]
fn a_last_month_that_passed_unseen_is_good_for_the_renewals_hours() {
    let fold = Fold::of_seller(&SELLER.replace("credits = 100", "credits = 100\nrenewal_hours = 72"));
    let account = on_yearly_plan(&fold);
    let end = months_later(JANUARY, 12);
    assert_eq!(seen(&fold, &account, end + 71 * 3_600), (100, 0));
    assert_eq!(seen(&fold, &account, end + 72 * 3_600), (0, 0));
}

#[derive(Debug, Clone)]
enum Act {
    Debit(i64),
    Grant { amount: i64, begins_in_days: i64, days: i64 },
    Hold { amount: i64, days: i64 },
    Sweep,
}

fn any_act() -> impl Strategy<Value = (i64, Act)> {
    let act = prop_oneof![
        5 => (1i64..400).prop_map(Act::Debit),
        2 => (1i64..60, 0i64..90, 1i64..90)
            .prop_map(|(amount, begins_in_days, days)| Act::Grant { amount, begins_in_days, days }),
        2 => (1i64..200, 1i64..31).prop_map(|(amount, days)| Act::Hold { amount, days }),
        1 => Just(Act::Sweep),
    ];
    (1..100 * DAY, act)
}

fn command_of(act: &Act, nth: u128, now: i64) -> Command {
    let at = |second| chrono::DateTime::from_timestamp(second, 0).expect("a time");
    match *act {
        Act::Debit(amount) => debit(amount),
        Act::Grant { amount, begins_in_days, days } => Command::Grant(Grant {
            grant: Uuid::from_u128(nth),
            amount,
            source: LotSource::Manual,
            priority: 50,
            effective_at: Some(at(now + begins_in_days * DAY)),
            expires_at: Some(at(now + (begins_in_days + days) * DAY)),
            reason: None,
        }),
        Act::Hold { amount, days } => {
            let expires_at = at(now + days * DAY);
            Command::Hold { hold: Uuid::from_u128(nth), charge: Charge::Amount(amount), expires_at }
        }
        Act::Sweep => Command::Settle,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn it_makes_no_difference_how_often_somebody_looks(
        is_yearly in any::<bool>(),
        acts in prop::collection::vec(any_act(), 1..12),
        days_between in 1i64..20,
    ) {
        let fold = Fold::of_seller(SELLER);
        let mut asleep = if is_yearly { on_yearly_plan(&fold) } else { on_free_plan(&fold) };
        let mut watched = asleep.clone();
        let mut now = JANUARY;
        for (nth, (wait, act_now)) in acts.iter().enumerate() {
            let next = now + wait;
            while now + days_between * DAY < next {
                now += days_between * DAY;
                look(&fold, &mut watched, now);
            }
            now = next;
            prop_assert_eq!(seen(&fold, &asleep, now), seen(&fold, &watched, now), "before {:?}", act_now);
            let command = command_of(act_now, nth as u128 + 100, now);
            let refused = act(&fold, &mut asleep, &command, now).1;
            prop_assert_eq!(refused, act(&fold, &mut watched, &command, now).1, "{:?}", act_now);
            prop_assert_eq!(seen(&fold, &asleep, now), seen(&fold, &watched, now), "after {:?}", act_now);
        }
    }
}
