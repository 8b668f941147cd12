//! Plan changes within a period: told as Stripe's invoices tell them, they end the same in any order, and no way up, down
//! and up again mints a credit.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use subledger::domain::account::Account;
use subledger::domain::charge::Charge;
use subledger::domain::command::Command;
use subledger::domain::credit::{Lot, LotSource};
use subledger::domain::settle::credits_at;
use uuid::Uuid;

use crate::fold::{End, Fold, account, difference};
use crate::subscription::{BIG, DAY, Deal, JANUARY, MIDDLE, SELLER, SMALL, Stripe, available, deal, months_later};
use crate::support::shuffle::delivery_order;

pub fn available_at(fold: &Fold, stripe: &Stripe, now: i64) -> i64 {
    stripe.in_any_order(fold, now).credits.available_at(fold.context_at(now).now)
}

fn debit(fold: &Fold, account: &mut Account, amount: i64, now: i64) {
    let debit = Command::Debit { debit: Uuid::from_u128(7), charge: Charge::Amount(amount) };
    fold.apply(account, &debit, fold.context_at(now));
}

fn lots(end: &End) -> impl Iterator<Item = &Lot> {
    end.credits.lots.iter().chain(end.billing.closed_lots.values()).filter(|lot| lot.source == LotSource::Plan)
}

/// The middle of January, to the second.
pub const MIDDLE_OF_JANUARY: i64 = JANUARY + 31 * DAY / 2;

#[test]
fn an_upgrade_adds_what_the_plans_policy_says_and_the_next_period_is_whole() {
    for (policy, in_january) in [("prorated", 100 + 200), ("full", 100 + 400), ("none", 100)] {
        let seller = SELLER.replace(
            "credits = 500\nplan_change = \"prorated\"",
            &format!("credits = 500\nplan_change = \"{policy}\""),
        );
        let fold = Fold::of_seller(&seller);
        let mut stripe = Stripe::subscribe(SMALL, JANUARY);
        stripe.change(MIDDLE, MIDDLE_OF_JANUARY, true);
        assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), in_january, "{policy}");
        stripe.pass(JANUARY + 31 * DAY);
        assert_eq!(available_at(&fold, &stripe, JANUARY + 31 * DAY), 500, "{policy}");
    }
}

#[test]
fn up_down_and_up_again_grants_once_and_a_higher_plan_only_what_it_has_more() {
    let fold = Fold::of_seller(SELLER);
    for policy in ["prorated", "full"] {
        let seller = SELLER.replace("plan_change = \"prorated\"", &format!("plan_change = \"{policy}\""));
        let fold = Fold::of_seller(&seller);
        let mut stripe = Stripe::subscribe(SMALL, JANUARY);
        for to in [MIDDLE, SMALL, MIDDLE] {
            stripe.change(to, MIDDLE_OF_JANUARY, true);
        }
        let upgraded = if policy == "full" { 400 } else { 200 };
        assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), 100 + upgraded, "{policy}");
    }
    let mut stripe = Stripe::subscribe(SMALL, JANUARY);
    for to in [MIDDLE, SMALL, BIG] {
        stripe.change(to, MIDDLE_OF_JANUARY, true);
    }
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), 100 + 950);
}

#[test]
fn a_round_trip_through_plans_of_different_policies_gains_nothing() {
    let seller = SELLER.replace("credits = 500\nplan_change = \"prorated\"", "credits = 500\nplan_change = \"full\"");
    let fold = Fold::of_seller(&seller);
    let once = |rounds: usize| {
        let mut stripe = Stripe::subscribe(SMALL, JANUARY);
        for round in 0..rounds {
            for (step, to) in [MIDDLE, BIG, SMALL].into_iter().enumerate() {
                stripe.change(to, MIDDLE_OF_JANUARY + (round * 3 + step) as i64, true);
            }
        }
        available(&fold, &stripe.live(&fold, MIDDLE_OF_JANUARY + 60), MIDDLE_OF_JANUARY + 60)
    };
    assert_eq!(once(1), 100 + 400 + 750);
    assert_eq!(once(4), once(1));
}

#[test]
fn no_way_through_plans_of_different_policies_is_worth_more_than_the_highest_of_them() {
    let seller = SELLER.replace("credits = 2000\nplan_change = \"prorated\"", "credits = 2000\nplan_change = \"full\"");
    assert_ne!(seller, SELLER);
    let fold = Fold::of_seller(&seller);
    let mut stripe = Stripe::subscribe(SMALL, JANUARY);
    stripe.change(MIDDLE, JANUARY + 2 * DAY, true);
    stripe.change(SMALL, JANUARY + 22 * DAY, true);
    stripe.change(BIG, JANUARY + 22 * DAY + 60, true);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 23 * DAY), 2000);
}

#[test]
fn the_order_of_an_invoices_lines_decides_nothing() {
    let seller = SELLER.replace("credits = 500", "credits = 500\nrollover = \"all\"");
    let fold = Fold::of_seller(&seller);
    let ends = [false, true].map(|reversed| {
        let mut stripe = Stripe::subscribe(SMALL, JANUARY);
        stripe.change(MIDDLE, MIDDLE_OF_JANUARY, true);
        for (_, sent) in stripe.sent.iter_mut().filter(|_| reversed) {
            sent["data"]["object"]["lines"]["data"].as_array_mut().expect("lines").reverse();
        }
        available_at(&fold, &stripe, JANUARY + 200 * DAY)
    });
    assert_eq!(ends, [200, 200], "what the upgrade added rolls over as its plan says");
}

#[test]
fn an_interval_that_is_switched_to_and_fro_within_a_second_is_refilled_once() {
    let fold = Fold::of_seller(SELLER);
    for yearly in [&[true, false, true][..], &[true, false, true, false][..]] {
        let mut stripe = Stripe::subscribe(SMALL, JANUARY);
        for to in yearly {
            stripe.change(if *to { SMALL.yearly() } else { SMALL }, JANUARY, true);
        }
        let is_yearly = yearly.last() == Some(&true);
        let now = JANUARY + 40 * DAY;
        assert_eq!(available_at(&fold, &stripe, now), if is_yearly { 100 } else { 0 }, "{yearly:?}");
    }
}

#[test]
fn seats_up_down_and_up_again_grant_once() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe(deal(1, 2), JANUARY);
    for seats in [5, 2, 5] {
        stripe.change(deal(1, seats), MIDDLE_OF_JANUARY, true);
    }
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), 1000 + 750);
}

#[test]
fn a_downgrade_takes_nothing_and_the_next_period_is_the_lower_plans() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe(MIDDLE, JANUARY);
    stripe.change(SMALL, MIDDLE_OF_JANUARY, true);
    let end = stripe.in_any_order(&fold, MIDDLE_OF_JANUARY + 1);
    assert_eq!(end.credits.available_at(fold.context_at(MIDDLE_OF_JANUARY + 1).now), 500);
    assert!(lots(&end).all(|lot| lot.claimed_back == 0));
    stripe.pass(JANUARY + 31 * DAY);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 31 * DAY), 100);

    // At the period's end there is no proration at all: the next invoice is for the lower plan.
    let mut stripe = Stripe::subscribe(MIDDLE, JANUARY);
    stripe.deal = SMALL;
    assert_eq!(available_at(&fold, &stripe, JANUARY + 31 * DAY - 1), 500);
    stripe.pass(JANUARY + 31 * DAY);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 31 * DAY), 100);
}

#[test]
fn a_downgrade_that_is_heard_of_late_takes_back_what_has_not_been_spent() {
    let fold = Fold::of_seller(SELLER);
    let now = MIDDLE_OF_JANUARY + 60;
    let mut stripe = Stripe::subscribe(SMALL, JANUARY);
    for (step, to) in [MIDDLE, SMALL, MIDDLE].into_iter().enumerate() {
        stripe.change(to, MIDDLE_OF_JANUARY + step as i64, true);
    }
    let commands = stripe.commands(&fold);
    let after = |spent: i64| {
        let mut account = account("user_1");
        for heard in [0, 1, 3] {
            fold.apply(&mut account, &commands[heard], fold.context_at(now));
        }
        assert_eq!(available(&fold, &account, now), 500, "as if there had been two upgrades");
        debit(&fold, &mut account, spent, now);
        fold.apply(&mut account, &commands[2], fold.context_at(now));
        (available(&fold, &account, now), account.credits.debt)
    };
    assert_eq!(after(100), (200, 0));
    assert_eq!(after(450), (0, 0), "spent is spent, and nothing is owed for it");
}

#[test]
fn a_late_downgrade_owes_nothing_even_where_refunds_make_debts() {
    let fold = Fold::of_seller(&SELLER.replace("rank = 2", "rank = 2\nclawback = \"debt\""));
    let now = MIDDLE_OF_JANUARY + 60;
    let mut stripe = Stripe::subscribe(SMALL, JANUARY);
    for (step, to) in [MIDDLE, SMALL, MIDDLE].into_iter().enumerate() {
        stripe.change(to, MIDDLE_OF_JANUARY + step as i64, true);
    }
    let paid_by = stripe.sent[3].1["data"]["object"]["payment_intent"].clone();
    let paid = stripe.sent[3].1["data"]["object"]["amount_paid"].clone();
    stripe.send(
        now,
        "refund.created",
        json!({"object": "refund", "id": "re_1", "currency": "usd", "amount": paid, "status": "succeeded",
            "payment_intent": paid_by}),
    );
    let commands = stripe.commands(&fold);
    let debts_after = |late: [usize; 2]| {
        let mut account = account("user_1");
        for heard in [0, 1, 3] {
            fold.apply(&mut account, &commands[heard], fold.context_at(now));
        }
        debit(&fold, &mut account, 450, now);
        late.map(|heard| {
            fold.apply(&mut account, &commands[heard], fold.context_at(now));
            account.credits.debt
        })
    };
    assert_eq!(debts_after([4, 2]), [150, 0], "what was refunded was not due at all, as it turns out");
    assert_eq!(debts_after([2, 4]), [0, 0]);
}

#[test]
fn an_upgrade_of_a_yearly_plan_adds_the_rest_of_the_month_and_then_all_of_it_each_month() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe(SMALL.yearly(), JANUARY);
    stripe.change(MIDDLE.yearly(), MIDDLE_OF_JANUARY, true);
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), 100 + 200);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 31 * DAY), 500);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 340 * DAY), 500);
    stripe.change(SMALL.yearly(), JANUARY + 40 * DAY, true);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 41 * DAY), 500, "nothing is taken within the month");
    assert_eq!(available_at(&fold, &stripe, JANUARY + 60 * DAY), 100, "nor granted beyond the plan in the next");
    stripe.change(MIDDLE.yearly(), JANUARY + 41 * DAY, true);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 41 * DAY), 500);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 60 * DAY), 500);
}

#[test]
fn a_downgrade_of_a_yearly_plan_lowers_the_months_that_follow() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe(BIG.yearly(), JANUARY);
    stripe.change(SMALL.yearly(), JANUARY + 40 * DAY, true);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 41 * DAY), 2000);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 60 * DAY), 100);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 364 * DAY), 100);
    stripe.pass(JANUARY + 365 * DAY);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 365 * DAY), 100);
}

#[test]
fn switching_from_monthly_to_yearly_neither_mints_nor_loses() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe(MIDDLE, JANUARY);
    stripe.change(MIDDLE.yearly(), MIDDLE_OF_JANUARY, true);
    // January's 500 until its end; of the new month's 500, half were January's, and were given back.
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), 500 + 250);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 31 * DAY), 250);
    let next_month = months_later(MIDDLE_OF_JANUARY, 1);
    assert_eq!(available_at(&fold, &stripe, next_month), 500);
    assert_eq!(available_at(&fold, &stripe, months_later(MIDDLE_OF_JANUARY, 11)), 500);
    for (minute, to) in [MIDDLE, MIDDLE.yearly(), MIDDLE, MIDDLE.yearly()].into_iter().enumerate() {
        stripe.change(to, MIDDLE_OF_JANUARY + 2 + minute as i64, true);
    }
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 60), 750, "back and forth");
}

#[test]
fn switching_from_yearly_to_monthly_ends_the_years_refills() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe(MIDDLE.yearly(), JANUARY);
    let switched = JANUARY + (31 + 14) * DAY;
    stripe.change(MIDDLE, switched, true);
    assert_eq!(available_at(&fold, &stripe, switched), 500 + 250);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 59 * DAY), 250, "no refill of the year in March");
    stripe.pass(months_later(switched, 1));
    assert_eq!(available_at(&fold, &stripe, months_later(switched, 1)), 500);
    assert_eq!(available_at(&fold, &stripe, JANUARY + 90 * DAY), 500, "nor in April");
}

#[test]
fn the_years_months_that_a_switch_ended_cap_nothing_that_rolls_over() {
    let fold = Fold::of_seller(&SELLER.replace("credits = 500", "credits = 500\nrollover = { cap = 70 }"));
    let mut stripe = Stripe::subscribe(MIDDLE.yearly(), JANUARY);
    stripe.change(MIDDLE, MIDDLE_OF_JANUARY, true);
    let february = JANUARY + 31 * DAY + 1;
    assert_eq!(available(&fold, &stripe.live(&fold, february), february), 500 + 250);
    let renewed = months_later(MIDDLE_OF_JANUARY, 1);
    stripe.pass(renewed);
    assert_eq!(available(&fold, &stripe.live(&fold, renewed), renewed), 500 + 70);
}

#[test]
fn a_new_period_that_begins_early_without_proration_ends_the_old_ones_refills() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe(MIDDLE.yearly(), JANUARY);
    let switched = JANUARY + (31 + 14) * DAY;
    (stripe.deal, stripe.start, stripe.end) = (MIDDLE, switched, months_later(switched, 1));
    let line = stripe.period_line();
    stripe.invoice(switched, "subscription_update", vec![line]);
    assert_eq!(available_at(&fold, &stripe, switched), 1000, "both were paid for");
    assert_eq!(available_at(&fold, &stripe, JANUARY + 59 * DAY), 500);
}

#[test]
fn prorations_that_wait_for_the_next_invoice_count_from_then_for_as_long_as_they_were_of() {
    let next = JANUARY + 31 * DAY;
    let mut stripe = Stripe::subscribe(SMALL, JANUARY);
    stripe.change(MIDDLE, MIDDLE_OF_JANUARY, false);
    stripe.pass(next);
    let fold = Fold::of_seller(SELLER);
    assert_eq!(available_at(&fold, &stripe, next + 1), 500 + 200, "January's share was paid for");
    assert_eq!(available_at(&fold, &stripe, next + 31 * DAY / 2 - 1), 500 + 200);
    assert_eq!(available_at(&fold, &stripe, next + 31 * DAY / 2), 500, "half of January was left");
    let rolling = SELLER.replace("credits = 500", "credits = 500\nrollover = \"all\"");
    assert_eq!(available_at(&Fold::of_seller(&rolling), &stripe, next + 31 * DAY / 2), 500 + 200);

    let mut stripe = Stripe::subscribe(SMALL, JANUARY);
    for to in [MIDDLE, SMALL, MIDDLE] {
        stripe.change(to, MIDDLE_OF_JANUARY, false);
    }
    stripe.pass(next);
    assert_eq!(available_at(&Fold::of_seller(&rolling), &stripe, next + 1), 500 + 200);
}

#[test]
fn the_months_of_a_year_from_the_31st_stay_at_the_months_ends() {
    let fold = Fold::of_seller(SELLER);
    let start = JANUARY + 30 * DAY;
    let stripe = Stripe::subscribe(MIDDLE.yearly(), start);
    let mut account = stripe.live(&fold, start);
    for months in 1..12 {
        let begins = months_later(start, months);
        debit(&fold, &mut account, if months == 1 { 500 } else { 499 }, begins - 1);
        assert_eq!(available(&fold, &account, begins - 1), 0);
        debit(&fold, &mut account, 1, begins);
        assert_eq!(available(&fold, &account, begins), 499, "month {months}");
    }
    debit(&fold, &mut account, 499, months_later(start, 12) - 1);
    fold.apply(&mut account, &Command::Settle, fold.context_at(months_later(start, 12)));
    assert_eq!(available(&fold, &account, months_later(start, 12)), 0, "twelve, and no more");
}

#[test]
fn an_end_that_is_heard_of_late_leaves_what_it_would_have_left_in_time() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe(MIDDLE.yearly(), JANUARY);
    stripe.change(BIG.yearly(), JANUARY + 5 * DAY, true);
    stripe.tell_status(JANUARY + 10 * DAY, "canceled");
    let end = stripe.in_any_order(&fold, JANUARY + 35 * DAY);
    assert!(lots(&end).all(|lot| !lot.cause.contains('#')), "February never came");

    let mut stripe = Stripe::subscribe(SMALL, JANUARY);
    for (second, to) in [MIDDLE, SMALL, MIDDLE].into_iter().enumerate() {
        stripe.change(to, MIDDLE_OF_JANUARY + second as i64, true);
    }
    stripe.tell_status(MIDDLE_OF_JANUARY + 2, "canceled");
    let end = stripe.in_any_order(&fold, MIDDLE_OF_JANUARY + 3);
    assert_eq!(lots(&end).map(|lot| lot.granted - lot.claimed_back).sum::<i64>(), 100 + 200);
}

#[test]
fn a_switch_that_replaces_the_item_is_one_too() {
    let fold = Fold::of_seller(SELLER);
    let mut stripe = Stripe::subscribe(MIDDLE, JANUARY);
    stripe.change(MIDDLE.yearly(), MIDDLE_OF_JANUARY, true);
    let lines = &mut stripe.sent[1].1["data"]["object"]["lines"]["data"];
    lines[1]["subscription_item"] = json!("si_2");
    assert_eq!(available_at(&fold, &stripe, MIDDLE_OF_JANUARY + 1), 500 + 250);
}

#[test]
fn the_free_plans_months_from_the_31st_stay_at_the_months_ends() {
    let fold = Fold::new();
    let start = JANUARY + 30 * DAY;
    let mut account = account("user_1");
    fold.apply(&mut account, &Command::Open { stripe_customer_id: None }, fold.context_at(start));
    let left = |account: &Account, now: i64| {
        let context = fold.context_at(now);
        credits_at(&account.id, &account.credits, context).available_at(context.now)
    };
    for months in 0..14 {
        let [begins, ends] = [months, months + 1].map(|months| months_later(start, months));
        assert_eq!(left(&account, begins), 10, "month {months}");
        debit(&fold, &mut account, 10, begins);
        assert_eq!(left(&account, ends - 1), 0, "month {months}");
    }
}

#[test]
fn after_weeks_of_downtime_only_the_current_month_is_granted_unless_credits_roll_over() {
    let stripe = Stripe::subscribe(MIDDLE.yearly(), JANUARY);
    for (rollover, expected) in [("\"none\"", 500), ("\"all\"", 6 * 500), ("{ cap = 70 }", 570)] {
        let seller = SELLER.replace("credits = 500", &format!("credits = 500\nrollover = {rollover}"));
        let fold = Fold::of_seller(&seller);
        let now = months_later(JANUARY, 5) + DAY;
        assert_eq!(available_at(&fold, &stripe, now), expected, "{rollover}");
    }
}

/// A step of a story: how long after the one before it, and what the customer does.
#[derive(Debug, Clone)]
enum Step {
    /// To what, with how many add-ons, and whether it is billed at once.
    Change(Deal, i64, bool),
    Cancel,
}

/// Of an add-on that no plan names.
fn any_add_ons() -> impl Strategy<Value = i64> {
    prop_oneof![2 => Just(0i64), 1 => 1..3i64]
}

fn any_step() -> impl Strategy<Value = (i64, Step)> {
    let any_deal = (0..3usize, 1..4i64, prop::bool::weighted(0.3));
    let change =
        (any_deal, any_add_ons(), prop::bool::weighted(0.8)).prop_map(|((plan, seats, yearly), add_ons, at_once)| {
            Step::Change(Deal { plan, seats, yearly }, add_ons, at_once)
        });
    let wait = prop_oneof![Just(0i64), 1..4 * DAY, 1..40 * DAY];
    (wait, prop_oneof![12 => change, 1 => Just(Step::Cancel)])
}

fn any_policies() -> impl Strategy<Value = [&'static str; 3]> {
    let policy = || prop_oneof![3 => Just("prorated"), 1 => Just("full"), 1 => Just("none")];
    prop_oneof![Just(["prorated"; 3]), [policy(), policy(), policy()]]
}

/// Each plan with its policy and rollover.
pub fn seller_of(policies: [&str; 3], rollovers: [&str; 3]) -> String {
    let mut parts = SELLER.split("plan_change = \"prorated\"");
    let mut seller = parts.next().unwrap_or_default().to_owned();
    for ((policy, rollover), part) in policies.into_iter().zip(rollovers).zip(parts) {
        seller.push_str(&format!("plan_change = \"{policy}\"\nrollover = {rollover}{part}"));
    }
    seller
}

fn any_rollovers() -> impl Strategy<Value = [&'static str; 3]> {
    let rollover = || prop_oneof![Just("\"none\""), Just("\"all\""), Just("{ cap = 150 }")];
    prop_oneof![2 => Just(["\"none\""; 3]), 1 => Just(["\"all\""; 3]), 3 => [rollover(), rollover(), rollover()]]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn any_story_of_changes_ends_the_same_in_any_order_and_mints_nothing(
        first in (0..3usize, 1..4i64, any::<bool>(), any_add_ons()),
        steps in prop::collection::vec(any_step(), 1..9),
        policies in any_policies(),
        rollovers in any_rollovers(),
        after in prop_oneof![0..3i64, 0..50 * DAY],
        seed in any::<u64>(),
    ) {
        let fold = Fold::of_seller(&seller_of(policies, rollovers));
        let (plan, seats, yearly, add_ons) = first;
        let mut stripe = Stripe::subscribe_with(Deal { plan, seats, yearly }, add_ons, JANUARY);
        let mut at = JANUARY;
        for (wait, step) in &steps {
            at += wait;
            match step {
                Step::Change(to, add_ons, at_once) => stripe.change_with(*to, *add_ons, at, *at_once),
                Step::Cancel => {
                    stripe.pass(at);
                    stripe.tell_status(at, "canceled");
                    break;
                }
            }
        }
        let now = at + after;
        let commands = stripe.commands(&fold);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let end = fold.end_at(fold.context_at(now), &commands, &straight);
        for round in 0..6 {
            let order = delivery_order(commands.len(), seed.wrapping_add(round));
            let got = fold.end_at(fold.context_at(now), &commands, &order);
            prop_assert!(got == end, "with {order:?}:\n{}", difference(&got, &end));
        }
        let live = stripe.live(&fold, now);
        prop_assert_eq!(available(&fold, &live, now), end.credits.available_at(fold.context_at(now).now));

        // What changes granted: their own lots, and the first lots of periods that began early.
        let early: BTreeMap<&str, bool> = invoices_with_refunds(&stripe);
        let of_changes = lots(&end).filter(|lot| {
            let first_window = !lot.cause.contains('#');
            let switched = lot.bought_by.as_deref().is_some_and(|invoice| early.get(invoice).is_some_and(|early| *early));
            first_window && (lot.cause.contains("/prorations/") || switched)
        });
        let granted: i64 = of_changes.map(|lot| lot.granted - lot.claimed_back).sum();
        let is_prorated = policies == ["prorated"; 3];
        let (billed, most) = (stripe.pending.is_empty(), stripe.reference.most());
        // A cent that Stripe rounds may be worth a sixth of a credit.
        let slack = 1.0 + stripe.sent.len() as f64;
        if is_prorated && billed {
            prop_assert!(granted as f64 <= most + slack, "{granted} > {most}");
            prop_assert!(granted as f64 >= most - slack, "{granted} < {most}");
        }
        if policies == ["none"; 3] {
            prop_assert!(lots(&end).all(|lot| !lot.cause.contains("/prorations/") || lot.cause.contains('#')));
        }
    }
}

/// Which invoices begin a period early.
fn invoices_with_refunds(stripe: &Stripe) -> BTreeMap<&str, bool> {
    let invoices =
        stripe.sent.iter().map(|(_, body)| &body["data"]["object"]).filter(|object| object["object"] == "invoice");
    let early = invoices.map(|invoice| {
        let lines = invoice["lines"]["data"].as_array().expect("lines");
        let begins =
            lines.iter().filter(|line| line["proration"] == false).filter_map(|line| line["period"]["start"].as_i64());
        let begins = begins.min();
        let given_back = lines.iter().any(|line| {
            let end = line["period"]["end"].as_i64();
            line["proration"] == true && line["amount"].as_i64() < Some(0) && begins.is_some() && end > begins
        });
        (invoice["id"].as_str().expect("an id"), given_back)
    });
    early.collect()
}
