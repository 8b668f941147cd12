//! Changes of subscriptions (<https://docs.stripe.com/billing/subscriptions/prorations>).

use serde_json::{Value, json};

use super::World;
use super::agenda::Task;
use super::collection::Collected;
use super::invoices::Draft;
use super::lines::{Period, Proration, is_metered};
use super::prices::{cost, plan};
use super::read::{Read, changed};
use super::renewal::set_period;
use super::subscriptions::{NewItem, check_items, missing_payment_method, period_of, refuse, show_only_item};
use crate::error::{Result, StripeError};
use crate::params::Params;
use crate::time::period_end;

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
const NOT_SIMULATED: [&str; 5] =
    ["add_invoice_items", "default_tax_rates", "on_behalf_of", "pending_invoice_item_interval", "coupon"];

/// What a change of items does about the time that is already paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prorate {
    Create,
    InvoiceNow,
    Never,
}

impl Prorate {
    pub fn read(params: &Params<'_>) -> Result<Self> {
        let given = params.one_of("proration_behavior", &["create_prorations", "always_invoice", "none"])?;
        Ok(match given {
            Some("always_invoice") => Self::InvoiceNow,
            Some("none") => Self::Never,
            _ => Self::Create,
        })
    }
}

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
        // What is refused must leave nothing behind: it is tried in a copy first.
        let mut scratch = self.scratch();
        let mut tried = scratch.apply_update(id, &before, params)?;
        if tried
            .take_failure()
            .is_some_and(|_| params.text("payment_behavior").ok().flatten() == Some("error_if_incomplete"))
        {
            return Err(tried.error());
        }
        self.apply_update(id, &before, params)?;
        if params.has("items") {
            self.show_items_in_phase(id);
        }
        Ok(self.answer(id))
    }

    pub(crate) fn apply_update(&mut self, id: &str, before: &Value, params: &Params<'_>) -> Result<Updated> {
        self.update_simple_fields(id, before, params)?;
        self.update_discounts(id, before, params)?;
        let prorate = Prorate::read(params)?;
        let date = params.int("proration_date")?.unwrap_or(self.now);
        let period = period_of(before);
        if !(period.0..=period.1).contains(&date) {
            let message = "proration_date must be within the current period.";
            return Err(StripeError::unfit("proration_date", message));
        }
        let mut items =
            if params.has("items") { self.changed_items(id, before, params)? } else { before.rows("items").to_vec() };
        let trial = self.update_trial(id, before, params)?;
        let ends_trial = trial == Trial::EndsNow;
        let anchors_now = params.one_of("billing_cycle_anchor", &["now", "unchanged"])? == Some("now");
        let begins_anew = begins_anew(before, &items) || ends_trial || anchors_now;
        let is_trial = before.text("status") == "trialing" && !ends_trial;
        let mut invoice = None;
        if begins_anew && !(is_trial && !anchors_now) {
            invoice = Some(self.begin_period_anew(id, before, &mut items, prorate, date));
        } else {
            self.put_items(id, items.clone());
            if let Trial::Until(end) = trial {
                self.alter(id, |subscription| set_period(subscription, (period.0, end)));
            }
            if !is_trial && prorate != Prorate::Never && items != before.rows("items") {
                self.prorate(id, before, &items, date);
                if prorate == Prorate::InvoiceNow {
                    invoice = self.invoice_pending(id, "subscription_update");
                }
            }
        }
        let previous = changed(before, &self.answer(id));
        if let Some(previous) = previous {
            self.emit_previous("customer.subscription.updated", id, Some(previous));
        }
        let collected = invoice.map(|invoice| self.finish_at_once(&invoice));
        if params.has("trial_end") || begins_anew || params.has("cancel_at") {
            self.plan_ahead(id);
        }
        Ok(Updated { collected })
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
                let now = self.now;
                self.alter(id, |subscription| {
                    subscription["trial_end"] = json!(end);
                    subscription["status"] = json!("trialing");
                    subscription["billing_cycle_anchor"] = json!(end);
                    if subscription["trial_start"].is_null() {
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

    fn put_items(&mut self, id: &str, items: Vec<Value>) {
        self.alter(id, |subscription| {
            subscription["items"]["total_count"] = json!(items.len());
            subscription["items"]["data"] = json!(items);
            show_only_item(subscription);
        });
    }

    /// Credits what is left of the old items, and charges it of the new ones, with the next invoice.
    pub(crate) fn prorate(&mut self, id: &str, before: &Value, items: &[Value], date: i64) {
        let period = period_of(before);
        let whole = (period.1 - period.0).max(1);
        let left: Period = (date, period.1);
        let subscription = self.answer(id);
        let share = |this: &Self, subscription: &Value, item: &Value| {
            let whole_amount = cost(&item["price"], item.int("quantity") as f64);
            let off: i64 = this
                .discounts_of(subscription)
                .iter()
                .filter(|discount| discount["_coupon"]["percent_off"].is_number())
                .map(|discount| super::coupons::taken_off(discount, whole_amount, subscription.text("currency")))
                .sum();
            ((whole_amount - off) as f64 * (left.1 - left.0) as f64 / whole as f64).round() as i64
        };
        let is_same = |one: &Value, other: &Value| {
            one["price"]["id"] == other["price"]["id"] && one["quantity"] == other["quantity"]
        };
        let licensed = |item: &&Value| !is_metered(item);
        let old_items = before.rows("items").iter().filter(licensed);
        let unchanged = |item: &Value, others: &[Value]| {
            others.iter().any(|other| other["id"] == item["id"] && is_same(item, other))
        };
        for item in old_items.filter(|item| !unchanged(item, items)) {
            let amount = -share(self, before, item);
            let credited = self.credited(before, item);
            self.add_proration(Proration { subscription: before, item, amount, period: left, credited });
        }
        for item in items.iter().filter(licensed).filter(|item| !unchanged(item, before.rows("items"))) {
            let amount = share(self, &subscription, item);
            self.add_proration(Proration {
                subscription: &subscription,
                item,
                amount,
                period: left,
                credited: Value::Null,
            });
        }
    }

    fn add_proration(&mut self, proration: Proration<'_>) {
        if proration.amount == 0 {
            return;
        }
        let item = self.proration_item(proration);
        let id = item.text("id").to_owned();
        self.objects.insert(item);
        self.emit("invoiceitem.created", &id);
    }

    /// Which lines of which invoice had charged an item.
    fn credited(&self, subscription: &Value, item: &Value) -> Value {
        let invoice = self.answer(subscription.text("latest_invoice"));
        let of_item = |line: &&Value| {
            line["parent"]["subscription_item_details"]["subscription_item"] == item["id"] && line.int("amount") > 0
        };
        let lines: Vec<&Value> = invoice.rows("lines").iter().filter(of_item).map(|line| &line["id"]).collect();
        if lines.is_empty() { Value::Null } else { json!({ "invoice": invoice["id"], "invoice_line_items": lines }) }
    }

    /// An invoice over what waits, made final at once; `None` if nothing waits.
    pub(crate) fn invoice_pending(&mut self, id: &str, reason: &'static str) -> Option<String> {
        let subscription = self.answer(id);
        let lines = self.pending_lines(id);
        if lines.is_empty() {
            return None;
        }
        let invoice = self.draft_invoice(Draft {
            customer: subscription.text("customer").to_owned(),
            subscription: Some(id.to_owned()),
            reason,
            currency: subscription.text("currency").to_owned(),
            lines,
            discounts: Vec::new(),
            period: (period_of(&subscription).0, self.now),
        });
        self.claim_pending(id, &invoice);
        self.alter(id, |subscription| subscription["latest_invoice"] = json!(invoice));
        Some(invoice)
    }

    /// A new period begins now: with another interval, after a trial, or because it is wanted.
    fn begin_period_anew(
        &mut self,
        id: &str,
        before: &Value,
        items: &mut Vec<Value>,
        prorate: Prorate,
        date: i64,
    ) -> String {
        let recurring = items[0]["price"]["recurring"].clone();
        let period =
            (self.now, period_end(self.now, recurring.text("interval"), recurring.int("interval_count"), self.now));
        self.put_items(id, items.clone());
        if prorate != Prorate::Never && before.text("status") != "trialing" {
            self.credit_rest(id, before, date);
        }
        let now = self.now;
        self.alter(id, |subscription| {
            subscription["billing_cycle_anchor"] = json!(now);
            set_period(subscription, period);
        });
        let subscription = self.answer(id);
        let mut lines = self.pending_lines(id);
        lines.extend(self.licensed_lines(&subscription, period));
        let invoice = self.draft_invoice(Draft {
            customer: subscription.text("customer").to_owned(),
            subscription: Some(id.to_owned()),
            reason: "subscription_update",
            currency: subscription.text("currency").to_owned(),
            lines,
            discounts: self.discounts_of(&subscription),
            period: (period_of(before).0, self.now),
        });
        self.claim_pending(id, &invoice);
        self.drop_spent_discounts(id);
        self.alter(id, |subscription| subscription["latest_invoice"] = json!(invoice));
        invoice
    }

    /// Credits all that is left of what a period was paid for.
    pub(crate) fn credit_rest(&mut self, id: &str, before: &Value, date: i64) {
        self.prorate(id, before, &[], date);
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

    pub(crate) fn cancel_subscription(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["invoice_now", "prorate", "cancellation_details"])?;
        let before = Value::clone(self.objects.of("subscription", id)?);
        if matches!(before.text("status"), "canceled" | "incomplete_expired") {
            return Err(StripeError::not_found("subscription", id));
        }
        let details = params.map("cancellation_details")?;
        let (comment, feedback) = (details.text("comment")?, details.text("feedback")?);
        let (prorates, invoices) =
            (params.bool("prorate")?.unwrap_or(false), params.bool("invoice_now")?.unwrap_or(false));
        self.alter(id, |subscription| {
            subscription["cancellation_details"]["comment"] = json!(comment);
            subscription["cancellation_details"]["feedback"] = json!(feedback);
        });
        if prorates && before.text("status") != "trialing" {
            self.credit_rest(id, &before, self.now);
        }
        if invoices {
            self.end_with_what_is_due(id);
        } else {
            self.end_subscription(id, "cancellation_requested");
        }
        Ok(self.answer(id))
    }

    /// Takes up a subscription that was paused at the end of its trial.
    pub(crate) fn resume_subscription(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["billing_cycle_anchor", "proration_behavior", "proration_date"])?;
        let before = Value::clone(self.objects.of("subscription", id)?);
        if before.text("status") != "paused" {
            let message = "Only subscriptions of status paused can be resumed.";
            return Err(StripeError::unfit("id", message));
        }
        self.alter(id, |subscription| subscription["status"] = json!("active"));
        let mut items = before.rows("items").to_vec();
        let invoice = self.begin_period_anew(id, &before, &mut items, Prorate::Never, self.now);
        let previous = changed(&before, &self.answer(id));
        self.emit_previous("customer.subscription.updated", id, previous);
        self.emit("customer.subscription.resumed", id);
        self.finish_at_once(&invoice);
        self.plan_ahead(id);
        Ok(self.answer(id))
    }
}

/// What an update does to the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    Same,
    EndsNow,
    Until(i64),
}

/// What an update came to.
#[derive(Debug)]
pub struct Updated {
    collected: Option<Collected>,
}

impl Updated {
    fn take_failure(&mut self) -> Option<()> {
        matches!(self.collected, Some(Collected::Failed(_))).then_some(())
    }

    fn error(self) -> StripeError {
        match self.collected {
            Some(Collected::Failed(error)) => error,
            _ => StripeError::server_error(),
        }
    }
}

/// Another interval, or going from free to paid, begins a new period at once.
fn begins_anew(before: &Value, items: &[Value]) -> bool {
    let interval = |items: &[Value]| {
        let recurring = &items[0]["price"]["recurring"];
        (recurring["interval"].clone(), recurring["interval_count"].clone())
    };
    let total =
        |items: &[Value]| items.iter().map(|item| cost(&item["price"], item.int("quantity") as f64)).sum::<i64>();
    let any_metered = |items: &[Value]| items.iter().any(is_metered);
    let old = before.rows("items");
    interval(old) != interval(items) || (total(old) == 0 && !any_metered(old) && total(items) > 0)
}
