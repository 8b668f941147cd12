//! Subscriptions (<https://docs.stripe.com/api/subscriptions>): how they begin.

use serde_json::{Value, json};

use super::World;
use super::agenda::Task;
use super::invoices::Draft;
use super::lines::{Line, Period, is_metered};
use super::payments::Tried;
use super::prices::{cost, plan};
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;
use crate::time::{DAY_S, HOUR_S, period_end};

/// How long the first payment may take.
const INCOMPLETE_S: i64 = 23 * HOUR_S;
const TRIAL_WARNING_S: i64 = 3 * DAY_S;

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

/// A price, how many of it, and metadata.
#[derive(Debug, Clone)]
pub struct NewItem {
    pub price: Value,
    pub quantity: i64,
    pub metadata: Value,
}

#[derive(Debug)]
pub struct NewSubscription {
    pub customer: String,
    pub items: Vec<NewItem>,
    /// Line items of a Checkout session that are paid once, with the first invoice.
    pub once: Vec<Value>,
    pub trial_end: Option<i64>,
    pub billing_cycle_anchor: Option<i64>,
    pub metadata: Value,
    pub default_payment_method: Option<String>,
    pub discounts: Vec<Value>,
    pub cancel_at_period_end: bool,
    pub cancel_at: Option<i64>,
    pub collection_method: &'static str,
    pub days_until_due: Option<i64>,
    pub description: Option<String>,
    pub missing_payment_method: &'static str,
}

/// How the first payment is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// By the customer, on the page that Checkout shows.
    Checkout,
    /// By the call itself.
    Charged,
    /// Later, by whoever confirms the payment (`default_incomplete`).
    Unpaid,
}

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

    fn first_period(&self, new: &NewSubscription) -> Period {
        let recurring = &new.items[0].price["recurring"];
        let (interval, count) = (recurring.text("interval"), recurring.int("interval_count"));
        let anchor = new.trial_end.or(new.billing_cycle_anchor).unwrap_or(self.now);
        (self.now, if anchor > self.now { anchor } else { period_end(anchor, interval, count, self.now) })
    }

    /// Puts a subscription and its first invoice on record, and tries to have it paid; answers its id.
    pub(crate) fn begin_subscription(&mut self, new: NewSubscription, beginning: Beginning) -> String {
        let id = self.ids.id("sub");
        let period = self.first_period(&new);
        let customer = new.customer.clone();
        let is_first = self.answer(&customer)["currency"].is_null();
        let currency = new.items[0].price.text("currency").to_owned();
        self.insert_subscription(&id, &new, period);
        let discounts = self.redeem(new.discounts, &id);
        let discounts: Vec<Value> = discounts.iter().map(|discount| self.answer(discount)).collect();
        self.show_discounts(&id, &discounts);
        let subscription = self.answer(&id);
        let mut lines = self.licensed_lines(&subscription, period);
        if new.trial_end.is_none() && new.billing_cycle_anchor.is_some_and(|anchor| anchor > self.now) {
            shorten(&mut lines, &subscription, period);
        }
        for once in &new.once {
            let line = self.line(Line {
                amount: once.int("amount_total"),
                description: once.text("description").to_owned(),
                price: &once["price"],
                quantity: once.maybe_int("quantity"),
                period: (self.now, self.now),
                subscription: None,
                subscription_item: None,
                metadata: json!({}),
            });
            lines.push(line);
        }
        let invoice = self.draft_invoice(Draft {
            customer: customer.clone(),
            subscription: Some(id.clone()),
            reason: "subscription_create",
            currency: currency.clone(),
            lines,
            discounts,
            period: (self.now, self.now),
        });
        let intent = self.finalize(&invoice);
        let is_free = intent.is_none();
        self.alter(&id, |subscription| {
            subscription["latest_invoice"] = json!(invoice);
            if subscription.text("status") == "incomplete" && (is_free || new.collection_method == "send_invoice") {
                subscription["status"] = json!("active");
            }
        });
        self.drop_spent_discounts(&id);
        let method = self.default_method(&customer, Some(&id));
        let charged_at_once = beginning == Beginning::Charged
            && method.as_deref().is_some_and(|method| self.card_of(method).refusal().is_none());
        if let Some(intent) = &intent {
            self.emit("payment_intent.created", intent);
        }
        match (intent, method) {
            (Some(intent), Some(method)) if charged_at_once => {
                if let Tried::Succeeded { charge } = self.try_intent(&intent, &method) {
                    self.mark_paid(&invoice, Some(&charge), true);
                    self.alter(&id, |subscription| subscription["status"] = json!("active"));
                }
                self.tell_beginning(&id, &invoice, is_first, &currency);
                self.tell_paid(&invoice);
            }
            (Some(_), Some(method)) if beginning != Beginning::Unpaid => {
                self.tell_beginning(&id, &invoice, is_first, &currency);
                self.collect(&invoice, Some(&method));
            }
            (Some(_), _) => self.tell_beginning(&id, &invoice, is_first, &currency),
            (None, _) => {
                self.tell_beginning(&id, &invoice, is_first, &currency);
                self.tell_paid(&invoice);
            }
        }
        self.plan_ahead(&id);
        id
    }

    fn tell_beginning(&mut self, id: &str, invoice: &str, is_first: bool, currency: &str) {
        let customer = self.answer(id).text("customer").to_owned();
        self.emit("customer.subscription.created", id);
        self.emit("invoice.created", invoice);
        self.emit("invoice.finalized", invoice);
        if is_first {
            self.change("customer.updated", &customer, |customer| customer["currency"] = json!(currency));
        }
    }

    fn insert_subscription(&mut self, id: &str, new: &NewSubscription, period: Period) {
        let items: Vec<Value> = new.items.iter().map(|item| self.new_item(id, item, period)).collect();
        let trial_start = new.trial_end.map(|_| self.now);
        let cancel_at = if new.cancel_at_period_end { Some(period.1) } else { new.cancel_at };
        let subscription = json!({
            "id": id, "object": "subscription", "application": null, "application_fee_percent": null,
            "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null },
            "billing_cycle_anchor": new.trial_end.or(new.billing_cycle_anchor).unwrap_or(self.now),
            "billing_cycle_anchor_config": null, "billing_mode": { "flexible": null, "type": "classic" },
            "billing_schedules": [], "billing_thresholds": null, "cancel_at": cancel_at,
            "cancel_at_period_end": new.cancel_at_period_end, "canceled_at": cancel_at.map(|_| self.now),
            "cancellation_details": { "comment": null, "feedback": null, "reason": cancel_at.map(|_| "cancellation_requested") },
            "collection_method": new.collection_method, "created": self.now,
            "currency": new.items[0].price["currency"], "customer": new.customer, "customer_account": null,
            "days_until_due": new.days_until_due, "default_payment_method": new.default_payment_method,
            "default_source": null, "default_tax_rates": [], "description": new.description, "discounts": [],
            "ended_at": null, "invoice_settings": { "account_tax_ids": null, "issuer": { "type": "self" } },
            "items": {
                "object": "list", "data": items, "has_more": false, "total_count": items.len(),
                "url": format!("/v1/subscription_items?subscription={id}"),
            },
            "latest_invoice": null, "livemode": false, "managed_payments": { "enabled": false },
            "metadata": new.metadata, "next_pending_invoice_item_invoice": null, "on_behalf_of": null,
            "pause_collection": null,
            "payment_settings": {
                "payment_method_options": null, "payment_method_types": null, "save_default_payment_method": "off",
            },
            "pending_invoice_item_interval": null, "pending_setup_intent": null, "pending_update": null,
            "plan": null, "quantity": null, "schedule": null, "start_date": self.now,
            "status": if new.trial_end.is_some() { "trialing" } else { "incomplete" }, "test_clock": null,
            "transfer_data": null, "trial_end": new.trial_end,
            "trial_settings": { "end_behavior": { "missing_payment_method": new.missing_payment_method } },
            "trial_start": trial_start, "_discount": null,
        });
        self.objects.insert(subscription);
        self.alter(id, show_only_item);
    }

    pub(crate) fn new_item(&mut self, subscription: &str, item: &NewItem, period: Period) -> Value {
        let mut made = json!({
            "id": self.ids.id("si"), "object": "subscription_item", "billing_thresholds": null, "created": self.now,
            "current_period_end": period.1, "current_period_start": period.0, "discounts": [],
            "metadata": item.metadata, "plan": plan(&item.price), "price": item.price, "quantity": item.quantity,
            "subscription": subscription, "tax_rates": [],
        });
        if let (true, Value::Object(fields)) = (is_metered(&made), &mut made) {
            fields.remove("quantity");
        }
        made
    }

    /// Shows discounts on a subscription.
    pub(crate) fn show_discounts(&mut self, subscription: &str, discounts: &[Value]) {
        let ids: Vec<Value> = discounts.iter().map(|discount| discount["id"].clone()).collect();
        self.alter(subscription, |subscription| {
            subscription["discounts"] = json!(ids);
            subscription["_discount"] = json!(discounts.first());
        });
    }

    /// A subscription's discounts that hold now.
    pub(crate) fn discounts_of(&self, subscription: &Value) -> Vec<Value> {
        let on_record = subscription.rows("discounts").iter().filter_map(|id| self.objects.get(id.as_str()?));
        let valid = on_record.filter(|discount| discount.maybe_int("end").is_none_or(|end| end > self.now));
        valid.map(|discount| Value::clone(discount)).collect()
    }

    /// A discount of one invoice is gone once it is on one, and any is gone when it has ended.
    pub(crate) fn drop_spent_discounts(&mut self, id: &str) {
        let subscription = self.answer(id);
        let left: Vec<Value> = self
            .discounts_of(&subscription)
            .into_iter()
            .filter(|discount| discount["_coupon"].text("duration") != "once")
            .collect();
        self.show_discounts(id, &left);
    }

    /// Puts on the agenda what time will bring to a subscription.
    pub(crate) fn plan_ahead(&mut self, id: &str) {
        let subscription = self.answer(id);
        let end = period_of(&subscription).1;
        match subscription.text("status") {
            "incomplete" => self.schedule(self.now + INCOMPLETE_S, Task::ExpireIncomplete(id.to_owned())),
            "trialing" => {
                let warned = (subscription.int("trial_end") - TRIAL_WARNING_S).max(self.now);
                self.schedule(warned, Task::WarnOfTrialEnd(id.to_owned()));
            }
            _ => {}
        }
        self.schedule(end, Task::EndPeriod(id.to_owned()));
        let upcoming = end - self.settings.upcoming_days * DAY_S;
        if upcoming > self.now {
            self.schedule(upcoming, Task::TellUpcoming(id.to_owned()));
        }
        if let Some(cancel_at) = subscription.maybe_int("cancel_at").filter(|at| *at != end) {
            self.schedule(cancel_at, Task::CancelSubscription(id.to_owned()));
        }
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

/// The period that a subscription's items share.
pub fn period_of(subscription: &Value) -> Period {
    let first = &subscription["items"]["data"][0];
    (first.int("current_period_start"), first.int("current_period_end"))
}

/// Stripe shows plan and quantity of a subscription with one item on the subscription, too.
pub fn show_only_item(subscription: &mut Value) {
    let (plan, quantity) = match subscription.rows("items") {
        [item] => (item["plan"].clone(), item["quantity"].clone()),
        _ => (Value::Null, Value::Null),
    };
    subscription["plan"] = plan;
    subscription["quantity"] = quantity;
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

/// Of a first period that ends at an anchor before its time, only the share of a whole one is charged.
fn shorten(lines: &mut [Value], subscription: &Value, period: Period) {
    let recurring = &subscription["items"]["data"][0]["price"]["recurring"];
    let whole = period_end(period.0, recurring.text("interval"), recurring.int("interval_count"), period.0) - period.0;
    for line in lines {
        let share = line.int("amount") as f64 * (period.1 - period.0) as f64 / whole.max(1) as f64;
        let amount = share.round() as i64;
        line["amount"] = json!(amount);
        line["subtotal"] = json!(amount);
    }
}

/// A line of a metered price, for the usage of a period.
pub fn usage_line<'a>(item: &'a Value, subscription: &'a Value, usage: f64, name: &str, period: Period) -> Line<'a> {
    let quantity = usage.round() as i64;
    Line {
        amount: cost(&item["price"], usage),
        description: format!("{quantity} × {name}"),
        price: &item["price"],
        quantity: Some(quantity),
        period,
        subscription: Some(subscription.text("id")),
        subscription_item: Some(item.text("id")),
        metadata: subscription["metadata"].clone(),
    }
}
