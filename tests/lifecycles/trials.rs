//! Trials, whether a subscription begins with one or it is set later: a line that costs nothing grants what the plan says of
//! trials.

use serde_json::{Value, json};

use crate::fold::Fold;
use crate::plan_changes::{MIDDLE_OF_JANUARY, available_at};
use crate::subscription::{DAY, JANUARY, MIDDLE, SELLER, Stripe, months_later};

const FEBRUARY: i64 = JANUARY + 31 * DAY;
const TRIAL_END: i64 = FEBRUARY + 19 * DAY;

fn with_trial(credits: &str) -> Fold {
    Fold::of_seller(
        &SELLER.replace("credits = 500", &format!("credits = 500\ntrial = {{ days = 14, credits = {credits} }}")),
    )
}

/// A trial is set on a subscription that is paid for, with or without giving the rest of its period back; and it is charged
/// for when that is over.
fn trial_within_a_period(gives_back: bool) -> Stripe {
    let mut stripe = Stripe::subscribe(MIDDLE, JANUARY);
    let mut lines: Vec<Value> = Vec::new();
    if gives_back {
        lines.push(stripe.prorated(MIDDLE, -1, MIDDLE_OF_JANUARY));
    }
    lines.push(stripe.line(MIDDLE, 0, (MIDDLE_OF_JANUARY, TRIAL_END), false));
    stripe.invoice(MIDDLE_OF_JANUARY, "subscription_update", lines);
    (stripe.start, stripe.end) = (MIDDLE_OF_JANUARY, TRIAL_END);
    stripe
}

#[test]
fn a_trial_that_is_set_on_a_running_subscription_grants_what_the_plan_says_of_trials() {
    for (credits, in_january, in_february) in [("\"none\"", 500, 0), ("50", 500 + 50, 50), ("\"full\"", 500 + 500, 500)]
    {
        let fold = with_trial(credits);
        let mut stripe = trial_within_a_period(false);
        assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), in_january, "{credits}");
        assert_eq!(available_at(&fold, &stripe, FEBRUARY), in_february, "{credits}");
        stripe.pass(TRIAL_END);
        assert_eq!(available_at(&fold, &stripe, TRIAL_END), 500, "{credits}");
    }
}

#[test]
fn a_trial_that_gives_the_rest_of_a_period_back_grants_only_what_is_more() {
    for (credits, in_january, in_february) in
        [("\"none\"", 500, 0), ("50", 500, 0), ("300", 500 + 50, 50), ("\"full\"", 500 + 250, 250)]
    {
        let fold = with_trial(credits);
        let stripe = trial_within_a_period(true);
        assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), in_january, "{credits}");
        assert_eq!(available_at(&fold, &stripe, FEBRUARY), in_february, "{credits}");
    }
}

#[test]
fn a_first_trial_beside_something_that_is_paid_for_is_a_trial() {
    let mut stripe = Stripe::subscribe(MIDDLE, JANUARY);
    let invoice = &mut stripe.sent[0].1["data"]["object"];
    invoice["lines"]["data"][0]["amount"] = json!(0);
    let fee = json!({"id": "il_fee", "amount": 3000, "price": {"id": "price_fee"}, "quantity": 1, "proration": false,
        "period": {"start": JANUARY, "end": JANUARY}});
    invoice["lines"]["data"].as_array_mut().expect("lines").push(fee);
    assert_eq!(available_at(&with_trial("50"), &stripe, JANUARY + 1), 50);
}

#[test]
fn a_price_of_nothing_and_a_discount_of_everything_are_no_trials() {
    let costs_nothing = SELLER
        .replace("credits = 500", "credits = 500\ntrial = { days = 14, credits = \"none\" }")
        .replace("unit_amount = 3000,", "unit_amount = 0,");
    let switched = |amount: i64, total: i64| {
        let mut stripe = Stripe::subscribe(MIDDLE, JANUARY);
        let begins = months_later(JANUARY, 1);
        let line = stripe.line(MIDDLE, amount, (begins, months_later(begins, 1)), false);
        stripe.invoice(begins, "subscription_update", vec![line]);
        for (_, sent) in &mut stripe.sent {
            sent["data"]["object"]["total"] = json!(total);
            sent["data"]["object"]["amount_paid"] = json!(total);
        }
        stripe
    };
    assert_eq!(available_at(&Fold::of_seller(&costs_nothing), &switched(0, 0), FEBRUARY + 1), 500);
    assert_eq!(available_at(&with_trial("\"none\""), &switched(3000, 0), FEBRUARY + 1), 500);
}
