//! Adds up what is used of features that Stripe meters.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use deadpool_postgres::Transaction;
use tokio_postgres::Client;

use crate::app::catalog::CatalogHolder;
use crate::app::log_follower::{Consumer, Wanted};
use crate::clock::Clock;
use crate::domain::event::Event;
use crate::domain::metering::{due_at, use_of, window_of};
use crate::domain::stripe_object::StripeObject;
use crate::store::cursors::Beginning;
use crate::store::error::StoreError;
use crate::store::log::StoredEvent;
use crate::store::usage_export::{self, WindowUse};

pub(super) struct Gather {
    pub catalog: CatalogHolder,
    pub clock: Arc<dyn Clock>,
}

impl Consumer for Gather {
    const NAME: &'static str = "usage_export";
    const BEGINNING: Beginning = Beginning::Next;

    async fn wanted(&mut self, _: &Client) -> Result<Wanted, StoreError> {
        let catalog = self.catalog.current();
        if catalog.catalog.features.iter().all(|feature| feature.stripe_meter.is_none()) {
            return Ok(Wanted::Nothing);
        }
        let types = ["credits_debited", "hold_captured", "usage_recorded", "subscription_observed"];
        Ok(Wanted::Types(types.map(str::to_owned).to_vec()))
    }

    async fn take(&mut self, tx: &Transaction<'_>, events: &[StoredEvent]) -> Result<(), StoreError> {
        let catalog = self.catalog.current();
        let mut uses: BTreeMap<(String, String, i64, i64), WindowUse> = BTreeMap::new();
        let mut over: BTreeMap<&str, i64> = BTreeMap::new();
        for stored in events {
            let event = stored.event()?;
            if let Some(began_at) = period_start(&event) {
                let latest = over.entry(&stored.account_id).or_insert(began_at);
                *latest = began_at.max(*latest);
            }
            let Some(used) = use_of(&event) else { continue };
            let feature = catalog.catalog.feature(used.feature);
            let Some(meter) = feature.and_then(|feature| feature.stripe_meter.clone()) else { continue };
            let window_start = window_of(used.at);
            let key = (stored.account_id.clone(), meter.clone(), window_start, used.period_start);
            let window = uses.entry(key).or_insert_with(|| WindowUse {
                account_id: stored.account_id.clone(),
                meter,
                window_start,
                period_start: used.period_start,
                quantity: 0,
                last_at: used.at,
                due_at: DateTime::from_timestamp(due_at(window_start), 0).unwrap_or_default(),
            });
            window.quantity = window.quantity.saturating_add(used.quantity);
            window.last_at = window.last_at.max(used.at);
        }
        if !uses.is_empty() {
            usage_export::add_uses(&**tx, &uses.into_values().collect::<Vec<_>>()).await?;
        }
        for (account_id, began_at) in over {
            usage_export::flush(&**tx, account_id, began_at, self.clock.now()).await?;
        }
        Ok(())
    }
}

/// When the period began that a subscription is in: what was used before may be reported.
fn period_start(event: &Event) -> Option<i64> {
    let Event::StripeObserved(observation) = event else { return None };
    let StripeObject::Subscription(subscription) = &observation.object else { return None };
    subscription.current_period_start.max(subscription.ended_at)
}
