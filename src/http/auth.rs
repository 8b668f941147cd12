//! Who may call: bearer keys with scopes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::problem::ApiError;
use crate::app::service::Service;
use crate::store::keys;

pub use crate::store::keys::Scope;

/// How long a key's scope is taken from memory: a revocation takes effect within this time.
const CACHE_TIME: Duration = Duration::from_secs(5);
/// Keys, valid or not, remembered at most.
const MAX_CACHED: usize = 10_000;

/// Something looked up, and when.
type Known<T> = (T, Instant);

/// Decides whether a request may be made.
#[derive(Debug)]
pub struct Auth {
    /// Digest of the bootstrap key.
    admin: Option<[u8; 32]>,
    /// The service listens on a loopback address only.
    loopback: bool,
    /// What was looked up of a key, by its digest, and when.
    cache: Mutex<HashMap<[u8; 32], Known<Option<Scope>>>>,
    any_key: Mutex<Option<Known<bool>>>,
}

impl Auth {
    pub fn new(admin_key: Option<&str>, loopback: bool) -> Self {
        Self {
            admin: admin_key.map(keys::digest),
            loopback,
            cache: Mutex::new(HashMap::new()),
            any_key: Mutex::new(None),
        }
    }

    /// Lets a request through if its key's scope covers `need`. On a loopback address, as long as no key exists at all,
    /// requests without one are let through too.
    pub async fn permit(&self, service: &Service, headers: &HeaderMap, need: Scope) -> Result<(), ApiError> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            if self.loopback && self.admin.is_none() && !self.any_key_exists(service).await? {
                return Ok(());
            }
            return Err(ApiError::Unauthorized);
        };
        let text = header.to_str().map_err(|_| ApiError::Unauthorized)?;
        let key = text.strip_prefix("Bearer ").or(text.strip_prefix("bearer ")).ok_or(ApiError::Unauthorized)?;
        let digest: [u8; 32] = Sha256::digest(key.trim().as_bytes()).into();
        if self.admin.is_some_and(|admin| bool::from(admin.ct_eq(&digest))) {
            return Ok(());
        }
        match self.scope(service, digest).await? {
            None => Err(ApiError::Unauthorized),
            Some(have) if have.covers(need) => Ok(()),
            Some(have) => Err(ApiError::Forbidden { have: have.as_str(), need: need.as_str() }),
        }
    }

    /// Drops what is remembered of keys: this replica sees a new or revoked one at once.
    pub fn forget(&self) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.any_key.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn scope(&self, service: &Service, digest: [u8; 32]) -> Result<Option<Scope>, ApiError> {
        let known = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).copied();
        if let Some((scope, looked_up)) = known
            && looked_up.elapsed() < CACHE_TIME
        {
            return Ok(scope);
        }
        let client = service.connection().await?;
        let scope = keys::scope_of(&**client, &digest).await?;
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_CACHED {
            cache.clear();
        }
        cache.insert(digest, (scope, Instant::now()));
        Ok(scope)
    }

    async fn any_key_exists(&self, service: &Service) -> Result<bool, ApiError> {
        let known = *self.any_key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((exists, looked_up)) = known
            && looked_up.elapsed() < CACHE_TIME
        {
            return Ok(exists);
        }
        let client = service.connection().await?;
        let exists = keys::any(&**client).await?;
        *self.any_key.lock().unwrap_or_else(PoisonError::into_inner) = Some((exists, Instant::now()));
        Ok(exists)
    }
}
