//! Objects as receivers of other API versions know them.
//!
//! Everything is kept in the newest shape, beside fields whose names begin with `_`: facts that only older shapes show.
//! The changes of 2025-03-31 ("basil") moved a subscription's period to its items, an invoice's links to `parent` and its
//! payments to objects of their own (<https://docs.stripe.com/changelog/basil>); those of 2025-09-30 ("clover") moved
//! a discount's coupon to `source` (<https://docs.stripe.com/changelog/clover>).

use serde_json::{Map, Value, json};

use crate::world::read::Read;

/// A date, and since 2024-09-30 a name: `2025-08-27.basil`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiVersion(String);

const BASIL: &str = "2025-03-31";
const CLOVER: &str = "2025-09-30";

impl ApiVersion {
    pub fn parse(text: &str) -> Option<Self> {
        let date = text.get(..10)?;
        chrono::NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?;
        let rest = &text[10..];
        (rest.is_empty() || rest.starts_with('.')).then(|| Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn is_before(&self, date: &str) -> bool {
        self.0.as_str() < date
    }

    pub fn is_before_basil(&self) -> bool {
        self.is_before(BASIL)
    }
}

impl Default for ApiVersion {
    fn default() -> Self {
        Self("2026-09-30.endive".to_owned())
    }
}

/// The object, and all within it, in the shape of the version.
pub fn render(value: &Value, version: &ApiVersion) -> Value {
    match value {
        Value::Array(values) => Value::Array(values.iter().map(|value| render(value, version)).collect()),
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(key, _)| !key.starts_with('_'));
            let mut shown: Map<String, Value> =
                kept.map(|(key, inner)| (key.clone(), render(inner, version))).collect();
            if let Some(lines) = shown.get_mut("lines").filter(|_| value.text("object") == "invoice") {
                show_first(lines);
            }
            if version.is_before(CLOVER) {
                before_clover(value, &mut shown, version);
            }
            if version.is_before_basil() {
                before_basil(value, &mut shown, version);
            }
            Value::Object(shown)
        }
        other => other.clone(),
    }
}

/// Of the lines of an invoice, Stripe shows ten with it.
fn show_first(lines: &mut Value) {
    if let Some(rows) = lines["data"].as_array_mut().filter(|rows| rows.len() > 10) {
        rows.truncate(10);
        lines["has_more"] = json!(true);
    }
}

/// What an object's fields were, in the shape of the version.
pub fn render_previous(previous: &Value, object: &Value, version: &ApiVersion) -> Value {
    let mut shown = render(previous, version);
    if shown["lines"]["data"].is_array() {
        show_first(&mut shown["lines"]);
    }
    if !version.is_before_basil() {
        return shown;
    }
    let first_item = previous["items"]["data"].get(0);
    if let Some(item) = first_item.filter(|_| object.text("object") == "subscription") {
        for key in ["current_period_start", "current_period_end"] {
            if item[key] != object["items"]["data"][0][key] {
                shown[key] = item[key].clone();
            }
        }
        // Their periods are not shown, so nothing else may be left that differs.
        if shown["items"]["data"] == render(&object["items"]["data"], version)
            && let Value::Object(fields) = &mut shown
        {
            fields.remove("items");
        }
    }
    shown
}

fn before_clover(object: &Value, shown: &mut Map<String, Value>, version: &ApiVersion) {
    let coupon = render(&object["_coupon"], version);
    match object.text("object") {
        "discount" => {
            shown.remove("source");
            shown.insert("coupon".to_owned(), coupon);
        }
        "promotion_code" => {
            shown.remove("promotion");
            shown.insert("coupon".to_owned(), coupon);
        }
        _ => {}
    }
}

fn before_basil(object: &Value, shown: &mut Map<String, Value>, version: &ApiVersion) {
    match object.text("object") {
        "subscription" => {
            let item = &object["items"]["data"][0];
            shown.insert("current_period_start".to_owned(), item["current_period_start"].clone());
            shown.insert("current_period_end".to_owned(), item["current_period_end"].clone());
            shown.insert("discount".to_owned(), render(&object["_discount"], version));
            shown.remove("billing_mode");
        }
        "subscription_item" => {
            shown.remove("current_period_start");
            shown.remove("current_period_end");
        }
        "price" => {
            if let Some(recurring) = shown.get_mut("recurring").filter(|recurring| recurring.is_object()) {
                recurring["aggregate_usage"] = Value::Null;
            }
        }
        "plan" => {
            shown.insert("aggregate_usage".to_owned(), Value::Null);
        }
        "invoice" => invoice_before_basil(object, shown, version),
        "line_item" => line_before_basil(object, shown, version),
        "invoiceitem" => {
            let details = &object["parent"]["subscription_details"];
            shown.insert("subscription".to_owned(), details["subscription"].clone());
            shown.insert("subscription_item".to_owned(), details["subscription_item"].clone());
            let price = render(&object["_price"], version);
            shown.insert("unit_amount".to_owned(), price["unit_amount"].clone());
            shown.insert("unit_amount_decimal".to_owned(), price["unit_amount_decimal"].clone());
            shown.insert("plan".to_owned(), plan_of(&object["_price"], version));
            shown.insert("price".to_owned(), price);
            shown.remove("parent");
            shown.remove("pricing");
        }
        "payment_intent" | "charge" => {
            shown.insert("invoice".to_owned(), object["_invoice"].clone());
        }
        "credit_note" => {
            let refund = object["refunds"][0]["refund"].clone();
            shown.insert("refund".to_owned(), refund);
            for key in ["refunds", "post_payment_amount", "pre_payment_amount", "total_taxes", "pretax_credit_amounts"]
            {
                shown.remove(key);
            }
            shown.insert("tax_amounts".to_owned(), json!([]));
        }
        "credit_note_line_item" => {
            shown.insert("amount_excluding_tax".to_owned(), object["amount"].clone());
            shown.insert("unit_amount_excluding_tax".to_owned(), object["unit_amount_decimal"].clone());
            shown.insert("tax_amounts".to_owned(), json!([]));
            shown.remove("taxes");
            shown.remove("pretax_credit_amounts");
        }
        "checkout.session" => {
            let shipping = shown.remove("collected_information");
            shown.insert("shipping_details".to_owned(), shipping.unwrap_or_default()["shipping_details"].clone());
        }
        _ => {}
    }
}

fn invoice_before_basil(object: &Value, shown: &mut Map<String, Value>, version: &ApiVersion) {
    let details = &object["parent"]["subscription_details"];
    let is_paid = object.text("status") == "paid";
    let tax = object.rows("total_taxes").iter().map(|tax| tax.int("amount")).reduce(|sum, amount| sum + amount);
    let known = [
        ("application_fee_amount", Value::Null),
        ("charge", object["_charge"].clone()),
        ("discount", render(&object["_discount"], version)),
        ("paid", json!(is_paid)),
        ("paid_out_of_band", json!(object.is("_paid_out_of_band"))),
        ("payment_intent", object["_payment_intent"].clone()),
        ("quote", Value::Null),
        ("subscription", details["subscription"].clone()),
        ("subscription_details", json!({ "metadata": details["metadata"] })),
        ("tax", json!(tax)),
        ("total_tax_amounts", json!([])),
        ("transfer_data", Value::Null),
    ];
    shown.extend(known.map(|(key, value)| (key.to_owned(), value)));
    for key in ["parent", "amount_overpaid", "total_taxes", "total_pretax_credit_amounts", "payments"] {
        shown.remove(key);
    }
}

fn line_before_basil(object: &Value, shown: &mut Map<String, Value>, version: &ApiVersion) {
    let parent = &object["parent"];
    let of_item = &parent["invoice_item_details"];
    let details = if of_item.is_object() { of_item } else { &parent["subscription_item_details"] };
    let kind = if details["invoice_item"].is_null() { "subscription" } else { "invoiceitem" };
    let known = [
        ("amount_excluding_tax", object["amount"].clone()),
        ("invoice_item", details["invoice_item"].clone()),
        ("plan", plan_of(&object["_price"], version)),
        ("price", render(&object["_price"], version)),
        ("proration", details["proration"].clone()),
        ("proration_details", details["proration_details"].clone()),
        ("subscription", details["subscription"].clone()),
        ("subscription_item", details["subscription_item"].clone()),
        ("tax_amounts", json!([])),
        ("tax_rates", json!([])),
        ("type", json!(kind)),
        ("unit_amount_excluding_tax", object["pricing"]["unit_amount_decimal"].clone()),
    ];
    for key in ["parent", "pricing", "taxes", "pretax_credit_amounts"] {
        shown.remove(key);
    }
    shown.extend(known.map(|(key, value)| (key.to_owned(), value)));
}

fn plan_of(price: &Value, version: &ApiVersion) -> Value {
    if price["recurring"].is_object() { render(&crate::world::prices::plan(price), version) } else { Value::Null }
}
