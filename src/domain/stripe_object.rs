//! Stripe's objects as this ledger remembers them: what entitlements, credits and books need, whatever the API version
//! of the notification, and nothing that names a person.
//!
//! Field names and enumerated values are Stripe's own (<https://docs.stripe.com/api>). Times are Unix seconds, amounts
//! minor units of `currency`.

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::credit::is_zero;
pub use super::stripe_payment::{Charge, CreditNote, Dispute, PaymentIntent, Refund};
use super::tracked::Snapshot;

/// A price as far as an allowance and a listing need it.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Price {
    pub id: String,
    pub lookup_key: Option<String>,
    pub product: Option<String>,
    pub unit_amount: Option<i64>,
    pub currency: Option<String>,
    pub interval: Option<String>,
    pub interval_count: Option<i64>,
    /// Billed by what was used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub metered: bool,
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Customer {
    pub id: String,
    pub deleted: bool,
    pub delinquent: bool,
    pub currency: Option<String>,
}

impl Snapshot for Customer {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        self.deleted
    }
    fn progress(&self) -> [i64; 4] {
        [i64::from(self.currency.is_some()), i64::from(self.delinquent), 0, 0]
    }
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionItem {
    pub id: String,
    pub price: Price,
    pub quantity: i64,
    pub current_period_start: Option<i64>,
    pub current_period_end: Option<i64>,
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PauseCollection {
    pub behavior: String,
    pub resumes_at: Option<i64>,
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    pub id: String,
    pub customer: Option<String>,
    pub status: String,
    pub currency: Option<String>,
    pub items: Vec<SubscriptionItem>,
    pub current_period_start: Option<i64>,
    pub current_period_end: Option<i64>,
    pub cancel_at_period_end: bool,
    pub cancel_at: Option<i64>,
    pub canceled_at: Option<i64>,
    pub ended_at: Option<i64>,
    pub trial_start: Option<i64>,
    pub trial_end: Option<i64>,
    pub pause_collection: Option<PauseCollection>,
    pub schedule: Option<String>,
    /// The items a pending update will put in place once its invoice is paid.
    pub pending_items: Option<Vec<SubscriptionItem>>,
    pub latest_invoice: Option<String>,
    pub default_payment_method: Option<String>,
    pub created: Option<i64>,
}

/// Whether a subscription of a status goes on: it has neither ended for good, nor does it wait for its first payment.
pub fn subscription_goes_on(status: &str) -> bool {
    !matches!(status, "canceled" | "incomplete_expired" | "incomplete")
}

impl Subscription {
    /// Ended for good: Stripe never revives a canceled or an expired subscription.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "canceled" | "incomplete_expired")
    }
}

impl Subscription {
    /// The prices among its items that have a lookup key, each with it.
    pub fn lookup_keys(&self) -> impl Iterator<Item = (&str, &str)> {
        let prices = self.items.iter().map(|item| &item.price);
        prices.filter_map(|price| Some((price.id.as_str(), price.lookup_key.as_deref()?)))
    }
}

impl Snapshot for Subscription {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        self.has_ended()
    }
    fn progress(&self) -> [i64; 4] {
        let status = match self.status.as_str() {
            "incomplete" => 0,
            "trialing" => 1,
            "active" => 2,
            "past_due" => 3,
            "paused" => 4,
            "unpaid" => 5,
            "incomplete_expired" | "canceled" => 9,
            _ => 2,
        };
        [status, self.current_period_end.unwrap_or(0), self.canceled_at.unwrap_or(0), 0]
    }
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvoiceLine {
    pub id: String,
    pub amount: i64,
    /// Price id. Newer API versions say no more of the price here, so neither do we.
    pub price: Option<String>,
    pub quantity: Option<i64>,
    pub period_start: i64,
    pub period_end: i64,
    pub proration: bool,
    pub subscription: Option<String>,
    pub subscription_item: Option<String>,
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Invoice {
    pub id: String,
    pub customer: Option<String>,
    pub subscription: Option<String>,
    pub billing_reason: Option<String>,
    /// Stripe's value, or `deleted` for a draft that was deleted.
    pub status: String,
    pub currency: String,
    pub subtotal: i64,
    pub total: i64,
    pub tax: i64,
    /// By coupons and promotion codes, of `subtotal`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub discount: i64,
    pub amount_due: i64,
    pub amount_paid: i64,
    pub amount_remaining: i64,
    pub pre_payment_credit_notes_amount: i64,
    pub post_payment_credit_notes_amount: i64,
    pub attempt_count: i64,
    pub number: Option<String>,
    pub hosted_invoice_url: Option<String>,
    pub invoice_pdf: Option<String>,
    pub next_payment_attempt: Option<i64>,
    pub due_date: Option<i64>,
    pub paid_at: Option<i64>,
    pub created: Option<i64>,
    pub lines: Vec<InvoiceLine>,
    /// Stripe shows ten lines at most; there are others, which were not asked for.
    pub has_more_lines: bool,
}

impl Invoice {
    /// Whether a period of its subscription depends on it, by `billing_reason`
    /// (<https://docs.stripe.com/api/invoices/object#invoice_object-billing_reason>): those of changes, of single items and
    /// those written by hand come on top. `subscription` is of before reasons were told apart.
    pub fn pays_for_period(&self) -> bool {
        let Some(reason) = self.billing_reason.as_deref() else { return true };
        matches!(reason, "subscription" | "subscription_create" | "subscription_cycle" | "subscription_threshold")
    }
}

impl Snapshot for Invoice {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        matches!(self.status.as_str(), "paid" | "void" | "deleted")
    }
    fn progress(&self) -> [i64; 4] {
        let status = match self.status.as_str() {
            "draft" => 0,
            "open" => 1,
            "uncollectible" => 2,
            _ => 3,
        };
        [status, self.attempt_count, self.amount_paid, self.post_payment_credit_notes_amount]
    }
}

/// A payment that settles an invoice, or is meant to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvoicePayment {
    pub invoice: String,
    pub payment_intent: String,
    #[serde(default, skip_serializing_if = "InvoicePaymentStatus::is_open")]
    pub status: InvoicePaymentStatus,
}

/// What became of an invoice's payment, the least certain first. Only newer API versions tell; neither canceled nor paid is
/// ever taken back (<https://docs.stripe.com/api/invoice-payment/object#invoice_payment_object-status>).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvoicePaymentStatus {
    /// It may pay it, or has, as far as is known.
    #[default]
    Open,
    /// It was canceled or detached.
    Canceled,
    Paid,
}

impl InvoicePaymentStatus {
    fn is_open(&self) -> bool {
        *self == Self::Open
    }
}

/// What a Checkout session in payment mode sells, from the metadata its creator gave it.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackOrder {
    /// Credits named by the session itself (`metadata.credits`).
    pub credits: Option<i64>,
    /// The catalog's pack (`metadata.credit_pack`).
    pub pack: Option<String>,
    /// Stripe price sold (`metadata.price`).
    pub price: Option<String>,
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckoutSession {
    pub id: String,
    pub customer: Option<String>,
    pub mode: String,
    pub status: Option<String>,
    pub payment_status: String,
    /// An asynchronous payment method failed after the session completed.
    pub async_payment_failed: bool,
    pub currency: Option<String>,
    pub amount_total: Option<i64>,
    pub payment_intent: Option<String>,
    pub subscription: Option<String>,
    pub invoice: Option<String>,
    pub order: Option<PackOrder>,
    pub created: Option<i64>,
    pub expires_at: Option<i64>,
}

impl CheckoutSession {
    pub fn is_paid(&self) -> bool {
        self.status.as_deref() != Some("open")
            && self.status.as_deref() != Some("expired")
            && matches!(self.payment_status.as_str(), "paid" | "no_payment_required")
    }
}

impl Snapshot for CheckoutSession {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        self.is_paid() || self.async_payment_failed || self.status.as_deref() == Some("expired")
    }
    fn progress(&self) -> [i64; 4] {
        [i64::from(self.is_paid()), i64::from(self.status.as_deref() == Some("complete")), 0, 0]
    }
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PaymentMethod {
    pub id: String,
    /// `None` once detached.
    pub customer: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    pub brand: Option<String>,
    pub last4: Option<String>,
    pub exp_month: Option<i64>,
    pub exp_year: Option<i64>,
    pub created: Option<i64>,
}

impl Snapshot for PaymentMethod {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        // Stripe does not let a detached payment method be attached again.
        self.customer.is_none()
    }
    fn progress(&self) -> [i64; 4] {
        [i64::from(self.customer.is_none()), 0, 0, 0]
    }
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SchedulePhase {
    pub start_date: Option<i64>,
    pub end_date: Option<i64>,
    /// Price id and quantity of each item.
    pub items: Vec<(String, i64)>,
}

#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionSchedule {
    pub id: String,
    pub customer: Option<String>,
    pub subscription: Option<String>,
    pub status: String,
    pub phases: Vec<SchedulePhase>,
    pub current_phase_start: Option<i64>,
    pub created: Option<i64>,
}

impl Snapshot for SubscriptionSchedule {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        matches!(self.status.as_str(), "released" | "canceled" | "completed")
    }
    fn progress(&self) -> [i64; 4] {
        [i64::from(self.status == "active"), self.current_phase_start.unwrap_or(0), self.phases.len() as i64, 0]
    }
}

/// What Stripe expects to charge next; known by its subscription, since a preview has no id of its own.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpcomingInvoice {
    pub subscription: String,
    pub customer: Option<String>,
    pub currency: String,
    pub total: i64,
    pub amount_due: i64,
    pub next_payment_attempt: Option<i64>,
    pub period_end: Option<i64>,
}

impl Snapshot for UpcomingInvoice {
    fn id(&self) -> &str {
        &self.subscription
    }
    fn is_terminal(&self) -> bool {
        false
    }
    fn progress(&self) -> [i64; 4] {
        [self.period_end.unwrap_or(0), self.total, 0, 0]
    }
}

/// The features Stripe's own entitlements give a customer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActiveEntitlements {
    pub customer: String,
    /// Ascending and unique.
    pub lookup_keys: Vec<String>,
}

impl Snapshot for ActiveEntitlements {
    fn id(&self) -> &str {
        &self.customer
    }
    fn is_terminal(&self) -> bool {
        false
    }
    fn progress(&self) -> [i64; 4] {
        [self.lookup_keys.len() as i64, 0, 0, 0]
    }
}

/// A price or product of the seller; belongs to no customer.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CatalogObject {
    pub id: String,
    /// `price` or `product`.
    pub object: String,
    pub active: bool,
    pub deleted: bool,
    pub price: Option<Price>,
}

impl Snapshot for CatalogObject {
    fn id(&self) -> &str {
        &self.id
    }
    fn is_terminal(&self) -> bool {
        self.deleted
    }
    fn progress(&self) -> [i64; 4] {
        [i64::from(self.deleted), i64::from(!self.active), 0, 0]
    }
}

/// One object out of a notification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "object", content = "snapshot", rename_all = "snake_case")]
pub enum StripeObject {
    Customer(Customer),
    Subscription(Subscription),
    Invoice(Invoice),
    InvoicePayment(InvoicePayment),
    PaymentIntent(PaymentIntent),
    Charge(Charge),
    Refund(Refund),
    Dispute(Dispute),
    CreditNote(CreditNote),
    CheckoutSession(CheckoutSession),
    PaymentMethod(PaymentMethod),
    SubscriptionSchedule(SubscriptionSchedule),
    UpcomingInvoice(UpcomingInvoice),
    ActiveEntitlements(ActiveEntitlements),
    CatalogObject(CatalogObject),
}
