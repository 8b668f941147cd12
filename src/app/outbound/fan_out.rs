//! From the log to queues: which endpoints are told of an event, and which notifications it gives cause for. All of it in
//! the transaction that moves the cursor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use tokio_postgres::Client;

use super::Outbound;
use super::message::{self, Place, receivers};
use crate::app::catalog::CatalogHolder;
use crate::app::log_follower::{Consumer, Wanted};
use crate::domain::event::Event;
use crate::domain::message::{MESSAGE_TYPES, wants};
use crate::domain::notification::{
    Notification, REMIND_BEFORE, SPENDING_TYPES, TELLING_TYPES, low_balance, low_balance_cause, notification_of,
    trial_of,
};
use crate::domain::settle::credits_at;
use crate::store::cursors::Beginning;
use crate::store::error::StoreError;
use crate::store::log::StoredEvent;
use crate::store::notifications::{self, NewNotification, TrialReminder};
use crate::store::partition::partition_of;
use crate::store::read::{self, Seen};
use crate::store::webhook_deliveries::{self, Message, Repeat};
use crate::store::webhook_endpoints::{self, WebhookEndpoint};

/// Notifications of an event come after it, those of a balance after those.
const TOLD: i16 = 1;
const TOLD_OF_BALANCE: i16 = 2;

/// The consumer that queues.
#[derive(Debug)]
pub(super) struct FanOut {
    outbound: Arc<Outbound>,
    catalog: CatalogHolder,
    is_mailed: bool,
    /// As of the last look.
    endpoints: Vec<WebhookEndpoint>,
}

impl FanOut {
    pub fn new(outbound: Arc<Outbound>, catalog: CatalogHolder, is_mailed: bool) -> Self {
        Self { outbound, catalog, is_mailed, endpoints: Vec::new() }
    }

    /// Whether anybody is told that a balance is low. Any account may have a threshold of its own.
    fn tells_of_balances(&self) -> bool {
        self.is_mailed || self.endpoints.iter().any(|endpoint| wants(&endpoint.event_types, "notification.low_balance"))
    }

    /// What an event gives cause for. One that this version cannot read is told as it is, and gives cause for nothing.
    async fn notification(
        &self,
        tx: &Transaction<'_>,
        stored: &StoredEvent,
    ) -> Result<Option<NewNotification>, StoreError> {
        if !TELLING_TYPES.contains(&stored.event_type.as_str()) {
            return Ok(None);
        }
        let Ok(event) = Event::read(&stored.event_type, stored.type_version, &stored.payload) else {
            tracing::warn!(event = stored.event_type, position = stored.position, "no notification: unreadable");
            return Ok(None);
        };
        if let Some((subscription, trial_end)) = trial_of(&event) {
            self.note_trial(tx, &stored.account_id, subscription, trial_end).await?;
        }
        let Some(notification) = notification_of(&event, stored.at) else { return Ok(None) };
        let StoredEvent { account_id, partition_id, position, .. } = stored;
        let place = Place { account_id, partition_id: *partition_id, position: *position, part: TOLD };
        message::of_notification(&notification, place, stored.at, self.is_mailed).map(Some)
    }

    async fn note_trial(
        &self,
        tx: &Transaction<'_>,
        account_id: &str,
        subscription: &str,
        trial_end: Option<DateTime<Utc>>,
    ) -> Result<(), StoreError> {
        let Some(trial_end) = trial_end.filter(|end| *end > self.outbound.clock.now()) else {
            return notifications::drop_reminder(&**tx, subscription).await;
        };
        let (subscription, account_id) = (subscription.to_owned(), account_id.to_owned());
        let reminder = TrialReminder { subscription, account_id, trial_end };
        notifications::put_reminder(&**tx, &reminder, trial_end - REMIND_BEFORE).await
    }

    /// Puts on record which of the accounts that something happened to have come to have little left.
    async fn low_balances(
        &self,
        tx: &Transaction<'_>,
        events: &[StoredEvent],
    ) -> Result<Vec<NewNotification>, StoreError> {
        if !self.tells_of_balances() {
            return Ok(Vec::new());
        }
        let touched = events.iter().filter(|event| SPENDING_TYPES.contains(&event.event_type.as_str()));
        let accounts: BTreeSet<&str> = touched.map(|event| event.account_id.as_str()).collect();
        let ids: Vec<&str> = accounts.into_iter().collect();
        let partitions: Vec<i16> = ids.iter().map(|id| partition_of(id, self.outbound.partitions)).collect();
        let (mut low, mut enough) = (Vec::new(), Vec::new());
        let seen = read::balances(&**tx, &ids, &partitions).await?;
        for seen in &seen {
            match self.low_balance(tx, seen).await? {
                Some(Some(new)) => low.push(new),
                Some(None) => {}
                None => enough.push(seen.id.as_str()),
            }
        }
        if !enough.is_empty() {
            notifications::unmark_low(&**tx, &enough).await?;
        }
        Ok(low)
    }

    /// `None`: enough is left, or nobody asked. `Some(None)`: little is left, and that was told.
    async fn low_balance(
        &self,
        tx: &Transaction<'_>,
        seen: &Seen,
    ) -> Result<Option<Option<NewNotification>>, StoreError> {
        let Ok(Some(account)) = &seen.account else { return Ok(None) };
        let (catalog, now) = (self.catalog.current(), self.outbound.clock.now());
        let credits = credits_at(&account.id, &account.credits, catalog.context(now));
        let Some(notice) = low_balance(&credits, &catalog.catalog, now) else { return Ok(None) };
        let Some(notice) = notice else { return Ok(None) };
        if !notifications::mark_low(&**tx, account.id.as_str(), now).await? {
            return Ok(Some(None));
        }
        let notification = Notification { cause: low_balance_cause(&account.id, account.version), notice };
        let place = Place {
            account_id: account.id.as_str(),
            partition_id: seen.partition_id,
            position: account.position,
            part: TOLD_OF_BALANCE,
        };
        message::of_notification(&notification, place, now, self.is_mailed).map(|new| Some(Some(new)))
    }
}

impl Consumer for FanOut {
    const NAME: &'static str = "outbound";
    const BEGINNING: Beginning = Beginning::Next;

    async fn wanted(&mut self, client: &Client) -> Result<Wanted, StoreError> {
        self.endpoints = webhook_endpoints::enabled(client).await?;
        if self.endpoints.iter().any(|endpoint| endpoint.event_types.is_empty()) {
            return Ok(Wanted::All);
        }
        let wanted = |name: &&&str| self.endpoints.iter().any(|endpoint| wants(&endpoint.event_types, name));
        let mut types: BTreeSet<&str> = MESSAGE_TYPES.iter().filter(wanted).copied().collect();
        if self.is_mailed || types.iter().any(|name| name.starts_with("notification.")) {
            types.extend(TELLING_TYPES);
            if self.tells_of_balances() {
                types.extend(SPENDING_TYPES);
            }
        }
        types.retain(|name| !name.starts_with("notification."));
        let types: Vec<String> = types.into_iter().map(str::to_owned).collect();
        Ok(if types.is_empty() { Wanted::Nothing } else { Wanted::Types(types) })
    }

    async fn take(&mut self, tx: &Transaction<'_>, events: &[StoredEvent]) -> Result<(), StoreError> {
        let mut messages: Vec<Message> = events.iter().map(message::of_event).collect();
        let mut new: Vec<NewNotification> = Vec::new();
        for event in events {
            new.extend(self.notification(tx, event).await?);
        }
        new.extend(self.low_balances(tx, events).await?);
        let mut told: BTreeMap<String, i64> = BTreeMap::new();
        for new in new {
            if notifications::claim_cause(&**tx, &new).await? {
                *told.entry(new.message.message_type.clone()).or_default() += 1;
                messages.push(new.message);
            }
        }
        let addressed: Vec<(&str, &Message)> = messages
            .iter()
            .flat_map(|message| receivers(&self.endpoints, message).map(move |endpoint| (endpoint, message)))
            .collect();
        webhook_deliveries::queue(&**tx, &addressed, Repeat::Never, self.outbound.clock.now()).await?;
        for (message_type, count) in told {
            self.outbound.metrics.notifications.with_label_values(&[&message_type]).inc_by(count.unsigned_abs());
        }
        Ok(())
    }

    fn done(&mut self) {
        self.outbound.wake.notify_waiters();
    }
}
