//! What callers see of what Stripe did for them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};

use super::views::{SubscriptionView, time};
use crate::app::selling::invoice_previews::InvoicePreview;
use crate::domain::catalog::{Catalog, PriceKey};
use crate::domain::stripe_outcome::StripeOutcome;

/// The outcome of an errand.
pub fn view(outcome: &StripeOutcome, catalog: &Catalog) -> Value {
    match outcome {
        StripeOutcome::CheckoutSession { session_id, stripe_customer_id, url, expires_at } => json!({
            "session_id": session_id,
            "stripe_customer_id": stripe_customer_id,
            "url": url,
            "expires_at": time(*expires_at),
        }),
        StripeOutcome::PortalSession { stripe_customer_id, url } => {
            json!({ "stripe_customer_id": stripe_customer_id, "url": url })
        }
        StripeOutcome::Subscription { subscription, schedule } => {
            let schedules: Vec<_> = schedule.iter().map(|schedule| (**schedule).clone()).collect();
            json!(SubscriptionView::of(subscription, &schedules, catalog))
        }
        StripeOutcome::Refund { refund, payment } => json!({
            "stripe_refund_id": refund.id,
            "payment": payment,
            "stripe_charge_id": refund.charge,
            "status": refund.status,
            "currency": refund.currency,
            "amount": refund.amount,
            "created_at": time(refund.created),
        }),
    }
}

/// An invoice as it would be.
#[derive(Debug, Serialize)]
pub struct InvoicePreviewView {
    pub currency: String,
    pub subtotal: i64,
    pub total: i64,
    pub amount_due: i64,
    /// What the customer has to its credit (negative) or owes before.
    pub starting_balance: i64,
    pub next_payment_attempt: Option<DateTime<Utc>>,
    pub period_end: Option<DateTime<Utc>>,
    /// Give it with the change, and it costs exactly this.
    pub proration_date: Option<DateTime<Utc>>,
    pub lines: Vec<PreviewLineView>,
    pub has_more_lines: bool,
}

#[derive(Debug, Serialize)]
pub struct PreviewLineView {
    pub amount: i64,
    pub description: Option<String>,
    pub price: Option<String>,
    pub plan: Option<String>,
    pub quantity: Option<i64>,
    pub proration: bool,
    pub period_start: Option<DateTime<Utc>>,
    pub period_end: Option<DateTime<Utc>>,
}

impl InvoicePreviewView {
    pub fn of(preview: &InvoicePreview, catalog: &Catalog) -> Self {
        let plan_of = |price: &str| {
            let found = catalog.plan_of_price(PriceKey { stripe_price_id: price, lookup_key: None });
            found.map(|(plan, _)| plan.id.clone())
        };
        let lines = preview.lines.data.iter().map(|line| PreviewLineView {
            amount: line.amount,
            description: line.description.clone(),
            price: line.price().map(str::to_owned),
            plan: line.price().and_then(plan_of),
            quantity: line.quantity,
            proration: line.is_proration(),
            period_start: line.period.and_then(|period| time(Some(period.start))),
            period_end: line.period.and_then(|period| time(Some(period.end))),
        });
        Self {
            currency: preview.currency.clone(),
            subtotal: preview.subtotal,
            total: preview.total,
            amount_due: preview.amount_due,
            starting_balance: preview.starting_balance.unwrap_or(0),
            next_payment_attempt: time(preview.next_payment_attempt),
            period_end: time(preview.period_end),
            proration_date: time(preview.proration_date()),
            lines: lines.collect(),
            has_more_lines: preview.lines.has_more,
        }
    }
}
