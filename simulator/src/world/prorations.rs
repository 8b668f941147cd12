//! What a change within a period credits and charges (<https://docs.stripe.com/billing/subscriptions/prorations>).

use serde_json::{Value, json};

use super::World;
use super::invoices::Draft;
use super::lines::{Period, Proration, is_metered};
use super::prices::cost;
use super::read::Read;
use super::renewal::set_period;
use super::subscriptions::period_of;
use crate::error::Result;
use crate::params::Params;
use crate::time::period_end;

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

    /// A new period begins now: with another interval, after a trial, or because it is wanted; or a trial that ends at a time
    /// of its own, from which the next periods are counted.
    pub(crate) fn begin_period_anew(
        &mut self,
        id: &str,
        before: &Value,
        items: &[Value],
        prorate: Prorate,
        trial_end: Option<i64>,
        date: i64,
    ) -> String {
        let recurring = &items[0]["price"]["recurring"];
        let whole = period_end(self.now, recurring.text("interval"), recurring.int("interval_count"), self.now);
        let period = (self.now, trial_end.unwrap_or(whole));
        self.put_items(id, items.to_vec());
        if prorate != Prorate::Never && before.text("status") != "trialing" {
            self.credit_rest(id, before, date);
        }
        let anchor = trial_end.unwrap_or(self.now);
        self.alter(id, |subscription| {
            subscription["billing_cycle_anchor"] = json!(anchor);
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
}

/// Another interval, or going from free to paid, begins a new period at once.
pub fn begins_anew(before: &Value, items: &[Value]) -> bool {
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
