//! Where customers may be sent back to.

use url::{Origin, Url};

/// What Stripe puts the session's id in place of.
const SESSION_ID: &str = "{CHECKOUT_SESSION_ID}";
/// Longest URL that Stripe takes.
const MAX_LEN: usize = 5_000;

/// The origins that customers may be sent to, and where to when nobody says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redirects {
    allowed: Vec<Origin>,
    pub checkout_success_url: Option<String>,
    pub checkout_cancel_url: Option<String>,
    pub portal_return_url: Option<String>,
}

/// Why a URL is not one to send customers to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    #[error("must be a whole URL, such as https://app.example.com/billing")]
    NotAUrl,
    #[error("{origin} is none of the origins that customers may be sent to (SUBLEDGER_ALLOWED_REDIRECT_ORIGINS)")]
    OriginNotAllowed { origin: String },
}

impl Redirects {
    /// The defaults' own origins are allowed, too.
    ///
    /// # Errors
    /// The text that is no URL, and why.
    pub fn new(
        origins: &[String],
        checkout_success_url: Option<String>,
        checkout_cancel_url: Option<String>,
        portal_return_url: Option<String>,
    ) -> Result<Self, (String, RedirectError)> {
        let defaults = [&checkout_success_url, &checkout_cancel_url, &portal_return_url];
        let mut allowed = Vec::new();
        for text in origins.iter().chain(defaults.into_iter().flatten()) {
            let url = parse(text).map_err(|error| (text.clone(), error))?;
            allowed.push(url.origin());
        }
        Ok(Self { allowed, checkout_success_url, checkout_cancel_url, portal_return_url })
    }

    /// Lets a URL through as it is, if its origin is allowed.
    ///
    /// # Errors
    /// See [`RedirectError`].
    pub fn check(&self, text: &str) -> Result<(), RedirectError> {
        let origin = parse(text)?.origin();
        if self.allowed.contains(&origin) {
            return Ok(());
        }
        Err(RedirectError::OriginNotAllowed { origin: origin.ascii_serialization() })
    }
}

/// Reads a URL as a browser does, but takes none that different programs read differently.
fn parse(text: &str) -> Result<Url, RedirectError> {
    let is_odd = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    if text.len() > MAX_LEN || text.contains(is_odd) {
        return Err(RedirectError::NotAUrl);
    }
    // In the host, the placeholder would be anybody's.
    let url = Url::parse(&text.replace(SESSION_ID, "id")).map_err(|_| RedirectError::NotAUrl)?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.has_host();
    if !is_web || !url.username().is_empty() || url.password().is_some() {
        return Err(RedirectError::NotAUrl);
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirects() -> Redirects {
        let success = Some("http://localhost:3000/done?session={CHECKOUT_SESSION_ID}".to_owned());
        Redirects::new(&["https://app.example.com".to_owned()], success, None, None).expect("good")
    }

    #[test]
    fn urls_of_allowed_origins_pass_with_their_placeholder() {
        for url in [
            "https://app.example.com",
            "https://APP.example.com:443/a?b=c#d",
            "https://app.example.com/done?session_id={CHECKOUT_SESSION_ID}",
            "http://localhost:3000/elsewhere",
        ] {
            assert_eq!(redirects().check(url), Ok(()), "{url}");
        }
    }

    #[test]
    fn no_trick_leads_elsewhere() {
        for url in [
            "https://evil.example",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.example",
            "https://app.example.com@evil.example",
            "https://evil.example\\@app.example.com",
            "https://app.example.com\t.evil.example",
            "https://user@app.example.com",
            "//app.example.com",
            "javascript:alert(1)",
            "https://{CHECKOUT_SESSION_ID}.app.example.com",
            "app.example.com",
            "",
        ] {
            assert!(redirects().check(url).is_err(), "{url}");
        }
    }
}
