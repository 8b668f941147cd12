//! Dunning is a function of the facts, the plan and the clock: which stage it is, and what may be done in it.

use serde_json::{Value, json};
use subledger::domain::account::{Account, Changes};
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, Grant, decide};
use subledger::domain::credit::LotSource;
use subledger::domain::draft::Draft;
use subledger::domain::dunning::Stage::{self, InGrace, Restricted, Suspended};
use subledger::domain::rejection::Rejection;
use subledger::domain::standing::{AccountState, Entitlement, Reason, check};
use uuid::Uuid;

use crate::fold::{Fold, account, difference};
use crate::subscription::{DAY, JANUARY};
use crate::support::shuffle::each_permutation;

const SELLER: &str = r#"
[features.models]
name = "Models"
kind = "list"
[features.export]
name = "Export"
kind = "boolean"
[features.render]
name = "Render"
kind = "metered"
credit_cost = 1
[plans.free]
name = "Free"
default = true
rank = 0
credits = 10
features = { render = true }
[plans.kept]
name = "Keeps some features"
rank = 1
credits = 100
grace_days = 3
overage = { limit = 50 }
dunning = { restricted_features = ["models", "render"], suspend_after_days = 10 }
features = { models = ["a"], export = true, render = true }
prices.monthly = { stripe_price_id = "price_kept", currency = "usd", unit_amount = 1000, interval = "month" }
[plans.plain]
name = "Falls back to the default plan"
rank = 2
credits = 100
grace_days = 3
features = { models = ["a"], export = true, render = true }
prices.monthly = { stripe_price_id = "price_plain", currency = "usd", unit_amount = 2000, interval = "month" }
[plans.harsh]
name = "Suspends at once"
rank = 3
credits = 100
dunning = { suspend_after_days = 1 }
features = { export = true, render = true }
prices.monthly = { stripe_price_id = "price_harsh", currency = "usd", unit_amount = 3000, interval = "month" }
[plans.sudden]
name = "Suspends when the grace is over"
rank = 4
credits = 100
grace_days = 2
dunning = { suspend_after_days = 2 }
features = { export = true, render = true }
prices.monthly = { stripe_price_id = "price_sudden", currency = "usd", unit_amount = 4000, interval = "month" }
"#;

const FAILED: i64 = JANUARY + 31 * DAY;

fn body(id: &str, event_type: &str, at: i64, object: Value) -> Value {
    json!({"id": id, "type": event_type, "created": at, "data": {"object": object}})
}

fn subscription(name: &str, price: &str, status: &str) -> Value {
    json!({"object": "subscription", "id": format!("sub_{name}"), "customer": "cus_1", "status": status, "created": JANUARY,
        "current_period_start": JANUARY, "current_period_end": FAILED + 31 * DAY,
        "items": {"data": [{"id": format!("si_{name}"), "price": {"id": price}, "quantity": 1}]}})
}

fn invoice(name: &str, number: u8, at: i64, status: &str) -> Value {
    let paid = if status == "paid" { 1000 } else { 0 };
    json!({"object": "invoice", "id": format!("in_{name}_{number}"), "customer": "cus_1", "currency": "usd", "status": status,
        "subscription": format!("sub_{name}"), "billing_reason": "subscription_cycle", "created": at, "subtotal": 1000,
        "total": 1000, "amount_due": 1000, "amount_paid": paid, "attempt_count": 1, "lines": {"data": [{
            "id": format!("il_{name}_{number}"), "amount": 1000, "subscription": format!("sub_{name}"),
            "subscription_item": format!("si_{name}"), "price": {"id": "price_x"}, "quantity": 1, "proration": false,
            "period": {"start": at, "end": at + 31 * DAY}}]}})
}

/// A subscription that was paid for once, and whose second payment fails.
fn overdue(name: &str, price: &str) -> Vec<Value> {
    vec![
        body(&format!("evt_{name}_1"), "customer.subscription.created", JANUARY, subscription(name, price, "active")),
        body(&format!("evt_{name}_2"), "invoice.paid", JANUARY, invoice(name, 1, JANUARY, "paid")),
        body(&format!("evt_{name}_3"), "invoice.payment_failed", FAILED, invoice(name, 2, FAILED, "open")),
        body(&format!("evt_{name}_4"), "customer.subscription.updated", FAILED, subscription(name, price, "past_due")),
    ]
}

fn made_good(name: &str, price: &str, at: i64) -> Vec<Value> {
    vec![
        body(&format!("evt_{name}_5"), "invoice.paid", at, invoice(name, 2, FAILED, "paid")),
        body(&format!("evt_{name}_6"), "customer.subscription.updated", at, subscription(name, price, "active")),
    ]
}

fn told(fold: &Fold, bodies: &[Value], at: i64) -> Account {
    let mut account = account("user_1");
    for body in bodies {
        fold.apply(&mut account, &fold.command(body), fold.context_at(at));
    }
    account
}

fn checked<'a>(fold: &'a Fold, account: &'a Account, feature: &'a str, at: i64) -> Entitlement<'a> {
    let context = fold.context_at(at);
    check(&account.credits, &fold.catalog, feature, 1, context.now)
}

/// Seconds since the payment failed, then: state, stage and the next one, and what export and models may do.
type Row = (i64, AccountState, Option<(Stage, Option<(Stage, i64)>)>, (bool, Reason), (bool, Reason));

fn assert_rows(price: &str, rows: &[Row]) {
    let fold = Fold::of_seller(SELLER);
    let account = told(&fold, &overdue("1", price), FAILED);
    for (seconds, state, stage, export, models) in rows {
        let at = FAILED + seconds;
        let (exports, modelled) = (checked(&fold, &account, "export", at), checked(&fold, &account, "models", at));
        assert_eq!(exports.state, *state, "{price} after {seconds} s");
        assert_eq!((exports.allowed, exports.reason), *export, "export on {price} after {seconds} s");
        assert_eq!((modelled.allowed, modelled.reason), *models, "models on {price} after {seconds} s");
        let seen = exports.dunning.map(|overdue| {
            assert_eq!(overdue.since.timestamp(), FAILED);
            (overdue.stage, overdue.next_stage.zip(overdue.next_stage_at.map(|at| at.timestamp() - FAILED)))
        });
        assert_eq!(seen, *stage, "{price} after {seconds} s");
    }
}

#[test]
fn features_that_the_plan_keeps_go_on_until_the_account_is_suspended() {
    let (grace, end) = (3 * DAY, 10 * DAY);
    let (is_in_grace, is_overdue) = ((true, Reason::InGrace), (false, Reason::PaymentOverdue));
    let (kept, stopped) = ((true, Reason::Restricted), (false, Reason::SuspendedUnpaid));
    let (in_grace, restricted) = ((InGrace, Some((Restricted, grace))), (Restricted, Some((Suspended, end))));
    assert_rows(
        "price_kept",
        &[
            (0, AccountState::InGrace, Some(in_grace), is_in_grace, is_in_grace),
            (grace - 1, AccountState::InGrace, Some(in_grace), is_in_grace, is_in_grace),
            (grace, AccountState::Restricted, Some(restricted), is_overdue, kept),
            (end - 1, AccountState::Restricted, Some(restricted), is_overdue, kept),
            (end, AccountState::Suspended, Some((Suspended, None)), stopped, stopped),
            (400 * DAY, AccountState::Suspended, Some((Suspended, None)), stopped, stopped),
        ],
    );
}

#[test]
fn a_plan_that_names_no_features_gives_way_to_the_default_plan_for_as_long_as_it_takes() {
    let overdue = (false, Reason::PaymentOverdue);
    assert_rows(
        "price_plain",
        &[
            (3 * DAY, AccountState::Restricted, Some((Restricted, None)), overdue, overdue),
            (400 * DAY, AccountState::Restricted, Some((Restricted, None)), overdue, overdue),
        ],
    );
    let fold = Fold::of_seller(SELLER);
    let account = told(&fold, &overdue_plain(), FAILED);
    assert_eq!(checked(&fold, &account, "render", FAILED + 3 * DAY).plan, Some("free"));
}

fn overdue_plain() -> Vec<Value> {
    overdue("1", "price_plain")
}

#[test]
fn a_stage_may_be_left_out() {
    let (in_grace, unknown) = ((true, Reason::InGrace), (false, Reason::NotInPlan));
    let (overdue, stopped) = ((false, Reason::PaymentOverdue), (false, Reason::SuspendedUnpaid));
    let soon = Some((Restricted, Some((Suspended, DAY))));
    assert_rows(
        "price_harsh",
        &[
            (0, AccountState::Restricted, soon, overdue, unknown),
            (DAY, AccountState::Suspended, Some((Suspended, None)), stopped, stopped),
        ],
    );
    assert_rows(
        "price_sudden",
        &[
            (2 * DAY - 1, AccountState::InGrace, Some((InGrace, Some((Suspended, 2 * DAY)))), in_grace, unknown),
            (2 * DAY, AccountState::Suspended, Some((Suspended, None)), stopped, stopped),
        ],
    );
}

#[test]
fn stripe_giving_up_ends_the_grace() {
    let fold = Fold::of_seller(SELLER);
    let mut bodies = overdue("1", "price_kept");
    bodies.push(body("evt_5", "customer.subscription.updated", FAILED + 1, subscription("1", "price_kept", "unpaid")));
    let account = told(&fold, &bodies, FAILED);
    let verdict = |at| checked(&fold, &account, "export", at).reason;
    assert_eq!([FAILED, FAILED + DAY].map(verdict), [Reason::PaymentOverdue; 2]);
    assert_eq!(verdict(FAILED + 10 * DAY), Reason::SuspendedUnpaid);
}

#[test]
fn a_debit_is_refused_as_a_check_says() {
    let fold = Fold::of_seller(SELLER);
    let charge = Charge::Feature { feature: "render".to_owned(), quantity: 1 };
    let refusal = |price: &str, charge: &Charge, at: i64| {
        let mut account = told(&fold, &overdue("1", price), FAILED);
        let grant = Grant {
            grant: Uuid::from_u128(2),
            amount: 5,
            source: LotSource::Manual,
            priority: 20,
            effective_at: None,
            expires_at: None,
            reason: None,
        };
        fold.apply(&mut account, &Command::Grant(grant), fold.context_at(FAILED));
        let mut changes = Changes::default();
        let mut draft = Draft::new(&mut account, &mut changes);
        let debit = Command::Debit { debit: Uuid::from_u128(1), charge: charge.clone() };
        decide(&mut draft, &debit, fold.context_at(at)).err()
    };
    let since = fold.context_at(FAILED).now;
    assert_eq!(refusal("price_kept", &charge, FAILED + 9 * DAY), None);
    for charge in [charge.clone(), Charge::Amount(1)] {
        let suspended = refusal("price_kept", &charge, FAILED + 10 * DAY);
        assert_eq!(suspended, Some(Rejection::SuspendedUnpaid { since }));
    }
    let harsh = refusal("price_harsh", &Charge::Feature { feature: "render".to_owned(), quantity: 1 }, FAILED);
    assert_eq!(harsh, None, "the default plan has it");
    let beyond = |at| refusal("price_kept", &Charge::Amount(40), at);
    assert_eq!(beyond(FAILED + DAY), None, "the plan lets it go into debt");
    assert!(matches!(beyond(FAILED + 3 * DAY), Some(Rejection::InsufficientCredits { .. })));
}

#[test]
fn what_is_paid_for_comes_before_what_is_overdue_and_that_before_what_is_suspended() {
    let fold = Fold::of_seller(SELLER);
    let mut bodies = overdue("1", "price_kept");
    bodies.extend(overdue("2", "price_sudden"));
    let account = told(&fold, &bodies, FAILED);
    let decided = |account: &Account, at| {
        let answer = checked(&fold, account, "models", at);
        (answer.plan.unwrap_or_default().to_owned(), answer.state)
    };
    // While all are in grace, the highest decides.
    assert_eq!(decided(&account, FAILED + DAY), ("sudden".to_owned(), AccountState::InGrace));
    assert_eq!(decided(&account, FAILED + 2 * DAY), ("kept".to_owned(), AccountState::InGrace));
    assert_eq!(decided(&account, FAILED + 3 * DAY), ("kept".to_owned(), AccountState::Restricted));
    bodies.push(body("evt_7", "customer.subscription.created", FAILED, subscription("3", "price_plain", "active")));
    let account = told(&fold, &bodies, FAILED);
    assert_eq!(decided(&account, FAILED + 5 * DAY), ("plain".to_owned(), AccountState::Active));
}

#[test]
fn payment_restores_at_once_and_every_order_ends_the_same() {
    let fold = Fold::of_seller(SELLER);
    for price in ["price_kept", "price_plain", "price_harsh"] {
        let paid_at = FAILED + 20 * DAY;
        let mut bodies = overdue("1", price);
        let commands: Vec<Command> = bodies.iter().map(|body| fold.command(body)).collect();
        // Late news of the failure counts from when it happened, not from when it was heard of.
        let straight: Vec<usize> = (0..commands.len()).collect();
        let end = fold.end_at(fold.context_at(paid_at), &commands, &straight);
        each_permutation(commands.len(), |order| {
            let got = fold.end_at(fold.context_at(paid_at), &commands, order);
            assert!(got == end, "{price} with {order:?}:\n{}", difference(&got, &end));
        });
        bodies.extend(made_good("1", price, paid_at));
        let commands: Vec<Command> = bodies.iter().map(|body| fold.command(body)).collect();
        each_permutation(commands.len(), |order| {
            let context = fold.context_at(paid_at);
            let credits = fold.end_at(context, &commands, order).credits;
            let answer = check(&credits, &fold.catalog, "export", 1, context.now);
            assert_eq!((answer.allowed, answer.state), (true, AccountState::Active), "{price} with {order:?}");
            assert_eq!((answer.reason, answer.dunning), (Reason::Included, None));
        });
    }
}

#[test]
fn without_any_word_of_a_failed_payment_it_counts_from_when_stripe_first_said_so() {
    let fold = Fold::of_seller(SELLER);
    let state = |number: u8, at: i64, status: &str| {
        let mut shown = subscription("1", "price_kept", status);
        // Each is another snapshot.
        shown["latest_invoice"] = json!(format!("in_{number}"));
        body(&format!("evt_{number}"), "customer.subscription.updated", at, shown)
    };
    // An earlier time was made good. Of this one the notifications come a day apart.
    let bodies = [
        state(1, JANUARY, "past_due"),
        state(2, JANUARY + DAY, "active"),
        state(3, FAILED, "past_due"),
        state(4, FAILED + DAY, "past_due"),
        state(5, FAILED + 2 * DAY, "unpaid"),
    ];
    let commands: Vec<Command> = bodies.iter().map(|body| fold.command(body)).collect();
    let context = fold.context_at(FAILED + 2 * DAY);
    let straight: Vec<usize> = (0..commands.len()).collect();
    let end = fold.end_at(context, &commands, &straight);
    assert_eq!(end.credits.access[0].past_due_since, Some(FAILED));
    each_permutation(commands.len(), |order| {
        let got = fold.end_at(context, &commands, order);
        assert!(got == end, "{order:?}:\n{}", difference(&got, &end));
    });
    // A failure that is told of later, and was later, changes nothing; one that was earlier does.
    for (at, since) in [(FAILED + DAY, FAILED), (FAILED - DAY, FAILED - DAY)] {
        let mut told_of_all = bodies.to_vec();
        told_of_all.push(body("evt_6", "invoice.payment_failed", at, invoice("1", 2, at, "open")));
        let account = told(&fold, &told_of_all, FAILED + 2 * DAY);
        assert_eq!(account.credits.access[0].past_due_since, Some(since));
    }
}

/// A change of a subscription that was paid for, whose payment fails. Until it is paid Stripe keeps the subscription as it
/// was, or else calls it past due by itself.
fn declined_change(price: &str, status: &str) -> Vec<Value> {
    let mut shown = subscription("1", price, status);
    shown["latest_invoice"] = json!("in_1_2");
    if status == "active" {
        shown["pending_update"] = json!({"expires_at": FAILED + DAY, "subscription_items": [
            {"id": "si_1", "price": {"id": "price_sudden"}, "quantity": 1}]});
    }
    let mut bill = invoice("1", 2, FAILED, "open");
    bill["billing_reason"] = json!("subscription_update");
    let mut bodies = overdue("1", price);
    bodies.truncate(2);
    bodies.extend([
        body("evt_3", "customer.subscription.updated", FAILED, shown),
        body("evt_4", "invoice.payment_failed", FAILED, bill.clone()),
        body("evt_5", "invoice.payment_action_required", FAILED, bill),
    ]);
    bodies
}

#[test]
fn a_change_whose_payment_fails_changes_nothing_unless_stripe_says_so() {
    let fold = Fold::of_seller(SELLER);
    let context = fold.context_at(FAILED + DAY);
    for price in ["price_kept", "price_plain", "price_harsh"] {
        for (status, since) in [("active", None), ("past_due", Some(FAILED))] {
            let commands: Vec<Command> = declined_change(price, status).iter().map(|body| fold.command(body)).collect();
            let straight: Vec<usize> = (0..commands.len()).collect();
            let end = fold.end_at(context, &commands, &straight);
            assert_eq!(end.credits.access[0].past_due_since, since, "{price}, {status}");
            let answer = check(&end.credits, &fold.catalog, "export", 1, context.now);
            assert_eq!(answer.state == AccountState::Active, since.is_none(), "{price}, {status}");
            each_permutation(commands.len(), |order| {
                let got = fold.end_at(context, &commands, order);
                assert!(got == end, "{price}, {status} with {order:?}:\n{}", difference(&got, &end));
            });
        }
    }
}

/// A renewal that fails while a change waits for its payment is overdue, also before Stripe's word of the subscription.
#[test]
fn a_renewal_that_fails_beside_a_declined_change_counts() {
    let fold = Fold::of_seller(SELLER);
    let mut bodies = declined_change("price_kept", "active");
    let failed = FAILED + DAY;
    bodies.push(body("evt_6", "invoice.payment_failed", failed, invoice("1", 3, failed, "open")));
    let account = told(&fold, &bodies, failed);
    assert_eq!(account.credits.access[0].past_due_since, Some(failed));
}
