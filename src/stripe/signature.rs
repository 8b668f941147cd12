//! The `Stripe-Signature` header (<https://docs.stripe.com/webhooks#verify-manually>).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// How far a signature's timestamp may be from our clock, to either side.
pub const TOLERANCE_S: i64 = 300;
/// More signatures than this in one header are not Stripe's.
const MAX_SIGNATURES: usize = 16;

/// Why a body is not taken for Stripe's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the Stripe-Signature header is missing; only Stripe, with the endpoint's secret, may call this")]
    Missing,
    #[error("the Stripe-Signature header is not of the form t=…,v1=…")]
    Malformed,
    #[error("no v1 signature matches; check that STRIPE_WEBHOOK_SECRETS holds this endpoint's whsec_… secret")]
    NoMatch,
    #[error("the signature's timestamp is more than {TOLERANCE_S} s old; check this machine's clock")]
    TooOld,
    #[error("the signature's timestamp is more than {TOLERANCE_S} s ahead; check this machine's clock")]
    TooNew,
}

/// Verifies the raw body: any `v1` signature by any of the secrets, compared in constant time.
///
/// `now` is in Unix seconds. Answers which secret matched, so that a rotation can be watched.
pub fn verify(body: &[u8], header: Option<&str>, secrets: &[String], now: i64) -> Result<usize, SignatureError> {
    let (timestamp, signatures) = parse(header.ok_or(SignatureError::Missing)?)?;
    let mut matched = None;
    for (index, secret) in secrets.iter().enumerate() {
        let expected = digest(secret, timestamp, body);
        for signature in &signatures {
            if bool::from(expected.as_slice().ct_eq(signature)) {
                matched.get_or_insert(index);
            }
        }
    }
    let matched = matched.ok_or(SignatureError::NoMatch)?;
    if timestamp < now.saturating_sub(TOLERANCE_S) {
        return Err(SignatureError::TooOld);
    }
    if timestamp > now.saturating_add(TOLERANCE_S) {
        return Err(SignatureError::TooNew);
    }
    Ok(matched)
}

/// Makes a header as Stripe would: for the demo, the benchmarks and tests.
pub fn sign(body: &[u8], secret: &str, timestamp: i64) -> String {
    format!("t={timestamp},v1={}", hex::encode(digest(secret, timestamp, body)))
}

fn parse(header: &str) -> Result<(i64, Vec<[u8; 32]>), SignatureError> {
    let mut timestamp = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        let (key, value) = part.trim().split_once('=').ok_or(SignatureError::Malformed)?;
        match key {
            "t" if timestamp.is_some() => return Err(SignatureError::Malformed),
            "t" => timestamp = Some(value.parse::<i64>().map_err(|_| SignatureError::Malformed)?),
            "v1" => {
                let mut signature = [0u8; 32];
                if hex::decode_to_slice(value, &mut signature).is_ok() && signatures.len() < MAX_SIGNATURES {
                    signatures.push(signature);
                }
            }
            // Other schemes, such as the v0 of test events, do not count.
            _ => {}
        }
    }
    if signatures.is_empty() {
        return Err(SignatureError::Malformed);
    }
    Ok((timestamp.ok_or(SignatureError::Malformed)?, signatures))
}

fn digest(secret: &str, timestamp: i64, body: &[u8]) -> [u8; 32] {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        unreachable!("HMAC takes a key of any length");
    };
    mac.update(timestamp.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn secrets() -> Vec<String> {
        vec!["whsec_new".to_owned(), "whsec_old".to_owned()]
    }

    #[test]
    fn any_signature_by_any_secret_will_do() {
        let old = sign(b"{}", "whsec_old", NOW);
        assert_eq!(verify(b"{}", Some(&old), &secrets(), NOW), Ok(1));
        let rotated = format!("{},v1={},v0=00", sign(b"{}", "whsec_gone", NOW), &old[old.len() - 64..]);
        assert_eq!(verify(b"{}", Some(&rotated), &secrets(), NOW), Ok(1));
    }

    #[test]
    fn a_known_signature_matches() {
        // Computed with: printf '1700000000.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_new
        let header = "t=1700000000,v1=OPENSSL";
        let header = header.replace("OPENSSL", include_str!("../../tests/fixtures/signature.hex").trim());
        assert_eq!(verify(b"{\"id\":\"evt_1\"}", Some(&header), &secrets(), NOW), Ok(0));
    }

    #[test]
    fn whatever_is_not_stripes_is_refused() {
        let header = sign(b"{}", "whsec_new", NOW);
        let check = |body: &[u8], header: Option<&str>, now| verify(body, header, &secrets(), now);
        assert_eq!(check(b"{}", None, NOW), Err(SignatureError::Missing));
        assert_eq!(check(b"{ }", Some(&header), NOW), Err(SignatureError::NoMatch));
        assert_eq!(check(b"{}", Some(&sign(b"{}", "whsec_other", NOW)), NOW), Err(SignatureError::NoMatch));
        assert_eq!(check(b"{}", Some(&header), NOW + TOLERANCE_S + 1), Err(SignatureError::TooOld));
        assert_eq!(check(b"{}", Some(&header), NOW - TOLERANCE_S - 1), Err(SignatureError::TooNew));
        assert_eq!(check(b"{}", Some(&header), NOW + TOLERANCE_S), Ok(0));
        for malformed in ["", "t=1", "v1=00", "t=x,v1=00", "nonsense", &format!("t=1,{header}")] {
            assert_eq!(check(b"{}", Some(malformed), NOW), Err(SignatureError::Malformed), "{malformed}");
        }
    }
}
