//! The catalog in force.

use std::sync::{Arc, PoisonError, RwLock};

use crate::domain::catalog::Catalog;

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

/// The catalog that decisions are made under; replaced whole.
#[derive(Debug, Clone)]
pub struct CatalogHolder(Arc<RwLock<Arc<ActiveCatalog>>>);

impl CatalogHolder {
    pub fn new(catalog: Catalog) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(ActiveCatalog::new(catalog)))))
    }

    pub fn current(&self) -> Arc<ActiveCatalog> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn replace(&self, catalog: ActiveCatalog) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
    }
}
