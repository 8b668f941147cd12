//! Who may call: bearer keys with scopes.

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::lookup::Lookup;
use super::problem::ApiError;
use crate::app::service::Service;
use crate::store::keys;

pub use crate::store::keys::Scope;

/// Decides whether a request may be made.
#[derive(Debug)]
pub struct Auth {
    /// Digest of the bootstrap key.
    admin: Option<[u8; 32]>,
    /// The service listens on a loopback address only.
    loopback: bool,
    /// Of keys, valid or not, by digest.
    scopes: Lookup<[u8; 32], Option<Scope>>,
    any_key: Lookup<(), bool>,
}

impl Auth {
    pub fn new(admin_key: Option<&str>, loopback: bool) -> Self {
        Self { admin: admin_key.map(keys::digest), loopback, scopes: Lookup::new(), any_key: Lookup::new() }
    }

    /// Lets a request through if its key's scope covers `need`. On a loopback address, as long as no key exists at all,
    /// requests without one are let through too.
    pub async fn permit(&self, service: &Service, headers: &HeaderMap, need: Scope) -> Result<(), ApiError> {
        let Some(digest) = key_digest(headers)? else {
            if self.admits_keyless() && !self.any_key_exists(service).await? {
                return Ok(());
            }
            return Err(ApiError::Unauthorized);
        };
        if self.is_admin(&digest) {
            return Ok(());
        }
        match self.scope(service, digest).await? {
            None => Err(ApiError::Unauthorized),
            Some(have) if have.covers(need) => Ok(()),
            Some(have) => Err(ApiError::Forbidden { have: have.as_str(), need: need.as_str() }),
        }
    }

    /// Whether it is let through by what is remembered of keys. If not, [`permit`](Self::permit) may know better.
    pub fn permits_at_once(&self, headers: &HeaderMap, need: Scope) -> bool {
        match key_digest(headers) {
            Err(_) => false,
            Ok(None) => self.admits_keyless() && self.any_key.fresh(&()) == Some(false),
            Ok(Some(digest)) => {
                self.is_admin(&digest) || self.scopes.fresh(&digest).flatten().is_some_and(|have| have.covers(need))
            }
        }
    }

    /// Drops what is remembered of keys: this replica sees a new or revoked one at once.
    pub fn forget(&self) {
        self.scopes.forget();
        self.any_key.forget();
    }

    fn admits_keyless(&self) -> bool {
        self.loopback && self.admin.is_none()
    }

    fn is_admin(&self, digest: &[u8; 32]) -> bool {
        self.admin.is_some_and(|admin| bool::from(admin.ct_eq(digest)))
    }

    async fn scope(&self, service: &Service, digest: [u8; 32]) -> Result<Option<Scope>, ApiError> {
        let ask = async || keys::scope_of(&**service.connection().await?, &digest).await;
        Ok(self.scopes.get(digest, ask).await?)
    }

    async fn any_key_exists(&self, service: &Service) -> Result<bool, ApiError> {
        let ask = async || keys::any(&**service.connection().await?).await;
        Ok(self.any_key.get((), ask).await?)
    }
}

/// Digest of the key that a request presents, if it presents any.
fn key_digest(headers: &HeaderMap) -> Result<Option<[u8; 32]>, ApiError> {
    let Some(header) = headers.get(AUTHORIZATION) else { return Ok(None) };
    let text = header.to_str().map_err(|_| ApiError::Unauthorized)?;
    let key = text.strip_prefix("Bearer ").or(text.strip_prefix("bearer ")).ok_or(ApiError::Unauthorized)?;
    Ok(Some(Sha256::digest(key.trim().as_bytes()).into()))
}
