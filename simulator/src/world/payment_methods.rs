//! Payment methods (<https://docs.stripe.com/api/payment_methods>): cards that behave as they are told.

use serde_json::{Value, json};

use super::World;
use super::cards::Card;
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;

impl World {
    pub(crate) fn create_payment_method(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&["type", "card", "billing_details", "metadata", "allow_redisplay"])?;
        if params.required("type")? != "card" {
            return Err(StripeError::malformed("type", "The simulator knows payment methods of type card"));
        }
        let card = params.map("card")?;
        card.only(&["number", "token", "exp_month", "exp_year", "cvc"])?;
        let name = match card.text("token")? {
            Some(token) => token.to_owned(),
            None => card.required("number")?.replace([' ', '-'], ""),
        };
        let known = Card::of_test(&name).ok_or_else(|| {
            let message = "Neither a test token nor a test number that the simulator knows.";
            StripeError { code: Some("incorrect_number"), ..StripeError::malformed("card", message) }
        })?;
        let id = self.new_payment_method(known, None);
        let details = params.map("billing_details")?;
        let metadata = params.metadata("metadata")?;
        let (email, name, phone) = (details.text("email")?, details.text("name")?, details.text("phone")?);
        self.alter(&id, |method| {
            method["billing_details"]["email"] = json!(email);
            method["billing_details"]["name"] = json!(name);
            method["billing_details"]["phone"] = json!(phone);
            method["metadata"] = metadata;
        });
        Ok(self.answer(&id))
    }

    /// A card that nobody has yet, or that a customer has from the beginning.
    pub(crate) fn new_payment_method(&mut self, card: (Card, &str, &str), customer: Option<&str>) -> String {
        let (behavior, brand, last4) = card;
        let id = self.ids.id("pm");
        let owner = customer.and_then(|customer| self.objects.get(customer));
        let (email, name) =
            owner.map_or((Value::Null, Value::Null), |owner| (owner["email"].clone(), owner["name"].clone()));
        let fingerprint = self.ids.text(16);
        self.objects.insert(json!({
            "id": id, "object": "payment_method", "allow_redisplay": "unspecified",
            "billing_details": {
                "address": blank_address(), "email": email, "name": name, "phone": null, "tax_id": null,
            },
            "card": {
                "brand": brand,
                "checks": { "address_line1_check": null, "address_postal_code_check": null, "cvc_check": "pass" },
                "country": "US", "display_brand": brand, "exp_month": 12, "exp_year": 2044,
                "fingerprint": fingerprint, "funding": "credit", "generated_from": null, "last4": last4,
                "networks": { "available": [brand], "preferred": null }, "regulated_status": "unregulated",
                "three_d_secure_usage": { "supported": true }, "wallet": null,
            },
            "created": self.now, "customer": customer, "customer_account": null, "livemode": false, "metadata": {},
            "type": "card", "_card": behavior.as_str(),
        }));
        id
    }

    pub(crate) fn card_of(&self, method: &str) -> Card {
        let method = self.objects.get(method);
        method.and_then(|method| Card::parse(method.text("_card"))).unwrap_or(Card::Good)
    }

    /// Attaches a payment method, or a new one from a test id such as `pm_card_visa`; answers its id.
    pub(crate) fn attach(&mut self, method: &str, customer: &str, param: &str) -> Result<String> {
        let id = match Card::of_test(method) {
            Some((Card::Refused, ..)) => {
                return Err(Card::Refused.refusal().map_or_else(StripeError::server_error, |refusal| refusal.error()));
            }
            Some(known) => self.new_payment_method(known, Some(customer)),
            None => {
                let known = self.objects.named("payment_method", method, param)?;
                match known.text("customer") {
                    "" => {}
                    owner if owner == customer => return Ok(method.to_owned()),
                    _ => {
                        let message = "The payment method you provided has already been attached to a customer.";
                        return Err(StripeError::unfit(param, message));
                    }
                }
                self.alter(method, |method| method["customer"] = json!(customer));
                self.objects.give_to(customer, method);
                method.to_owned()
            }
        };
        self.emit("payment_method.attached", &id);
        Ok(id)
    }

    pub(crate) fn attach_payment_method(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["customer"])?;
        let customer = params.required("customer")?;
        self.objects.named("customer", customer, "customer")?;
        let id = self.attach(id, customer, "payment_method")?;
        Ok(self.answer(&id))
    }

    pub(crate) fn detach_payment_method(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&[])?;
        let owner = self.objects.of("payment_method", id)?.text("customer").to_owned();
        if owner.is_empty() {
            let message = "The payment method you provided is not attached to a customer so detachment is impossible.";
            return Err(StripeError::unfit("payment_method", message));
        }
        self.change("payment_method.detached", id, |method| method["customer"] = Value::Null);
        self.change("customer.updated", &owner, |customer| {
            if customer["invoice_settings"].text("default_payment_method") == id {
                customer["invoice_settings"]["default_payment_method"] = Value::Null;
            }
        });
        let of_owner: Vec<String> = self
            .objects
            .all("subscription")
            .filter(|subscription| subscription.text("default_payment_method") == id)
            .map(|subscription| subscription.text("id").to_owned())
            .collect();
        for subscription in of_owner {
            self.change("customer.subscription.updated", &subscription, |subscription| {
                subscription["default_payment_method"] = Value::Null;
            });
        }
        Ok(self.answer(id))
    }

    pub(crate) fn retrieve_payment_method(&self, id: &str) -> Result<Value> {
        self.objects.of("payment_method", id).map(|method| Value::clone(method))
    }

    pub(crate) fn list_payment_methods(&self, params: &Params<'_>, customer: Option<&str>) -> Result<Value> {
        let url = customer.map_or_else(
            || "/v1/payment_methods".to_owned(),
            |customer| format!("/v1/customers/{customer}/payment_methods"),
        );
        if let Some(customer) = customer {
            self.live_customer(customer)?;
        }
        let owned = |method: &Value| customer.is_none_or(|customer| method.text("customer") == customer);
        self.list(params, "payment_method", &url, &["customer", "type", "allow_redisplay"], |method| {
            owned(method) && !method["customer"].is_null()
        })
    }

    /// What a subscription's invoices are charged to.
    pub(crate) fn default_method(&self, customer: &str, subscription: Option<&str>) -> Option<String> {
        let own = subscription
            .and_then(|id| self.objects.get(id))
            .map(|object| object.text("default_payment_method").to_owned());
        own.filter(|method| !method.is_empty()).or_else(|| {
            let customer = self.objects.get(customer)?;
            customer["invoice_settings"].maybe_text("default_payment_method").map(str::to_owned)
        })
    }

    /// Makes the card that a customer pays with behave otherwise from now on.
    pub fn change_card(&mut self, customer: &str, card: Card) -> Result<()> {
        self.live_customer(customer)?;
        let methods: Vec<String> = self
            .objects
            .all("payment_method")
            .filter(|method| method.text("customer") == customer)
            .map(|method| method.text("id").to_owned())
            .collect();
        for id in methods {
            self.alter(&id, |method| method["_card"] = json!(card.as_str()));
        }
        Ok(())
    }
}

pub fn blank_address() -> Value {
    json!({ "city": null, "country": null, "line1": null, "line2": null, "postal_code": null, "state": null })
}
