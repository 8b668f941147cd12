//! Secrets at rest: sealed by AES-256-GCM (NIST SP 800-38D) under a master key that is kept elsewhere.
//!
//! Whoever stores a sealed secret says in its *context* what it is and where it stands, such as `settings/NAME/7`. The
//! context is authenticated, not stored: a sealed secret that is put in another's place does not open.

use std::fmt;
use std::str::FromStr;

use aes_gcm::aead::{Aead, KeyInit, Nonce, Payload};
use aes_gcm::{Aes256Gcm, Key};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Begins every sealed secret, and tells it from one that is not.
const MARK: &str = "sealed.v1";
const KEY_BYTES: usize = 32;
/// A random one for each secret: at 2^32 secrets under one master key two of them would be the same with odds of 2^-32.
const NONCE_BYTES: usize = 12;

/// Why something is not sealed or opened. Says nothing of the secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealingError {
    #[error("must be id:key pairs with commas between, such as those of `subledger settings generate-master-key`: {0}")]
    InvalidMasterKeys(String),
    #[error("there is no master key: set SUBLEDGER_MASTER_KEYS; `subledger settings generate-master-key` makes one")]
    NoMasterKey,
    #[error("is sealed under the master key {0}, which SUBLEDGER_MASTER_KEYS does not have: add it")]
    UnknownMasterKey(String),
    #[error("does not open under the master key {0}: that key, or what is stored, is another than when it was sealed")]
    DoesNotOpen(String),
    #[error("is no sealed secret")]
    NotSealed,
}

/// A sealed secret: text that any column can hold, `sealed.v1:<id of the master key>:<base64 of nonce and ciphertext>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub master_key: String,
    bytes: Vec<u8>,
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}:{}:{}", self.master_key, BASE64_STANDARD.encode(&self.bytes))
    }
}

impl FromStr for Sealed {
    type Err = SealingError;

    fn from_str(text: &str) -> Result<Self, SealingError> {
        let mut parts = text.splitn(3, ':');
        let (Some(MARK), Some(master_key), Some(bytes)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(SealingError::NotSealed);
        };
        let bytes = BASE64_STANDARD.decode(bytes).map_err(|_| SealingError::NotSealed)?;
        Ok(Self { master_key: master_key.to_owned(), bytes })
    }
}

/// The master keys: the first one seals, all of them open.
#[derive(Clone, Default)]
pub struct MasterKeys(Vec<MasterKey>);

#[derive(Clone)]
struct MasterKey {
    id: String,
    cipher: Aes256Gcm,
}

impl MasterKeys {
    /// Reads `id:key` pairs with commas between; a key is the base64 of 32 bytes.
    pub fn parse(text: &str) -> Result<Self, SealingError> {
        let invalid = |problem: String| SealingError::InvalidMasterKeys(problem);
        let mut keys: Vec<MasterKey> = Vec::new();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            // What may be the key itself is not repeated.
            let place = keys.len() + 1;
            let (id, key) = pair.split_once(':').ok_or_else(|| invalid(format!("pair {place} has no colon")))?;
            let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            if id.is_empty() || id.len() > 40 || !id.chars().all(is_plain) {
                return Err(invalid(format!("the id of pair {place} must be 1 to 40 letters, digits, _ or -")));
            }
            if keys.iter().any(|known| known.id == id) {
                return Err(invalid(format!("the id {id} is there twice")));
            }
            let bytes = BASE64_STANDARD.decode(key).ok().filter(|bytes| bytes.len() == KEY_BYTES);
            let bytes = bytes.ok_or_else(|| invalid(format!("the key {id} is not the base64 of {KEY_BYTES} bytes")))?;
            let key = Key::<Aes256Gcm>::try_from(bytes.as_slice()).map_err(|_| invalid(format!("the key {id}")))?;
            keys.push(MasterKey { id: id.to_owned(), cipher: Aes256Gcm::new(&key) });
        }
        Ok(Self(keys))
    }

    /// A new master key as it stands in the setting. Its id is random, too, so that no two keys share one.
    pub fn generate() -> String {
        let (id, key): ([u8; 4], [u8; KEY_BYTES]) = (rand::random(), rand::random());
        format!("{}:{}", hex::encode(id), BASE64_STANDARD.encode(key))
    }

    /// The id of the one that seals.
    pub fn current(&self) -> Option<&str> {
        self.0.first().map(|key| key.id.as_str())
    }

    /// Seals a secret for its place.
    pub fn seal(&self, context: &str, secret: &str) -> Result<Sealed, SealingError> {
        let key = self.0.first().ok_or(SealingError::NoMasterKey)?;
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let aad = associated_data(&key.id, context);
        let payload = Payload { msg: secret.as_bytes(), aad: &aad };
        let sealed = key.cipher.encrypt(&Nonce::<Aes256Gcm>::from(nonce), payload);
        let sealed = sealed.map_err(|_| SealingError::DoesNotOpen(key.id.clone()))?;
        Ok(Sealed { master_key: key.id.clone(), bytes: [nonce.as_slice(), &sealed].concat() })
    }

    /// Opens what was sealed for the same place.
    pub fn open(&self, context: &str, sealed: &Sealed) -> Result<String, SealingError> {
        if self.0.is_empty() {
            return Err(SealingError::NoMasterKey);
        }
        let unknown = || SealingError::UnknownMasterKey(sealed.master_key.clone());
        let key = self.0.iter().find(|key| key.id == sealed.master_key).ok_or_else(unknown)?;
        let (nonce, bytes) = sealed.bytes.split_at_checked(NONCE_BYTES).ok_or(SealingError::NotSealed)?;
        let nonce = Nonce::<Aes256Gcm>::try_from(nonce).map_err(|_| SealingError::NotSealed)?;
        let aad = associated_data(&key.id, context);
        let closed = || SealingError::DoesNotOpen(key.id.clone());
        let opened = key.cipher.decrypt(&nonce, Payload { msg: bytes, aad: &aad }).map_err(|_| closed())?;
        String::from_utf8(opened).map_err(|_| closed())
    }
}

/// No context can be taken for another: the id has no slash in it.
fn associated_data(master_key: &str, context: &str) -> Vec<u8> {
    format!("{MARK}/{master_key}/{context}").into_bytes()
}

impl fmt::Debug for MasterKeys {
    /// Their ids alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "sk_test_secret";

    fn keys() -> MasterKeys {
        MasterKeys::parse(&MasterKeys::generate()).expect("a key")
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_alone() {
        let keys = keys();
        let sealed = keys.seal("settings/A/1", SECRET).expect("sealed");
        let stored: Sealed = sealed.to_string().parse().expect("readable");
        assert_eq!(keys.open("settings/A/1", &stored).as_deref(), Ok(SECRET));
        for elsewhere in ["settings/B/1", "settings/A/2", "webhooks/A/1", ""] {
            assert!(matches!(keys.open(elsewhere, &stored), Err(SealingError::DoesNotOpen(_))), "{elsewhere}");
        }
        assert_ne!(keys.seal("settings/A/1", SECRET).expect("sealed"), sealed, "each has a nonce of its own");
    }

    #[test]
    fn the_first_key_seals_and_all_of_them_open() {
        let (old, new) = (MasterKeys::generate(), MasterKeys::generate());
        let before = MasterKeys::parse(&old).expect("a key");
        let during = MasterKeys::parse(&format!("{new}, {old}")).expect("two keys");
        let after = MasterKeys::parse(&new).expect("a key");
        let sealed = before.seal("here", SECRET).expect("sealed");
        assert_eq!(during.open("here", &sealed).as_deref(), Ok(SECRET));
        let anew = during.seal("here", SECRET).expect("sealed");
        assert_eq!(Some(anew.master_key.as_str()), during.current());
        assert_eq!(after.open("here", &anew).as_deref(), Ok(SECRET));
        let id = before.current().expect("an id").to_owned();
        assert_eq!(after.open("here", &sealed), Err(SealingError::UnknownMasterKey(id)));
        assert_eq!(MasterKeys::default().open("here", &sealed), Err(SealingError::NoMasterKey));
    }

    #[test]
    fn a_bit_more_or_less_is_noticed() {
        let keys = keys();
        let sealed = keys.seal("here", SECRET).expect("sealed");
        for at in 0..sealed.bytes.len() {
            let mut changed = sealed.clone();
            changed.bytes[at] ^= 1;
            assert!(keys.open("here", &changed).is_err(), "byte {at}");
        }
        for length in 0..sealed.bytes.len() {
            let cut = Sealed { bytes: sealed.bytes[..length].to_vec(), ..sealed.clone() };
            assert!(keys.open("here", &cut).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn keys_that_are_none_are_refused_without_being_shown() {
        let key = MasterKeys::generate();
        let (id, bytes) = key.split_once(':').expect("a pair");
        let short = BASE64_STANDARD.encode([7; 16]);
        for text in [
            bytes.to_owned(),
            format!(":{bytes}"),
            format!("a b:{bytes}"),
            format!("{key},{id}:{bytes}"),
            format!("k1:{short}"),
            format!("k1:{bytes}x"),
            "k1:".to_owned(),
        ] {
            let error = MasterKeys::parse(&text).expect_err(&text).to_string();
            assert!(!error.contains(bytes) && !error.contains(&short), "{error}");
        }
        assert!(MasterKeys::parse(" ").expect("none").current().is_none());
        let keys = MasterKeys::parse(&key).expect("a key");
        assert_eq!(format!("{keys:?}"), format!("[{id:?}]"));
    }

    #[test]
    fn other_text_is_no_sealed_secret() {
        for text in ["", SECRET, "sealed.v1:k1", "sealed.v1:k1:***", "sealed.v2:k1:AAAA"] {
            assert_eq!(text.parse::<Sealed>(), Err(SealingError::NotSealed), "{text}");
        }
    }
}
