//! What time brings to subscriptions: the ends of periods and of trials, and the invoices that follow.

use std::sync::Arc;

use serde_json::{Value, json};

use super::World;
use super::agenda::Task;
use super::invoices::Draft;
use super::lines::{Period, is_metered};
use super::read::{Read, changed};
use super::subscriptions::{TRIAL_WARNING_S, period_of, usage_line};
use crate::time::period_end;

impl World {
    /// A period ends: the subscription ends with it, or goes on into the next.
    pub(crate) fn end_period_when_due(&mut self, id: &str) {
        let Some(subscription) = self.objects.get(id).cloned() else { return };
        let is_live = matches!(subscription.text("status"), "trialing" | "active" | "past_due" | "unpaid");
        if !is_live || period_of(&subscription).1 != self.now {
            return;
        }
        if subscription.maybe_int("cancel_at").is_some_and(|at| at <= self.now) {
            self.end_with_what_is_due(id);
            return;
        }
        if self.ends_by_schedule(&subscription) {
            self.end_with_what_is_due(id);
            return;
        }
        let has_method = self.default_method(subscription.text("customer"), Some(id)).is_some();
        if subscription.text("status") == "trialing" && !has_method {
            match subscription["trial_settings"]["end_behavior"].text("missing_payment_method") {
                "cancel" => {
                    self.end_subscription(id, "payment_failed");
                    return;
                }
                "pause" => {
                    let previous = self.alter(id, |subscription| subscription["status"] = json!("paused"));
                    self.emit_previous("customer.subscription.updated", id, previous);
                    self.emit("customer.subscription.paused", id);
                    return;
                }
                _ => {}
            }
        }
        let invoice = self.renew(id);
        self.await_finalization(&invoice);
        self.plan_ahead(id);
    }

    /// Takes a subscription into its next period; answers the draft of its invoice.
    pub(crate) fn renew(&mut self, id: &str) -> String {
        let before = self.answer(id);
        let over = period_of(&before);
        self.enter_phase(id);
        let current = self.answer(id);
        let recurring = &current["items"]["data"][0]["price"]["recurring"];
        let (interval, count) = (recurring.text("interval"), recurring.int("interval_count"));
        let was = &before["items"]["data"][0]["price"]["recurring"];
        let is_other_interval =
            (&was["interval"], &was["interval_count"]) != (&recurring["interval"], &recurring["interval_count"]);
        let anchor = if is_other_interval { over.1 } else { current.int("billing_cycle_anchor") };
        let period = (over.1, period_end(anchor, interval, count, over.1));
        self.alter(id, |subscription| {
            subscription["billing_cycle_anchor"] = json!(anchor);
            set_period(subscription, period);
            if subscription.text("status") == "trialing" {
                subscription["status"] = json!("active");
            }
        });
        let mut lines = self.pending_lines(id);
        lines.extend(self.usage_lines(&before, over));
        let subscription = self.answer(id);
        lines.extend(self.licensed_lines(&subscription, period));
        let invoice = self.draft_invoice(Draft {
            customer: subscription.text("customer").to_owned(),
            subscription: Some(id.to_owned()),
            reason: "subscription_cycle",
            currency: subscription.text("currency").to_owned(),
            lines,
            discounts: self.discounts_of(&subscription),
            period: over,
        });
        self.claim_pending(id, &invoice);
        self.drop_spent_discounts(id);
        self.alter(id, |subscription| subscription["latest_invoice"] = json!(invoice));
        self.emit("invoice.created", &invoice);
        let previous = changed(&before, &self.answer(id));
        self.emit_previous("customer.subscription.updated", id, previous);
        self.tell_phase(id);
        invoice
    }

    /// A draft becomes final in an hour, unless collection is paused or given up.
    pub(crate) fn await_finalization(&mut self, invoice: &str) {
        let subscription = super::collection::subscription_of(&self.answer(invoice)).map(|id| self.answer(id));
        let holds = subscription.is_some_and(|subscription| {
            subscription.text("status") == "unpaid"
                || subscription["pause_collection"].text("behavior") == "keep_as_draft"
        });
        if holds {
            return;
        }
        let at = self.now + self.settings.draft_s;
        self.alter(invoice, |invoice| {
            invoice["auto_advance"] = json!(true);
            invoice["automatically_finalizes_at"] = json!(at);
            invoice["next_payment_attempt"] = json!(at);
        });
        self.schedule(at, Task::FinalizeInvoice(invoice.to_owned()));
    }

    pub(crate) fn finalize_when_due(&mut self, id: &str) {
        let due = self.objects.get(id).is_some_and(|invoice| {
            invoice.text("status") == "draft" && invoice.maybe_int("automatically_finalizes_at") == Some(self.now)
        });
        if due {
            self.finalize_and_collect(id);
        }
    }

    /// Makes a draft final, and has it paid or sent.
    pub(crate) fn finalize_and_collect(&mut self, id: &str) {
        let before = self.answer(id);
        self.count_usage_again(id);
        let intent = self.finalize(id);
        let invoice = self.answer(id);
        self.emit("invoice.finalized", id);
        self.emit_previous("invoice.updated", id, changed(&before, &invoice));
        let subscription = super::collection::subscription_of(&invoice).map(|id| self.answer(id)).unwrap_or_default();
        let Some(intent) = intent else {
            self.tell_paid(id);
            self.subscription_paid(id);
            return;
        };
        self.emit("payment_intent.created", &intent);
        match subscription["pause_collection"].text("behavior") {
            "void" => self.void(id),
            "mark_uncollectible" => self.mark_uncollectible(id),
            _ if invoice.text("collection_method") == "send_invoice" => {
                self.alter(id, |invoice| invoice["next_payment_attempt"] = Value::Null);
                self.emit("invoice.sent", id);
            }
            _ => {
                self.collect(id, None);
            }
        }
    }

    pub(crate) fn mark_uncollectible(&mut self, id: &str) {
        let now = self.now;
        let previous = self.alter(id, |invoice| {
            invoice["status"] = json!("uncollectible");
            invoice["auto_advance"] = json!(false);
            invoice["next_payment_attempt"] = Value::Null;
            invoice["status_transitions"]["marked_uncollectible_at"] = json!(now);
        });
        self.emit_previous("invoice.updated", id, previous);
        self.emit("invoice.marked_uncollectible", id);
    }

    /// Ends a subscription at its time; what it used or owes beyond is invoiced.
    pub(crate) fn end_with_what_is_due(&mut self, id: &str) {
        let subscription = self.answer(id);
        let period = (period_of(&subscription).0, self.now);
        let mut lines = self.pending_lines(id);
        lines.extend(self.usage_lines(&subscription, period));
        let owes = lines.iter().any(|line| line.int("amount") != 0);
        self.end_subscription(id, "cancellation_requested");
        if !owes {
            return;
        }
        let invoice = self.draft_invoice(Draft {
            customer: subscription.text("customer").to_owned(),
            subscription: Some(id.to_owned()),
            reason: "subscription_cycle",
            currency: subscription.text("currency").to_owned(),
            lines,
            discounts: Vec::new(),
            period,
        });
        self.claim_pending(id, &invoice);
        self.alter(id, |subscription| subscription["latest_invoice"] = json!(invoice));
        self.emit("invoice.created", &invoice);
        self.await_finalization(&invoice);
    }

    /// The lines of what waits for a subscription's next invoice.
    pub(crate) fn pending_lines(&mut self, subscription: &str) -> Vec<Value> {
        let pending = self.pending(subscription);
        pending.iter().map(|item| self.line_of_item(item)).collect()
    }

    fn pending(&self, subscription: &str) -> Vec<Arc<Value>> {
        let customer = self.answer(subscription).text("customer").to_owned();
        let of_it = |item: &&Arc<Value>| {
            item["invoice"].is_null() && item["parent"]["subscription_details"].text("subscription") == subscription
        };
        self.objects.of_customer(&customer, "invoiceitem").filter(of_it).cloned().collect()
    }

    pub(crate) fn claim_pending(&mut self, subscription: &str, invoice: &str) {
        for item in self.pending(subscription) {
            self.alter(item.text("id"), |item| item["invoice"] = json!(invoice));
        }
    }

    /// What the metered prices of a subscription come to for a period.
    fn usage_lines(&mut self, subscription: &Value, period: Period) -> Vec<Value> {
        if subscription.text("status") == "trialing" {
            return Vec::new();
        }
        let customer = subscription.text("customer");
        let mut lines = Vec::new();
        for item in subscription.rows("items").iter().filter(|item| is_metered(item)) {
            let usage = self.billed_usage(item["price"]["recurring"].text("meter"), customer, period);
            let name = self.product_name(&item["price"]);
            let mut line = self.line(usage_line(item, subscription, usage, &name, period));
            line["_is_usage"] = json!(true);
            lines.push(line);
        }
        lines
    }

    /// Usage that was reported while the invoice was a draft is on it, too.
    fn count_usage_again(&mut self, id: &str) {
        let invoice = self.answer(id);
        let customer = invoice.text("customer");
        let mut lines = invoice.rows("lines").to_vec();
        let mut is_other = false;
        for line in lines.iter_mut().filter(|line| line.is("_is_usage")) {
            let period = (line["period"].int("start"), line["period"].int("end"));
            let usage = self.billed_usage(line["_price"]["recurring"].text("meter"), customer, period);
            let quantity = usage.round() as i64;
            if line.int("quantity") == quantity {
                continue;
            }
            is_other = true;
            let amount = super::prices::cost(&line["_price"], usage);
            line["description"] = json!(format!("{quantity} × {}", self.product_name(&line["_price"])));
            line["quantity"] = json!(quantity);
            line["quantity_decimal"] = json!(quantity.to_string());
            line["amount"] = json!(amount);
            line["subtotal"] = json!(amount);
        }
        if is_other {
            for line in &mut lines {
                line["discount_amounts"] = json!([]);
            }
            self.set_lines(id, lines);
        }
    }

    /// Once for each end that the trial was given.
    pub(crate) fn warn_of_trial_end(&mut self, id: &str) {
        let Some(subscription) = self.objects.get(id).cloned() else { return };
        let end = &subscription["trial_end"];
        let is_near = end.as_i64().is_some_and(|end| end - self.now <= TRIAL_WARNING_S);
        if subscription.text("status") == "trialing" && is_near && subscription["_warned_of"] != *end {
            self.alter(id, |subscription| subscription["_warned_of"] = end.clone());
            self.emit("customer.subscription.trial_will_end", id);
        }
    }

    pub(crate) fn cancel_when_due(&mut self, id: &str) {
        let due = self.objects.get(id).is_some_and(|object| {
            object.maybe_int("cancel_at") == Some(self.now)
                && !matches!(object.text("status"), "canceled" | "incomplete_expired")
        });
        if due {
            self.end_with_what_is_due(id);
        }
    }

    /// Once for each period.
    pub(crate) fn tell_upcoming(&mut self, id: &str) {
        let Some(subscription) = self.objects.get(id).cloned() else { return };
        let end = period_of(&subscription).1;
        let is_near = end - self.now <= self.settings.upcoming_days * crate::time::DAY_S;
        let goes_on = matches!(subscription.text("status"), "trialing" | "active" | "past_due")
            && subscription["cancel_at"].is_null()
            && subscription["pause_collection"].is_null();
        let is_told = subscription.maybe_int("_told_of") == Some(end);
        if goes_on
            && is_near
            && !is_told
            && let Some(invoice) = self.upcoming(id)
        {
            self.alter(id, |subscription| subscription["_told_of"] = json!(end));
            self.emit_object("invoice.upcoming", Arc::new(invoice), None);
        }
    }

    /// The invoice that the next renewal would make, as it looks now.
    pub(crate) fn upcoming(&self, id: &str) -> Option<Value> {
        let mut scratch = self.scratch(self.answer(id).text("customer"));
        scratch.now = period_of(&scratch.answer(id)).1;
        let invoice = scratch.renew(id);
        let mut shown = scratch.answer(&invoice);
        as_upcoming(&mut shown, scratch.now + self.settings.draft_s);
        Some(shown)
    }

    pub(crate) fn resume_collection_when_due(&mut self, id: &str) {
        let pause = self.answer(id)["pause_collection"].clone();
        if pause.maybe_int("resumes_at") != Some(self.now) {
            return;
        }
        self.change("customer.subscription.updated", id, |subscription| {
            subscription["pause_collection"] = Value::Null;
        });
    }
}

/// An invoice that does not exist yet has no id.
pub fn as_upcoming(invoice: &mut Value, next_attempt: i64) {
    if let Value::Object(fields) = invoice {
        fields.remove("id");
    }
    invoice["billing_reason"] = json!("upcoming");
    invoice["next_payment_attempt"] = json!(next_attempt);
    invoice["status"] = json!("draft");
    if let Some(lines) = invoice["lines"]["data"].as_array_mut() {
        for line in lines {
            line["invoice"] = Value::Null;
        }
    }
}

pub fn set_period(subscription: &mut Value, period: Period) {
    if let Some(items) = subscription["items"]["data"].as_array_mut() {
        for item in items {
            item["current_period_start"] = json!(period.0);
            item["current_period_end"] = json!(period.1);
        }
    }
}
