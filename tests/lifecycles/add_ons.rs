//! Items of a subscription that no plan names: they count for nothing, and take nothing from what the plan's own changes give.

use serde_json::json;
use subledger::domain::account::Account;

use crate::fold::Fold;
use crate::plan_changes::{MIDDLE_OF_JANUARY, available_at};
use crate::subscription::{BIG, DAY, JANUARY, MIDDLE, SELLER, SMALL, Stripe, available};

#[test]
fn an_add_on_that_no_plan_names_takes_nothing_from_an_upgrade_on_the_same_invoice() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe_with(SMALL, 1, JANUARY);
    stripe.change_with(MIDDLE, 2, MIDDLE_OF_JANUARY, true);
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), 100 + 200);
    // The add-on alone is no change of the plan.
    stripe.change_with(MIDDLE, 5, MIDDLE_OF_JANUARY + 1, true);
    stripe.pass(JANUARY + 31 * DAY);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 31 * DAY), 500);
}

#[test]
fn an_add_on_that_no_plan_names_mints_nothing_where_the_interval_is_switched() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe_with(MIDDLE, 1, JANUARY);
    stripe.change(MIDDLE.yearly(), MIDDLE_OF_JANUARY, true);
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), 500 + 250);
    for (second, to) in [MIDDLE, MIDDLE.yearly()].into_iter().enumerate() {
        stripe.change(to, MIDDLE_OF_JANUARY + 2 + second as i64, true);
    }
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 60), 500 + 250, "back and forth");
}

#[test]
fn a_catalog_that_names_the_add_on_later_grants_no_change_again() {
    let mut stripe = Stripe::subscribe_with(SMALL, 1, JANUARY);
    stripe.change_with(MIDDLE, 2, MIDDLE_OF_JANUARY, true);
    let renewed = JANUARY + 31 * DAY;
    let add_on = r#"
[plans.add_on]
name = "Add-on"
rank = 4
credits = 40
prices.monthly = { stripe_price_id = "price_add_on_month", currency = "usd", unit_amount = 700, interval = "month" }
"#;
    let (before, after) = (Fold::of_seller(SELLER), Fold::of_seller(&format!("{SELLER}{add_on}")));
    let now = MIDDLE_OF_JANUARY + 60;
    let mut account = stripe.live(&before, now);
    assert_eq!(available(&before, &account, now), 100 + 200);
    fold_all(&after, &mut account, &stripe, now + 1);
    // What its whole period is worth waited for a plan to name it. The change has been granted.
    assert_eq!(available(&after, &account, now + 1), 100 + 200 + 40);
    stripe.pass(renewed);
    fold_all(&after, &mut account, &stripe, renewed);
    assert_eq!(available(&after, &account, renewed), 500 + 2 * 40);
}

/// Hears of everything once more.
fn fold_all(fold: &Fold, account: &mut Account, stripe: &Stripe, now: i64) {
    for command in stripe.commands(fold) {
        fold.apply(account, &command, fold.context_at(now));
    }
}

/// Which only the subscription tells: until it is heard of, nobody knows that the invoice gives up a plan and no add-on.
#[test]
fn an_upgrade_waits_for_a_price_that_may_be_known_by_its_lookup_key() {
    let by_key = SELLER.replace("stripe_price_id = \"price_small_month\"", "lookup_key = \"small\"");
    let fold = Fold::of_seller(&by_key);
    let mut stripe = Stripe::subscribe_with(SMALL, 1, JANUARY);
    stripe.send(
        JANUARY,
        "customer.subscription.created",
        json!({"object": "subscription", "id": "sub_1", "customer": "cus_1", "status": "active", "created": JANUARY,
            "current_period_start": JANUARY, "current_period_end": stripe.end,
            "items": {"data": [{"id": "si_1", "price": {"id": "price_small_month", "lookup_key": "small"}, "quantity": 1},
                {"id": "si_add_on", "price": {"id": "price_add_on_month"}, "quantity": 1}]}}),
    );
    stripe.change(MIDDLE, MIDDLE_OF_JANUARY, true);
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), 100 + 200);
    // An add-on has no key that could be heard of: it is waited for as long as Stripe tries, and counts for nothing then.
    stripe.change_with(BIG, 2, MIDDLE_OF_JANUARY + 60, true);
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 3 * DAY - 1), 100 + 200);
    let over = MIDDLE_OF_JANUARY + 60 + 3 * DAY;
    let waiting = stripe.live(&fold, over - 1);
    assert_eq!(available(&fold, &waiting, over - 1), 100 + 200);
    let granted = available(&fold, &stripe.live(&fold, over), over);
    assert_eq!(granted, 100 + 950);
}
