//! Secrets of endpoints at rest: sealed under the master key, where there is one; else as they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio_postgres::GenericClient;

use crate::sealing::{MasterKeys, Sealed, SealingError};
use crate::store::error::StoreError;
use crate::store::webhook_endpoints::{self, StoredSecret};

/// A sealed secret is text that begins so; one that is not is random bytes.
const MARK: &[u8] = b"sealed.";

/// Where a sealed secret belongs: it does not open as another endpoint's.
fn context(endpoint: &str) -> String {
    format!("webhook_secrets/{endpoint}")
}

fn failed(endpoint: &str) -> impl Fn(SealingError) -> StoreError {
    let endpoint = endpoint.to_owned();
    move |cause| StoreError::Corrupt(format!("the secret of the webhook endpoint {endpoint} {cause}"))
}

/// A secret as it is stored.
pub(super) fn seal(master_keys: &MasterKeys, endpoint: &str, secret: &[u8]) -> Result<Vec<u8>, StoreError> {
    if master_keys.current().is_none() {
        return Ok(secret.to_vec());
    }
    let sealed = master_keys.seal(&context(endpoint), &STANDARD.encode(secret)).map_err(failed(endpoint))?;
    Ok(sealed.to_string().into_bytes())
}

/// What [`seal`] made of a secret, undone.
pub(super) fn open(master_keys: &MasterKeys, endpoint: &str, stored: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    let Some(sealed) = sealed(endpoint, &stored)? else { return Ok(stored) };
    let opened = master_keys.open(&context(endpoint), &sealed).map_err(failed(endpoint))?;
    STANDARD.decode(opened).map_err(|_| failed(endpoint)(SealingError::NotSealed))
}

/// `None`: it is stored as it is.
fn sealed(endpoint: &str, stored: &[u8]) -> Result<Option<Sealed>, StoreError> {
    if !stored.starts_with(MARK) {
        return Ok(None);
    }
    let text = std::str::from_utf8(stored).map_err(|_| failed(endpoint)(SealingError::NotSealed))?;
    text.parse().map(Some).map_err(failed(endpoint))
}

/// Seals every secret that is not under the first master key. Answers the endpoints.
pub async fn rotate(client: &impl GenericClient, master_keys: &MasterKeys) -> Result<Vec<String>, StoreError> {
    let mut rotated = Vec::new();
    for StoredSecret { secret_id, endpoint, secret } in webhook_endpoints::all_secrets(client).await? {
        let is_current =
            sealed(&endpoint, &secret)?.is_some_and(|sealed| master_keys.current() == Some(&sealed.master_key));
        if is_current || master_keys.current().is_none() {
            continue;
        }
        let opened = open(master_keys, &endpoint, secret)?;
        webhook_endpoints::put_secret(client, secret_id, &seal(master_keys, &endpoint, &opened)?).await?;
        rotated.push(endpoint);
    }
    rotated.sort();
    rotated.dedup();
    Ok(rotated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_where_it_was_sealed_and_a_plain_one_is_itself() {
        let keys = MasterKeys::parse(&MasterKeys::generate()).expect("a key");
        let secret = vec![7; 32];
        let stored = seal(&keys, "we_1", &secret).expect("sealed");
        assert!(!stored.windows(4).any(|part| part == [7; 4]));
        assert_eq!(open(&keys, "we_1", stored.clone()).ok(), Some(secret.clone()));
        assert!(open(&keys, "we_2", stored.clone()).is_err(), "it is another endpoint's");
        assert!(open(&MasterKeys::default(), "we_1", stored).is_err(), "there is no key");
        let plain = seal(&MasterKeys::default(), "we_1", &secret).expect("stored");
        assert_eq!((plain.clone(), open(&keys, "we_1", plain).ok()), (secret.clone(), Some(secret)));
    }
}
