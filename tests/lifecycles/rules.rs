//! Rules that no lifecycle happens to touch, each with the few facts that show it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use subledger::domain::account::Account;
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, HoldAct, OfHold, decide};
use subledger::domain::draft::Draft;
use subledger::domain::hold::Used;
use subledger::domain::ids::AccountId;
use subledger::domain::settle::credits_at;
use uuid::Uuid;

use crate::fold::{End, Fold, account, difference};
use crate::router::merge;
use crate::support::shuffle::each_permutation;

const DAY: i64 = 86_400;
pub const JANUARY: i64 = 1_767_225_600;
pub const FEBRUARY: i64 = 1_769_904_000;
pub const MARCH: i64 = 1_772_323_200;
const APRIL: i64 = 1_775_001_600;

pub fn told(event_type: &str, created: i64, object: Value) -> Value {
    let id = format!("evt_{event_type}_{created}_{}", object["id"]);
    json!({"id": id.replace('"', ""), "type": event_type, "created": created, "data": {"object": object}})
}

pub fn subscription(price: Value, start: i64, end: i64, status: &str) -> Value {
    let ended_at = (status == "canceled").then_some(end);
    json!({"object": "subscription", "id": "sub_1", "customer": "cus_1", "status": status, "created": JANUARY,
        "current_period_start": start, "current_period_end": end, "ended_at": ended_at,
        "items": {"data": [{"id": "si_1", "price": price, "quantity": 1}]}})
}

/// A paid invoice for one whole period, paid by `pi_{id}`.
pub fn invoice(id: &str, price: &str, start: i64, end: i64) -> Value {
    json!({"object": "invoice", "id": id, "customer": "cus_1", "currency": "usd", "status": "paid",
        "subscription": "sub_1", "billing_reason": "subscription_cycle", "payment_intent": format!("pi_{id}"),
        "subtotal": 2900, "total": 2900, "amount_paid": 2900,
        "lines": {"data": [{"id": format!("il_{id}"), "amount": 2900, "subscription": "sub_1",
            "price": {"id": price}, "quantity": 1, "period": {"start": start, "end": end}}]}})
}

pub fn intent(id: &str, amount: i64) -> Value {
    json!({"object": "payment_intent", "id": id, "customer": "cus_1", "currency": "usd", "status": "succeeded",
        "amount": amount, "amount_received": amount})
}

fn pack(credits: i64) -> Value {
    json!({"object": "checkout.session", "id": "cs_1", "mode": "payment", "status": "complete", "created": JANUARY,
        "payment_status": "paid", "amount_total": 1000, "currency": "usd", "payment_intent": "pi_1",
        "metadata": {"kind": "credit_pack", "credits": credits.to_string()}})
}

fn dispute(status: &str) -> Value {
    json!({"object": "dispute", "id": "dp_1", "charge": "ch_1", "payment_intent": "pi_1", "currency": "usd",
        "amount": 1000, "status": status})
}

pub fn refund(id: &str, more: Value) -> Value {
    let mut refund = json!({"object": "refund", "id": id, "currency": "usd", "amount": 100, "status": "succeeded"});
    refund.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    refund
}

/// Every permutation of the events ends the same; gives that end.
pub fn end_in_any_order(fold: &Fold, now: i64, events: &[Value]) -> End {
    let commands: Vec<Command> = events.iter().map(|event| fold.command(event)).collect();
    let straight: Vec<usize> = (0..commands.len()).collect();
    let end = fold.end_at(fold.context_at(now), &commands, &straight);
    each_permutation(commands.len(), |order| {
        let got = fold.end_at(fold.context_at(now), &commands, order);
        assert!(got == end, "with {order:?}:\n{}", difference(&got, &end));
    });
    end
}

pub fn available(fold: &Fold, end: &End, now: i64) -> i64 {
    end.credits.available_at(fold.context_at(now).now)
}

pub fn debit(fold: &Fold, account: &mut Account, amount: i64, now: i64) {
    let mut changes = Default::default();
    let mut draft = Draft::new(account, &mut changes);
    let debit = Command::Debit { debit: Uuid::from_u128(7), charge: Charge::Amount(amount) };
    decide(&mut draft, &debit, fold.context_at(now)).expect("enough credits");
}

pub fn play(fold: &Fold, account: &mut Account, now: i64, events: &[Value]) {
    for event in events {
        fold.apply(account, &fold.command(event), fold.context_at(now));
    }
}

#[test]
fn all_payments_that_refer_to_an_invoice_are_linked_to_it() {
    let by_reference = |id: &str| {
        let mut intent = intent(id, 2900);
        intent["payment_details"] = json!({"order_reference": "in_1"});
        told("payment_intent.succeeded", JANUARY, intent)
    };
    let mut unpaid = invoice("in_1", "price_x", JANUARY, FEBRUARY);
    unpaid["payment_intent"] = Value::Null;
    // An older version does not tell the reference.
    let silent = told("payment_intent.created", JANUARY + 1, intent("pi_2", 2900));
    let events = [by_reference("pi_1"), by_reference("pi_2"), silent, told("invoice.paid", JANUARY, unpaid)];
    let end = end_in_any_order(&Fold::new(), FEBRUARY, &events);
    for payment in ["pi_1", "pi_2"] {
        assert_eq!(end.billing.payments[payment].stripe_invoice_id.as_deref(), Some("in_1"), "{payment}");
    }
}

#[test]
fn a_refund_that_names_only_its_charge_finds_its_payment() {
    let events = [
        told("refund.created", JANUARY, refund("re_1", json!({"charge": "ch_1", "payment_intent": "pi_1"}))),
        told("refund.created", JANUARY, refund("re_2", json!({"charge": "ch_1"}))),
        told("charge.dispute.created", JANUARY, {
            let mut dispute = dispute("needs_response");
            dispute["payment_intent"] = Value::Null;
            dispute
        }),
        told("payment_intent.succeeded", JANUARY, intent("pi_1", 1000)),
    ];
    let end = end_in_any_order(&Fold::new(), FEBRUARY, &events);
    assert_eq!(end.billing.payments.keys().collect::<Vec<_>>(), ["pi_1"]);
    assert_eq!(end.billing.payments["pi_1"].amount_refunded(), 200);
}

const BY_LOOKUP_KEY: &str = r#"
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
prices.monthly = { lookup_key = "small", currency = "usd", unit_amount = 2900, interval = "month" }
[plans.big]
name = "Big"
rank = 2
credits = 500
prices.monthly = { lookup_key = "big", currency = "usd", unit_amount = 5900, interval = "month" }
"#;

#[test]
fn what_has_ended_never_reopens_although_later_news_says_so() {
    let price = json!({"id": "price_x"});
    let mut open = invoice("in_1", "price_x", JANUARY, FEBRUARY);
    open["status"] = json!("open");
    let session = |status: &str| {
        let mut session = pack(500);
        (session["status"], session["payment_status"]) = (json!(status), json!("unpaid"));
        session
    };
    let events = [
        told("customer.subscription.deleted", JANUARY, subscription(price.clone(), JANUARY, FEBRUARY, "canceled")),
        told("customer.subscription.updated", FEBRUARY, subscription(price, JANUARY, FEBRUARY, "active")),
        told("invoice.paid", JANUARY, invoice("in_1", "price_x", JANUARY, FEBRUARY)),
        told("invoice.updated", FEBRUARY, open),
        told("checkout.session.expired", JANUARY, session("expired")),
        told("checkout.session.completed", FEBRUARY, session("complete")),
    ];
    let end = end_in_any_order(&Fold::new(), FEBRUARY + 1, &events).billing;
    assert_eq!(end.subscriptions["sub_1"].current.status, "canceled");
    assert_eq!(end.invoices["in_1"].current().map(|invoice| invoice.status.as_str()), Some("paid"));
    assert_eq!(end.checkout_sessions["cs_1"].session.current.status.as_deref(), Some("expired"));
}

#[test]
fn a_price_known_by_its_lookup_key_grants_although_the_subscription_has_moved_on() {
    let price = |name: &str| json!({"id": format!("price_{name}"), "lookup_key": name});
    let events = [
        told("customer.subscription.created", JANUARY, subscription(price("small"), JANUARY, FEBRUARY, "active")),
        told("invoice.paid", JANUARY, invoice("in_1", "price_small", JANUARY, FEBRUARY)),
        told("customer.subscription.updated", FEBRUARY, subscription(price("big"), FEBRUARY, MARCH, "active")),
        told("invoice.paid", FEBRUARY, invoice("in_2", "price_big", FEBRUARY, MARCH)),
    ];
    let fold = Fold::of_seller(BY_LOOKUP_KEY);
    let end = end_in_any_order(&fold, FEBRUARY + 1, &events);
    assert_eq!(available(&fold, &end, FEBRUARY + 1), 500);
    let granted: Vec<i64> = end.billing.closed_lots.values().map(|lot| lot.granted).collect();
    assert_eq!(granted, [100], "January's credits were granted too, and expired");
}

pub const ROLLING_OVER: &str = r#"
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
rollover = { cap = 30 }
clawback = "debt"
prices.monthly = { stripe_price_id = "price_small", currency = "usd", unit_amount = 2900, interval = "month" }
"#;

fn three_months() -> Vec<Value> {
    let price = json!({"id": "price_small"});
    vec![
        told("customer.subscription.updated", MARCH, subscription(price, MARCH, APRIL, "active")),
        told("invoice.paid", JANUARY, invoice("in_1", "price_small", JANUARY, FEBRUARY)),
        told("invoice.paid", FEBRUARY, invoice("in_2", "price_small", FEBRUARY, MARCH)),
        told("invoice.paid", MARCH, invoice("in_3", "price_small", MARCH, APRIL)),
    ]
}

#[test]
fn what_rolls_over_does_not_depend_on_the_order_of_the_invoices() {
    let fold = Fold::of_seller(ROLLING_OVER);
    let end = end_in_any_order(&fold, MARCH + 1, &three_months());
    assert_eq!(available(&fold, &end, MARCH + 1), 130);
}

#[test]
fn what_rolls_over_does_not_depend_on_whether_the_newest_credits_are_spent() {
    let fold = Fold::of_seller(ROLLING_OVER);
    let [subscription, _, february, march] = &three_months()[..] else { panic!("four events") };
    let left_after = |before: [&Value; 2], after: &[&Value]| {
        let mut account = account("user_1");
        play(&fold, &mut account, MARCH + 1, &before.map(Clone::clone));
        debit(&fold, &mut account, 100, MARCH + 2);
        play(&fold, &mut account, MARCH + 3, &after.iter().map(|event| (*event).clone()).collect::<Vec<_>>());
        account.credits.available_at(fold.context_at(MARCH + 3).now)
    };
    assert_eq!(left_after([subscription, march], &[february]), 30, "only the cap of February is kept");
}

#[test]
fn what_rolls_over_does_not_depend_on_when_a_refund_is_heard_of() {
    let fold = Fold::of_seller(ROLLING_OVER);
    let mut events = three_months();
    events.push(told("payment_intent.succeeded", FEBRUARY, intent("pi_in_2", 2900)));
    let of_february = json!({"payment_intent": "pi_in_2", "amount": 1450});
    events.push(told("refund.created", FEBRUARY + 9, refund("re_1", of_february)));
    let end = end_in_any_order(&fold, MARCH + 1, &events);
    assert_eq!(available(&fold, &end, MARCH + 1), 130, "half of February went back, and 30 of the rest rolled over");
}

#[test]
fn the_months_to_come_of_a_year_that_was_refunded_are_refunded_too() {
    let yearly =
        ROLLING_OVER.replace("rollover = { cap = 30 }\n", "").replace("interval = \"month\"", "interval = \"year\"");
    let fold = Fold::of_seller(&yearly);
    let mut account = account("user_1");
    let year = [
        told("invoice.paid", JANUARY, invoice("in_1", "price_small", JANUARY, JANUARY + 365 * 86_400)),
        told("payment_intent.succeeded", JANUARY, intent("pi_in_1", 2900)),
    ];
    play(&fold, &mut account, JANUARY + 30, &year);
    let left_at = |account: &Account, now: i64| {
        let context = fold.context_at(now);
        credits_at(&account.id, &account.credits, context).available_at(context.now)
    };
    assert_eq!(left_at(&account, FEBRUARY + 1), 100);
    let half = refund("re_1", json!({"payment_intent": "pi_in_1", "amount": 1450}));
    play(&fold, &mut account, JANUARY + 60, &[told("refund.created", JANUARY + 60, half.clone())]);
    assert_eq!(left_at(&account, JANUARY + 61), 50);
    // Of the months that follow nobody hears from Stripe before somebody spends.
    assert_eq!(left_at(&account, FEBRUARY + 1), 50);
    debit(&fold, &mut account, 10, FEBRUARY + 1);
    assert_eq!(left_at(&account, FEBRUARY + 2), 40);
    let mut failed = half;
    failed["status"] = json!("failed");
    play(&fold, &mut account, FEBRUARY + 3, &[told("refund.failed", FEBRUARY + 3, failed)]);
    assert_eq!(left_at(&account, FEBRUARY + 4), 90);
    assert_eq!(left_at(&account, MARCH + 1), 100);
    let whole = refund("re_2", json!({"payment_intent": "pi_in_1", "amount": 2900}));
    play(&fold, &mut account, FEBRUARY + 5, &[told("refund.created", FEBRUARY + 5, whole)]);
    assert_eq!(account.credits.debt, 10, "what was spent is owed, under this plan's policy");
    assert_eq!(left_at(&account, MARCH + 1), -10, "months that were refunded repay nothing");
}

#[test]
fn with_renewal_hours_what_is_left_may_be_spent_until_the_renewal_is_paid() {
    const HOUR: i64 = 3_600;
    let fold = Fold::of_seller(&ROLLING_OVER.replace("rollover = { cap = 30 }", "renewal_hours = 2"));
    let left_at = |account: &Account, now: i64| {
        let context = fold.context_at(now);
        credits_at(&account.id, &account.credits, context).available_at(context.now)
    };
    let price = json!({"id": "price_small"});
    let mut account = account("user_1");
    let january = [
        told("customer.subscription.created", JANUARY, subscription(price.clone(), JANUARY, FEBRUARY, "active")),
        told("invoice.paid", JANUARY, invoice("in_1", "price_small", JANUARY, FEBRUARY)),
    ];
    play(&fold, &mut account, JANUARY + 30, &january);
    debit(&fold, &mut account, 40, JANUARY + 30);
    assert_eq!(left_at(&account, FEBRUARY + HOUR / 2), 60, "while Stripe drafts the invoice");
    assert_eq!(left_at(&account, FEBRUARY + 2 * HOUR), 0, "when it is not paid in time");
    let mut ended = account.clone();
    let canceled = subscription(price, JANUARY, FEBRUARY, "canceled");
    play(&fold, &mut ended, FEBRUARY + 1, &[told("customer.subscription.deleted", FEBRUARY, canceled)]);
    assert_eq!(left_at(&ended, FEBRUARY + 2), 0, "when there is no renewal");
    debit(&fold, &mut account, 10, FEBRUARY + HOUR / 2);
    let february = told("invoice.paid", FEBRUARY + HOUR, invoice("in_2", "price_small", FEBRUARY, MARCH));
    play(&fold, &mut account, FEBRUARY + HOUR, &[february]);
    assert_eq!(left_at(&account, FEBRUARY + HOUR), 100, "the old ones end as the new ones come");
    let end = end_in_any_order(&fold, MARCH + 1, &three_months());
    assert_eq!(available(&fold, &end, MARCH + 1), 100);
}

#[test]
fn a_proration_takes_nothing_from_what_its_period_gave() {
    let fold = Fold::of_seller(ROLLING_OVER);
    let middle = JANUARY + 15 * 86_400;
    let mut prorated = invoice("in_2", "price_small", middle, FEBRUARY);
    prorated["lines"]["data"][0]["proration"] = json!(true);
    prorated["lines"]["data"][0]["amount"] = json!(1450);
    let events = [
        told("invoice.paid", JANUARY, invoice("in_1", "price_small", JANUARY, FEBRUARY)),
        told("invoice.paid", middle, prorated),
    ];
    let end = end_in_any_order(&fold, middle + 1, &events);
    assert_eq!(available(&fold, &end, middle + 1), 150, "beyond the cap of 30, which is for whole periods");
}

#[test]
fn a_debt_that_a_later_grant_paid_is_given_back_when_the_dispute_is_won() {
    let fold = Fold::of_seller(&ROLLING_OVER.replace("credits = \"none\"", "credits = \"none\"\nclawback = \"debt\""));
    let now = JANUARY + 60;
    let mut account = account("user_1");
    let paid = told("payment_intent.succeeded", JANUARY, intent("pi_1", 1000));
    play(&fold, &mut account, now, &[told("checkout.session.completed", JANUARY, pack(500)), paid]);
    debit(&fold, &mut account, 500, now);
    play(&fold, &mut account, now, &[told("charge.dispute.created", JANUARY, dispute("needs_response"))]);
    assert_eq!(account.credits.debt, 500);
    let mut second = pack(600);
    (second["id"], second["payment_intent"]) = (json!("cs_2"), json!("pi_2"));
    play(&fold, &mut account, now, &[told("checkout.session.completed", JANUARY + 10, second)]);
    assert_eq!((account.credits.debt, account.credits.available_at(fold.context_at(now).now)), (0, 100));
    play(&fold, &mut account, now, &[told("charge.dispute.closed", JANUARY + 20, dispute("won"))]);
    assert_eq!((account.credits.debt, account.credits.available_at(fold.context_at(now).now)), (0, 600));
}

#[test]
fn what_a_hold_gives_back_after_a_renewal_is_kept_as_far_as_the_cap_has_room() {
    let fold = Fold::of_seller(ROLLING_OVER);
    let mut account = account("user_1");
    play(&fold, &mut account, JANUARY + 1, &three_months()[1..2]);
    let mut act = |command: &Command, now: i64| {
        let mut changes = Default::default();
        let mut draft = Draft::new(&mut account, &mut changes);
        decide(&mut draft, command, fold.context_at(now)).expect("granted");
        account.credits.available_at(fold.context_at(now).now)
    };
    let place = |nth: u128, amount: i64| Command::Hold {
        hold: Uuid::from_u128(nth),
        charge: Charge::Amount(amount),
        expires_at: fold.context_at(FEBRUARY + 20 * DAY).now,
    };
    let end = |nth: u128, act: HoldAct| Command::OfHold(OfHold { hold: Uuid::from_u128(nth), ended: None, act });
    let debit = |amount: i64| Command::Debit { debit: Uuid::now_v7(), charge: Charge::Amount(amount) };
    for nth in 1..=3 {
        act(&place(nth, 30), FEBRUARY - DAY);
    }
    act(&fold.command(&three_months()[2]), FEBRUARY + 1);
    // 10 of January were free, and rolled over; so 20 more may.
    assert_eq!(act(&debit(10), FEBRUARY + 2), 100);
    assert_eq!(act(&end(1, HoldAct::Release), FEBRUARY + 3), 120);
    assert_eq!(act(&debit(20), FEBRUARY + 4), 100);
    assert_eq!(act(&end(2, HoldAct::Release), FEBRUARY + 5), 100, "the cap of 30 has no room left");
    // What was set aside may be spent all the same.
    assert_eq!(act(&end(3, HoldAct::Capture(Used::Amount(25))), FEBRUARY + 6), 100);
}

#[test]
fn what_a_refund_of_spent_credits_costs_does_not_depend_on_whether_the_end_was_heard_of() {
    let fold = Fold::of_seller(ROLLING_OVER);
    let price = json!({"id": "price_small"});
    let now = JANUARY + 90;
    let bought = [
        told("customer.subscription.created", JANUARY, subscription(price.clone(), JANUARY, FEBRUARY, "active")),
        told("invoice.paid", JANUARY, invoice("in_1", "price_small", JANUARY, FEBRUARY)),
        told("payment_intent.succeeded", JANUARY, intent("pi_in_1", 2900)),
    ];
    let mut ended = subscription(price, JANUARY, FEBRUARY, "canceled");
    ended["ended_at"] = json!(JANUARY + 60);
    let ended = told("customer.subscription.deleted", JANUARY + 60, ended);
    let whole = json!({"payment_intent": "pi_in_1", "amount": 2900});
    let refunded = told("refund.created", JANUARY + 60, refund("re_1", whole));
    let debt_after = |events: [&Value; 2]| {
        let mut account = account("user_1");
        play(&fold, &mut account, JANUARY + 30, &bought);
        debit(&fold, &mut account, 40, JANUARY + 30);
        play(&fold, &mut account, now, &events.map(Clone::clone));
        account.credits.debt
    };
    assert_eq!(debt_after([&refunded, &ended]), 40, "the plan that granted them makes them a debt");
    assert_eq!(debt_after([&ended, &refunded]), 40);
}

#[test]
fn two_streams_that_become_one_have_one_free_month() {
    let fold = Fold::new();
    let now = JANUARY + 60;
    let [from, into] = ["cus_1", "user_1"].map(|id| AccountId::new(id).expect("valid"));
    let mut accounts = BTreeMap::new();
    for (id, spent) in [(&from, 3), (&into, 2)] {
        let mut account = Account::new(id.clone());
        let open = Command::Open { stripe_customer_id: None };
        fold.apply(&mut account, &open, fold.context_at(JANUARY));
        debit(&fold, &mut account, spent, JANUARY + 30);
        accounts.insert(id.clone(), account);
    }
    merge(&fold, &mut accounts, &from, &into, fold.context_at(now));
    let account = accounts.remove(&into).expect("there");
    assert_eq!(account.credits.available_at(fold.context_at(now).now), 5, "ten a month, and five are spent");
}
