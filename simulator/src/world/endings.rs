//! Canceling subscriptions, and taking paused ones up again.

use serde_json::{Value, json};

use super::World;
use super::prorations::Prorate;
use super::read::{Read, changed};
use crate::error::{Result, StripeError};
use crate::params::Params;

impl World {
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
        let invoice = self.begin_period_anew(id, &before, before.rows("items"), Prorate::Never, None, self.now);
        let previous = changed(&before, &self.answer(id));
        self.emit_previous("customer.subscription.updated", id, previous);
        self.emit("customer.subscription.resumed", id);
        self.finish_at_once(&invoice);
        self.plan_ahead(id);
        Ok(self.answer(id))
    }
}
