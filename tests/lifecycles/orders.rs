//! Every story ends the same whatever the order of delivery.

use subledger::domain::account::Changes;
use subledger::domain::event::{EVENT_VERSION, Event};

use crate::fold::{Fold, account, assert_facts, assert_same};
use crate::support::lifecycle::{self, Lifecycle};
use crate::support::shuffle::{delivery_order, each_permutation};

#[test]
fn in_order_every_lifecycle_ends_in_its_facts() {
    let fold = Fold::new();
    let stories = lifecycle::all();
    assert!(stories.len() >= 50, "there are always this repository's own stories");
    for story in &stories {
        let order: Vec<usize> = (0..story.events.len()).collect();
        let end = fold.end(story, &fold.commands(story), &order);
        assert_facts(&fold, story, &end, &order);
    }
}

#[test]
fn every_permutation_of_short_lifecycles_ends_the_same() {
    let fold = Fold::new();
    for story in lifecycle::all().iter().filter(|story| story.events.len() <= 7) {
        let commands = fold.commands(story);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let end = fold.end(story, &commands, &straight);
        assert_facts(&fold, story, &end, &straight);
        each_permutation(commands.len(), |order| {
            assert_same(story, &fold.end(story, &commands, order), &end, &order);
        });
    }
}

#[test]
fn ten_thousand_random_orders_with_duplicates_end_the_same() {
    let fold = Fold::new();
    let stories: Vec<Lifecycle> = lifecycle::all().into_iter().filter(|story| story.events.len() > 3).collect();
    let per_story = 10_000usize.div_ceil(stories.len().max(1));
    for story in &stories {
        let commands = fold.commands(story);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let end = fold.end(story, &commands, &straight);
        for seed in 0..per_story as u64 {
            let order = delivery_order(commands.len(), seed);
            let got = fold.end(story, &commands, &order);
            assert_facts(&fold, story, &got, &order);
            assert_same(story, &got, &end, &order);
        }
    }
}

#[test]
fn the_events_alone_rebuild_the_account() {
    let fold = Fold::new();
    for story in &lifecycle::all() {
        let commands = fold.commands(story);
        for seed in 0..20 {
            let order = delivery_order(commands.len(), seed);
            let (mut live, mut rebuilt) = (account("user_1"), account("user_1"));
            for &at in &order {
                for event in fold.apply(&mut live, &commands[at], fold.context(story)) {
                    let stored = event.payload().expect("JSON");
                    let read = Event::read(event.name(), EVENT_VERSION, &stored).expect("readable");
                    rebuilt.evolve(&read, &mut Changes::default());
                }
                assert!(live == rebuilt, "{} with {order:?}, at the event {at}", story.name);
            }
        }
    }
}
