//! Changes of subscriptions (<https://docs.stripe.com/billing/subscriptions/prorations>).

use serde_json::{Value, json};

use super::World;
use super::agenda::Task;
use super::collection::Collected;
use super::lines::is_metered;
use super::prices::plan;
use super::prorations::{Prorate, begins_anew};
use super::read::{Read, changed};
use super::subscription_calls::{check_items, missing_payment_method, refuse};
use super::subscriptions::{NewItem, period_of, show_only_item};
use crate::error::{Result, StripeError};
use crate::params::Params;

pub const UPDATE: [&str; 27] = [
    "add_invoice_items",
    "automatic_tax",
    "billing_cycle_anchor",
    "cancel_at",
    "cancel_at_period_end",
    "cancellation_details",
    "collection_method",
    "coupon",
    "days_until_due",
    "default_payment_method",
    "default_tax_rates",
    "description",
    "discounts",
    "invoice_settings",
    "items",
    "metadata",
    "off_session",
    "on_behalf_of",
    "pause_collection",
    "payment_behavior",
    "payment_settings",
    "pending_invoice_item_interval",
    "promotion_code",
    "proration_behavior",
    "proration_date",
    "trial_end",
    "trial_settings",
];
/// What may be changed together with `pending_if_incomplete`.
const WHILE_PENDING: [&str; 7] = [
    "billing_cycle_anchor",
    "items",
    "off_session",
    "payment_behavior",
    "proration_behavior",
    "proration_date",
    "trial_end",
];
const NOT_SIMULATED: [&str; 5] =
    ["add_invoice_items", "default_tax_rates", "on_behalf_of", "pending_invoice_item_interval", "coupon"];

impl World {
    pub(crate) fn update_subscription(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&UPDATE)?;
        refuse(params, &NOT_SIMULATED)?;
        let before = Value::clone(self.objects.of("subscription", id)?);
        match before.text("status") {
            "canceled" => {
                let message = "A canceled subscription can only update its cancellation_details and metadata.";
                let only = ["metadata", "cancellation_details"];
                params.only(&only).map_err(|_| StripeError::unfit("id", message))?;
            }
            "incomplete_expired" => {
                return Err(StripeError::unfit("id", "An expired subscription cannot be changed."));
            }
            _ => {}
        }
        let ends = ["cancel_at_period_end", "cancel_at"].into_iter().find(|key| params.has(key));
        if let (Some(param), Some(schedule)) = (ends, before.maybe_text("schedule")) {
            let message = format!(
                "The subscription is managed by the subscription schedule {schedule}: update or release that one."
            );
            return Err(StripeError::unfit(param, message));
        }
        let behavior = params.one_of(
            "payment_behavior",
            &["allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"],
        )?;
        if behavior == Some("pending_if_incomplete") {
            params.only(&WHILE_PENDING)?;
        }
        // What is refused must leave nothing behind: it is tried in a copy first.
        let mut scratch = self.scratch(before.text("customer"));
        match (scratch.apply_update(id, &before, params)?, behavior) {
            (Some(Collected::Failed(error)), Some("error_if_incomplete")) => return Err(error),
            (Some(Collected::Failed(_)), Some("pending_if_incomplete")) => self.hold_update(id, &before, params)?,
            _ => {
                self.apply_update(id, &before, params)?;
                if params.has("items") {
                    self.show_items_in_phase(id);
                }
            }
        }
        Ok(self.answer(id))
    }

    /// Carries a change out, tells of it, and collects what it costs now, if anything.
    pub(crate) fn apply_update(&mut self, id: &str, before: &Value, params: &Params<'_>) -> Result<Option<Collected>> {
        let staged = self.stage_update(id, before, params)?;
        if let Some(previous) = changed(before, &self.answer(id)) {
            self.emit_previous("customer.subscription.updated", id, Some(previous));
        }
        let collected = staged.invoice.map(|invoice| self.finish_at_once(&invoice));
        if staged.has_other_end {
            self.plan_ahead(id);
        }
        Ok(collected)
    }

    /// Carries a change out, and tells nobody of it yet.
    pub(crate) fn stage_update(&mut self, id: &str, before: &Value, params: &Params<'_>) -> Result<Staged> {
        self.update_simple_fields(id, before, params)?;
        self.update_discounts(id, before, params)?;
        let prorate = Prorate::read(params)?;
        let period = period_of(before);
        let date = params.int("proration_date")?;
        if date.is_some_and(|date| !(period.0..=period.1).contains(&date)) {
            let message = "proration_date must be within the current period.";
            return Err(StripeError::unfit("proration_date", message));
        }
        let date = date.unwrap_or(self.now);
        let items =
            if params.has("items") { self.changed_items(id, before, params)? } else { before.rows("items").to_vec() };
        let trial = self.update_trial(id, before, params)?;
        let ends_trial = trial == Trial::EndsNow;
        let anchors_now = params.one_of("billing_cycle_anchor", &["now", "unchanged"])? == Some("now");
        let begins_anew = begins_anew(before, &items) || ends_trial || anchors_now;
        let is_trial = before.text("status") == "trialing" && !ends_trial;
        let mut invoice = None;
        if let Trial::Until(end) = trial {
            invoice = Some(self.begin_period_anew(id, before, &items, prorate, Some(end), date));
        } else if begins_anew && (!is_trial || anchors_now) {
            invoice = Some(self.begin_period_anew(id, before, &items, prorate, None, date));
        } else {
            self.put_items(id, items.clone());
            if !is_trial && prorate != Prorate::Never && items != before.rows("items") {
                self.prorate(id, before, &items, date);
                if prorate == Prorate::InvoiceNow {
                    invoice = self.invoice_pending(id, "subscription_update");
                }
            }
        }
        let has_other_end = params.has("trial_end") || begins_anew || params.has("cancel_at");
        Ok(Staged { invoice, has_other_end })
    }

    fn update_simple_fields(&mut self, id: &str, before: &Value, params: &Params<'_>) -> Result<()> {
        let mut after = before.clone();
        params.merge_metadata("metadata", &mut after["metadata"])?;
        if params.has("description") {
            after["description"] = json!(params.text("description")?);
        }
        if params.has("default_payment_method") {
            let method = params.text("default_payment_method")?;
            if let Some(method) = method {
                self.check_owner(method, before.text("customer"), "default_payment_method")?;
            }
            after["default_payment_method"] = json!(method);
        }
        if let Some(collection) = params.one_of("collection_method", &["charge_automatically", "send_invoice"])? {
            after["collection_method"] = json!(collection);
            after["days_until_due"] = json!(params.natural("days_until_due")?);
        }
        if params.has("trial_settings") {
            after["trial_settings"]["end_behavior"]["missing_payment_method"] = json!(missing_payment_method(params)?);
        }
        let details = params.map("cancellation_details")?;
        details.only(&["comment", "feedback"])?;
        for key in ["comment", "feedback"] {
            if details.has(key) {
                after["cancellation_details"][key] = json!(details.text(key)?);
            }
        }
        self.update_end(&mut after, params)?;
        if params.has("pause_collection") {
            after["pause_collection"] = self.read_pause(id, params)?;
        }
        self.objects.insert(after);
        Ok(())
    }

    fn update_end(&self, after: &mut Value, params: &Params<'_>) -> Result<()> {
        let at_end = params.bool("cancel_at_period_end")?;
        let at = params.text("cancel_at")?;
        if at_end == Some(true) && at.is_some() {
            let message = "cancel_at and cancel_at_period_end do not go together.";
            return Err(StripeError::unfit("cancel_at", message));
        }
        let end = match (at_end, at) {
            (None, None) if !params.has("cancel_at") => return Ok(()),
            (Some(true), _) => Some(period_of(after).1),
            (_, Some("min_period_end" | "max_period_end")) => Some(period_of(after).1),
            (_, Some(_)) => params.int("cancel_at")?,
            (_, None) => None,
        };
        if end.is_some_and(|end| end <= self.now) {
            return Err(StripeError::unfit("cancel_at", "cancel_at must be in the future."));
        }
        after["cancel_at"] = json!(end);
        after["cancel_at_period_end"] = json!(at_end == Some(true));
        after["canceled_at"] = if end.is_some() { json!(self.now) } else { Value::Null };
        after["cancellation_details"]["reason"] =
            if end.is_some() { json!("cancellation_requested") } else { Value::Null };
        Ok(())
    }

    fn read_pause(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        if params.clears("pause_collection") {
            return Ok(Value::Null);
        }
        let pause = params.map("pause_collection")?;
        pause.only(&["behavior", "resumes_at"])?;
        let behavior = pause
            .one_of("behavior", &["keep_as_draft", "mark_uncollectible", "void"])?
            .ok_or_else(|| StripeError::missing(pause.name("behavior")))?;
        let resumes_at = pause.int("resumes_at")?;
        if let Some(resumes_at) = resumes_at {
            if resumes_at <= self.now {
                return Err(StripeError::unfit(pause.name("resumes_at"), "resumes_at must be in the future."));
            }
            self.schedule(resumes_at, Task::ResumeCollection(id.to_owned()));
        }
        Ok(json!({ "behavior": behavior, "resumes_at": resumes_at }))
    }

    fn update_discounts(&mut self, id: &str, before: &Value, params: &Params<'_>) -> Result<()> {
        if let Some(code) = params.text("promotion_code")? {
            let fields = json!({ "discounts": [{ "promotion_code": code }] });
            let Value::Object(fields) = fields else { return Ok(()) };
            return self.put_discounts(id, before, &Params::new(&fields));
        }
        if params.has("discounts") { self.put_discounts(id, before, params) } else { Ok(()) }
    }

    fn put_discounts(&mut self, id: &str, before: &Value, params: &Params<'_>) -> Result<()> {
        let read = self.read_discounts(params, before.maybe_text("customer"))?;
        let ids = self.redeem(read, id);
        for gone in
            before.rows("discounts").iter().filter_map(Value::as_str).filter(|old| !ids.iter().any(|id| id == old))
        {
            self.emit("customer.discount.deleted", gone);
        }
        let discounts: Vec<Value> = ids.iter().map(|id| self.answer(id)).collect();
        self.show_discounts(id, &discounts);
        Ok(())
    }

    fn update_trial(&mut self, id: &str, before: &Value, params: &Params<'_>) -> Result<Trial> {
        let is_trial = before.text("status") == "trialing";
        match params.text("trial_end")? {
            None => Ok(Trial::Same),
            Some("now") => {
                let now = self.now;
                self.alter(id, |subscription| {
                    if is_trial {
                        subscription["trial_end"] = json!(now);
                        subscription["status"] = json!("active");
                    }
                });
                Ok(if is_trial { Trial::EndsNow } else { Trial::Same })
            }
            Some(_) => {
                let end = params.int("trial_end")?.unwrap_or_default();
                if end <= self.now {
                    return Err(StripeError::unfit("trial_end", "Invalid timestamp: must be in the future"));
                }
                if is_trial && before.maybe_int("trial_end") == Some(end) {
                    return Ok(Trial::Same);
                }
                let now = self.now;
                self.alter(id, |subscription| {
                    subscription["trial_end"] = json!(end);
                    subscription["status"] = json!("trialing");
                    if !is_trial {
                        subscription["trial_start"] = json!(now);
                    }
                });
                Ok(Trial::Until(end))
            }
        }
    }

    /// The items as they are to be.
    fn changed_items(&mut self, id: &str, before: &Value, params: &Params<'_>) -> Result<Vec<Value>> {
        let mut items = before.rows("items").to_vec();
        let period = period_of(before);
        for change in params.list("items")? {
            change.only(&[
                "id",
                "price",
                "price_data",
                "quantity",
                "metadata",
                "deleted",
                "clear_usage",
                "discounts",
            ])?;
            let Some(item_id) = change.text("id")? else {
                let new = self.read_item(&change)?;
                items.push(self.new_item(id, &new, period));
                continue;
            };
            let Some(place) = items.iter().position(|item| item.text("id") == item_id) else {
                return Err(StripeError::no_such("subscription_item", item_id, change.name("id")));
            };
            if change.bool("deleted")?.unwrap_or(false) {
                items.remove(place);
                continue;
            }
            let old = &items[place];
            let mut item = old.clone();
            if change.has("price") || change.has("price_data") {
                let price = self.read_price(&change)?;
                if !price["recurring"].is_object() {
                    let message = format!("The price {} is not recurring.", price.text("id"));
                    return Err(StripeError::unfit(change.name("price"), message));
                }
                item["plan"] = plan(&price);
                item["price"] = price;
            }
            if is_metered(&item) {
                if let Value::Object(fields) = &mut item {
                    fields.remove("quantity");
                }
            } else {
                // A quantity that is left out stays, or is one where there was none.
                let quantity = change.natural("quantity")?.or(old.maybe_int("quantity")).unwrap_or(1);
                item["quantity"] = json!(quantity);
            }
            change.merge_metadata("metadata", &mut item["metadata"])?;
            items[place] = item;
        }
        let as_new: Vec<NewItem> = items
            .iter()
            .map(|item| NewItem { price: item["price"].clone(), quantity: item.int("quantity"), metadata: json!({}) })
            .collect();
        if as_new.is_empty() {
            return Err(StripeError::unfit("items", "A subscription needs at least one item."));
        }
        check_items(&as_new, "items")?;
        if as_new[0].price["currency"] != before["currency"] {
            let message = "The currency of a subscription cannot be changed.";
            return Err(StripeError::unfit("items", message));
        }
        Ok(items)
    }

    pub(crate) fn put_items(&mut self, id: &str, items: Vec<Value>) {
        self.alter(id, |subscription| {
            subscription["items"]["total_count"] = json!(items.len());
            subscription["items"]["data"] = json!(items);
            show_only_item(subscription);
        });
    }

    /// Makes an invoice final and collects it, in the same breath as the change that made it.
    pub(crate) fn finish_at_once(&mut self, invoice: &str) -> Collected {
        let intent = self.finalize(invoice);
        self.emit("invoice.created", invoice);
        self.emit("invoice.finalized", invoice);
        let Some(intent) = intent else {
            self.tell_paid(invoice);
            self.subscription_paid(invoice);
            return Collected::Paid;
        };
        self.emit("payment_intent.created", &intent);
        if self.answer(invoice).text("collection_method") == "send_invoice" {
            self.emit("invoice.sent", invoice);
            return Collected::Processing;
        }
        self.collect(invoice, None)
    }
}

/// What an update does to the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    Same,
    EndsNow,
    Until(i64),
}

/// What a change came to, before anybody is told.
#[derive(Debug)]
pub struct Staged {
    /// What it costs now: a draft.
    pub invoice: Option<String>,
    /// Whether the period, or the subscription, ends at another time than before.
    pub has_other_end: bool,
}
