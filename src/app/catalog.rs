//! The catalog in force.

use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use tokio_postgres::GenericClient;

use crate::domain::catalog::Catalog;
use crate::domain::draft::{Context, version_of};
use crate::domain::event::Event;
use crate::store::error::StoreError;
use crate::store::log;
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
    /// Where in the system's partition.
    pub position: i64,
}

/// The catalog applied last, as the log has it.
pub async fn recorded_catalog(client: &impl GenericClient) -> Result<Option<RecordedCatalog>, StoreError> {
    let Some(stored) = log::last_of_type(client, SYSTEM_ACCOUNT, "catalog_applied").await? else { return Ok(None) };
    let Event::CatalogApplied(applied) = stored.event()? else { return Ok(None) };
    let catalog = serde_json::from_value(applied.catalog)?;
    Ok(Some(RecordedCatalog { catalog, position: stored.position }))
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
pub struct CatalogHolder(Arc<RwLock<InForce>>);

#[derive(Debug)]
struct InForce {
    catalog: Arc<ActiveCatalog>,
    position: i64,
}

impl CatalogHolder {
    /// Begins with what is on record; nothing is for sale while nothing is.
    pub fn new(recorded: Option<RecordedCatalog>) -> Self {
        let (catalog, position) =
            recorded.map_or((Catalog::empty(), 0), |recorded| (recorded.catalog, recorded.position));
        let catalog = Arc::new(ActiveCatalog::new(catalog));
        Self(Arc::new(RwLock::new(InForce { catalog, position })))
    }

    pub fn current(&self) -> Arc<ActiveCatalog> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner).catalog)
    }

    /// Puts a catalog in force that stands at a position, unless a later one is: whoever applied one and whoever reads of
    /// another's in the log may come here in any order.
    pub fn replace(&self, catalog: ActiveCatalog, position: i64) {
        let mut in_force = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if position >= in_force.position {
            *in_force = InForce { catalog: Arc::new(catalog), position };
        }
    }
}
