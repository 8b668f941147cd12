//! A subscription, and what is remembered of it beside its newest snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::billing::{Billing, Kind, Observation, Touched};
use super::stripe_object::Subscription;
use super::tracked::Tracked;

/// Seconds that are remembered of one time of being overdue; the first is the one that counts.
const MAX_OVERDUE_AT: usize = 100;

/// A subscription's snapshots, and since when it is overdue: a function of the set of observations, whatever their order.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionRecord {
    #[serde(flatten)]
    pub tracked: Tracked<Subscription>,
    /// Unix second of the newest StripeEvent that showed it as not overdue.
    pub in_order_at: Option<i64>,
    /// Unix seconds of the StripeEvents since then that showed it as overdue. All of them: what is heard late may show that
    /// the first of them were of an earlier time.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub overdue_at: BTreeSet<i64>,
}

impl Deref for SubscriptionRecord {
    type Target = Tracked<Subscription>;
    fn deref(&self) -> &Self::Target {
        &self.tracked
    }
}

impl SubscriptionRecord {
    fn of(observation: &Observation, subscription: &Subscription) -> Self {
        let created = observation.created;
        let tracked = Tracked::new(subscription.clone(), created, observation.change);
        match is_overdue(subscription) {
            true => Self { tracked, in_order_at: None, overdue_at: BTreeSet::from([created]) },
            false => Self { tracked, in_order_at: Some(created), overdue_at: BTreeSet::new() },
        }
    }

    /// Takes in another snapshot; `false` when it says nothing new.
    fn observe(&mut self, observation: &Observation, subscription: &Subscription) -> bool {
        let is_news = self.tracked.observe(subscription.clone(), observation.created, observation.change);
        let seen = Self::of(observation, subscription);
        self.take_in(seen.in_order_at, seen.overdue_at) | is_news
    }

    fn merge(&mut self, other: Self) {
        self.tracked.merge(other.tracked);
        self.take_in(other.in_order_at, other.overdue_at);
    }

    fn take_in(&mut self, in_order_at: Option<i64>, overdue_at: BTreeSet<i64>) -> bool {
        let before = (self.in_order_at, self.overdue_at.clone());
        self.in_order_at = self.in_order_at.max(in_order_at);
        self.overdue_at.extend(overdue_at);
        // Within one second nobody can tell which came first; taken for the end of being in order, it is not forgotten.
        self.overdue_at.retain(|at| Some(*at) >= self.in_order_at);
        while self.overdue_at.len() > MAX_OVERDUE_AT {
            self.overdue_at.pop_last();
        }
        before != (self.in_order_at, self.overdue_at.clone())
    }

    /// Unix second of the first StripeEvent, as far as is known, that showed the subscription as overdue, if it still is.
    pub fn overdue_since(&self) -> Option<i64> {
        let first = self.overdue_at.first().copied().unwrap_or(self.observed_at);
        is_overdue(&self.current).then_some(first)
    }
}

fn is_overdue(subscription: &Subscription) -> bool {
    matches!(subscription.status.as_str(), "past_due" | "unpaid")
}

impl Billing {
    pub(super) fn record_subscription(
        &mut self,
        observation: &Observation,
        subscription: &Subscription,
        touched: &mut Touched,
    ) -> bool {
        let changed = match self.subscriptions.get_mut(&subscription.id) {
            Some(known) => known.observe(observation, subscription),
            None => {
                let record = SubscriptionRecord::of(observation, subscription);
                self.subscriptions.insert(subscription.id.clone(), record);
                true
            }
        };
        if changed {
            touched.insert((Kind::Subscription, subscription.id.clone()));
        }
        changed
    }

    /// Whether an observation shows how a subscription was before what is known of it.
    pub(super) fn is_superseded(&self, observation: &Observation, subscription: &Subscription) -> bool {
        let known = self.subscriptions.get(&subscription.id);
        known.is_some_and(|known| observation.created < known.observed_at || *known.current != *subscription)
    }
}

/// Merges what two copies of the subscriptions have seen.
pub(super) fn merge_all(
    known: &mut BTreeMap<String, SubscriptionRecord>,
    others: BTreeMap<String, SubscriptionRecord>,
) {
    for (id, other) in others {
        match known.get_mut(&id) {
            Some(record) => record.merge(other),
            None => {
                known.insert(id, other);
            }
        }
    }
}
