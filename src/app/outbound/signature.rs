//! Secrets and signatures of outbound webhooks, as Standard Webhooks has them
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a new secret; the specification has 24 to 64.
const SECRET_BYTES: usize = 32;

/// A new secret.
pub fn new_secret() -> [u8; SECRET_BYTES] {
    rand::random()
}

/// A secret as it is shown to whoever verifies with it.
pub fn show(secret: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// The `webhook-signature` header: one signature for each secret. `timestamp` is in Unix seconds.
pub fn sign(secrets: &[Vec<u8>], message_id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures: Vec<String> = secrets.iter().map(|secret| sign_with(secret, message_id, timestamp, body)).collect();
    signatures.join(" ")
}

fn sign_with(secret: &[u8], message_id: &str, timestamp: i64, body: &[u8]) -> String {
    // A key of any length will do.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).unwrap_or_else(|_| unreachable!("HMAC takes any key"));
    mac.update(format!("{message_id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_make_the_same_signature() {
        let secret = new_secret();
        let theirs = standardwebhooks::Webhook::new(&show(&secret)).expect("a secret they take");
        let body = r#"{"type":"credits_debited"}"#;
        let signed = sign(&[vec![1; 24], secret.to_vec()], "evt_1-2", 1_768_478_400, body.as_bytes());
        let expected = theirs.sign("evt_1-2", 1_768_478_400, body.as_bytes()).expect("signed");
        assert_eq!(signed.split(' ').nth(1), Some(expected.as_str()));
    }
}
