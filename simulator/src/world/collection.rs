//! Collecting what invoices owe, and what follows when it fails.

use serde_json::{Value, json};

use super::World;
use super::agenda::Task;
use super::cards::Refusal;
use super::payments::Tried;
use super::read::Read;
use crate::error::StripeError;
use crate::settings::AfterTheLast;
use crate::time::DAY_S;

/// What came of a try to collect an invoice.
#[derive(Debug)]
pub enum Collected {
    Paid,
    Processing,
    Failed(StripeError),
}

impl World {
    /// Tries to have an open invoice paid, by the given method or the one its subscription or customer has; tells all.
    pub(crate) fn collect(&mut self, id: &str, method: Option<&str>) -> Collected {
        let invoice = self.answer(id);
        let subscription = subscription_of(&invoice);
        let method = method.map(str::to_owned).or_else(|| self.default_method(invoice.text("customer"), subscription));
        let intent = invoice.text("_payment_intent").to_owned();
        let Some(method) = method else {
            let message = "There is no default payment method set on this customer or invoice.";
            self.collection_failed(id, None);
            return Collected::Failed(StripeError::state("invoice_payment_intent_requires_action", message));
        };
        match self.try_intent(&intent, &method) {
            Tried::Succeeded { charge } => {
                self.mark_paid(id, Some(&charge), false);
                Collected::Paid
            }
            Tried::Processing => Collected::Processing,
            Tried::Failed(refusal) => {
                self.collection_failed(id, Some(refusal));
                let mut error = refusal.error();
                error.payment_intent = Some(Box::new(self.answer(&intent)));
                Collected::Failed(error)
            }
        }
    }

    fn collection_failed(&mut self, id: &str, refusal: Option<Refusal>) {
        let invoice = self.answer(id);
        let attempts = invoice.int("attempt_count") + 1;
        let is_awaited = subscription_of(&invoice).is_some_and(|id| self.is_awaited(&invoice, id));
        // Nothing is tried again by itself that a customer waits for.
        let is_first_invoice = is_awaited || invoice.text("billing_reason") == "subscription_create";
        let is_automatic = invoice.text("collection_method") == "charge_automatically";
        let retry_days = &self.settings.dunning.retry_days;
        let retries = usize::try_from(attempts - 1).ok().and_then(|index| retry_days.get(index));
        let next = retries.filter(|_| !is_first_invoice && is_automatic).map(|days| self.now + days * DAY_S);
        let previous = self.alter(id, |invoice| {
            invoice["attempted"] = json!(true);
            invoice["attempt_count"] = json!(attempts);
            invoice["next_payment_attempt"] = json!(next);
            invoice["auto_advance"] = json!(next.is_some());
        });
        self.emit_previous("invoice.updated", id, previous);
        if refusal.is_some_and(|refusal| refusal.needs_action) {
            self.emit("invoice.payment_action_required", id);
        }
        self.emit("invoice.payment_failed", id);
        if let Some(next) = next {
            self.schedule(next, Task::RetryInvoice(id.to_owned()));
        }
        let Some(subscription) = subscription_of(&invoice).map(str::to_owned) else { return };
        if is_first_invoice {
            return;
        }
        self.change("customer.subscription.updated", &subscription, |subscription| {
            if subscription.text("status") == "active" {
                subscription["status"] = json!("past_due");
            }
        });
        self.change("customer.updated", invoice.text("customer"), |customer| customer["delinquent"] = json!(true));
        if next.is_none() && is_automatic {
            self.give_up(&subscription);
        }
    }

    /// No try is left.
    fn give_up(&mut self, subscription: &str) {
        let status = self.answer(subscription).text("status").to_owned();
        if !matches!(status.as_str(), "past_due" | "unpaid") {
            return;
        }
        match self.settings.dunning.after_the_last {
            AfterTheLast::LeavePastDue => {}
            AfterTheLast::MarkUnpaid => {
                self.change("customer.subscription.updated", subscription, |subscription| {
                    subscription["status"] = json!("unpaid");
                });
            }
            AfterTheLast::Cancel => self.end_subscription(subscription, "payment_failed"),
        }
    }

    /// An invoice of a subscription is paid: what waited for it goes on.
    pub(crate) fn subscription_paid(&mut self, invoice: &str) {
        let invoice = self.answer(invoice);
        let customer = invoice.text("customer").to_owned();
        if let Some(id) = subscription_of(&invoice) {
            if self.is_awaited(&invoice, id) {
                self.apply_held_update(id);
            }
            let is_latest = self.answer(id).text("latest_invoice") == invoice.text("id");
            self.change("customer.subscription.updated", id, |subscription| {
                let status = subscription.text("status");
                if status == "incomplete" || (is_latest && matches!(status, "past_due" | "unpaid")) {
                    subscription["status"] = json!("active");
                }
            });
        }
        let owed = |invoice: &std::sync::Arc<Value>| invoice.text("status") == "open" && invoice.is("attempted");
        let owes = self.objects.of_customer(&customer, "invoice").any(owed);
        if !owes {
            self.change("customer.updated", &customer, |customer| customer["delinquent"] = json!(false));
        }
    }

    pub(crate) fn retry_when_due(&mut self, id: &str) {
        let Some(invoice) = self.objects.get(id) else { return };
        if invoice.text("status") == "open" && invoice.maybe_int("next_payment_attempt") == Some(self.now) {
            self.collect(id, None);
        }
    }

    /// Makes an open invoice void, and cancels its payment.
    pub(crate) fn void(&mut self, id: &str) {
        let now = self.now;
        let intent = self.answer(id).text("_payment_intent").to_owned();
        let payment = self.answer(id).text("_payment").to_owned();
        if !intent.is_empty() {
            self.cancel_payment(&intent, "void_invoice");
            self.alter(&payment, |payment| {
                payment["status"] = json!("canceled");
                payment["status_transitions"]["canceled_at"] = json!(now);
            });
        }
        let previous = self.alter(id, |invoice| {
            invoice["status"] = json!("void");
            invoice["auto_advance"] = json!(false);
            invoice["next_payment_attempt"] = Value::Null;
            invoice["status_transitions"]["voided_at"] = json!(now);
        });
        self.emit_previous("invoice.updated", id, previous);
        self.emit("invoice.voided", id);
    }

    pub(crate) fn expire_incomplete(&mut self, id: &str) {
        let Some(subscription) = self.objects.get(id).filter(|object| object.text("status") == "incomplete") else {
            return;
        };
        let invoice = subscription.text("latest_invoice").to_owned();
        let now = self.now;
        self.change("customer.subscription.updated", id, |subscription| {
            subscription["status"] = json!("incomplete_expired");
            subscription["ended_at"] = json!(now);
        });
        if self.answer(&invoice).text("status") == "open" {
            self.void(&invoice);
        }
    }

    /// Ends a subscription now. Its open invoices stay open, and nobody tries them again.
    pub(crate) fn end_subscription(&mut self, id: &str, reason: &str) {
        let now = self.now;
        let customer = self.answer(id).text("customer").to_owned();
        let open: Vec<String> = self
            .objects
            .of_customer(&customer, "invoice")
            .filter(|invoice| {
                subscription_of(invoice) == Some(id) && matches!(invoice.text("status"), "open" | "draft")
            })
            .map(|invoice| invoice.text("id").to_owned())
            .collect();
        let schedule = self.answer(id).text("schedule").to_owned();
        self.alter(id, |subscription| {
            subscription["status"] = json!("canceled");
            subscription["ended_at"] = json!(now);
            if subscription["canceled_at"].is_null() {
                subscription["canceled_at"] = json!(now);
            }
            if subscription["cancellation_details"]["reason"].is_null() {
                subscription["cancellation_details"]["reason"] = json!(reason);
            }
            subscription["schedule"] = Value::Null;
        });
        self.emit("customer.subscription.deleted", id);
        if !schedule.is_empty() {
            self.change("subscription_schedule.canceled", &schedule, |schedule| {
                schedule["status"] = json!("canceled");
                schedule["canceled_at"] = json!(now);
                schedule["current_phase"] = Value::Null;
            });
        }
        for invoice in open {
            self.change("invoice.updated", &invoice, |invoice| {
                invoice["auto_advance"] = json!(false);
                invoice["next_payment_attempt"] = Value::Null;
                invoice["automatically_finalizes_at"] = Value::Null;
            });
        }
    }

    /// A customer is deleted, and with it what would go on charging it.
    pub(crate) fn end_everything_of(&mut self, customer: &str) {
        let live: Vec<String> = self
            .objects
            .of_customer(customer, "subscription")
            .filter(|object| !matches!(object.text("status"), "canceled" | "incomplete_expired"))
            .map(|object| object.text("id").to_owned())
            .collect();
        for subscription in live {
            self.end_subscription(&subscription, "cancellation_requested");
        }
    }
}

/// The subscription that an invoice is of.
pub fn subscription_of(invoice: &Value) -> Option<&str> {
    invoice["parent"]["subscription_details"].maybe_text("subscription")
}
