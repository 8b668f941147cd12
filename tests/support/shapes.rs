//! Re-shapes a StripeEvent between the payload shapes before and since 2025-03-31 ("basil"), as if the endpoint's API
//! version had been changed between two deliveries.

use serde_json::{Map, Value, json};

type Fields = Map<String, Value>;

/// The shape that the event does not have.
pub fn other_shape(event: &Value) -> Value {
    if is_basil(event) { to_pre_basil(event) } else { to_basil(event) }
}

fn is_basil(event: &Value) -> bool {
    event["api_version"].as_str().is_some_and(|version| version >= "2025-03-31")
}

fn to_basil(event: &Value) -> Value {
    reshape(event, "2025-08-27.basil", |object, previous| match object["object"].as_str() {
        Some("subscription") => period_to_items(object, previous),
        Some("invoice") => invoice_to_basil(object),
        Some("charge" | "payment_intent") => drop_key(object, "invoice"),
        _ => {}
    })
}

fn to_pre_basil(event: &Value) -> Value {
    reshape(event, "2024-06-20", |object, previous| match object["object"].as_str() {
        Some("subscription") => period_to_subscription(object, previous),
        Some("invoice") => invoice_to_pre_basil(object),
        _ => {}
    })
}

fn reshape(event: &Value, version: &str, change: impl Fn(&mut Value, Option<&mut Value>)) -> Value {
    let mut event = event.clone();
    event["api_version"] = json!(version);
    let Some(data) = event["data"].as_object_mut() else { return event };
    let mut previous = data.remove("previous_attributes");
    change(&mut data["object"], previous.as_mut());
    if let Some(previous) = previous {
        data.insert("previous_attributes".to_owned(), previous);
    }
    event
}

const PERIOD: [&str; 2] = ["current_period_start", "current_period_end"];

fn period_to_items(subscription: &mut Value, previous: Option<&mut Value>) {
    let old_items = subscription["items"]["data"].clone();
    let period = take(fields(subscription), &PERIOD);
    let give_period = |items: &mut Value, period: &Fields| {
        for item in items.as_array_mut().into_iter().flatten() {
            fields(item).extend(period.clone());
        }
    };
    give_period(&mut subscription["items"]["data"], &period);
    let Some(previous) = previous else { return };
    let old_period = take(fields(previous), &PERIOD);
    if old_period.is_empty() && previous.get("items").is_none() {
        return;
    }
    // The items are told whole as soon as anything in them changed.
    let mut before = previous.get("items").map_or(old_items, |items| items["data"].clone());
    let mut whole = period;
    whole.extend(old_period);
    give_period(&mut before, &whole);
    previous["items"] = json!({"data": before});
}

fn period_to_subscription(subscription: &mut Value, previous: Option<&mut Value>) {
    let mut period = Fields::new();
    for item in subscription["items"]["data"].as_array_mut().into_iter().flatten() {
        period = take(fields(item), &PERIOD);
    }
    fields(subscription).extend(period.clone());
    let Some(previous) = previous else { return };
    let mut before = Fields::new();
    let old_items = previous.pointer_mut("/items/data").and_then(Value::as_array_mut);
    for item in old_items.into_iter().flatten() {
        before = take(fields(item), &PERIOD);
    }
    before.retain(|key, value| period.get(key) != Some(value));
    fields(previous).extend(before);
}

fn invoice_to_basil(invoice: &mut Value) {
    let invoice_id = invoice["id"].clone();
    let of_old = take(fields(invoice), &["subscription", "subscription_details", "payment_intent", "paid", "charge"]);
    let taxes = take(fields(invoice), &["tax", "total_tax_amounts"]);
    if let Some(subscription) = of_old.get("subscription").filter(|subscription| !subscription.is_null()) {
        let mut details = of_old.get("subscription_details").cloned().unwrap_or_else(|| json!({}));
        details["subscription"] = subscription.clone();
        invoice["parent"] = json!({"type": "subscription_details", "subscription_details": details});
    }
    if let Some(intent) = of_old.get("payment_intent").filter(|intent| !intent.is_null()) {
        let payment = json!({"type": "payment_intent", "payment_intent": intent});
        let link = json!({"object": "invoice_payment", "invoice": invoice_id, "payment": payment});
        invoice["payments"] = json!({"object": "list", "data": [link]});
    }
    let tax = taxes.get("tax").filter(|tax| !tax.is_null());
    invoice["total_taxes"] = tax.map_or(json!([]), |amount| json!([{"amount": amount}]));
    for line in invoice["lines"]["data"].as_array_mut().into_iter().flatten() {
        let old = take(fields(line), &["price", "plan", "subscription", "subscription_item", "proration", "type"]);
        if let Some(price) = old.get("price").filter(|price| !price.is_null()) {
            line["pricing"] = json!({"type": "price_details",
                "price_details": {"price": price["id"], "product": price["product"]}});
        }
        let is_item = old.get("type") == Some(&json!("invoiceitem"));
        let kind = if is_item { "invoice_item_details" } else { "subscription_item_details" };
        let mut details = old;
        details.retain(|key, _| ["subscription", "subscription_item", "proration"].contains(&key.as_str()));
        line["parent"] = json!({"type": kind, kind: details});
    }
}

fn invoice_to_pre_basil(invoice: &mut Value) {
    let parent = take(fields(invoice), &["parent"]).remove("parent").unwrap_or_default();
    let details = &parent["subscription_details"];
    invoice["subscription"] = details["subscription"].clone();
    invoice["subscription_details"] = json!({"metadata": details["metadata"]});
    invoice["paid"] = json!(invoice["status"] == "paid");
    let payments = take(fields(invoice), &["payments"]).remove("payments").unwrap_or_default();
    invoice["payment_intent"] = payments["data"][0]["payment"]["payment_intent"].clone();
    let taxes = take(fields(invoice), &["total_taxes"]).remove("total_taxes").unwrap_or_default();
    let amounts = taxes.as_array().into_iter().flatten().filter_map(|tax| tax["amount"].as_i64());
    invoice["tax"] = json!(amounts.sum::<i64>());
    for line in invoice["lines"]["data"].as_array_mut().into_iter().flatten() {
        let new = take(fields(line), &["parent", "pricing", "taxes"]);
        if let Some(priced) = new.get("pricing").map(|pricing| &pricing["price_details"]) {
            line["price"] = json!({"id": priced["price"], "object": "price", "product": priced["product"]});
        }
        let Some(parent) = new.get("parent") else { continue };
        let kind =
            ["subscription_item_details", "invoice_item_details"].into_iter().find(|kind| parent[kind].is_object());
        let details = kind.map(|kind| &parent[kind]);
        for key in ["subscription", "subscription_item", "proration"] {
            line[key] = details.map(|details| details[key].clone()).unwrap_or_default();
        }
        line["type"] = json!(if kind == Some("invoice_item_details") { "invoiceitem" } else { "subscription" });
    }
}

fn drop_key(object: &mut Value, key: &str) {
    take(fields(object), &[key]);
}

fn fields(value: &mut Value) -> &mut Fields {
    value.as_object_mut().expect("an object")
}

/// Takes the named fields out.
fn take(fields: &mut Fields, keys: &[&str]) -> Fields {
    keys.iter().filter_map(|key| fields.remove_entry(*key)).collect()
}
