//! `expand[]`: ids that are answered as whole objects (<https://docs.stripe.com/api/expanding_objects>).

use serde_json::{Value, json};

use super::World;
use super::read::Read;
use crate::error::{Result, StripeError};

impl World {
    pub(crate) fn expand(&self, value: &mut Value, path: &str) -> Result<()> {
        let segments: Vec<&str> = path.split('.').collect();
        if segments.iter().filter(|segment| **segment != "data").count() > 4 {
            return Err(StripeError::malformed("expand", "Expansions have four levels at most"));
        }
        self.expand_into(value, &segments).ok_or_else(|| {
            let message = format!("This property cannot be expanded ({path}), by the simulator at the least.");
            StripeError::malformed("expand", message)
        })
    }

    fn expand_into(&self, value: &mut Value, path: &[&str]) -> Option<()> {
        if let Value::Array(values) = value {
            return values.iter_mut().try_for_each(|value| self.expand_into(value, path));
        }
        if let Some(object) = value.as_str().and_then(|id| self.objects.get(id)) {
            *value = Value::clone(object);
        }
        let Some((first, rest)) = path.split_first() else { return Some(()) };
        match value {
            Value::Null => Some(()),
            Value::Object(_) => {
                if value.get(*first).is_none() {
                    let included = self.includable(value, first)?;
                    value[*first] = included;
                }
                self.expand_into(value.get_mut(*first)?, rest)
            }
            _ => None,
        }
    }

    /// What is answered only on request.
    fn includable(&self, object: &Value, field: &str) -> Option<Value> {
        let id = object.text("id");
        let listed = |kind: &str, key: &str, url: String| {
            let data: Vec<Value> = self
                .objects
                .all(kind)
                .rev()
                .filter(|other| other.text(key) == id)
                .map(|other| Value::clone(other))
                .collect();
            json!({ "object": "list", "data": data, "has_more": false, "url": url })
        };
        match (object.text("object"), field) {
            ("invoice", "payments") => {
                Some(listed("invoice_payment", "invoice", format!("/v1/invoice_payments?invoice={id}")))
            }
            ("invoice", "payment_intent") => Some(object["_payment_intent"].clone()),
            ("invoice", "charge") => Some(object["_charge"].clone()),
            ("invoice", "subscription") => Some(object["parent"]["subscription_details"]["subscription"].clone()),
            ("payment_intent" | "charge", "invoice") => Some(object["_invoice"].clone()),
            ("invoice", "confirmation_secret") => {
                let intent = self.objects.get(object.text("_payment_intent"))?;
                Some(json!({ "client_secret": intent["client_secret"], "type": "payment_intent" }))
            }
            ("charge", "refunds") => Some(listed("refund", "charge", format!("/v1/charges/{id}/refunds"))),
            ("customer", "subscriptions") => {
                Some(listed("subscription", "customer", format!("/v1/customers/{id}/subscriptions")))
            }
            ("checkout.session", "line_items") => Some(json!({
                "object": "list", "data": object["_line_items"], "has_more": false,
                "url": format!("/v1/checkout/sessions/{id}/line_items"),
            })),
            ("price", "tiers") => Some(object["_tiers"].clone()),
            ("discount", "coupon") => Some(object["_coupon"].clone()),
            ("promotion_code", "coupon") => Some(object["_coupon"].clone()),
            _ => None,
        }
    }
}
