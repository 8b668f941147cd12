//! Subscriptions (<https://docs.stripe.com/api/subscriptions>): how they begin.

use serde_json::{Value, json};

use super::World;
use super::agenda::Task;
use super::invoices::Draft;
use super::lines::{Line, Period, is_metered};
use super::payments::Tried;
use super::prices::{cost, plan};
use super::read::Read;
use crate::time::{DAY_S, HOUR_S, period_end};

/// How long the first payment may take.
const INCOMPLETE_S: i64 = 23 * HOUR_S;
/// How long before its end a trial is warned of.
pub const TRIAL_WARNING_S: i64 = 3 * DAY_S;

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
            "ended_at": null, "invoice_settings": {
                "account_tax_ids": null, "custom_fields": null, "description": null, "footer": null,
                "issuer": { "type": "self" },
            },
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
