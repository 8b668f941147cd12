//! The past, out of the log: an account as it stood at a time or a position, under the catalog of then.
//!
//! A time means what the ledger knew at that time: an event counts from when it was written, whatever it tells of. What
//! the clock had made due by then counts, too, whether or not anything had recorded it. The same question always gets the
//! same answer: a position is asked for once it is on record, and a time once nothing can be written of it any more. So the
//! name of a stream that was taken over means, at a time before that, the stream.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::app::catalog::ActiveCatalog;
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::account::{Account, Changes};
use crate::domain::catalog::Catalog;
use crate::domain::event::Event;
use crate::domain::ids::AccountId;
use crate::domain::settle::credits_at;
use crate::store::catalog;
use crate::store::error::StoreError;
use crate::store::log::{self, StoredEvent};
use crate::store::partition::partition_of;

/// An event may be on its way into the log for so long: a caller hears within 15 s or is told that nobody knows, a lane's
/// statements are cut off when no caller can be waiting any more, and the rest is for replicas' clocks that disagree and for
/// the commit. Before a time is so long past, asking for it again might show more.
pub const UNSETTLED: TimeDelta = TimeDelta::seconds(30);
/// Events read at once.
const CHUNK: i64 = 2_000;

/// A moment of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Time(DateTime<Utc>),
    /// In the account's partition.
    Position(i64),
}

/// An account as it stood.
#[derive(Debug, Clone)]
pub struct Past {
    /// With all that the clock had made due.
    pub account: Account,
    /// All that its events had changed by then: the rows beside the balance.
    pub changes: Changes,
    pub at: DateTime<Utc>,
    pub partition_id: i16,
    /// Of the account's last event by then, or the position that was asked for.
    pub position: i64,
    pub catalog: Arc<ActiveCatalog>,
}

impl Service {
    /// An account, by its own id, as it stood at a moment that has been.
    pub async fn account_at(&self, id: &AccountId, moment: Moment) -> Result<Past, AppError> {
        let partition_id = partition_of(id.as_str(), self.partitions);
        let at = match moment {
            Moment::Time(at) if at + UNSETTLED > self.clock.now() => {
                return Err(AppError::AsOfTooRecent { at, settled_at: at + UNSETTLED });
            }
            Moment::Time(at) => Some(at),
            Moment::Position(wanted) => self.time_of_position(partition_id, wanted).await?,
        };
        let is_past = |event: &StoredEvent| match moment {
            Moment::Time(at) => event.at <= at,
            Moment::Position(position) => event.position <= position,
        };
        let (mut account, changes) = self.fold_while(id, is_past).await?;
        let Some(at) = at.filter(|_| !account.is_unknown()) else { return Err(self.not_yet(id).await?) };
        let catalog = self.catalog_as_of(at).await?;
        let context = catalog.context(at);
        account.credits = credits_at(id, &account.credits, context);
        let position = if let Moment::Position(position) = moment { position } else { account.position };
        Ok(Past { account, changes, at, partition_id, position, catalog })
    }

    /// An account after those of its events, from the first on, for which `is_past` holds.
    pub async fn fold_while(
        &self,
        id: &AccountId,
        is_past: impl Fn(&StoredEvent) -> bool,
    ) -> Result<(Account, Changes), AppError> {
        let client = self.connection().await?;
        let (mut account, mut changes) = (Account::new(id.clone()), Changes::default());
        loop {
            let events = log::of_account(&**client, id.as_str(), account.version, &[], CHUNK).await?;
            let is_last = i64::try_from(events.len()) != Ok(CHUNK);
            for stored in events {
                if !is_past(&stored) {
                    return Ok((account, changes));
                }
                account.evolve(&stored.event()?, &mut changes);
                account.position = stored.position;
            }
            if is_last {
                return Ok((account, changes));
            }
        }
    }

    /// Why an account cannot be shown as it was before its first event.
    async fn not_yet(&self, id: &AccountId) -> Result<AppError, AppError> {
        let client = self.connection().await?;
        let first = log::of_account(&**client, id.as_str(), 0, &[], 1).await?.pop();
        Ok(match first {
            None => AppError::AccountNotFound(id.to_string()),
            Some(first) => AppError::AccountNotYetOpen { account: id.clone(), opened_at: first.at },
        })
    }

    /// When the event at a position was written; `None` for position 0, before the first.
    async fn time_of_position(&self, partition_id: i16, wanted: i64) -> Result<Option<DateTime<Utc>>, AppError> {
        if wanted == 0 {
            return Ok(None);
        }
        let client = self.connection().await?;
        match log::at_position(&**client, partition_id, wanted).await? {
            Some(event) => Ok(Some(event.at)),
            None => {
                let reached = log::position(&**client, partition_id).await?;
                Err(AppError::PositionNotReached { wanted, reached })
            }
        }
    }

    /// The catalog that was in force: the one applied last by then.
    pub async fn catalog_as_of(&self, at: DateTime<Utc>) -> Result<Arc<ActiveCatalog>, AppError> {
        let client = self.connection().await?;
        self.on_record(catalog::last_by(&**client, at).await?.as_ref())
    }

    /// The catalog whose digest begins so; an empty one, if there never was such a catalog.
    pub async fn catalog_named(&self, version: &str) -> Result<Arc<ActiveCatalog>, AppError> {
        let current = self.catalog.current();
        if current.digest.starts_with(version) {
            return Ok(current);
        }
        if !version.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return self.on_record(None);
        }
        let client = self.connection().await?;
        self.on_record(catalog::by_digest(&**client, version).await?.as_ref())
    }

    fn on_record(&self, stored: Option<&StoredEvent>) -> Result<Arc<ActiveCatalog>, AppError> {
        let Some(Event::CatalogApplied(applied)) = stored.map(StoredEvent::event).transpose()? else {
            return Ok(Arc::new(ActiveCatalog::new(Catalog::empty())));
        };
        let current = self.catalog.current();
        if applied.digest == current.digest {
            return Ok(current);
        }
        let catalog = serde_json::from_value(applied.catalog).map_err(StoreError::from)?;
        Ok(Arc::new(ActiveCatalog { catalog, digest: applied.digest }))
    }
}
