//! The newest known state of a Stripe object, whatever the order in which its notifications arrive.
//!
//! Stripe neither orders its deliveries nor stamps them finer than a second. A [`Tracked`] object is a function of the
//! *set* of observations: a terminal state beats a live one, a later second beats an earlier one, and within a second
//! `previous_attributes` tells which snapshot followed which.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

/// A projected Stripe object, as one notification showed it.
pub trait Snapshot: Clone + PartialEq + Serialize {
    /// Stripe's id of the object.
    fn id(&self) -> &str;
    /// No later notification can take the object out of this state.
    fn is_terminal(&self) -> bool;
    /// Orders snapshots of one second that no chain of `previous_attributes` orders: further along compares greater.
    fn progress(&self) -> [i64; 4];
}

/// Short digests of a snapshot before and after the change that a notification told of.
#[skip_serializing_none]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Digest of the snapshot that `previous_attributes` restores; `None` when the notification carries none.
    pub before: Option<u32>,
    /// Digest of the snapshot itself.
    pub after: u32,
    /// Stripe was asked for the snapshot, when the newest news of its second was known: it follows all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tie<T> {
    snapshot: Box<T>,
    after: u32,
    /// Ascending and unique.
    befores: Vec<u32>,
}

/// The newest known snapshot, and the rivals of its second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tracked<T> {
    /// Boxed, since a map of objects keeps room for eleven where there is one.
    pub current: Box<T>,
    /// Second in which Stripe created the newest notification.
    pub observed_at: i64,
    after: u32,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    befores: Vec<u32>,
    /// The other distinct snapshots of that second, ascending by digest.
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    rivals: Vec<Tie<T>>,
}

impl<T: Snapshot> Tracked<T> {
    pub fn new(snapshot: T, observed_at: i64, change: Change) -> Self {
        let befores = befores_of(change);
        Self { current: Box::new(snapshot), observed_at, after: change.after, befores, rivals: Vec::new() }
    }

    /// Digest of the snapshot: what a later one names as the one it followed.
    pub fn digest(&self) -> u32 {
        self.after
    }

    /// Takes an observation in; `false` when it is superseded by, or equal to, what is known.
    pub fn observe(&mut self, snapshot: T, observed_at: i64, change: Change) -> bool {
        let offered = (snapshot.is_terminal(), observed_at);
        if change.asked && offered == (self.current.is_terminal(), self.observed_at) {
            // There and back within a second is a circle that no chain of changes orders.
            let is_news = *self.current != snapshot;
            if is_news {
                *self = Self::new(snapshot, observed_at, change);
            }
            return is_news;
        }
        self.merge(Self::new(snapshot, observed_at, change))
    }

    /// Takes in everything another copy of the same object has seen; `false` when nothing of it is new.
    pub fn merge(&mut self, other: Self) -> bool {
        let known = (self.current.is_terminal(), self.observed_at);
        let offered = (other.current.is_terminal(), other.observed_at);
        if offered < known {
            return false;
        }
        if offered > known {
            *self = other;
            return true;
        }
        let before = self.clone();
        let mut ties = self.take_ties();
        for tie in other.into_ties() {
            insert_tie(&mut ties, tie);
        }
        self.settle_ties(ties);
        *self != before
    }

    fn take_ties(&mut self) -> Vec<Tie<T>> {
        let mut ties = std::mem::take(&mut self.rivals);
        let befores = std::mem::take(&mut self.befores);
        insert_tie(&mut ties, Tie { snapshot: self.current.clone(), after: self.after, befores });
        ties
    }

    fn into_ties(mut self) -> Vec<Tie<T>> {
        self.take_ties()
    }

    /// Makes the snapshot current that no other one of this second followed; where the chain of changes does not
    /// tell, the one furthest along.
    fn settle_ties(&mut self, mut ties: Vec<Tie<T>>) {
        let followed =
            |tie: &Tie<T>| ties.iter().any(|other| other.after != tie.after && other.befores.contains(&tie.after));
        let rank = |tie: &Tie<T>| (!followed(tie), tie.snapshot.progress(), tie.after);
        let newest = (0..ties.len()).max_by_key(|at| rank(&ties[*at]));
        if let Some(newest) = newest {
            let tie = ties.remove(newest);
            self.current = tie.snapshot;
            self.after = tie.after;
            self.befores = tie.befores;
        }
        self.rivals = ties;
    }
}

fn insert_tie<T>(ties: &mut Vec<Tie<T>>, tie: Tie<T>) {
    match ties.binary_search_by_key(&tie.after, |known| known.after) {
        Ok(at) => {
            let befores = &mut ties[at].befores;
            befores.extend(tie.befores);
            befores.sort_unstable();
            befores.dedup();
        }
        Err(at) => ties.insert(at, tie),
    }
}

fn befores_of(change: Change) -> Vec<u32> {
    change.before.into_iter().filter(|before| *before != change.after).collect()
}

/// Takes an observation of an object that may not be known yet; `false` when nothing new was learnt.
pub fn observe<T: Snapshot>(slot: &mut Option<Tracked<T>>, snapshot: T, observed_at: i64, change: Change) -> bool {
    match slot {
        Some(tracked) => tracked.observe(snapshot, observed_at, change),
        None => {
            *slot = Some(Tracked::new(snapshot, observed_at, change));
            true
        }
    }
}

/// Takes an observation in of one of a family of objects, by their ids; `false` when nothing new was learnt.
pub fn observe_child<T: Snapshot>(
    family: &mut BTreeMap<String, Tracked<T>>,
    snapshot: &T,
    created: i64,
    change: Change,
) -> bool {
    match family.get_mut(snapshot.id()) {
        Some(tracked) => tracked.observe(snapshot.clone(), created, change),
        None => {
            family.insert(snapshot.id().to_owned(), Tracked::new(snapshot.clone(), created, change));
            true
        }
    }
}

/// Merges what two copies of one object have seen.
pub fn merge<T: Snapshot>(slot: &mut Option<Tracked<T>>, other: Option<Tracked<T>>) {
    match (slot.as_mut(), other) {
        (Some(tracked), Some(other)) => {
            tracked.merge(other);
        }
        (None, other) => *slot = other,
        (Some(_), None) => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize)]
    struct Light {
        colour: u32,
        broken: bool,
    }

    impl Snapshot for Light {
        fn id(&self) -> &str {
            "light"
        }
        fn is_terminal(&self) -> bool {
            self.broken
        }
        fn progress(&self) -> [i64; 4] {
            [0; 4]
        }
    }

    fn light(colour: u32) -> Light {
        Light { colour, broken: false }
    }

    fn change(before: u32, after: u32) -> Change {
        Change { before: Some(before), after, asked: false }
    }

    fn first(after: u32) -> Change {
        Change { before: None, after, asked: false }
    }

    #[test]
    fn within_a_second_previous_attributes_tell_the_order() {
        // 9 → 4 → 7, all in one second, seen backwards; 9 has the largest digest, so only the chain can tell.
        let mut tracked = Tracked::new(light(7), 100, change(4, 7));
        tracked.observe(light(4), 100, change(9, 4));
        tracked.observe(light(9), 100, first(9));
        assert_eq!(*tracked.current, light(7));
    }

    #[test]
    fn a_terminal_state_never_reopens() {
        let mut tracked = Tracked::new(Light { colour: 1, broken: true }, 100, first(1));
        assert!(!tracked.observe(light(2), 200, first(2)));
        assert!(tracked.current.broken);
    }

    #[test]
    fn what_was_asked_for_follows_all_of_its_second_and_nothing_of_a_later_one() {
        let asked = |before: u32, after: u32| Change { asked: true, ..change(before, after) };
        let mut tracked = Tracked::new(light(7), 100, first(7));
        assert!(tracked.observe(light(4), 100, asked(7, 4)));
        assert!(tracked.observe(light(7), 100, asked(4, 7)), "and back");
        assert_eq!(*tracked.current, light(7));
        assert!(!tracked.observe(light(7), 100, asked(7, 7)), "the same again is no news");
        tracked.observe(light(9), 101, first(9));
        assert!(!tracked.observe(light(4), 100, asked(7, 4)));
        assert_eq!(*tracked.current, light(9));
    }

    proptest! {
        #[test]
        fn the_end_does_not_depend_on_the_order(
            observations in proptest::collection::vec((0u32..6, 0i64..3, proptest::option::of(0u32..6), any::<bool>()), 1..9),
            seed in any::<u64>(),
        ) {
            let fold = |order: &[usize]| {
                let mut slot = None;
                for &at in order {
                    let (colour, second, before, broken) = observations[at];
                    // One digest per distinct snapshot, as a real digest would give.
                    let after = colour * 2 + u32::from(broken);
                    observe(&mut slot, Light { colour, broken }, second, Change { before, after, asked: false });
                }
                slot
            };
            let straight: Vec<usize> = (0..observations.len()).collect();
            let mut shuffled = straight.clone();
            shuffled.extend(&straight);
            let mut state = seed | 1;
            for i in (1..shuffled.len()).rev() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                shuffled.swap(i, (state >> 33) as usize % (i + 1));
            }
            prop_assert_eq!(fold(&straight), fold(&shuffled));
        }
    }
}
