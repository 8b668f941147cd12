//! Checkout sessions (<https://docs.stripe.com/api/checkout/sessions>): making, listing and expiring them.

use serde_json::{Value, json};

use super::World;
use super::agenda::Task;
use super::coupons::taken_off;
use super::prices::cost;
use super::read::Read;
use super::subscription_calls::{check_items, missing_payment_method, refuse};
use super::subscriptions::NewItem;
use crate::error::{Result, StripeError};
use crate::params::Params;
use crate::time::{DAY_S, HOUR_S};

/// Taken, shown on the session, and not acted upon.
const SHOWN: [&str; 9] = [
    "allow_promotion_codes",
    "billing_address_collection",
    "locale",
    "payment_method_collection",
    "payment_method_types",
    "submit_type",
    "customer_creation",
    "ui_mode",
    "currency",
];
/// Taken, and neither shown nor acted upon.
const TOLERATED: [&str; 11] = [
    "automatic_tax",
    "consent_collection",
    "custom_text",
    "customer_update",
    "invoice_creation",
    "payment_method_options",
    "phone_number_collection",
    "saved_payment_method_options",
    "tax_id_collection",
    "adaptive_pricing",
    "payment_method_configuration",
];
const KNOWN: [&str; 13] = [
    "cancel_url",
    "client_reference_id",
    "customer",
    "customer_email",
    "discounts",
    "expires_at",
    "line_items",
    "metadata",
    "mode",
    "payment_intent_data",
    "return_url",
    "subscription_data",
    "success_url",
];

impl World {
    pub(crate) fn create_session(&mut self, params: &Params<'_>) -> Result<Value> {
        let known: Vec<&str> = KNOWN.iter().chain(&SHOWN).chain(&TOLERATED).copied().collect();
        params.only(&known)?;
        let mode = params.one_of("mode", &["payment", "subscription"])?.ok_or_else(|| StripeError::missing("mode"))?;
        let is_subscription = mode == "subscription";
        let is_hosted = !matches!(params.text("ui_mode")?, Some("embedded" | "custom" | "embedded_page" | "elements"));
        let success_url = if is_hosted { Some(params.required("success_url")?) } else { params.text("success_url")? };
        for key in ["success_url", "cancel_url", "return_url"] {
            check_url(params, key)?;
        }
        let customer = params.text("customer")?;
        let email = params.text("customer_email")?;
        if let Some(customer) = customer {
            self.objects.named("customer", customer, "customer")?;
            if email.is_some() {
                let message = "You may only specify one of these parameters: customer, customer_email.";
                return Err(StripeError::malformed("customer_email", message));
            }
        }
        let expires_at = params.int("expires_at")?.unwrap_or(self.now + DAY_S);
        // Half an hour to a day, says Stripe; a clock may be a little off.
        if !(self.now + HOUR_S / 2 - 60..=self.now + DAY_S + 60).contains(&expires_at) {
            let message = "expires_at must be between 30 minutes and 24 hours from the session's creation.";
            return Err(StripeError::unfit("expires_at", message));
        }
        let lines = self.read_lines(params, is_subscription)?;
        if params.has("discounts") && params.bool("allow_promotion_codes")?.unwrap_or(false) {
            let message = "You may only specify one of these parameters: allow_promotion_codes, discounts.";
            return Err(StripeError::malformed("discounts", message));
        }
        let discounts = self.read_discounts(params, customer)?;
        let settled = self.read_data(params, is_subscription)?;
        let currency = lines[0].text("currency").to_owned();
        let is_trial = settled["trial_end"].is_i64() || settled["trial_period_days"].is_i64();
        let recurring = |line: &Value| line["price"]["recurring"].is_object();
        let subtotal: i64 =
            lines.iter().filter(|line| !(is_trial && recurring(line))).map(|line| line.int("amount_subtotal")).sum();
        let off = discounts.iter().fold(0, |off, discount| off + taken_off(discount, subtotal - off, &currency));
        let shown_discounts: Vec<Value> = discounts
            .iter()
            .map(|discount| json!({ "coupon": discount["source"]["coupon"], "promotion_code": discount["promotion_code"] }))
            .collect();
        let id = self.ids.id("cs");
        let creation = params.one_of("customer_creation", &["always", "if_required"])?;
        if creation.is_some() && is_subscription {
            let message = "customer_creation can only be used in payment mode.";
            return Err(StripeError::malformed("customer_creation", message));
        }
        let creation = if customer.is_some() {
            None
        } else {
            Some(creation.unwrap_or(if is_subscription { "always" } else { "if_required" }))
        };
        let collection = params.one_of("payment_method_collection", &["always", "if_required"])?;
        let types = params.texts("payment_method_types")?;
        let session = json!({
            "id": id, "object": "checkout.session", "adaptive_pricing": { "enabled": false },
            "after_expiration": null, "allow_promotion_codes": params.bool("allow_promotion_codes")?,
            "amount_subtotal": subtotal, "amount_total": subtotal - off,
            "automatic_tax": { "enabled": false, "liability": null, "provider": null, "status": null },
            "billing_address_collection": params.text("billing_address_collection")?,
            "cancel_url": params.text("cancel_url")?, "client_reference_id": params.text("client_reference_id")?,
            "client_secret": null,
            "collected_information": { "business_name": null, "individual_name": null, "shipping_details": null },
            "consent": null, "consent_collection": null, "created": self.now, "currency": currency,
            "currency_conversion": null, "custom_fields": [],
            "custom_text": {
                "after_submit": null, "shipping_address": null, "submit": null, "terms_of_service_acceptance": null,
            },
            "customer": customer, "customer_account": null, "customer_creation": creation, "customer_details": null,
            "customer_email": email, "discounts": shown_discounts, "expires_at": expires_at,
            "integration_identifier": null, "invoice": null, "invoice_creation": if is_subscription { Value::Null } else { no_invoice() },
            "livemode": false, "locale": params.text("locale")?, "managed_payments": { "enabled": false },
            "metadata": params.metadata("metadata")?, "mode": mode, "origin_context": null, "payment_intent": null,
            "payment_link": null,
            "payment_method_collection": collection.unwrap_or(if is_subscription { "always" } else { "if_required" }),
            "payment_method_configuration_details": null,
            "payment_method_options": { "card": { "request_three_d_secure": "automatic" } },
            "payment_method_types": if types.is_empty() { vec!["card"] } else { types },
            "payment_status": "unpaid", "permissions": null, "phone_number_collection": { "enabled": false },
            "recovered_from": null,
            "saved_payment_method_options": {
                "allow_redisplay_filters": ["always"], "payment_method_remove": "disabled",
                "payment_method_save": null,
            },
            "setup_intent": null, "shipping_address_collection": null, "shipping_cost": null, "shipping_options": [],
            "status": "open", "submit_type": params.text("submit_type")?, "subscription": null,
            "success_url": success_url,
            "total_details": { "amount_discount": off, "amount_shipping": 0, "amount_tax": 0 },
            "ui_mode": params.text("ui_mode")?.unwrap_or("hosted"),
            "url": is_hosted.then(|| format!("{}/c/pay/{id}", self.settings.base_url)), "wallet_options": null,
            "_line_items": lines, "_data": settled, "_discounts": discounts,
        });
        self.objects.insert(session);
        self.schedule(expires_at, Task::ExpireSession(id.clone()));
        Ok(self.answer(&id))
    }

    fn read_lines(&mut self, params: &Params<'_>, is_subscription: bool) -> Result<Vec<Value>> {
        let given = params.list("line_items")?;
        if given.is_empty() {
            return Err(StripeError::missing("line_items"));
        }
        let (mut lines, mut recurring) = (Vec::new(), Vec::new());
        for line in &given {
            line.only(&[
                "price",
                "price_data",
                "quantity",
                "adjustable_quantity",
                "metadata",
                "dynamic_tax_rates",
                "tax_rates",
            ])?;
            let price = self.read_price(line)?;
            let is_metered = price["recurring"].text("usage_type") == "metered";
            let quantity = match line.natural("quantity")? {
                Some(_) if is_metered => {
                    return Err(StripeError::unfit(line.name("quantity"), "Metered prices have no quantity."));
                }
                Some(0) => {
                    return Err(StripeError::unfit(line.name("quantity"), "Invalid quantity: must be 1 or more"));
                }
                None if !is_metered => return Err(StripeError::missing(line.name("quantity"))),
                given => given,
            };
            if price["recurring"].is_object() {
                if !is_subscription {
                    let message = "You specified payment mode but passed a recurring price. Use subscription mode.";
                    return Err(StripeError::unfit("mode", message));
                }
                recurring.push(NewItem { price: price.clone(), quantity: quantity.unwrap_or(1), metadata: json!({}) });
            }
            let amount = if is_metered { 0 } else { cost(&price, quantity.unwrap_or(1) as f64) };
            lines.push(json!({
                "id": self.ids.id("li"), "object": "item", "adjustable_quantity": null, "amount_discount": 0,
                "amount_subtotal": amount, "amount_tax": 0, "amount_total": amount, "currency": price["currency"],
                "description": self.product_name(&price), "metadata": line.metadata("metadata")?, "price": price,
                "quantity": quantity,
            }));
        }
        if is_subscription {
            if recurring.is_empty() {
                let message = "You must provide at least one recurring price in subscription mode.";
                return Err(StripeError::unfit("line_items", message));
            }
            check_items(&recurring, "line_items")?;
        }
        if lines.iter().any(|line| line["currency"] != lines[0]["currency"]) {
            return Err(StripeError::unfit("line_items", "All prices on a session must have the same currency."));
        }
        Ok(lines)
    }

    /// What the session's payment or subscription is to be made with.
    fn read_data(&self, params: &Params<'_>, is_subscription: bool) -> Result<Value> {
        let (key, other) = if is_subscription {
            ("subscription_data", "payment_intent_data")
        } else {
            ("payment_intent_data", "subscription_data")
        };
        if params.has(other) {
            return Err(StripeError::malformed(other, format!("{other} belongs to the other mode.")));
        }
        let data = params.map(key)?;
        if !is_subscription {
            data.only(&[
                "metadata",
                "description",
                "setup_future_usage",
                "receipt_email",
                "capture_method",
                "statement_descriptor",
                "statement_descriptor_suffix",
            ])?;
            refuse(&data, &["capture_method"])?;
            let usage = data.one_of("setup_future_usage", &["on_session", "off_session"])?;
            return Ok(json!({
                "metadata": data.metadata("metadata")?, "description": data.text("description")?,
                "setup_future_usage": usage,
            }));
        }
        data.only(&[
            "metadata",
            "description",
            "trial_period_days",
            "trial_end",
            "trial_settings",
            "billing_cycle_anchor",
            "proration_behavior",
            "billing_mode",
            "invoice_settings",
        ])?;
        let days = data.int("trial_period_days")?;
        if days.is_some_and(|days| days < 1) {
            let message = "The minimum number of trial period days is 1.";
            return Err(StripeError::malformed(data.name("trial_period_days"), message));
        }
        Ok(json!({
            "metadata": data.metadata("metadata")?, "description": data.text("description")?,
            "trial_period_days": days, "trial_end": data.int("trial_end")?,
            "billing_cycle_anchor": data.int("billing_cycle_anchor")?,
            "missing_payment_method": missing_payment_method(&data)?,
        }))
    }

    pub(crate) fn list_sessions(&self, params: &Params<'_>) -> Result<Value> {
        let filters = ["customer", "payment_intent", "subscription", "status"];
        self.list(params, "checkout.session", "/v1/checkout/sessions", &filters, |_| true)
    }

    pub(crate) fn list_line_items(&self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&super::list::PAGE_PARAMS)?;
        let session = self.objects.of("checkout.session", id)?;
        let url = format!("/v1/checkout/sessions/{id}/line_items");
        super::list::Page::read(params)?.of(
            session.rows("_line_items").iter(),
            |line| line.text("id"),
            Value::clone,
            &url,
        )
    }

    pub(crate) fn expire_session(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&[])?;
        if self.objects.of("checkout.session", id)?.text("status") != "open" {
            let message = "This Session is not in an expireable state: only open ones can be expired.";
            return Err(StripeError::unfit("session", message));
        }
        self.expire(id);
        Ok(self.answer(id))
    }

    pub(crate) fn update_session(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["metadata"])?;
        let mut metadata = self.objects.of("checkout.session", id)?["metadata"].clone();
        params.merge_metadata("metadata", &mut metadata)?;
        self.alter(id, |session| session["metadata"] = metadata);
        Ok(self.answer(id))
    }

    pub(crate) fn expire_session_when_due(&mut self, id: &str) {
        if self.objects.get(id).is_some_and(|session| session.text("status") == "open") {
            self.expire(id);
        }
    }

    fn expire(&mut self, id: &str) {
        self.alter(id, |session| {
            session["status"] = json!("expired");
            session["url"] = Value::Null;
        });
        self.emit("checkout.session.expired", id);
    }
}

fn no_invoice() -> Value {
    json!({
        "enabled": false,
        "invoice_data": {
            "account_tax_ids": null, "custom_fields": null, "description": null, "footer": null, "issuer": null,
            "metadata": {}, "rendering_options": null,
        },
    })
}

pub fn check_url(params: &Params<'_>, key: &str) -> Result<()> {
    let Some(url) = params.text(key)? else { return Ok(()) };
    let is_url =
        ["http://", "https://"].iter().any(|scheme| url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
            && !url.contains(char::is_whitespace);
    if is_url {
        return Ok(());
    }
    let message = "Not a valid URL: it must begin with http:// or https://.";
    Err(StripeError { code: Some("url_invalid"), ..StripeError::malformed(params.name(key), message) })
}
