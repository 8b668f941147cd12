//! Webhook endpoints (<https://docs.stripe.com/api/webhook_endpoints>): where events go, in which shape, signed by what.

use serde_json::{Value, json};

use super::World;
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;
use crate::shape::ApiVersion;

/// Where events go.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub url: String,
    /// `whsec_…`; made up if none is given.
    pub secret: Option<String>,
    /// The shape of events; the account's if none is given.
    pub api_version: Option<ApiVersion>,
    /// Such as `invoice.*`; all if none is given.
    pub enabled_events: Vec<String>,
}

impl Endpoint {
    pub fn new(url: impl Into<String>, secret: impl Into<String>) -> Self {
        Self { url: url.into(), secret: Some(secret.into()), api_version: None, enabled_events: Vec::new() }
    }
}

impl World {
    /// Adds an endpoint, which gets what happens from now on; answers its id.
    pub fn add_endpoint(&mut self, endpoint: Endpoint) -> String {
        let id = self.ids.id("we");
        let secret = endpoint.secret.unwrap_or_else(|| format!("whsec_{}", self.ids.text(32)));
        let events = if endpoint.enabled_events.is_empty() { vec!["*".to_owned()] } else { endpoint.enabled_events };
        self.objects.insert(json!({
            "id": id, "object": "webhook_endpoint", "api_version": endpoint.api_version.map(|version| version.as_str().to_owned()),
            "application": null, "created": self.now, "description": null, "enabled_events": events,
            "livemode": false, "metadata": {}, "status": "enabled", "url": endpoint.url,
            "_secret": secret, "_from": self.events.len(),
        }));
        id
    }

    pub(crate) fn create_endpoint(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&["url", "enabled_events", "api_version", "description", "metadata", "connect"])?;
        super::checkout_session::check_url(params, "url")?;
        let version = params.text("api_version")?.map(|version| {
            ApiVersion::parse(version)
                .ok_or_else(|| StripeError::malformed("api_version", format!("Invalid API version: {version}")))
        });
        let events = params.texts("enabled_events")?;
        if events.is_empty() {
            return Err(StripeError::missing("enabled_events"));
        }
        let endpoint = Endpoint {
            url: params.required("url")?.to_owned(),
            secret: None,
            api_version: version.transpose()?,
            enabled_events: events.into_iter().map(str::to_owned).collect(),
        };
        let (description, metadata) = (params.text("description")?, params.metadata("metadata")?);
        let id = self.add_endpoint(endpoint);
        self.alter(&id, |endpoint| {
            endpoint["description"] = json!(description);
            endpoint["metadata"] = metadata;
        });
        // The secret is shown this once.
        let mut shown = self.answer(&id);
        shown["secret"] = shown["_secret"].clone();
        Ok(shown)
    }

    pub(crate) fn update_endpoint(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["url", "enabled_events", "description", "metadata", "disabled"])?;
        super::checkout_session::check_url(params, "url")?;
        let mut endpoint = Value::clone(self.objects.of("webhook_endpoint", id)?);
        if let Some(url) = params.text("url")? {
            endpoint["url"] = json!(url);
        }
        if params.has("enabled_events") {
            endpoint["enabled_events"] = json!(params.texts("enabled_events")?);
        }
        if params.has("description") {
            endpoint["description"] = json!(params.text("description")?);
        }
        if let Some(is_disabled) = params.bool("disabled")? {
            endpoint["status"] = json!(if is_disabled { "disabled" } else { "enabled" });
        }
        params.merge_metadata("metadata", &mut endpoint["metadata"])?;
        self.objects.insert(endpoint);
        Ok(self.answer(id))
    }

    pub(crate) fn delete_endpoint(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&[])?;
        self.objects.of("webhook_endpoint", id)?;
        self.objects.remove(id);
        Ok(json!({ "id": id, "object": "webhook_endpoint", "deleted": true }))
    }

    /// The endpoints that events go to.
    pub(crate) fn receivers(&self) -> Vec<Receiver> {
        let enabled = self.objects.all("webhook_endpoint").filter(|endpoint| endpoint.text("status") == "enabled");
        let read = enabled.map(|endpoint| Receiver {
            id: endpoint.text("id").to_owned(),
            url: endpoint.text("url").to_owned(),
            secret: endpoint.text("_secret").to_owned(),
            version: ApiVersion::parse(endpoint.text("api_version")).unwrap_or_else(|| self.version.clone()),
            kinds: endpoint.rows("enabled_events").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            from: usize::try_from(endpoint.int("_from")).unwrap_or_default(),
        });
        read.collect()
    }
}

/// An endpoint as deliveries need it.
#[derive(Debug, Clone)]
pub struct Receiver {
    pub id: String,
    pub url: String,
    pub secret: String,
    pub version: ApiVersion,
    kinds: Vec<String>,
    /// The place in the record of the first event that is its own.
    pub from: usize,
}

impl Receiver {
    pub fn wants(&self, kind: &str) -> bool {
        self.kinds.iter().any(|pattern| super::events::matches(pattern, kind))
    }
}
