//! Lines of invoices.

use serde_json::{Value, json};

use super::World;
use super::coupons::taken_off;
use super::prices::cost;
use super::read::Read;
use crate::time::spoken_day;

/// From and to, in Unix seconds.
pub type Period = (i64, i64);

/// What a line is about.
#[derive(Debug)]
pub struct Line<'a> {
    pub amount: i64,
    pub description: String,
    pub price: &'a Value,
    pub quantity: Option<i64>,
    pub period: Period,
    pub subscription: Option<&'a str>,
    pub subscription_item: Option<&'a str>,
    pub metadata: Value,
}

impl World {
    pub(crate) fn line(&mut self, line: Line<'_>) -> Value {
        let parent = if line.subscription.is_some() {
            json!({
                "invoice_item_details": null,
                "subscription_item_details": {
                    "invoice_item": null, "proration": false, "proration_details": { "credited_items": null },
                    "subscription": line.subscription, "subscription_item": line.subscription_item,
                },
                "type": "subscription_item_details",
            })
        } else {
            Value::Null
        };
        json!({
            "id": self.ids.id("il"), "object": "line_item", "amount": line.amount,
            "currency": line.price["currency"], "description": line.description, "discount_amounts": [],
            "discountable": true, "discounts": [], "invoice": null, "livemode": false, "metadata": line.metadata,
            "parent": parent, "period": { "start": line.period.0, "end": line.period.1 },
            "pretax_credit_amounts": [], "pricing": pricing(line.price), "quantity": line.quantity,
            "quantity_decimal": line.quantity.map(|quantity| quantity.to_string()), "subtotal": line.amount,
            "taxes": [], "_price": line.price,
        })
    }

    /// The line that a pending invoice item becomes on an invoice.
    pub(crate) fn line_of_item(&mut self, item: &Value) -> Value {
        let details = &item["parent"]["subscription_details"];
        let subscription = details["subscription"].clone();
        let proration = item["proration"].clone();
        let proration_details = json!({ "credited_items": item["_credited"] });
        let parent = if details["subscription_item"].is_null() {
            json!({
                "invoice_item_details": {
                    "invoice_item": item["id"], "proration": proration, "proration_details": proration_details,
                    "subscription": subscription,
                },
                "subscription_item_details": null, "type": "invoice_item_details",
            })
        } else {
            json!({
                "invoice_item_details": null,
                "subscription_item_details": {
                    "invoice_item": item["id"], "proration": proration, "proration_details": proration_details,
                    "subscription": subscription, "subscription_item": details["subscription_item"],
                },
                "type": "subscription_item_details",
            })
        };
        json!({
            "id": self.ids.id("il"), "object": "line_item", "amount": item["amount"], "currency": item["currency"],
            "description": item["description"], "discount_amounts": [], "discountable": item["discountable"],
            "discounts": [], "invoice": null, "livemode": false, "metadata": item["metadata"], "parent": parent,
            "period": item["period"], "pretax_credit_amounts": [], "pricing": item["pricing"],
            "quantity": item["quantity"], "quantity_decimal": item["quantity_decimal"], "subtotal": item["amount"],
            "taxes": [], "_price": item["_price"],
        })
    }

    /// What a subscription costs for a period that it pays in advance.
    pub(crate) fn licensed_lines(&mut self, subscription: &Value, period: Period) -> Vec<Value> {
        let mut lines = Vec::new();
        for item in subscription.rows("items").iter().filter(|item| !is_metered(item)) {
            let quantity = item.int("quantity");
            let price = &item["price"];
            let name = self.product_name(price);
            let is_trial = subscription.text("status") == "trialing";
            let (amount, description) = if is_trial {
                (0, format!("Trial period for {name}"))
            } else {
                (cost(price, quantity as f64), format!("{quantity} × {name} (at {})", spoken_price(price)))
            };
            let line = Line {
                amount,
                description,
                price,
                quantity: Some(quantity),
                period,
                subscription: Some(subscription.text("id")),
                subscription_item: Some(item.text("id")),
                metadata: subscription["metadata"].clone(),
            };
            lines.push(self.line(line));
        }
        lines
    }

    pub(crate) fn product_name(&self, price: &Value) -> String {
        let product = self.objects.get(price.text("product"));
        product.map_or_else(|| price.text("product").to_owned(), |product| product.text("name").to_owned())
    }

    /// A pending item that the subscription's next invoice takes up: what a change within a period credits or charges.
    pub(crate) fn proration_item(&mut self, proration: Proration<'_>) -> Value {
        let Proration { subscription, item, amount, period, credited } = proration;
        let quantity = item.int("quantity");
        let name = self.product_name(&item["price"]);
        let what = if quantity == 1 { name } else { format!("{quantity} × {name}") };
        let beginning = if amount < 0 { "Unused time on" } else { "Remaining time on" };
        let mut pricing = pricing(&item["price"]);
        pricing["unit_amount_decimal"] = json!((amount as f64 / quantity.max(1) as f64).to_string());
        json!({
            "id": self.ids.id("ii"), "object": "invoiceitem", "amount": amount,
            "currency": subscription["currency"], "customer": subscription["customer"], "customer_account": null,
            "date": self.now, "description": format!("{beginning} {what} after {}", spoken_day(period.0)),
            "discountable": false, "discounts": [], "invoice": null, "livemode": false,
            "metadata": subscription["metadata"], "net_amount": amount,
            "parent": {
                "subscription_details": { "subscription": subscription["id"], "subscription_item": item["id"] },
                "type": "subscription_details",
            },
            "period": { "start": period.0, "end": period.1 }, "pricing": pricing, "proration": true,
            "quantity": quantity, "quantity_decimal": quantity.to_string(), "tax_rates": [], "test_clock": null,
            "_price": item["price"], "_credited": credited,
        })
    }
}

#[derive(Debug)]
pub struct Proration<'a> {
    pub subscription: &'a Value,
    pub item: &'a Value,
    pub amount: i64,
    pub period: Period,
    /// The invoice and the lines that a credit takes back.
    pub credited: Value,
}

pub fn is_metered(item: &Value) -> bool {
    item["price"]["recurring"].text("usage_type") == "metered"
}

fn pricing(price: &Value) -> Value {
    json!({
        "price_details": { "price": price["id"], "product": price["product"] }, "type": "price_details",
        "unit_amount_decimal": price["unit_amount_decimal"],
    })
}

fn spoken_price(price: &Value) -> String {
    let recurring = &price["recurring"];
    let every = match recurring.int("interval_count") {
        0 | 1 => recurring.text("interval").to_owned(),
        count => format!("every {count} {}s", recurring.text("interval")),
    };
    let amount = crate::money::shown(price.int("unit_amount"), price.text("currency"));
    format!("{amount} / {every}")
}

/// Takes discounts off the lines that may be discounted; answers what each took in all.
pub fn discount(lines: &mut [Value], discounts: &[Value], currency: &str) -> Vec<(String, i64)> {
    let mut taken = Vec::new();
    for discount in discounts {
        let open = |line: &Value| {
            let so_far: i64 = line.rows("discount_amounts").iter().map(|one| one.int("amount")).sum();
            if line.is("discountable") { (line.int("amount") - so_far).max(0) } else { 0 }
        };
        let base: i64 = lines.iter().map(open).sum();
        let total = taken_off(discount, base, currency);
        let mut left = total;
        let count = lines.len();
        for (index, line) in lines.iter_mut().enumerate() {
            let share = if index + 1 == count || base == 0 { left } else { total * open(line) / base };
            let share = share.min(open(line)).min(left);
            left -= share;
            if let Some(amounts) = line["discount_amounts"].as_array_mut().filter(|_| share > 0) {
                amounts.push(json!({ "amount": share, "discount": discount["id"] }));
            }
        }
        taken.push((discount.text("id").to_owned(), total - left));
    }
    taken
}
