//! The catalog in force, and what changes it.

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;
use tokio_postgres::GenericClient;

use super::error::AppError;
use super::read_path::reads::Consistency;
use super::service::Service;
use crate::domain::catalog::{Catalog, Plan};
use crate::domain::command::Command;
use crate::domain::draft::{Context, version_of};
use crate::domain::event::{CatalogApplied, Event};
use crate::domain::ids::AccountId;
use crate::store::catalog::{self, lock_catalog};
use crate::store::error::StoreError;
use crate::store::log::StoredEvent;
use crate::store::partition::partition_of;
use crate::stripe::translate::SYSTEM_ACCOUNT;

/// A catalog with its version.
#[derive(Debug, Clone, PartialEq)]
pub struct ActiveCatalog {
    pub catalog: Catalog,
    /// Identifies the version.
    pub digest: String,
}

impl ActiveCatalog {
    pub fn new(catalog: Catalog) -> Self {
        Self { digest: catalog.digest(), catalog }
    }
}

/// A catalog that the log holds.
#[derive(Debug, Clone)]
pub struct RecordedCatalog {
    pub catalog: Catalog,
    /// Of the catalog that last came whole, as a file: this one, or the one that this one is an amendment of.
    pub base_digest: String,
    /// Where in the system's partition.
    pub position: i64,
}

/// The catalog applied last, as the log has it.
pub async fn recorded_catalog(client: &impl GenericClient) -> Result<Option<RecordedCatalog>, StoreError> {
    catalog::last(client).await?.as_ref().map(recorded).transpose()
}

fn recorded(stored: &StoredEvent) -> Result<RecordedCatalog, StoreError> {
    let Event::CatalogApplied(applied) = stored.event()? else {
        return Err(StoreError::Corrupt(format!("position {} holds no catalog", stored.position)));
    };
    let catalog = serde_json::from_value(applied.catalog)?;
    let base_digest = applied.base_digest.unwrap_or(applied.digest);
    Ok(RecordedCatalog { catalog, base_digest, position: stored.position })
}

impl ActiveCatalog {
    /// What is decided under it at a time.
    pub fn context(&self, now: DateTime<Utc>) -> Context<'_> {
        Context { catalog: &self.catalog, catalog_digest: &self.digest, now }
    }

    /// The beginning of the digest: enough to find it by among those on record.
    pub fn version(&self) -> &str {
        version_of(&self.digest)
    }
}

/// The catalog that decisions are made under; replaced whole.
#[derive(Debug, Clone)]
pub struct CatalogHolder {
    in_force: Arc<RwLock<InForce>>,
    /// Held by whoever changes it: those that wait hold no connection meanwhile.
    changes: Arc<Mutex<()>>,
}

#[derive(Debug)]
struct InForce {
    catalog: Arc<ActiveCatalog>,
    /// Where it stands in the system's partition; or, if it cannot be read, the one on record after it.
    position: i64,
}

impl CatalogHolder {
    /// Begins with what is on record; nothing is for sale while nothing is.
    pub fn new(recorded: Option<RecordedCatalog>) -> Self {
        let (catalog, position) =
            recorded.map_or((Catalog::empty(), 0), |recorded| (recorded.catalog, recorded.position));
        let catalog = Arc::new(ActiveCatalog::new(catalog));
        Self { in_force: Arc::new(RwLock::new(InForce { catalog, position })), changes: Arc::default() }
    }

    pub fn current(&self) -> Arc<ActiveCatalog> {
        Arc::clone(&self.in_force.read().unwrap_or_else(PoisonError::into_inner).catalog)
    }

    /// The catalog in force, and where it stands in the system's partition.
    pub fn current_at(&self) -> (Arc<ActiveCatalog>, i64) {
        let in_force = self.in_force.read().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&in_force.catalog), in_force.position)
    }

    /// The catalog in force as the database has it at this moment.
    pub async fn read_through(&self, client: &impl GenericClient) -> Result<Arc<ActiveCatalog>, StoreError> {
        let position = catalog::last_position(client).await?;
        self.at_least(position, client).await
    }

    /// The catalog in force, read again if it stands before a position that one was seen at.
    pub async fn at_least(&self, position: i64, client: &impl GenericClient) -> Result<Arc<ActiveCatalog>, StoreError> {
        let (catalog, known) = self.current_at();
        if known >= position {
            return Ok(catalog);
        }
        self.read_again(client).await?;
        Ok(self.current())
    }

    /// Puts the catalog in force that was applied last, through whatever replica.
    pub async fn read_again(&self, client: &impl GenericClient) -> Result<(), StoreError> {
        let Some(stored) = catalog::last(client).await? else { return Ok(()) };
        match recorded(&stored) {
            Ok(recorded) => self.replace(ActiveCatalog::new(recorded.catalog), recorded.position),
            // Perhaps a newer version of the service wrote it. What is in force stays so.
            Err(StoreError::Corrupt(problem)) => {
                tracing::error!(problem, "the catalog on record cannot be read");
                self.pass(stored.position);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Keeps the catalog in force past one on record that cannot be read.
    fn pass(&self, position: i64) {
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        in_force.position = in_force.position.max(position);
    }

    /// Puts a catalog in force that stands at a position, unless a later one is: whoever applied one and whoever reads of
    /// another's in the log may come here in any order.
    pub fn replace(&self, catalog: ActiveCatalog, position: i64) {
        let mut in_force = self.in_force.write().unwrap_or_else(PoisonError::into_inner);
        if position >= in_force.position {
            *in_force = InForce { catalog: Arc::new(catalog), position };
        }
    }
}

/// What came of putting a catalog in force.
#[derive(Debug, Clone)]
pub struct Applied {
    pub active: ActiveCatalog,
    /// Where it stands in the system's partition.
    pub position: i64,
    /// It was not on record as the last one.
    pub is_new: bool,
}

impl Service {
    /// The catalog in force, with all that stands up to a position of the catalog's partition: one that was put through another
    /// replica may not have been heard of yet.
    pub async fn catalog_now(
        &self,
        min_position: i64,
        consistency: Consistency,
    ) -> Result<Arc<ActiveCatalog>, AppError> {
        let (catalog, position) = self.catalog.current_at();
        let is_fresh = consistency == Consistency::Bounded
            && self.balances.polled_at().is_some_and(|at| at.elapsed() <= self.staleness);
        if position >= min_position && is_fresh {
            return Ok(catalog);
        }
        self.wait_for_position(partition_of(SYSTEM_ACCOUNT, self.partitions), min_position).await?;
        self.catalog_read_through().await
    }

    /// The catalog in force as the database has it.
    pub async fn catalog_read_through(&self) -> Result<Arc<ActiveCatalog>, AppError> {
        let client = self.connection().await?;
        Ok(self.catalog.read_through(&**client).await?)
    }

    /// Puts a whole catalog in force, and on record unless it is already.
    pub async fn apply_catalog(&self, catalog: Catalog) -> Result<bool, AppError> {
        Ok(self.change_catalog(|_| Ok((catalog, Origin::Whole))).await?.is_new)
    }

    /// The same of the file that a service is started with. While it is the file that was applied last, what has been
    /// changed since stays: a restart undoes nothing.
    pub async fn apply_catalog_at_start(&self, catalog: Catalog) -> Result<bool, AppError> {
        let applied = self.change_catalog(|recorded| match recorded {
            Some(recorded) if recorded.base_digest == catalog.digest() => {
                Ok((recorded.catalog.clone(), Origin::Amendment))
            }
            _ => Ok((catalog, Origin::Whole)),
        });
        Ok(applied.await?.is_new)
    }

    /// Puts a catalog in force that differs from the one there is in some of it.
    pub async fn amend_catalog(&self, catalog: Catalog) -> Result<bool, AppError> {
        Ok(self.change_catalog(|_| Ok((catalog, Origin::Amendment))).await?.is_new)
    }

    /// Puts one plan into the catalog, in place of the one of its id if there is one.
    ///
    /// # Errors
    /// When the catalog would not be valid with it.
    pub async fn put_plan(&self, plan: Plan) -> Result<Applied, AppError> {
        let id = plan.id.clone();
        self.change_catalog(|recorded| {
            let before = recorded.map_or_else(Catalog::empty, |recorded| recorded.catalog.clone());
            let catalog = before.with_plan(plan).map_err(|errors| AppError::InvalidPlan { id, errors })?;
            Ok((catalog, Origin::Amendment))
        })
        .await
    }

    /// Makes the next catalog out of the one on record, while nobody else changes it.
    async fn change_catalog(
        &self,
        next: impl FnOnce(Option<&RecordedCatalog>) -> Result<(Catalog, Origin), AppError>,
    ) -> Result<Applied, AppError> {
        let _turn = self.catalog.changes.lock().await;
        let mut client = self.connection().await?;
        let tx = client.transaction().await.map_err(StoreError::from)?;
        lock_catalog(&*tx).await?;
        let recorded = recorded_catalog(&*tx).await?;
        let (catalog, origin) = next(recorded.as_ref())?;
        let active = ActiveCatalog::new(catalog);
        let base_digest = match origin {
            Origin::Whole => None,
            Origin::Amendment => recorded.as_ref().map(|recorded| recorded.base_digest.clone()),
        };
        let is_on_record = |recorded: &&RecordedCatalog| {
            recorded.catalog.digest() == active.digest
                && recorded.base_digest == *base_digest.as_ref().unwrap_or(&active.digest)
        };
        let on_record = recorded.as_ref().filter(is_on_record).map(|recorded| recorded.position);
        let position = match on_record {
            Some(position) => position,
            None => self.record_catalog(&active, base_digest).await?,
        };
        drop(tx);
        self.catalog.replace(active.clone(), position);
        Ok(Applied { active, position, is_new: on_record.is_none() })
    }

    async fn record_catalog(&self, active: &ActiveCatalog, base_digest: Option<String>) -> Result<i64, AppError> {
        let system = AccountId::new(SYSTEM_ACCOUNT).map_err(|_| AppError::Overloaded)?;
        let catalog = serde_json::to_value(&active.catalog).map_err(StoreError::from)?;
        let applied = CatalogApplied { digest: active.digest.clone(), catalog, base_digest };
        Ok(self.execute(system, Command::ApplyCatalog(Box::new(applied)), None).await?.position)
    }
}

/// Where a catalog comes from.
#[derive(Debug, Clone, Copy)]
enum Origin {
    /// From a file, which it is the whole of.
    Whole,
    /// From the one before, of which some was changed.
    Amendment,
}
