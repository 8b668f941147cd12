//! An endpoint's API version may change at any time, and events of two versions then arrive in any mixture.

use serde_json::Value;
use subledger::domain::command::Command;

use crate::fold::{Fold, assert_facts, assert_same};
use crate::support::lifecycle;
use crate::support::shapes::other_shape;
use crate::support::shuffle::{Random, delivery_order};

#[test]
fn a_mixture_of_payload_shapes_ends_in_the_same_facts() {
    let fold = Fold::new();
    for story in &lifecycle::all() {
        let straight: Vec<usize> = (0..story.events.len()).collect();
        let as_told = fold.commands(story);
        let reshaped: Vec<Command> = story.events.iter().map(|event| fold.command(&other_shape(event))).collect();
        let wholly_reshaped = fold.end(story, &reshaped, &straight);
        assert_facts(&fold, story, &wholly_reshaped, &"every event in the other shape");
        for seed in 0..60 {
            let mut random = Random(seed);
            let pairs = as_told.iter().zip(&reshaped);
            let mixed: Vec<Command> =
                pairs.map(|(told, other)| if random.below(2) == 0 { told } else { other }.clone()).collect();
            let end = fold.end(story, &mixed, &straight);
            assert_facts(&fold, story, &end, &seed);
            let order = delivery_order(mixed.len(), seed);
            assert_same(story, &fold.end(story, &mixed, &order), &end, &(seed, order));
        }
    }
}

#[test]
fn every_snapshot_is_the_same_in_both_shapes() {
    let fold = Fold::new();
    for story in &lifecycle::all() {
        for event in &story.events {
            let told = snapshots(&fold, event);
            let other = snapshots(&fold, &other_shape(event));
            // Which payment belongs to an invoice is said by other objects in each shape; the objects must agree.
            assert_eq!(told.first(), other.first(), "{} in {}", event["type"], story.name);
        }
    }
}

/// The objects an event shows, with the digests by which changes are chained.
fn snapshots(fold: &Fold, event: &Value) -> Vec<String> {
    let observations = fold.facts(event).map(|facts| facts.observations).unwrap_or_default();
    observations.iter().map(|observation| format!("{:?} {:?}", observation.change, observation.object)).collect()
}
