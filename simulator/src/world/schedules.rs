//! Subscription schedules (<https://docs.stripe.com/api/subscription_schedules>): changes that time makes.

use serde_json::{Value, json};

use super::World;
use super::agenda::Task;
use super::prices::plan;
use super::prorations::Prorate;
use super::read::{Read, changed};
use super::subscription_calls::check_items;
use super::subscriptions::{NewItem, period_of, show_only_item};
use crate::error::{Result, StripeError};
use crate::params::Params;
use crate::time::add_intervals;

const PHASE: [&str; 11] = [
    "billing_cycle_anchor",
    "collection_method",
    "currency",
    "default_payment_method",
    "description",
    "duration",
    "end_date",
    "items",
    "iterations",
    "metadata",
    "proration_behavior",
];

impl World {
    pub(crate) fn create_schedule(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&[
            "from_subscription",
            "metadata",
            "end_behavior",
            "customer",
            "phases",
            "start_date",
            "billing_mode",
        ])?;
        let Some(subscription_id) = params.text("from_subscription")? else {
            let message = "The simulator makes schedules from_subscription only.";
            return Err(StripeError::malformed("from_subscription", message));
        };
        let subscription = Value::clone(self.objects.named("subscription", subscription_id, "from_subscription")?);
        if let Some(other) = subscription.maybe_text("schedule") {
            let message = format!("The subscription is already attached to the schedule {other}.");
            return Err(StripeError::unfit("from_subscription", message));
        }
        if !matches!(subscription.text("status"), "active" | "trialing" | "past_due" | "unpaid") {
            let message = format!("The subscription is {}.", subscription.text("status"));
            return Err(StripeError::unfit("from_subscription", message));
        }
        if params.has("phases") {
            let message = "You cannot set phases when from_subscription is set; update the schedule afterwards.";
            return Err(StripeError::malformed("phases", message));
        }
        let period = period_of(&subscription);
        let items: Vec<Value> = subscription.rows("items").iter().map(phase_item).collect();
        let id = self.ids.id("sub_sched");
        let phase = phase(&subscription, items, period, "create_prorations", json!({}));
        let end_behavior = params.one_of("end_behavior", &["release", "cancel"])?.unwrap_or("release");
        self.objects.insert(json!({
            "id": id, "object": "subscription_schedule", "application": null,
            "billing_mode": { "flexible": null, "type": "classic" }, "canceled_at": null, "completed_at": null,
            "created": self.now, "current_phase": { "end_date": period.1, "start_date": period.0 },
            "customer": subscription["customer"], "customer_account": null,
            "default_settings": {
                "application_fee_percent": null,
                "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null },
                "billing_cycle_anchor": "automatic", "billing_thresholds": null,
                "collection_method": "charge_automatically", "default_payment_method": null, "default_source": null,
                "description": null,
                "invoice_settings": {
                    "account_tax_ids": null, "custom_fields": null, "days_until_due": null, "description": null,
                    "footer": null, "issuer": { "type": "self" },
                },
                "on_behalf_of": null, "transfer_data": null,
            },
            "end_behavior": end_behavior, "livemode": false, "metadata": params.metadata("metadata")?,
            "phases": [phase], "released_at": null, "released_subscription": null, "status": "active",
            "subscription": subscription_id, "test_clock": null,
        }));
        self.emit("subscription_schedule.created", &id);
        self.change("customer.subscription.updated", subscription_id, |subscription| {
            subscription["schedule"] = json!(id)
        });
        self.schedule(period.1, Task::EnterPhase(id.clone()));
        Ok(self.answer(&id))
    }

    pub(crate) fn update_schedule(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["phases", "end_behavior", "metadata", "proration_behavior", "default_settings"])?;
        let before = self.live_schedule(id)?;
        let mut after = before.clone();
        params.merge_metadata("metadata", &mut after["metadata"])?;
        if let Some(behavior) = params.one_of("end_behavior", &["release", "cancel"])? {
            after["end_behavior"] = json!(behavior);
        }
        if params.has("phases") {
            after["phases"] = json!(self.read_phases(&before, params)?);
        }
        let current = after
            .rows("phases")
            .iter()
            .find(|phase| phase.int("start_date") <= self.now && self.now < phase.int("end_date"));
        let Some(current) = current.cloned() else {
            let message = "The phases must include the one that holds now.";
            return Err(StripeError::unfit("phases", message));
        };
        after["current_phase"] = json!({ "end_date": current["end_date"], "start_date": current["start_date"] });
        let ends: Vec<i64> =
            after.rows("phases").iter().map(|phase| phase.int("end_date")).filter(|end| *end > self.now).collect();
        let subscription = before.text("subscription").to_owned();
        let previous = changed(&before, &after);
        self.objects.insert(after);
        if let Some(previous) = previous {
            self.emit_previous("subscription_schedule.updated", id, Some(previous));
        }
        for end in ends {
            self.schedule(end, Task::EnterPhase(id.to_owned()));
        }
        // A phase that holds already and has other items changes the subscription now.
        self.put_phase_items(&subscription, &current, true)?;
        Ok(self.answer(id))
    }

    fn read_phases(&mut self, schedule: &Value, params: &Params<'_>) -> Result<Vec<Value>> {
        let subscription = self.answer(schedule.text("subscription"));
        let mut phases: Vec<Value> = Vec::new();
        for given in params.list("phases")? {
            let known: Vec<&str> =
                PHASE.iter().copied().chain(["start_date", "trial_end", "discounts", "trial"]).collect();
            given.only(&known)?;
            super::subscription_calls::refuse(&given, &["trial_end", "trial", "discounts"])?;
            let mut items = Vec::new();
            for item in given.list("items")? {
                item.only(&["price", "price_data", "quantity", "metadata", "plan"])?;
                items.push(self.read_item(&item)?);
            }
            check_items(&items, &given.name("items"))?;
            let start = match (given.text("start_date")?, phases.last()) {
                (Some("now"), None) => self.now,
                (Some(_), _) => given.int("start_date")?.unwrap_or(self.now),
                (None, Some(before)) => before.int("end_date"),
                (None, None) => schedule["current_phase"].int("start_date"),
            };
            if phases.last().is_some_and(|before| before.int("end_date") != start) {
                let message = "A phase must begin where the one before ends.";
                return Err(StripeError::unfit(given.name("start_date"), message));
            }
            if phases.is_empty() && start != schedule["current_phase"].int("start_date") {
                let message = "You cannot change the start date of the phase that holds now.";
                return Err(StripeError::unfit(given.name("start_date"), message));
            }
            let end = self.phase_end(&given, &items, start)?;
            let quantities = items.iter().map(new_phase_item).collect();
            let prorate = match Prorate::read(&given)? {
                Prorate::Create => "create_prorations",
                Prorate::InvoiceNow => "always_invoice",
                Prorate::Never => "none",
            };
            phases.push(phase(&subscription, quantities, (start, end), prorate, given.metadata("metadata")?));
        }
        if phases.is_empty() { Err(StripeError::missing("phases")) } else { Ok(phases) }
    }

    fn phase_end(&self, given: &Params<'_>, items: &[NewItem], start: i64) -> Result<i64> {
        if let Some(end) = given.int("end_date")? {
            if end <= start {
                return Err(StripeError::unfit(given.name("end_date"), "A phase must end after it begins."));
            }
            return Ok(end);
        }
        let duration = given.map("duration")?;
        let recurring = &items[0].price["recurring"];
        let (interval, count) = if given.has("duration") {
            (duration.required("interval")?, duration.natural("interval_count")?.unwrap_or(1))
        } else {
            // The last phase may leave its end open: it is an interval long.
            let iterations = given.natural("iterations")?.unwrap_or(1).max(1);
            (recurring.text("interval"), recurring.int("interval_count") * iterations)
        };
        add_intervals(start, interval, count)
            .ok_or_else(|| StripeError::malformed(given.name("duration"), "Invalid duration"))
    }

    pub(crate) fn release_schedule(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["preserve_cancel_date"])?;
        self.live_schedule(id)?;
        self.release(id);
        Ok(self.answer(id))
    }

    fn release(&mut self, id: &str) {
        let now = self.now;
        let subscription = self.answer(id).text("subscription").to_owned();
        self.alter(id, |schedule| {
            schedule["status"] = json!("released");
            schedule["released_at"] = json!(now);
            schedule["released_subscription"] = json!(subscription);
            schedule["subscription"] = Value::Null;
            schedule["current_phase"] = Value::Null;
        });
        self.emit("subscription_schedule.released", id);
        self.change("customer.subscription.updated", &subscription, |subscription| {
            subscription["schedule"] = Value::Null
        });
    }

    pub(crate) fn cancel_schedule(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["invoice_now", "prorate"])?;
        let schedule = self.live_schedule(id)?;
        // Ending the subscription cancels its schedule.
        self.end_subscription(schedule.text("subscription"), "cancellation_requested");
        Ok(self.answer(id))
    }

    fn live_schedule(&self, id: &str) -> Result<Value> {
        let schedule = Value::clone(self.objects.of("subscription_schedule", id)?);
        let status = schedule.text("status");
        if !matches!(status, "active" | "not_started") {
            let message = format!("The subscription schedule is {status}: only an active one can be changed.");
            return Err(StripeError::unfit("id", message));
        }
        Ok(schedule)
    }

    /// Whether a subscription's schedule is over now, and takes the subscription with it.
    pub(crate) fn ends_by_schedule(&self, subscription: &Value) -> bool {
        let schedule = subscription.maybe_text("schedule").and_then(|id| self.objects.get(id));
        schedule.is_some_and(|schedule| {
            schedule.text("end_behavior") == "cancel"
                && schedule.rows("phases").iter().all(|phase| phase.int("end_date") <= self.now)
        })
    }

    /// The phase of a subscription's schedule that holds now.
    fn phase_now(&self, subscription: &str) -> Option<(String, Value)> {
        let schedule = self.objects.get(self.object(subscription)?.maybe_text("schedule")?)?;
        let phases = schedule.rows("phases");
        let phase =
            phases.iter().find(|phase| phase.int("start_date") <= self.now && self.now < phase.int("end_date"))?;
        Some((schedule.text("id").to_owned(), phase.clone()))
    }

    /// A renewal enters the phase that begins with it, if one does: nothing is left of the old period to prorate.
    pub(crate) fn enter_phase(&mut self, subscription: &str) {
        let Some((_, phase)) = self.phase_now(subscription) else { return };
        if phase.int("start_date") == self.now {
            // Phases were checked when they were made.
            let _ = self.put_phase_items(subscription, &phase, false);
        }
    }

    /// After the renewal has told of itself.
    pub(crate) fn tell_phase(&mut self, subscription: &str) {
        let Some((schedule, phase)) = self.phase_now(subscription) else { return };
        self.change("subscription_schedule.updated", &schedule, |schedule| {
            schedule["current_phase"] = json!({ "end_date": phase["end_date"], "start_date": phase["start_date"] });
        });
    }

    /// A phase ends: the next one begins, or the schedule is over.
    pub(crate) fn enter_phase_when_due(&mut self, id: &str) {
        let Some(schedule) = self.objects.get(id).filter(|schedule| schedule.text("status") == "active").cloned()
        else {
            return;
        };
        let subscription = schedule.text("subscription").to_owned();
        let is_over = schedule.rows("phases").iter().all(|phase| phase.int("end_date") <= self.now);
        if is_over {
            if schedule.text("end_behavior") == "cancel" {
                self.end_with_what_is_due(&subscription);
            } else {
                self.release(id);
            }
            return;
        }
        // At the end of a period, the renewal at the same moment does it.
        let renews = period_of(&self.answer(&subscription)).1 == self.now;
        if renews {
            return;
        }
        if let Some((_, phase)) = self.phase_now(&subscription) {
            let _ = self.put_phase_items(&subscription, &phase, true);
            self.tell_phase(&subscription);
        }
    }

    /// Gives a subscription the items of a phase.
    fn put_phase_items(&mut self, id: &str, phase: &Value, within_a_period: bool) -> Result<()> {
        let before = self.answer(id);
        let same = |item: &Value, of_phase: &Value| {
            item["price"]["id"] == of_phase["price"]
                && (item["quantity"] == of_phase["quantity"] || item["quantity"].is_null())
        };
        let (old, new) = (before.rows("items"), phase.rows("items"));
        if old.len() == new.len() && old.iter().zip(new).all(|(item, of_phase)| same(item, of_phase)) {
            return Ok(());
        }
        let period = period_of(&before);
        let mut items = Vec::new();
        for (index, of_phase) in new.iter().enumerate() {
            let price = Value::clone(self.objects.named("price", of_phase.text("price"), "phases")?);
            let quantity = of_phase.maybe_int("quantity").unwrap_or(1);
            let kept =
                old.iter().find(|item| item["price"]["id"] == of_phase["price"]).or_else(|| old.get(index)).cloned();
            let is_free = |kept: &Value| !items.iter().any(|item: &Value| item["id"] == kept["id"]);
            items.push(match kept.filter(is_free) {
                Some(mut item) => {
                    item["plan"] = plan(&price);
                    if price["recurring"].text("usage_type") != "metered" {
                        item["quantity"] = json!(quantity);
                    }
                    item["price"] = price;
                    item
                }
                None => self.new_item(id, &NewItem { price, quantity, metadata: json!({}) }, period),
            });
        }
        let kept = items.clone();
        self.alter(id, |subscription| {
            subscription["items"]["total_count"] = json!(kept.len());
            subscription["items"]["data"] = json!(kept);
            show_only_item(subscription);
        });
        if !within_a_period {
            return Ok(());
        }
        let prorate = phase.text("proration_behavior");
        if prorate != "none" && before.text("status") != "trialing" {
            self.prorate(id, &before, &items, self.now);
        }
        let previous = changed(&before, &self.answer(id));
        self.emit_previous("customer.subscription.updated", id, previous);
        if prorate == "always_invoice"
            && let Some(invoice) = self.invoice_pending(id, "subscription_update")
        {
            self.finish_at_once(&invoice);
        }
        Ok(())
    }

    /// A subscription that was changed directly is in its phase as it is now.
    pub(crate) fn show_items_in_phase(&mut self, subscription: &str) {
        let Some((schedule, phase)) = self.phase_now(subscription) else { return };
        let items: Vec<Value> = self.answer(subscription).rows("items").iter().map(phase_item).collect();
        self.change("subscription_schedule.updated", &schedule, |schedule| {
            if let Some(phases) = schedule["phases"].as_array_mut() {
                for other in phases.iter_mut().filter(|other| other["start_date"] == phase["start_date"]) {
                    other["items"] = json!(items);
                }
            }
        });
    }
}

fn phase_item(item: &Value) -> Value {
    json!({
        "billing_thresholds": null, "discounts": [], "metadata": item["metadata"], "plan": item["price"]["id"],
        "price": item["price"]["id"], "quantity": item["quantity"], "tax_rates": [],
    })
}

fn new_phase_item(item: &NewItem) -> Value {
    let is_metered = item.price["recurring"].text("usage_type") == "metered";
    json!({
        "billing_thresholds": null, "discounts": [], "metadata": item.metadata, "plan": item.price["id"],
        "price": item.price["id"], "quantity": (!is_metered).then_some(item.quantity), "tax_rates": [],
    })
}

fn phase(subscription: &Value, items: Vec<Value>, period: (i64, i64), prorate: &str, metadata: Value) -> Value {
    json!({
        "add_invoice_items": [], "application_fee_percent": null, "billing_cycle_anchor": null,
        "billing_thresholds": null, "collection_method": null, "currency": subscription["currency"],
        "default_payment_method": null, "default_tax_rates": [], "description": null, "discounts": [],
        "end_date": period.1, "invoice_settings": null, "items": items, "metadata": metadata, "on_behalf_of": null,
        "proration_behavior": prorate, "start_date": period.0, "transfer_data": null, "trial_end": null,
    })
}
