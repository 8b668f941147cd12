//! Stripe's calls that make and list subscriptions (<https://docs.stripe.com/api/subscriptions>).

use serde_json::{Value, json};

use super::World;
use super::prices::cost;
use super::read::Read;
use super::subscriptions::{Beginning, NewItem, NewSubscription, period_of};
use crate::error::{Result, StripeError};
use crate::params::Params;
use crate::time::DAY_S;

pub const CREATION: [&str; 31] = [
    "add_invoice_items",
    "automatic_tax",
    "billing_cycle_anchor",
    "billing_mode",
    "cancel_at",
    "cancel_at_period_end",
    "collection_method",
    "coupon",
    "currency",
    "customer",
    "days_until_due",
    "default_payment_method",
    "description",
    "discounts",
    "invoice_settings",
    "items",
    "metadata",
    "off_session",
    "payment_behavior",
    "payment_settings",
    "promotion_code",
    "proration_behavior",
    "trial_end",
    "trial_from_plan",
    "trial_period_days",
    "trial_settings",
    "transfer_data",
    "default_tax_rates",
    "pending_invoice_item_interval",
    "on_behalf_of",
    "backdate_start_date",
];
/// Those of them that would change what happens, and that the simulator does not carry out.
const NOT_SIMULATED: [&str; 6] = [
    "add_invoice_items",
    "backdate_start_date",
    "on_behalf_of",
    "pending_invoice_item_interval",
    "transfer_data",
    "default_tax_rates",
];

impl World {
    pub(crate) fn create_subscription(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&CREATION)?;
        refuse(params, &NOT_SIMULATED)?;
        let customer = params.required("customer")?.to_owned();
        self.objects.named("customer", &customer, "customer")?;
        let items = self.read_items(params)?;
        let behavior = params.one_of(
            "payment_behavior",
            &["allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"],
        )?;
        let method = params.text("default_payment_method")?.map(str::to_owned);
        if let Some(method) = &method {
            self.check_owner(method, &customer, "default_payment_method")?;
        }
        let collection = params.one_of("collection_method", &["charge_automatically", "send_invoice"])?;
        let new = NewSubscription {
            trial_end: self.read_trial(params, &items)?,
            billing_cycle_anchor: params.int("billing_cycle_anchor")?,
            metadata: params.metadata("metadata")?,
            default_payment_method: method,
            discounts: self.read_discounts(params, Some(&customer))?,
            cancel_at_period_end: params.bool("cancel_at_period_end")?.unwrap_or(false),
            cancel_at: params.int("cancel_at")?,
            collection_method: collection.unwrap_or("charge_automatically"),
            days_until_due: params.natural("days_until_due")?,
            description: params.text("description")?.map(str::to_owned),
            missing_payment_method: missing_payment_method(params)?,
            once: Vec::new(),
            items,
            customer: customer.clone(),
        };
        if new.collection_method == "send_invoice" && new.days_until_due.is_none() {
            return Err(StripeError::missing("days_until_due"));
        }
        let beginning = if behavior == Some("default_incomplete") || new.collection_method == "send_invoice" {
            Beginning::Unpaid
        } else {
            Beginning::Charged
        };
        let payer = new.default_payment_method.clone().or_else(|| self.default_method(&customer, None));
        let is_owed =
            new.trial_end.is_none() && new.items.iter().any(|item| cost(&item.price, item.quantity as f64) > 0);
        if beginning == Beginning::Charged && is_owed {
            let Some(payer) = &payer else {
                let message = "This customer has no attached payment source or default payment method.";
                return Err(StripeError::state("resource_missing", message));
            };
            if let Some(refusal) = self.card_of(payer).refusal().filter(|_| behavior == Some("error_if_incomplete")) {
                return Err(refusal.error());
            }
        }
        let id = self.begin_subscription(new, beginning);
        Ok(self.answer(&id))
    }

    pub(crate) fn check_owner(&self, method: &str, customer: &str, param: &str) -> Result<()> {
        if self.objects.named("payment_method", method, param)?.text("customer") != customer {
            let message = format!("The payment method {method} is not attached to the customer {customer}.");
            return Err(StripeError::unfit(param, message));
        }
        Ok(())
    }

    pub(crate) fn read_trial(&self, params: &Params<'_>, items: &[NewItem]) -> Result<Option<i64>> {
        if let Some(days) = params.natural("trial_period_days")?.filter(|days| *days > 0) {
            return Ok(Some(self.now + days * DAY_S));
        }
        if params.text("trial_end")? == Some("now") {
            return Ok(None);
        }
        if let Some(end) = params.int("trial_end")? {
            if end <= self.now {
                return Err(StripeError::unfit(params.name("trial_end"), "Invalid timestamp: must be in the future"));
            }
            return Ok(Some(end));
        }
        let of_price = items.iter().filter_map(|item| item.price["recurring"].maybe_int("trial_period_days")).max();
        let wants = params.bool("trial_from_plan")?.unwrap_or(false);
        Ok(of_price.filter(|_| wants).map(|days| self.now + days * DAY_S))
    }

    pub(crate) fn read_items(&mut self, params: &Params<'_>) -> Result<Vec<NewItem>> {
        let given = params.list("items")?;
        if given.is_empty() {
            return Err(StripeError::missing(params.name("items")));
        }
        let mut items = Vec::new();
        for item in &given {
            item.only(&["price", "price_data", "quantity", "metadata", "discounts", "tax_rates"])?;
            items.push(self.read_item(item)?);
        }
        check_items(&items, &params.name("items"))?;
        Ok(items)
    }

    pub(crate) fn read_item(&mut self, item: &Params<'_>) -> Result<NewItem> {
        let price = self.read_price(item)?;
        if !price["recurring"].is_object() {
            let message =
                format!("The price {} is not recurring; a subscription takes recurring ones.", price.text("id"));
            return Err(StripeError::unfit(item.name("price"), message));
        }
        let quantity = item.natural("quantity")?;
        if quantity.is_some() && price["recurring"].text("usage_type") == "metered" {
            let message = "Metered prices have no quantity: usage is reported to their meter.";
            return Err(StripeError::unfit(item.name("quantity"), message));
        }
        Ok(NewItem { price, quantity: quantity.unwrap_or(1), metadata: item.metadata("metadata")? })
    }

    /// The price that an item names, or that it describes.
    pub(crate) fn read_price(&mut self, item: &Params<'_>) -> Result<Value> {
        if item.has("price_data") {
            let data = item.map("price_data")?;
            data.only(&[
                "currency",
                "product",
                "product_data",
                "recurring",
                "tax_behavior",
                "unit_amount",
                "unit_amount_decimal",
            ])?;
            let product = match data.text("product")? {
                Some(product) => product.to_owned(),
                None => {
                    let named = data.map("product_data")?;
                    let name = named.required("name")?;
                    let id = self.ids.id("prod");
                    self.seed_product(&id, name, named.metadata("metadata")?);
                    id
                }
            };
            let mut price = self.price_from_data(&data, Some(&product))?;
            price["active"] = json!(false);
            self.objects.insert(price.clone());
            return Ok(price);
        }
        let id = item.required("price")?;
        let price = Value::clone(self.objects.named("price", id, item.name("price"))?);
        if !price.is("active") {
            let message = format!("The price specified is inactive. This field only accepts active prices: {id}");
            return Err(StripeError::unfit(item.name("price"), message));
        }
        Ok(price)
    }
    pub(crate) fn list_subscriptions(&self, params: &Params<'_>) -> Result<Value> {
        let status = params.text("status")?;
        let price = params.text("price")?;
        let filters =
            ["customer", "status", "price", "collection_method", "current_period_start", "current_period_end"];
        let ends = super::list::Range::read(params, "current_period_end")?;
        let starts = super::list::Range::read(params, "current_period_start")?;
        // Without a status, all but the ended ones are meant; "ended" is both kinds of end.
        self.list_where(
            params,
            "subscription",
            "/v1/subscriptions",
            &filters,
            &["customer", "collection_method"],
            |object| {
                let is = object.text("status");
                let period = period_of(object);
                let wanted = match status {
                    None => !matches!(is, "canceled" | "incomplete_expired"),
                    Some("all") => true,
                    Some("ended") => matches!(is, "canceled" | "incomplete_expired"),
                    Some(status) => is == status,
                };
                wanted
                    && starts.contains(period.0)
                    && ends.contains(period.1)
                    && price
                        .is_none_or(|price| object.rows("items").iter().any(|item| item["price"].text("id") == price))
            },
        )
    }
}

/// The items of a subscription have one currency, one interval, and no price twice.
pub fn check_items(items: &[NewItem], param: &str) -> Result<()> {
    let Some((first, rest)) = items.split_first() else { return Err(StripeError::missing(param)) };
    for (index, item) in rest.iter().enumerate() {
        if item.price["currency"] != first.price["currency"] {
            return Err(StripeError::unfit(param, "All prices of a subscription must have the same currency."));
        }
        let (one, other) = (&item.price["recurring"], &first.price["recurring"]);
        if (&one["interval"], &one["interval_count"]) != (&other["interval"], &other["interval_count"]) {
            let message = "All prices of a subscription must have the same interval (mixed ones are not simulated).";
            return Err(StripeError::unfit(param, message));
        }
        if items[..=index].iter().any(|before| before.price["id"] == item.price["id"]) {
            let message = "A subscription cannot have the same price twice: use quantity instead.";
            return Err(StripeError::unfit(param, message));
        }
    }
    Ok(())
}

pub fn missing_payment_method(params: &Params<'_>) -> Result<&'static str> {
    let behavior = params.map("trial_settings")?.map("end_behavior")?;
    let chosen = behavior.one_of("missing_payment_method", &["create_invoice", "pause", "cancel"])?;
    Ok(chosen.unwrap_or("create_invoice"))
}

pub fn refuse(params: &Params<'_>, not_simulated: &[&str]) -> Result<()> {
    match not_simulated.iter().find(|key| params.has(key)) {
        Some(key) => Err(StripeError::unknown(params.name(key))),
        None => Ok(()),
    }
}
