//! Whole lives of customers, in any order of delivery: what the books say is the same, of the present and of every month.

use crate::ledger::{Ledger, assert_conserved};
use crate::support::lifecycle::{self, Lifecycle};
use crate::support::shuffle::delivery_order;

fn told(story: &Lifecycle, order: &[usize], as_of: i64) -> Ledger {
    let mut ledger = Ledger::of_seller(include_str!("../fixtures/seller.toml"));
    for &at in order {
        ledger.hear("user_1", &story.events[at], as_of);
    }
    ledger
}

#[test]
fn every_story_is_conserved_and_brings_what_it_says_in_a_month() {
    let stories = lifecycle::all();
    assert!(stories.len() >= 50, "there are always this repository's own stories");
    for story in &stories {
        let as_of = story.expect["as_of"].as_i64().expect("a time") + 1;
        let order: Vec<usize> = (0..story.events.len()).collect();
        let report = told(story, &order, as_of).report(as_of);
        assert_conserved(&report);
        let listed = story.expect["subscriptions"].as_array().expect("rows").iter().filter(|row| {
            let counts = row["status"] == "active" || row["status"] == "past_due";
            counts && row["pause_collection"].is_null() && row["list_amount_per_month"].is_number()
        });
        let listed: Vec<i64> = listed.filter_map(|row| row["list_amount_per_month"].as_i64()).collect();
        let is_told = story.expect["subscriptions"].as_array().expect("rows").iter();
        if is_told.clone().all(|row| row["list_amount_per_month"].is_number()) {
            let mrr: i128 =
                report.books.iter().filter(|book| book.book.plan.to_string() == "*").map(|b| b.now.mrr).sum();
            assert_eq!(mrr, listed.iter().map(|amount| i128::from(*amount)).sum::<i128>(), "{}", story.name);
        }
        let later = told(story, &order, as_of).report(as_of + 400 * 86_400);
        assert_conserved(&later);
        let received: i64 = story.expect["invoices"]
            .as_array()
            .expect("rows")
            .iter()
            .filter(|row| row["status"] == "paid")
            .filter_map(|row| row["amount_paid"].as_i64())
            .sum();
        let paid: i128 = later.money.values().map(|money| money.paid).sum();
        assert_eq!(paid, i128::from(received), "{}", story.name);
        assert!(later.money.values().all(|money| money.deferred == 0), "all is earned in the end: {}", story.name);
    }
}

#[test]
fn the_order_of_delivery_changes_nothing() {
    for story in &lifecycle::all() {
        let as_of = story.expect["as_of"].as_i64().expect("a time") + 1;
        let straight: Vec<usize> = (0..story.events.len()).collect();
        let want = told(story, &straight, as_of).report(as_of);
        for seed in 0..20 {
            let order = delivery_order(story.events.len(), seed);
            let got = told(story, &order, as_of).report(as_of);
            assert_conserved(&got);
            let hint = format!("{} with {order:?}", story.name);
            assert_eq!((&got.money, &got.packs), (&want.money, &want.packs), "{hint}");
            assert_eq!((&got.credits, &got.excluded), (&want.credits, &want.excluded), "{hint}");
            assert_eq!(got.books, want.books, "{hint}");
        }
    }
}
