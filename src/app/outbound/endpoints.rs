//! What callers do with endpoints: make, change and remove them, rotate secrets, have messages sent again.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{secrets, signature};
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::store::cursors::{Positions, array};
use crate::store::error::StoreError;
use crate::store::log;
use crate::store::webhook_deliveries;
use crate::store::webhook_endpoints::{self, EndpointChange, WebhookEndpoint};
use crate::store::webhook_replays::{self, Replay};

/// Endpoints of a ledger. Each may keep some requests open.
const MAX_ENDPOINTS: i64 = 100;

/// An endpoint to be made.
#[derive(Debug, Clone)]
pub struct NewEndpoint {
    pub url: String,
    pub description: Option<String>,
    pub event_types: Vec<String>,
}

/// Where a replay begins.
#[derive(Debug, Clone)]
pub enum ReplayFrom {
    /// With the first event written then or later.
    Time(DateTime<Utc>),
    /// Behind these positions of the partitions.
    Positions(Vec<i64>),
}

impl Service {
    /// Whether webhooks may go to a URL; says why not.
    pub fn check_webhook_url(&self, url: &str) -> Result<(), String> {
        self.outbound.sender.check_url(url)
    }

    /// Makes an endpoint. Answers it with its secret, which is shown this once.
    pub async fn create_webhook_endpoint(&self, new: NewEndpoint) -> Result<(WebhookEndpoint, String), AppError> {
        let client = self.connection().await?;
        let ends = log::positions(&**client).await?;
        let secret = signature::new_secret();
        let now = self.clock.now();
        let endpoint = WebhookEndpoint {
            id: format!("we_{}", Uuid::new_v4().simple()),
            url: new.url,
            description: new.description,
            event_types: new.event_types,
            status: "enabled".to_owned(),
            disabled_reason: None,
            disabled_at: None,
            failing_since: None,
            created_at: now,
            updated_at: now,
            begins: array(&ends),
        };
        let stored = secrets::seal(&self.outbound.master_keys, &endpoint.id, &secret)?;
        if !webhook_endpoints::create(&**client, &endpoint, &stored, MAX_ENDPOINTS).await? {
            return Err(AppError::TooManyWebhookEndpoints { max: MAX_ENDPOINTS });
        }
        Ok((endpoint, signature::show(&secret)))
    }

    /// Changes an endpoint; `None`: there is none.
    pub async fn update_webhook_endpoint(
        &self,
        id: &str,
        change: &EndpointChange,
    ) -> Result<Option<WebhookEndpoint>, AppError> {
        let client = self.connection().await?;
        let ends = array(&log::positions(&**client).await?);
        let now = self.clock.now();
        let updated = webhook_endpoints::update(&**client, id, change, &ends, now).await?;
        if change.is_enabled == Some(true) {
            webhook_deliveries::make_due(&**client, id, now).await?;
        }
        self.outbound.wake.notify_waiters();
        Ok(updated)
    }

    /// Gives an endpoint a new secret; the old ones are good for so long still. `None`: there is no such endpoint.
    pub async fn rotate_webhook_secret(
        &self,
        id: &str,
        overlap: TimeDelta,
    ) -> Result<Option<(String, DateTime<Utc>)>, AppError> {
        let mut client = self.connection().await?;
        let (secret, now) = (signature::new_secret(), self.clock.now());
        let stored = secrets::seal(&self.outbound.master_keys, id, &secret)?;
        let tx = client.transaction().await.map_err(StoreError::from)?;
        let rotated = webhook_endpoints::rotate(&*tx, id, &stored, now, now + overlap).await?;
        tx.commit().await.map_err(StoreError::from)?;
        Ok(rotated.then(|| (signature::show(&secret), now + overlap)))
    }

    /// Has an endpoint sent again what it wants of the log from somewhere on; `None`: there is no such endpoint.
    pub async fn replay_webhooks(&self, id: &str, from: ReplayFrom) -> Result<Option<Replay>, AppError> {
        let client = self.connection().await?;
        if !self.is_enabled(&client, id).await? {
            return Ok(None);
        }
        let upto = log::positions(&**client).await?;
        let positions: Positions = match from {
            ReplayFrom::Positions(positions) => (0..).zip(positions).collect(),
            ReplayFrom::Time(time) => log::positions_before(&**client, time).await?,
        };
        let replay = Replay {
            id: Uuid::new_v4(),
            endpoint: id.to_owned(),
            queued: 0,
            created_at: self.clock.now(),
            ended_at: None,
            positions,
            upto,
        };
        webhook_replays::create(&**client, &replay).await?;
        self.outbound.wake.notify_waiters();
        Ok(Some(replay))
    }

    /// Has a delivery tried again at once, also one that went well, or is dead. `false`: there is none.
    pub async fn retry_delivery(&self, id: &str, message_id: &str) -> Result<bool, AppError> {
        let mut client = self.connection().await?;
        if !self.is_enabled(&client, id).await? {
            return Ok(false);
        }
        let tx = client.transaction().await.map_err(StoreError::from)?;
        let retried = webhook_deliveries::retry(&*tx, id, message_id, self.clock.now()).await?;
        tx.commit().await.map_err(StoreError::from)?;
        self.outbound.wake.notify_waiters();
        Ok(retried)
    }

    async fn is_enabled(&self, client: &tokio_postgres::Client, id: &str) -> Result<bool, AppError> {
        let Some(endpoint) = webhook_endpoints::get(client, id).await? else { return Ok(false) };
        if endpoint.status == "enabled" { Ok(true) } else { Err(AppError::WebhookEndpointDisabled(endpoint.id)) }
    }

    /// Brings the metrics of webhooks up to date.
    pub async fn measure_webhooks(&self) -> Result<(), AppError> {
        let client = self.connection().await?;
        let (enabled, disabled) = webhook_endpoints::count(&**client).await?;
        let (pending, oldest, dead) = webhook_deliveries::backlog(&**client).await?;
        let metrics = &self.metrics;
        metrics.webhook_endpoints.with_label_values(&["enabled"]).set(enabled);
        metrics.webhook_endpoints.with_label_values(&["disabled"]).set(disabled);
        metrics.webhook_deliveries.with_label_values(&["pending"]).set(pending);
        metrics.webhook_deliveries.with_label_values(&["dead"]).set(dead);
        let age = oldest.map_or(0, |oldest| (self.clock.now() - oldest).num_seconds());
        metrics.webhook_oldest_pending_seconds.set(age.max(0));
        Ok(())
    }
}
