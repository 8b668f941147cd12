//! One endpoint's deliveries for one account, one after the other.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::Outbound;
use super::message::{self, Place};
use super::secrets;
use super::sender::{Outgoing, Sent};
use crate::domain::message::{retry_after, wants};
use crate::domain::notification::{Notice, Notification};
use crate::store::error::StoreError;
use crate::store::notifications;
use crate::store::partition::partition_of;
use crate::store::webhook_deliveries::{self, DeliveryEnd, PendingDelivery, Repeat};
use crate::store::webhook_endpoints;
use crate::stripe::translate::SYSTEM_ACCOUNT;

/// Deliveries after which other accounts come first.
const QUANTUM: usize = 32;
/// An endpoint that has failed for so long is disabled.
const DISABLE_AFTER: TimeDelta = TimeDelta::days(5);

/// A queue that was claimed.
#[derive(Debug)]
pub(super) struct Worker {
    outbound: Arc<Outbound>,
    endpoint: String,
    account: String,
    claim: Uuid,
}

/// What comes after a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The queue may hold more.
    GoOn,
    /// The queue is to be left alone until somebody claims it again.
    Leave,
}

impl Worker {
    /// Longer than an attempt can take. When its process dies, a queue is worked at again after that.
    pub const CLAIMED_FOR: TimeDelta = TimeDelta::seconds(60);

    pub fn new(outbound: Arc<Outbound>, endpoint: String, account: String, claim: Uuid) -> Self {
        Self { outbound, endpoint, account, claim }
    }

    pub async fn run(self) {
        let mut done = 0;
        let ended = loop {
            match self.step().await {
                Ok(Next::GoOn) if done + 1 < QUANTUM && !self.outbound.is_stopping() => done += 1,
                Ok(Next::GoOn) => break self.give_back().await,
                Ok(Next::Leave) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = ended {
            tracing::warn!(endpoint = self.endpoint, %error, "a delivery is left for later");
        }
        self.outbound.wake.notify_waiters();
    }

    async fn give_back(&self) -> Result<(), StoreError> {
        let client = self.outbound.connection().await?;
        let now = self.outbound.clock.now();
        webhook_deliveries::set_due(&**client, &self.endpoint, &self.account, now, None).await
    }

    /// Makes one attempt at the first pending delivery.
    async fn step(&self) -> Result<Next, StoreError> {
        let client = self.outbound.connection().await?;
        let now = self.outbound.clock.now();
        let Some(endpoint) = webhook_endpoints::get(&**client, &self.endpoint).await? else { return Ok(Next::Leave) };
        if endpoint.status != "enabled" {
            webhook_deliveries::set_due(&**client, &self.endpoint, &self.account, now, None).await?;
            return Ok(Next::Leave);
        }
        let Some(delivery) = webhook_deliveries::next(&**client, &self.endpoint, &self.account).await? else {
            drop(client);
            return self.close().await;
        };
        let stored = webhook_endpoints::secrets(&**client, &self.endpoint, now).await?;
        drop(client);
        let opened = |stored| secrets::open(&self.outbound.master_keys, &self.endpoint, stored);
        let secrets: Vec<Vec<u8>> = stored.into_iter().map(opened).collect::<Result<_, _>>()?;
        let body = message::body(&delivery)?;
        let (url, message_id) = (endpoint.url.as_str(), delivery.message.id.as_str());
        let outgoing = Outgoing { url, secrets: &secrets, message_id, body: &body, at: now };
        let sent = self.outbound.sender.send(outgoing).await;
        self.outbound.metrics.webhook_attempts.with_label_values(&[&sent.attempt.outcome]).inc();
        self.record(&delivery, &sent).await
    }

    /// Removes the queue, unless something was queued meanwhile.
    async fn close(&self) -> Result<Next, StoreError> {
        let mut client = self.outbound.connection().await?;
        let tx = client.transaction().await?;
        if !self.lock(&tx).await? {
            return Ok(Next::Leave);
        }
        if webhook_deliveries::next(&*tx, &self.endpoint, &self.account).await?.is_some() {
            return Ok(Next::GoOn);
        }
        webhook_deliveries::remove_queue(&*tx, &self.endpoint, &self.account).await?;
        tx.commit().await?;
        Ok(Next::Leave)
    }

    async fn lock(&self, tx: &Transaction<'_>) -> Result<bool, StoreError> {
        webhook_deliveries::lock(&**tx, &self.endpoint, &self.account, self.claim).await
    }

    async fn record(&self, delivery: &PendingDelivery, sent: &Sent) -> Result<Next, StoreError> {
        let now = self.outbound.clock.now();
        let mut client = self.outbound.connection().await?;
        let tx = client.transaction().await?;
        if !self.lock(&tx).await? {
            // It took too long, and somebody else is at it.
            return Ok(Next::Leave);
        }
        let end = end_of(delivery, sent, now);
        webhook_deliveries::record(&*tx, &self.endpoint, &delivery.message.id, &sent.attempt, end).await?;
        let failed_at = (!sent.is_delivered).then_some(now);
        let failing_since = webhook_endpoints::note_attempt(&*tx, &self.endpoint, failed_at).await?;
        let (due_at, claim) = match end {
            DeliveryEnd::Pending(at) => (at, None),
            DeliveryEnd::Delivered | DeliveryEnd::Dead => (now + Self::CLAIMED_FOR, Some(self.claim)),
        };
        webhook_deliveries::set_due(&*tx, &self.endpoint, &self.account, due_at, claim).await?;
        let reason = match failing_since {
            _ if sent.is_gone => Some("gone"),
            Some(since) if now - since >= DISABLE_AFTER => Some("failing"),
            _ => None,
        };
        let is_disabled = match reason {
            Some(reason) => self.disable(&tx, reason, failing_since, now).await?,
            None => false,
        };
        tx.commit().await?;
        let metrics = &self.outbound.metrics;
        if is_disabled {
            metrics.webhook_endpoints_disabled.inc();
            tracing::warn!(endpoint = self.endpoint, reason, "a webhook endpoint was disabled");
        }
        match end {
            DeliveryEnd::Delivered => Ok(Next::GoOn),
            DeliveryEnd::Pending(_) => Ok(Next::Leave),
            DeliveryEnd::Dead => {
                metrics.webhook_dead_letters.inc();
                let (endpoint, message) = (&self.endpoint, &delivery.message.id);
                tracing::warn!(endpoint, message, "a delivery failed for the last time");
                Ok(Next::GoOn)
            }
        }
    }

    /// Disables the endpoint, and tells the others.
    async fn disable(
        &self,
        tx: &Transaction<'_>,
        reason: &str,
        failing_since: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<bool, StoreError> {
        if !webhook_endpoints::disable(&**tx, &self.endpoint, reason, now).await? {
            return Ok(false);
        }
        let notice = Notice::WebhookEndpointDisabled {
            webhook_endpoint_id: self.endpoint.clone(),
            reason: reason.to_owned(),
            failing_since,
        };
        let cause = format!("webhook_endpoint_disabled:{}/{}", self.endpoint, now.timestamp_micros());
        let partition_id = partition_of(SYSTEM_ACCOUNT, self.outbound.partitions);
        let place = Place { account_id: SYSTEM_ACCOUNT, partition_id, position: 0, part: 1 };
        let new = message::of_notification(&Notification { cause, notice }, place, now, false)?;
        notifications::claim_cause(&**tx, &new).await?;
        let others = webhook_endpoints::enabled(&**tx).await?;
        let wanting = others.iter().filter(|other| wants(&other.event_types, &new.message.message_type));
        let addressed: Vec<_> = wanting.map(|other| (other.id.as_str(), &new.message)).collect();
        webhook_deliveries::queue(&**tx, &addressed, Repeat::Never, now).await?;
        Ok(true)
    }
}

/// What an attempt makes of a delivery. An endpoint that says it is gone is disabled, and its deliveries wait.
fn end_of(delivery: &PendingDelivery, sent: &Sent, now: DateTime<Utc>) -> DeliveryEnd {
    if sent.is_delivered {
        return DeliveryEnd::Delivered;
    }
    if sent.is_gone {
        return DeliveryEnd::Pending(now);
    }
    match retry_after(delivery.attempts + 1, rand::random()) {
        Some(wait) => DeliveryEnd::Pending(now + wait.max(sent.retry_after.unwrap_or_default())),
        None => DeliveryEnd::Dead,
    }
}
