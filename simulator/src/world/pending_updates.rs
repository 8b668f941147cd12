//! Changes that wait for their payment (<https://docs.stripe.com/billing/subscriptions/pending-updates>).

use serde_json::{Value, json};

use super::World;
use super::agenda::Task;
use super::read::{Read, changed};
use crate::error::Result;
use crate::params::Params;
use crate::time::HOUR_S;

/// How long a change waits.
const WAITS_S: i64 = 23 * HOUR_S;

impl World {
    /// Leaves a subscription as it is until the invoice over its change is paid.
    pub(crate) fn hold_update(&mut self, id: &str, before: &Value, params: &Params<'_>) -> Result<()> {
        let staged = self.stage_update(id, before, params)?;
        let after = self.answer(id);
        let expires_at = self.now + WAITS_S;
        let mut held = before.clone();
        held["latest_invoice"] = after["latest_invoice"].clone();
        held["pending_update"] = json!({
            "billing_cycle_anchor": null, "discount": null, "discounts": null, "expires_at": expires_at,
            "metadata": null, "subscription_items": after["items"]["data"], "trial_end": null,
            "trial_from_plan": null,
        });
        held["_pending"] = after;
        self.objects.insert(held);
        self.emit_previous("customer.subscription.updated", id, changed(before, &self.answer(id)));
        self.schedule(expires_at, Task::ExpireUpdate(id.to_owned()));
        if let Some(invoice) = staged.invoice {
            self.finish_at_once(&invoice);
        }
        Ok(())
    }

    /// Whether an invoice is the one that a change waits for.
    pub(crate) fn is_awaited(&self, invoice: &Value, subscription: &str) -> bool {
        let subscription = self.answer(subscription);
        subscription["pending_update"].is_object() && subscription["_pending"]["latest_invoice"] == invoice["id"]
    }

    /// The invoice is paid: the change comes into force.
    pub(crate) fn apply_held_update(&mut self, id: &str) {
        let before = self.answer(id);
        let mut after = before["_pending"].clone();
        after["pending_update"] = Value::Null;
        after["status"] = before["status"].clone();
        self.objects.insert(after);
        self.emit_previous("customer.subscription.updated", id, changed(&before, &self.answer(id)));
        self.emit("customer.subscription.pending_update_applied", id);
        self.plan_ahead(id);
    }

    pub(crate) fn expire_update_when_due(&mut self, id: &str) {
        let before = self.answer(id);
        if before["pending_update"].maybe_int("expires_at") != Some(self.now) {
            return;
        }
        let invoice = before["_pending"].text("latest_invoice").to_owned();
        let previous = self.alter(id, |subscription| {
            subscription["pending_update"] = Value::Null;
            subscription["_pending"] = Value::Null;
        });
        self.emit_previous("customer.subscription.updated", id, previous);
        self.emit("customer.subscription.pending_update_expired", id);
        if self.answer(&invoice).text("status") == "open" {
            self.void(&invoice);
        }
    }
}
