//! Portal sessions (<https://docs.stripe.com/api/customer_portal/sessions>).

use serde_json::{Value, json};

use super::World;
use super::checkout_session::check_url;
use super::read::Read;
use crate::error::Result;
use crate::params::Params;

impl World {
    pub(crate) fn create_portal_session(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&["customer", "configuration", "flow_data", "locale", "return_url"])?;
        let customer = params.required("customer")?;
        self.objects.named("customer", customer, "customer")?;
        check_url(params, "return_url")?;
        let configuration = match params.text("configuration")? {
            Some(id) => self.objects.named("billing_portal.configuration", id, "configuration")?.text("id").to_owned(),
            None => self.portal_configuration(),
        };
        let flow = params.map("flow_data")?;
        flow.only(&[
            "type",
            "after_completion",
            "subscription_cancel",
            "subscription_update",
            "subscription_update_confirm",
        ])?;
        let id = self.ids.id("bps");
        let secret = self.ids.text(24);
        let session = json!({
            "id": id, "object": "billing_portal.session", "configuration": configuration, "created": self.now,
            "customer": customer, "customer_account": null,
            "flow": flow.text("type")?.map(|kind| json!({
                "after_completion": { "hosted_confirmation": null, "redirect": null, "type": "portal_homepage" },
                "subscription_cancel": null, "subscription_update": null, "subscription_update_confirm": null,
                "type": kind,
            })),
            "livemode": false, "locale": params.text("locale")?, "on_behalf_of": null,
            "return_url": params.text("return_url")?,
            "url": format!("{}/p/session/{id}?secret={secret}", self.settings.base_url),
        });
        self.objects.insert(session);
        self.emit("billing_portal.session.created", &id);
        Ok(self.answer(&id))
    }

    /// The one configuration there is, made when it is first needed.
    fn portal_configuration(&mut self) -> String {
        if let Some(found) = self.objects.all("billing_portal.configuration").next() {
            return found.text("id").to_owned();
        }
        let id = self.ids.id("bpc");
        self.objects.insert(json!({
            "id": id, "object": "billing_portal.configuration", "active": true, "application": null,
            "business_profile": { "headline": null, "privacy_policy_url": null, "terms_of_service_url": null },
            "created": self.now, "default_return_url": null,
            "features": {
                "customer_update": { "allowed_updates": ["email"], "enabled": false },
                "invoice_history": { "enabled": true },
                "payment_method_update": { "enabled": false, "payment_method_configuration": null },
                "subscription_cancel": {
                    "cancellation_reason": { "enabled": false, "options": [] }, "enabled": true,
                    "mode": "at_period_end", "proration_behavior": "none",
                },
                "subscription_update": {
                    "billing_cycle_anchor": null, "default_allowed_updates": [], "enabled": false,
                    "proration_behavior": "none", "schedule_at_period_end": { "conditions": [] },
                    "trial_update_behavior": "end_trial",
                },
            },
            "is_default": true, "livemode": false, "login_page": { "enabled": false, "url": null }, "metadata": {},
            "name": null, "updated": self.now,
        }));
        id
    }

    pub(crate) fn list_portal_configurations(&mut self, params: &Params<'_>) -> Result<Value> {
        self.portal_configuration();
        let url = "/v1/billing_portal/configurations";
        self.list(params, "billing_portal.configuration", url, &["active", "is_default"], |_| true)
    }
}
