//! Bodies of StripeEvents without what names a person, for those that have to be kept.

use serde_json::Value;

/// Fields of Stripe's objects that hold personal data, or texts that somebody typed, by their names at any depth
/// (<https://docs.stripe.com/api>). Nothing of them is read by `translate` but the e-mail address.
const PERSONAL: &[&str] = &[
    "address",
    "billing_details",
    "business_name",
    "collected_information",
    "custom_fields",
    "customer_address",
    "customer_details",
    "customer_email",
    "customer_name",
    "customer_phone",
    "customer_shipping",
    "customer_tax_ids",
    "description",
    "email",
    "evidence",
    "fingerprint",
    "individual_name",
    "invoice_settings",
    "ip_address",
    "name",
    "owner",
    "payment_method_details",
    "phone",
    "receipt_email",
    "receipt_url",
    "shipping",
    "tax_ids",
];

/// The same event without them, metadata aside, which says whose it is. `None`: the body is not JSON.
pub fn redact(body: &[u8]) -> Option<Vec<u8>> {
    let mut event: Value = serde_json::from_slice(body).ok()?;
    redact_value(&mut event);
    serde_json::to_vec(&event).ok()
}

fn redact_value(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if PERSONAL.contains(&name.as_str()) {
                    *field = Value::Null;
                } else if name != "metadata" {
                    redact_value(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact_value),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_names_a_person_goes_and_the_rest_stays() {
        let event = json!({
            "id": "evt_1", "created": 1_769_730_600, "data": {"object": {
                "id": "in_1", "customer": "cus_1", "customer_email": "ada@example.com", "total": 999,
                "metadata": {"account_id": "user_1", "name": "kept"},
                "lines": {"data": [{"id": "il_1", "description": "for Ada", "amount": 999}]},
            }, "previous_attributes": {"customer_address": {"city": "London"}}},
        });
        let redacted = redact(event.to_string().as_bytes()).expect("JSON");
        let expected = json!({
            "id": "evt_1", "created": 1_769_730_600, "data": {"object": {
                "id": "in_1", "customer": "cus_1", "customer_email": null, "total": 999,
                "metadata": {"account_id": "user_1", "name": "kept"},
                "lines": {"data": [{"id": "il_1", "description": null, "amount": 999}]},
            }, "previous_attributes": {"customer_address": null}},
        });
        assert_eq!(serde_json::from_slice::<Value>(&redacted).expect("JSON"), expected);
        assert_eq!(redact(b"not json"), None);
    }
}
