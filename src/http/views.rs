//! What callers see: Stripe's values in our shape, times in RFC 3339, money as minor units beside a currency.

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::app::read_path::receipt::Receipt;
use crate::domain::billing::{CheckoutRecord, PurchaseStatus};
use crate::domain::catalog::{Catalog, PriceKey};
use crate::domain::credit::{Draw, Lot, LotSource};
use crate::domain::event::CreditsDebited;
use crate::domain::hold::{HoldRecord, HoldStatus};
use crate::domain::ids::LotId;
use crate::domain::invoice_record::InvoiceRecord;
use crate::domain::payment::{Payment, PaymentStatus};
use crate::domain::stripe_object::{
    InvoiceLine, PaymentMethod, Price, Subscription, SubscriptionItem, SubscriptionSchedule,
};

/// A Unix second as a time.
pub fn time(seconds: Option<i64>) -> Option<DateTime<Utc>> {
    seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0))
}

#[derive(Debug, Serialize)]
pub struct SubscriptionView {
    pub stripe_subscription_id: String,
    pub stripe_customer_id: Option<String>,
    pub status: String,
    /// Our plan; null while no plan of the catalog names the price.
    pub plan: Option<String>,
    pub price: Option<String>,
    pub currency: Option<String>,
    pub unit_amount: Option<i64>,
    pub interval: Option<String>,
    pub interval_count: Option<i64>,
    pub quantity: i64,
    pub items: Vec<ItemView>,
    pub current_period_start: Option<DateTime<Utc>>,
    pub current_period_end: Option<DateTime<Utc>>,
    pub cancel_at_period_end: bool,
    pub cancel_at: Option<DateTime<Utc>>,
    pub canceled_at: Option<DateTime<Utc>>,
    pub ended_at: Option<DateTime<Utc>>,
    pub trial_start: Option<DateTime<Utc>>,
    pub trial_end: Option<DateTime<Utc>>,
    /// Collection is paused; the status says nothing of it.
    pub paused: bool,
    pub pause: Option<PauseView>,
    pub pending_change: Option<PendingChange>,
    pub schedule: Option<String>,
    pub latest_invoice: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Serialize)]
pub struct ItemView {
    pub id: String,
    pub plan: Option<String>,
    pub price: String,
    pub product: Option<String>,
    pub unit_amount: Option<i64>,
    pub currency: Option<String>,
    pub interval: Option<String>,
    pub quantity: i64,
}

#[derive(Debug, Serialize)]
pub struct PauseView {
    pub behavior: String,
    pub resumes_at: Option<DateTime<Utc>>,
}

/// A change that is agreed but not in force.
#[derive(Debug, Serialize)]
pub struct PendingChange {
    /// `schedule`: at a phase's start. `payment`: once the invoice of the change is paid.
    pub waits_for: &'static str,
    pub effective_at: Option<DateTime<Utc>>,
    pub plan: Option<String>,
    pub price: Option<String>,
    pub quantity: i64,
}

fn plan_of(catalog: &Catalog, price: &str, lookup_key: Option<&str>) -> Option<String> {
    let found = catalog.plan_of_price(PriceKey { stripe_price_id: price, lookup_key });
    found.map(|(plan, _)| plan.id.clone())
}

impl SubscriptionView {
    pub fn of(subscription: &Subscription, schedules: &[SubscriptionSchedule], catalog: &Catalog) -> Self {
        let plan = |price: &Price| plan_of(catalog, &price.id, price.lookup_key.as_deref());
        let rank = |item: &&SubscriptionItem| {
            let plan = plan(&item.price).and_then(|id| catalog.plan(&id).map(|plan| plan.rank));
            (plan, item.price.unit_amount)
        };
        // The item that decides the plan speaks for the subscription.
        let main = subscription.items.iter().max_by_key(rank);
        let price = main.map(|item| &item.price);
        Self {
            stripe_subscription_id: subscription.id.clone(),
            stripe_customer_id: subscription.customer.clone(),
            status: subscription.status.clone(),
            plan: price.and_then(plan),
            price: price.map(|price| price.id.clone()),
            currency: subscription.currency.clone(),
            unit_amount: price.and_then(|price| price.unit_amount),
            interval: price.and_then(|price| price.interval.clone()),
            interval_count: price.and_then(|price| price.interval_count),
            quantity: main.map_or(0, |item| item.quantity),
            items: subscription
                .items
                .iter()
                .map(|item| ItemView {
                    id: item.id.clone(),
                    plan: plan(&item.price),
                    price: item.price.id.clone(),
                    product: item.price.product.clone(),
                    unit_amount: item.price.unit_amount,
                    currency: item.price.currency.clone(),
                    interval: item.price.interval.clone(),
                    quantity: item.quantity,
                })
                .collect(),
            current_period_start: time(subscription.current_period_start),
            current_period_end: time(subscription.current_period_end),
            cancel_at_period_end: subscription.cancel_at_period_end,
            cancel_at: time(subscription.cancel_at),
            canceled_at: time(subscription.canceled_at),
            ended_at: time(subscription.ended_at),
            trial_start: time(subscription.trial_start),
            trial_end: time(subscription.trial_end),
            paused: subscription.pause_collection.is_some(),
            pause: subscription
                .pause_collection
                .as_ref()
                .map(|pause| PauseView { behavior: pause.behavior.clone(), resumes_at: time(pause.resumes_at) }),
            pending_change: pending_change(subscription, schedules, catalog),
            schedule: subscription.schedule.clone(),
            latest_invoice: subscription.latest_invoice.clone(),
            created_at: time(subscription.created),
        }
    }
}

fn pending_change(
    subscription: &Subscription,
    schedules: &[SubscriptionSchedule],
    catalog: &Catalog,
) -> Option<PendingChange> {
    if let Some(item) = subscription.pending_items.as_ref().and_then(|items| items.first()) {
        return Some(PendingChange {
            waits_for: "payment",
            effective_at: None,
            plan: plan_of(catalog, &item.price.id, item.price.lookup_key.as_deref()),
            price: Some(item.price.id.clone()),
            quantity: item.quantity,
        });
    }
    let schedule = schedules.iter().find(|schedule| {
        subscription.schedule.as_deref() == Some(schedule.id.as_str()) && schedule.status == "active"
    })?;
    let now = schedule.current_phase_start;
    let next = schedule.phases.iter().filter(|phase| phase.start_date > now).min_by_key(|phase| phase.start_date)?;
    let (price, quantity) = next.items.first()?;
    Some(PendingChange {
        waits_for: "schedule",
        effective_at: time(next.start_date),
        plan: plan_of(catalog, price, None),
        price: Some(price.clone()),
        quantity: *quantity,
    })
}

#[derive(Debug, Serialize)]
pub struct InvoiceView {
    pub stripe_invoice_id: String,
    pub stripe_subscription_id: Option<String>,
    pub stripe_customer_id: Option<String>,
    pub stripe_payment_intent_id: Option<String>,
    pub number: Option<String>,
    pub billing_reason: Option<String>,
    pub status: String,
    pub currency: String,
    pub subtotal: i64,
    pub total: i64,
    pub tax: i64,
    pub amount_due: i64,
    pub amount_paid: i64,
    pub amount_remaining: i64,
    pub pre_payment_credit_notes_amount: i64,
    pub post_payment_credit_notes_amount: i64,
    /// Money that went back by refunds of the invoice's payments.
    pub amount_refunded: i64,
    /// The PaymentIntents that paid it, or may.
    #[serde(skip)]
    pub payments: Vec<String>,
    pub attempt_count: i64,
    pub next_payment_attempt: Option<DateTime<Utc>>,
    pub due_date: Option<DateTime<Utc>>,
    pub paid_at: Option<DateTime<Utc>>,
    pub hosted_invoice_url: Option<String>,
    pub invoice_pdf: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub lines: Vec<LineView>,
    /// Stripe told of more lines than it sent.
    pub has_more_lines: bool,
}

#[derive(Debug, Serialize)]
pub struct LineView {
    pub id: String,
    pub amount: i64,
    pub price: Option<String>,
    pub plan: Option<String>,
    pub quantity: Option<i64>,
    pub proration: bool,
    pub stripe_subscription_id: Option<String>,
    pub period_start: Option<DateTime<Utc>>,
    pub period_end: Option<DateTime<Utc>>,
}

impl InvoiceView {
    /// `None` for an invoice of which only the payment is known.
    pub fn of(record: &InvoiceRecord, amount_refunded: i64, catalog: &Catalog) -> Option<Self> {
        let invoice = record.current()?;
        let line = |line: &InvoiceLine| LineView {
            id: line.id.clone(),
            amount: line.amount,
            plan: line.price.as_deref().and_then(|price| plan_of(catalog, price, None)),
            price: line.price.clone(),
            quantity: line.quantity,
            proration: line.proration,
            stripe_subscription_id: line.subscription.clone(),
            period_start: time(Some(line.period_start)),
            period_end: time(Some(line.period_end)),
        };
        Some(Self {
            stripe_invoice_id: invoice.id.clone(),
            stripe_subscription_id: invoice.subscription.clone(),
            stripe_customer_id: invoice.customer.clone(),
            stripe_payment_intent_id: record.payment_intent.clone(),
            number: invoice.number.clone(),
            billing_reason: invoice.billing_reason.clone(),
            status: invoice.status.clone(),
            currency: invoice.currency.clone(),
            subtotal: invoice.subtotal,
            total: invoice.total,
            tax: invoice.tax,
            amount_due: invoice.amount_due,
            amount_paid: invoice.amount_paid,
            amount_remaining: invoice.amount_remaining,
            pre_payment_credit_notes_amount: invoice.pre_payment_credit_notes_amount,
            post_payment_credit_notes_amount: invoice.post_payment_credit_notes_amount,
            amount_refunded,
            payments: record.payment_intents().map(str::to_owned).collect(),
            attempt_count: invoice.attempt_count,
            next_payment_attempt: time(invoice.next_payment_attempt),
            due_date: time(invoice.due_date),
            paid_at: time(invoice.paid_at),
            hosted_invoice_url: invoice.hosted_invoice_url.clone(),
            invoice_pdf: invoice.invoice_pdf.clone(),
            created_at: time(invoice.created),
            lines: invoice.lines.iter().map(line).collect(),
            has_more_lines: invoice.has_more_lines,
        })
    }
}

#[derive(Debug, Serialize)]
pub struct PaymentView {
    pub stripe_payment_intent_id: String,
    pub stripe_charge_id: Option<String>,
    pub stripe_invoice_id: Option<String>,
    pub stripe_checkout_session_id: Option<String>,
    pub status: PaymentStatus,
    pub currency: Option<String>,
    pub amount: i64,
    pub amount_received: i64,
    pub amount_refunded: i64,
    pub amount_lost_in_dispute: i64,
    /// Status of the last dispute, in Stripe's words.
    pub dispute: Option<String>,
    pub charge_attempts: usize,
    /// Stripe's code of the last failed attempt.
    pub failure_code: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
}

impl PaymentView {
    pub fn of(id: &str, payment: &Payment) -> Self {
        Self {
            stripe_payment_intent_id: id.to_owned(),
            stripe_charge_id: payment.last_charge_id().map(str::to_owned),
            stripe_invoice_id: payment.stripe_invoice_id.clone(),
            stripe_checkout_session_id: payment.stripe_checkout_session_id.clone(),
            status: payment.status(),
            currency: payment.currency().map(str::to_owned),
            amount: payment.amount(),
            amount_received: payment.amount_received(),
            amount_refunded: payment.amount_refunded(),
            amount_lost_in_dispute: payment.amount_lost_in_dispute(),
            dispute: payment.last_dispute().map(|dispute| dispute.status.clone()),
            charge_attempts: payment.charges.len(),
            failure_code: payment.intent.as_ref().and_then(|intent| intent.current.last_payment_error.clone()),
            created_at: time(Some(payment.created())),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct CreditPurchaseView {
    pub stripe_checkout_session_id: String,
    pub stripe_payment_intent_id: Option<String>,
    pub credits: Option<i64>,
    pub currency: Option<String>,
    pub amount: Option<i64>,
    pub status: PurchaseStatus,
    pub amount_refunded: i64,
    pub created_at: Option<DateTime<Utc>>,
}

impl CreditPurchaseView {
    /// `None` for a session that sells no credits, or that nobody completed.
    pub fn of(record: &CheckoutRecord) -> Option<Self> {
        let session = &record.session.current;
        let order = session.order.as_ref().filter(|_| session.status.as_deref() == Some("complete"))?;
        Some(Self {
            stripe_checkout_session_id: session.id.clone(),
            stripe_payment_intent_id: session.payment_intent.clone(),
            credits: record.credits.or(order.credits),
            currency: session.currency.clone(),
            amount: session.amount_total,
            status: record.status(),
            amount_refunded: record.amount_refunded,
            created_at: time(session.created),
        })
    }
}

#[derive(Debug, Serialize)]
pub struct PaymentMethodView {
    pub stripe_payment_method_id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub brand: Option<String>,
    pub last4: Option<String>,
    pub exp_month: Option<i64>,
    pub exp_year: Option<i64>,
    pub created_at: Option<DateTime<Utc>>,
}

impl PaymentMethodView {
    /// `None` for one that was detached.
    pub fn of(method: &PaymentMethod) -> Option<Self> {
        method.customer.as_ref()?;
        Some(Self {
            stripe_payment_method_id: method.id.clone(),
            kind: method.kind.clone(),
            brand: method.brand.clone(),
            last4: method.last4.clone(),
            exp_month: method.exp_month,
            exp_year: method.exp_year,
            created_at: time(method.created),
        })
    }
}

#[derive(Debug, Serialize)]
pub struct LotView {
    pub id: LotId,
    pub source: LotSource,
    pub granted: i64,
    /// Credits that are neither spent, taken back nor expired.
    pub remaining: i64,
    /// Those among them that holds have set aside.
    pub held: i64,
    pub priority: i32,
    pub effective_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    pub cause: String,
}

impl LotView {
    pub fn of(lot: &Lot) -> Self {
        Self {
            id: lot.id,
            source: lot.source,
            granted: lot.granted,
            remaining: lot.remaining,
            held: lot.held,
            priority: lot.priority,
            effective_at: lot.effective_at,
            expires_at: lot.expires_at,
            cause: lot.cause.to_string(),
        }
    }
}

#[derive(Debug, Serialize)]
pub struct DebitView {
    pub id: LotId,
    pub amount: i64,
    pub feature: Option<String>,
    pub quantity: Option<i64>,
    pub lots: Vec<DrawView>,
    /// Credits beyond the lots that the account owes now.
    pub debt: i64,
    /// Credits beyond the lots that are to be billed.
    pub overage: i64,
    /// Credits left to spend.
    pub available: i64,
    pub unlimited: bool,
    pub receipt: Receipt,
    pub position: i64,
}

#[derive(Debug, Serialize)]
pub struct DrawView {
    pub id: LotId,
    pub amount: i64,
}

impl DrawView {
    pub fn of(draws: &[Draw]) -> Vec<Self> {
        draws.iter().map(|draw| Self { id: draw.lot, amount: draw.amount }).collect()
    }
}

/// A hold, open or ended.
#[derive(Debug, Serialize)]
pub struct HoldView {
    pub id: Uuid,
    pub status: HoldStatus,
    /// Credits set aside while it is open.
    pub amount: i64,
    /// Credits spent by its capture.
    pub captured: i64,
    pub feature: Option<String>,
    pub quantity: Option<i64>,
    /// What it is set aside out of; once captured, what the capture took.
    pub lots: Vec<DrawView>,
    /// Of the amount: what lots did not have, and would be owed; once captured, is.
    pub debt: i64,
    /// What would be billed; once captured, is.
    pub overage: i64,
    pub unlimited: bool,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

impl HoldView {
    /// As it stands at `now`.
    pub fn of(record: &HoldRecord, now: DateTime<Utc>) -> Self {
        let HoldRecord { status, hold, captured, .. } = record;
        let cover = record.cover();
        let has_expired = *status == HoldStatus::Open && hold.is_expired_at(now);
        Self {
            id: hold.id,
            status: if has_expired { HoldStatus::Expired } else { *status },
            amount: hold.amount,
            captured: *captured,
            feature: hold.feature.clone(),
            quantity: hold.quantity,
            lots: DrawView::of(&cover.lots),
            debt: cover.debt,
            overage: cover.overage,
            unlimited: cover.unlimited,
            created_at: hold.created_at,
            expires_at: hold.expires_at,
        }
    }
}

impl DebitView {
    pub fn of(debited: &CreditsDebited, receipt: Receipt, position: i64) -> Self {
        Self {
            id: debited.debit,
            amount: debited.amount,
            feature: debited.feature.clone(),
            quantity: debited.quantity,
            lots: DrawView::of(&debited.lots),
            debt: debited.debt,
            overage: debited.overage,
            available: debited.available,
            unlimited: debited.unlimited,
            receipt,
            position,
        }
    }
}
