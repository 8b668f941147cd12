//! What one account's Stripe objects say: the part of an account that webhooks write.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::credit::Lot;
use super::invoice_record::InvoiceRecord;
use super::payment::{Payment, merge_all};
use super::stripe_object::{
    ActiveEntitlements, CatalogObject, CheckoutSession, CreditNote, Customer, Invoice, InvoicePayment,
    InvoicePaymentStatus, PaymentMethod, StripeObject, SubscriptionSchedule, UpcomingInvoice,
};
use super::subscription_record::{self, SubscriptionRecord};
use super::tracked::{self, Change, Snapshot, Tracked};
use super::usage::UsageDay;

/// A Stripe object as one StripeEvent showed it: the payload of every event that a webhook appends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    pub stripe_event_id: String,
    pub stripe_event_type: String,
    /// Unix second in which Stripe created the StripeEvent.
    pub created: i64,
    #[serde(flatten)]
    pub change: Change,
    /// A newer state of the subscription was known when this one came: it tells of the past alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub superseded: bool,
    #[serde(flatten)]
    pub object: StripeObject,
}

/// A Checkout session, with what became of its payment.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckoutRecord {
    pub session: Tracked<CheckoutSession>,
    /// Unix second of the first StripeEvent that showed it paid.
    pub paid_at: Option<i64>,
    /// Credits that the session's pack granted.
    pub credits: Option<i64>,
    #[serde(default)]
    pub amount_refunded: i64,
    #[serde(default)]
    pub dispute_lost: bool,
}

/// The families of Stripe objects an account holds; each is one kind of row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Customer,
    Subscription,
    Invoice,
    Payment,
    CheckoutSession,
    CreditNote,
    PaymentMethod,
    SubscriptionSchedule,
    UpcomingInvoice,
    ActiveEntitlements,
    CatalogObject,
    ClosedLot,
    /// A row of its own, outside [`Billing`]: there may be any number of them.
    Hold,
    UsageDay,
}

impl Kind {
    pub const ALL: [Kind; 14] = [
        Kind::Customer,
        Kind::Subscription,
        Kind::Invoice,
        Kind::Payment,
        Kind::CheckoutSession,
        Kind::CreditNote,
        Kind::PaymentMethod,
        Kind::SubscriptionSchedule,
        Kind::UpcomingInvoice,
        Kind::ActiveEntitlements,
        Kind::CatalogObject,
        Kind::ClosedLot,
        Kind::Hold,
        Kind::UsageDay,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Customer => "customer",
            Kind::Subscription => "subscription",
            Kind::Invoice => "invoice",
            Kind::Payment => "payment",
            Kind::CheckoutSession => "checkout_session",
            Kind::CreditNote => "credit_note",
            Kind::PaymentMethod => "payment_method",
            Kind::SubscriptionSchedule => "subscription_schedule",
            Kind::UpcomingInvoice => "upcoming_invoice",
            Kind::ActiveEntitlements => "active_entitlements",
            Kind::CatalogObject => "catalog_object",
            Kind::ClosedLot => "closed_lot",
            Kind::Hold => "hold",
            Kind::UsageDay => "usage_day",
        }
    }

    pub fn parse(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == kind)
    }
}

/// Which rows a change wrote; the projector turns them into rows.
pub type Touched = BTreeSet<(Kind, String)>;

/// All Stripe objects of one account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Billing {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub customers: BTreeMap<String, Tracked<Customer>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subscriptions: BTreeMap<String, SubscriptionRecord>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub invoices: BTreeMap<String, InvoiceRecord>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub payments: BTreeMap<String, Payment>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub checkout_sessions: BTreeMap<String, CheckoutRecord>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub credit_notes: BTreeMap<String, Tracked<CreditNote>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub payment_methods: BTreeMap<String, Tracked<PaymentMethod>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub subscription_schedules: BTreeMap<String, Tracked<SubscriptionSchedule>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub upcoming_invoices: BTreeMap<String, Tracked<UpcomingInvoice>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub active_entitlements: BTreeMap<String, Tracked<ActiveEntitlements>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub catalog_objects: BTreeMap<String, Tracked<CatalogObject>>,
    /// Lots that are used up or expired: no longer spendable, still owed an explanation and open to a clawback.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub closed_lots: BTreeMap<String, Lot>,
    /// What was used of features, by day; but for the day of the latest use, which is in the hot part.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub usage_days: BTreeMap<String, UsageDay>,
}

impl Billing {
    /// Takes an observation in; `false` when it says nothing new.
    pub fn record(&mut self, observation: &Observation, touched: &mut Touched) -> bool {
        let (created, change) = (observation.created, observation.change);
        match &observation.object {
            StripeObject::Customer(customer) => {
                observe_in(&mut self.customers, customer, created, change, Kind::Customer, touched)
            }
            StripeObject::Subscription(subscription) => self.record_subscription(observation, subscription, touched),
            StripeObject::Invoice(invoice) => self.record_invoice(observation, invoice, touched),
            StripeObject::InvoicePayment(InvoicePayment { invoice, payment_intent, status }) => {
                self.link_payment(invoice, payment_intent, *status, touched)
            }
            StripeObject::PaymentIntent(intent) => {
                let (id, linked) = self.payment_of(Some(&intent.id), intent.latest_charge.as_deref(), touched);
                let changed = self.record_payment(&id, touched, |payment| {
                    let reference = intent.order_reference.as_ref();
                    reference.is_some_and(|reference| keep_least(&mut payment.order_reference, reference))
                        | tracked::observe(&mut payment.intent, intent.clone(), created, change)
                });
                linked | changed | self.link_by_reference(|_, payment| payment == intent.id, touched)
            }
            StripeObject::Charge(charge) => {
                let (id, linked) = self.payment_of(charge.payment_intent.as_deref(), Some(&charge.id), touched);
                linked
                    | self.record_payment(&id, touched, |payment| {
                        tracked::observe_child(&mut payment.charges, charge, created, change)
                    })
            }
            StripeObject::Refund(refund) => {
                let (id, linked) = self.payment_of(refund.payment_intent.as_deref(), refund.charge.as_deref(), touched);
                linked | self.record_payment(&id, touched, |payment| payment.observe_refund(refund, created, change))
            }
            StripeObject::Dispute(dispute) => {
                let (id, linked) =
                    self.payment_of(dispute.payment_intent.as_deref(), dispute.charge.as_deref(), touched);
                linked | self.record_payment(&id, touched, |payment| payment.observe_dispute(dispute, created, change))
            }
            StripeObject::CreditNote(note) => {
                observe_in(&mut self.credit_notes, note, created, change, Kind::CreditNote, touched)
            }
            StripeObject::CheckoutSession(session) => self.record_session(session, created, change, touched),
            StripeObject::PaymentMethod(method) => {
                observe_in(&mut self.payment_methods, method, created, change, Kind::PaymentMethod, touched)
            }
            StripeObject::SubscriptionSchedule(schedule) => {
                let schedules = &mut self.subscription_schedules;
                observe_in(schedules, schedule, created, change, Kind::SubscriptionSchedule, touched)
            }
            StripeObject::UpcomingInvoice(upcoming) => {
                observe_in(&mut self.upcoming_invoices, upcoming, created, change, Kind::UpcomingInvoice, touched)
            }
            StripeObject::ActiveEntitlements(active) => {
                observe_in(&mut self.active_entitlements, active, created, change, Kind::ActiveEntitlements, touched)
            }
            StripeObject::CatalogObject(object) => {
                observe_in(&mut self.catalog_objects, object, created, change, Kind::CatalogObject, touched)
            }
        }
    }

    fn record_invoice(&mut self, observation: &Observation, invoice: &Invoice, touched: &mut Touched) -> bool {
        let record = self.invoices.entry(invoice.id.clone()).or_default();
        let mut changed =
            tracked::observe(&mut record.invoice, invoice.clone(), observation.created, observation.change);
        if observation.stripe_event_type == "invoice.payment_failed" {
            let first = record.first_failed_at.map_or(observation.created, |known| known.min(observation.created));
            changed |= record.first_failed_at.replace(first) != Some(first);
        }
        if let Some(told @ ("payment_failed" | "payment_action_required")) =
            observation.stripe_event_type.strip_prefix("invoice.")
        {
            changed |= record.told.insert(format!("{told}/{}", invoice.attempt_count));
        }
        if changed {
            touched.insert((Kind::Invoice, invoice.id.clone()));
        }
        changed | self.link_by_reference(|known, _| known == invoice.id, touched)
    }

    fn link_payment(
        &mut self,
        invoice: &str,
        intent: &str,
        status: InvoicePaymentStatus,
        touched: &mut Touched,
    ) -> bool {
        let record = self.invoices.entry(invoice.to_owned()).or_default();
        let changed = record.attach(intent, status);
        if changed {
            touched.insert((Kind::Invoice, invoice.to_owned()));
        }
        changed | self.record_payment(intent, touched, |payment| keep_least(&mut payment.stripe_invoice_id, invoice))
    }

    fn record_session(
        &mut self,
        session: &CheckoutSession,
        created: i64,
        change: Change,
        touched: &mut Touched,
    ) -> bool {
        let paid_at = session.is_paid().then_some(created);
        let changed = match self.checkout_sessions.get_mut(&session.id) {
            Some(record) => record.learn_paid(paid_at) | record.session.observe(session.clone(), created, change),
            None => {
                let session = Tracked::new(session.clone(), created, change);
                let id = session.current.id.clone();
                let record =
                    CheckoutRecord { session, paid_at, credits: None, amount_refunded: 0, dispute_lost: false };
                self.checkout_sessions.insert(id, record);
                true
            }
        };
        if changed {
            touched.insert((Kind::CheckoutSession, session.id.clone()));
        }
        let Some(intent) = &session.payment_intent else {
            return changed;
        };
        changed
            | self.record_payment(intent, touched, |payment| {
                keep_least(&mut payment.stripe_checkout_session_id, &session.id)
            })
    }

    /// The payment that an object belongs to, by its PaymentIntent or else by its charge; and whether naming both
    /// taught us which PaymentIntent the charge belongs to.
    fn payment_of(&mut self, intent: Option<&str>, charge: Option<&str>, touched: &mut Touched) -> (String, bool) {
        match (intent, charge) {
            (Some(intent), Some(charge)) => (intent.to_owned(), self.link_charge(intent, charge, touched)),
            (Some(intent), None) => (intent.to_owned(), false),
            (None, charge) => {
                let charge = charge.unwrap_or_default();
                let owner = self.payments.iter().find(|(_, payment)| payment.charge_ids.contains(charge));
                (owner.map_or_else(|| charge.to_owned(), |(id, _)| id.clone()), false)
            }
        }
    }

    fn link_charge(&mut self, intent: &str, charge: &str, touched: &mut Touched) -> bool {
        let orphan = self.payments.remove(charge);
        let payment = self.payments.entry(intent.to_owned()).or_default();
        if !payment.charge_ids.insert(charge.to_owned()) && orphan.is_none() {
            return false;
        }
        // What came under the charge's own id before its PaymentIntent was known moves over.
        if let Some(orphan) = orphan {
            payment.merge(orphan);
            touched.insert((Kind::Payment, charge.to_owned()));
        }
        touched.insert((Kind::Payment, intent.to_owned()));
        self.refresh_session(intent, touched);
        true
    }

    fn record_payment(&mut self, id: &str, touched: &mut Touched, record: impl FnOnce(&mut Payment) -> bool) -> bool {
        let payment = self.payments.entry(id.to_owned()).or_default();
        let changed = record(payment);
        if changed {
            touched.insert((Kind::Payment, id.to_owned()));
            self.refresh_session(id, touched);
        }
        changed
    }

    /// Copies what became of a payment to the Checkout session that asked for it.
    fn refresh_session(&mut self, payment_id: &str, touched: &mut Touched) {
        let Some(payment) = self.payments.get(payment_id) else {
            return;
        };
        let Some(session_id) = &payment.stripe_checkout_session_id else {
            return;
        };
        let Some(record) = self.checkout_sessions.get_mut(session_id) else {
            return;
        };
        let news = (payment.amount_refunded(), payment.amount_lost_in_dispute() > 0);
        if news != (record.amount_refunded, record.dispute_lost) {
            (record.amount_refunded, record.dispute_lost) = news;
            touched.insert((Kind::CheckoutSession, session_id.clone()));
        }
    }

    /// Everything there is, as rows are named.
    pub fn ids(&self) -> Touched {
        let mut ids = Touched::new();
        let mut take = |kind: Kind, family: Vec<&String>| ids.extend(family.into_iter().map(|id| (kind, id.clone())));
        take(Kind::Customer, self.customers.keys().collect());
        take(Kind::Subscription, self.subscriptions.keys().collect());
        take(Kind::Invoice, self.invoices.keys().collect());
        take(Kind::Payment, self.payments.keys().collect());
        take(Kind::CheckoutSession, self.checkout_sessions.keys().collect());
        take(Kind::CreditNote, self.credit_notes.keys().collect());
        take(Kind::PaymentMethod, self.payment_methods.keys().collect());
        take(Kind::SubscriptionSchedule, self.subscription_schedules.keys().collect());
        take(Kind::UpcomingInvoice, self.upcoming_invoices.keys().collect());
        take(Kind::ActiveEntitlements, self.active_entitlements.keys().collect());
        take(Kind::CatalogObject, self.catalog_objects.keys().collect());
        take(Kind::ClosedLot, self.closed_lots.keys().collect());
        take(Kind::UsageDay, self.usage_days.keys().collect());
        ids
    }

    /// Takes in everything another stream knew, when it turns out to belong to the same account.
    pub fn absorb(&mut self, other: Self, touched: &mut Touched) {
        touched.extend(other.ids());

        merge_all(&mut self.customers, other.customers);
        subscription_record::merge_all(&mut self.subscriptions, other.subscriptions);
        merge_all(&mut self.credit_notes, other.credit_notes);
        merge_all(&mut self.payment_methods, other.payment_methods);
        merge_all(&mut self.subscription_schedules, other.subscription_schedules);
        merge_all(&mut self.upcoming_invoices, other.upcoming_invoices);
        merge_all(&mut self.active_entitlements, other.active_entitlements);
        merge_all(&mut self.catalog_objects, other.catalog_objects);
        other.invoices.into_iter().for_each(|(id, other)| self.invoices.entry(id).or_default().merge(other));
        let payments: Vec<String> = other.payments.keys().cloned().collect();
        for (id, other) in other.payments {
            self.payments.entry(id).or_default().merge(other);
        }
        for (id, other) in other.checkout_sessions {
            match self.checkout_sessions.get_mut(&id) {
                Some(record) => {
                    record.session.merge(other.session);
                    record.learn_paid(other.paid_at);
                    record.credits = record.credits.or(other.credits);
                }
                None => {
                    self.checkout_sessions.insert(id, other);
                }
            }
        }
        self.closed_lots.extend(other.closed_lots);
        self.adopt_orphans(touched);
        self.link_by_reference(|_, _| true, touched);
        let sessions = self.checkout_sessions.values();
        let of_sessions = sessions.filter_map(|record| record.session.current.payment_intent.clone());
        for payment in payments.into_iter().chain(of_sessions.collect::<Vec<_>>()) {
            self.refresh_session(&payment, touched);
        }
    }

    /// Links the payments that refer to an invoice, as far as one of the two is `concerned`.
    fn link_by_reference(&mut self, concerned: impl Fn(&str, &str) -> bool, touched: &mut Touched) -> bool {
        let payments = self.payments.iter().filter(|(_, payment)| payment.order_reference.is_some());
        let pairs = payments.flat_map(|(intent, payment)| {
            let invoices = self.invoices.keys().filter(|invoice| concerned(invoice, intent));
            let referred = invoices.filter(|invoice| payment.is_for_invoice(invoice));
            referred.map(move |invoice| (invoice.clone(), intent.clone()))
        });
        let pairs: Vec<_> = pairs.collect();
        pairs.iter().fold(false, |changed, (invoice, intent)| {
            self.link_payment(invoice, intent, InvoicePaymentStatus::Open, touched) | changed
        })
    }

    /// Moves payments kept under a charge's id to the payment that turned out to own the charge.
    fn adopt_orphans(&mut self, touched: &mut Touched) {
        let owners = self
            .payments
            .iter()
            .flat_map(|(id, payment)| payment.charge_ids.iter().map(move |charge| (charge.clone(), id.clone())));
        for (charge, owner) in owners.collect::<Vec<_>>() {
            self.link_charge(&owner, &charge, touched);
        }
    }
}

impl CheckoutRecord {
    /// Takes in that a StripeEvent of a second showed it paid; `false` if one of as early a second did before.
    fn learn_paid(&mut self, at: Option<i64>) -> bool {
        let first = self.paid_at.into_iter().chain(at).min();
        std::mem::replace(&mut self.paid_at, first) != first
    }

    /// What became of the purchase.
    pub fn status(&self) -> PurchaseStatus {
        let session = &self.session.current;
        let amount = session.amount_total.unwrap_or(0);
        if session.async_payment_failed || session.status.as_deref() == Some("expired") {
            PurchaseStatus::Failed
        } else if !session.is_paid() {
            PurchaseStatus::Pending
        } else if self.dispute_lost {
            PurchaseStatus::DisputeLost
        } else if self.amount_refunded > 0 && self.amount_refunded >= amount {
            PurchaseStatus::Refunded
        } else if self.amount_refunded > 0 {
            PurchaseStatus::PartiallyRefunded
        } else {
            PurchaseStatus::Paid
        }
    }
}

/// What became of a credit pack's purchase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PurchaseStatus {
    Pending,
    Failed,
    Paid,
    PartiallyRefunded,
    Refunded,
    DisputeLost,
}

/// Keeps one of several candidates, the same one whatever the order of arrival.
fn keep_least(slot: &mut Option<String>, candidate: &str) -> bool {
    let better = slot.as_deref().is_none_or(|known| candidate < known);
    if better {
        *slot = Some(candidate.to_owned());
    }
    better
}

fn observe_in<T: Snapshot>(
    family: &mut BTreeMap<String, Tracked<T>>,
    snapshot: &T,
    created: i64,
    change: Change,
    kind: Kind,
    touched: &mut Touched,
) -> bool {
    let changed = tracked::observe_child(family, snapshot, created, change);
    if changed {
        touched.insert((kind, snapshot.id().to_owned()));
    }
    changed
}
