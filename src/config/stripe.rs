//! Settings of the calls to Stripe, and of the routes that make them.

use super::{ConfigError, Source};

/// How Stripe is called, and what callers may ask of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StripeCalls {
    pub secret_key: Option<SecretKey>,
    /// Without a path; `None`: Stripe's own.
    pub api_base: Option<String>,
    /// Longest time of one try, and of a call with all its tries.
    pub attempt_timeout_ms: u64,
    pub timeout_ms: u64,
    pub checkout_success_url: Option<String>,
    pub checkout_cancel_url: Option<String>,
    pub portal_return_url: Option<String>,
    /// Where callers may send their customers back to, beside the origins of the three above.
    pub allowed_redirect_origins: Vec<String>,
    /// 0: as often as one likes.
    pub payment_routes_per_minute: u32,
}

/// Stripe's API key; shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(String);

impl SecretKey {
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn is_live(&self) -> bool {
        LIVE.iter().any(|prefix| self.0.starts_with(prefix))
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

const LIVE: [&str; 2] = ["sk_live_", "rk_live_"];
const TEST: [&str; 2] = ["sk_test_", "rk_test_"];

impl StripeCalls {
    pub(super) fn load(source: &Source, livemode: bool) -> Result<Self, ConfigError> {
        let secret_key = secret_key(source.get("STRIPE_SECRET_KEY")?, livemode)?;
        let attempt_timeout_ms = source.number("STRIPE_ATTEMPT_TIMEOUT_MS", 15_000, 100, 120_000)? as u64;
        Ok(Self {
            api_base: api_base(source.get("STRIPE_API_BASE")?, secret_key.as_ref())?,
            secret_key,
            attempt_timeout_ms,
            timeout_ms: source.number("STRIPE_TIMEOUT_MS", 30_000, 100, 300_000)? as u64,
            checkout_success_url: source.get("SUBLEDGER_CHECKOUT_SUCCESS_URL")?,
            checkout_cancel_url: source.get("SUBLEDGER_CHECKOUT_CANCEL_URL")?,
            portal_return_url: source.get("SUBLEDGER_PORTAL_RETURN_URL")?,
            allowed_redirect_origins: source.list("SUBLEDGER_ALLOWED_REDIRECT_ORIGINS")?.unwrap_or_default(),
            payment_routes_per_minute: source.number("SUBLEDGER_PAYMENT_ROUTES_PER_MINUTE", 5, 0, 100_000)? as u32,
        })
    }
}

/// Whether a key, as far as it says, is one of live mode.
pub(super) fn is_live(key: &str) -> bool {
    SecretKey(key.to_owned()).is_live()
}

/// A key of one mode beside events of the other would sell what is never granted.
fn secret_key(key: Option<String>, livemode: bool) -> Result<Option<SecretKey>, ConfigError> {
    let Some(key) = key.map(SecretKey) else { return Ok(None) };
    let error = |problem: &str| ConfigError { setting: "STRIPE_SECRET_KEY".to_owned(), problem: problem.to_owned() };
    if !key.is_live() && !TEST.iter().any(|prefix| key.0.starts_with(prefix)) {
        return Err(error("must start with sk_test_, rk_test_, sk_live_ or rk_live_, as Stripe's dashboard shows it"));
    }
    match (key.is_live(), livemode) {
        (true, false) => {
            Err(error("is a live-mode key, while STRIPE_LIVEMODE is false: set the one to match the other"))
        }
        (false, true) => {
            Err(error("is a test-mode key, while STRIPE_LIVEMODE is true: set the one to match the other"))
        }
        _ => Ok(Some(key)),
    }
}

fn api_base(base: Option<String>, key: Option<&SecretKey>) -> Result<Option<String>, ConfigError> {
    let Some(base) = base else { return Ok(None) };
    let error = |problem: &str| ConfigError { setting: "STRIPE_API_BASE".to_owned(), problem: problem.to_owned() };
    let rest = base.strip_prefix("https://").or(base.strip_prefix("http://"));
    let host = rest.map(|rest| rest.trim_end_matches('/')).filter(|host| !host.is_empty() && !host.contains('/'));
    if host.is_none() {
        return Err(error("must be a URL without a path, such as https://api.stripe.com"));
    }
    if base.starts_with("http://") && key.is_some_and(SecretKey::is_live) {
        return Err(error("must begin with https:// while STRIPE_SECRET_KEY is a live-mode key"));
    }
    Ok(Some(base.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_must_be_of_the_mode_that_is_taken() {
        for (key, livemode, is_good) in [
            ("sk_test_1", false, true),
            ("rk_live_1", true, true),
            ("sk_live_1", false, false),
            ("rk_test_1", true, false),
            ("pk_test_1", false, false),
        ] {
            assert_eq!(secret_key(Some(key.to_owned()), livemode).is_ok(), is_good, "{key} {livemode}");
        }
    }

    #[test]
    fn a_live_key_goes_nowhere_in_the_clear() {
        let base = |base: &str, key: &str| api_base(Some(base.to_owned()), Some(&SecretKey(key.to_owned())));
        assert_eq!(
            base("http://simulator:12111/", "sk_test_1").ok().flatten().as_deref(),
            Some("http://simulator:12111")
        );
        for (wrong, key) in
            [("http://simulator:12111", "sk_live_1"), ("api.stripe.com", "sk_test_1"), ("https://x/v1", "sk_test_1")]
        {
            assert!(base(wrong, key).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_key_is_in_no_debug_output() {
        assert!(!format!("{:?}", SecretKey("sk_test_secret".to_owned())).contains("secret"));
    }
}
