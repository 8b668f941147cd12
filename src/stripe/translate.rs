//! From a StripeEvent to what it means to us. Pure: the same body always means the same.
//!
//! Every API version is accepted. The one change that matters most here came with 2025-03-31 ("basil"): the period moved
//! from the subscription to its items, `invoice.subscription` to `invoice.parent`, and payments of an invoice to
//! `invoice_payment` objects (<https://docs.stripe.com/changelog/basil>).

use serde_json_borrow::Value;
use sha2::{Digest, Sha256};

use super::fields::{FieldError, Fields};
use super::project;
use crate::domain::billing::Observation;
use crate::domain::ids::{AccountId, Ownership};
use crate::domain::reconciliation::Reconciled;
use crate::domain::stripe_object::{InvoiceLine, StripeObject};
use crate::domain::tracked::Change;

/// The stream of facts that belong to no account: catalogs, prices, products.
pub const SYSTEM_ACCOUNT: &str = "$system";

/// Stripe says that its ids have at most 255 characters; longer ones no index can hold.
const MAX_EVENT_ID: usize = 255;

/// A StripeEvent's envelope.
#[derive(Debug, Clone, PartialEq)]
pub struct StripeEvent {
    pub id: String,
    /// Such as `invoice.paid`.
    pub event_type: String,
    /// Unix seconds.
    pub created: i64,
    pub livemode: bool,
    pub api_version: Option<String>,
}

/// What a StripeEvent says that this ledger keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub observations: Vec<Observation>,
    /// Stripe ids that all belong to the same account, the most telling first.
    pub references: Vec<String>,
    /// The account named by `client_reference_id` or metadata.
    pub claim: Option<AccountId>,
    /// E-mail address to know the customer by. Personal: for the erasable table only, never for the log.
    pub email: Option<String>,
    /// The customer, when the facts name one.
    pub customer: Option<String>,
    /// A Checkout session completed: the moment to match a customer by e-mail.
    pub completes_checkout: bool,
    /// Why the ledger did not know this already; `None` for what comes on its own.
    pub reconciled: Option<Box<Reconciled>>,
}

/// Why a body is not a StripeEvent, or not one that can be applied.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TranslateError {
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    #[error("{0}")]
    Field(#[from] FieldError),
}

/// How event types are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings<'a> {
    /// Metadata keys that hold our account id, the first one present counts.
    pub account_metadata_keys: &'a [String],
}

/// Parses a body and reads its envelope.
pub fn parse(body: &[u8]) -> Result<(StripeEvent, Value<'_>), TranslateError> {
    let value: Value<'_> = serde_json::from_slice(body).map_err(|error| TranslateError::NotJson(error.to_string()))?;
    let event = Fields::new(&value, "event")?;
    if event.required_string("id")?.len() > MAX_EVENT_ID {
        let problem = format!("is longer than {MAX_EVENT_ID} bytes");
        return Err(TranslateError::Field(FieldError { field: "event.id".to_owned(), problem }));
    }
    let envelope = StripeEvent {
        id: event.required_string("id")?,
        event_type: event.required_string("type")?,
        created: event.integer("created")?.ok_or_else(|| missing("event.created"))?,
        livemode: event.flag("livemode")?,
        api_version: event.string("api_version")?,
    };
    Ok((envelope, value))
}

/// Says what a StripeEvent means; `None` for a type that this ledger does not know.
pub fn translate(
    event: &StripeEvent,
    body: &Value<'_>,
    settings: Settings<'_>,
) -> Result<Option<Facts>, TranslateError> {
    let Some(family) = Family::of(&event.event_type) else {
        return Ok(None);
    };
    let data = member(body, "data").ok_or_else(|| missing("event.data"))?;
    let value = member(data, "object").ok_or_else(|| missing("event.data.object"))?;
    let object = Fields::new(value, "data.object")?;
    let Some(projected) = project(family, &object, &event.event_type)? else {
        return Ok(None);
    };
    let previous = member(data, "previous_attributes");
    let before = previous.and_then(|previous| {
        let mut restored = value.clone();
        overlay(&mut restored, previous);
        let object = Fields::new(&restored, "data.object").ok()?;
        project(family, &object, &event.event_type).ok().flatten().map(|object| digest(&object))
    });
    let mut facts = facts(event, &object, projected, Seen { previous, before, asked: false }, settings)?;
    if family == Family::Catalog {
        facts.claim = AccountId::new(SYSTEM_ACCOUNT).ok();
    }
    Ok(Some(facts))
}

/// Reads one line of an invoice.
pub fn invoice_line(body: &[u8]) -> Result<InvoiceLine, TranslateError> {
    let value: Value<'_> = serde_json::from_slice(body).map_err(|error| TranslateError::NotJson(error.to_string()))?;
    Ok(project::invoice_line(&Fields::new(&value, "line")?)?)
}

/// What a StripeEvent tells of the object's state before.
#[derive(Debug, Clone, Copy, Default)]
struct Seen<'a> {
    previous: Option<&'a Value<'a>>,
    before: Option<u32>,
    /// It was asked for, not told.
    asked: bool,
}

/// Says what an object means that Stripe answered a call with, as if the StripeEvent `event` had shown it. `before` is the
/// digest of the snapshot that it follows.
pub fn translate_answer(
    event: &StripeEvent,
    body: &[u8],
    before: Option<u32>,
    settings: Settings<'_>,
) -> Result<Option<Facts>, TranslateError> {
    let value: Value<'_> = serde_json::from_slice(body).map_err(|error| TranslateError::NotJson(error.to_string()))?;
    let object = Fields::new(&value, "answer")?;
    let projected = Family::of(&event.event_type).map(|family| project(family, &object, &event.event_type));
    let Some(projected) = projected.transpose()?.flatten() else { return Ok(None) };
    facts(event, &object, projected, Seen { previous: None, before, asked: true }, settings).map(Some)
}

fn facts(
    event: &StripeEvent,
    object: &Fields<'_>,
    projected: StripeObject,
    seen: Seen<'_>,
    settings: Settings<'_>,
) -> Result<Facts, TranslateError> {
    let change = Change { before: seen.before, after: digest(&projected), asked: seen.asked };
    let mut facts = Facts {
        observations: Vec::new(),
        references: project::references(object, &projected, seen.previous)?,
        claim: claim(object, settings)?,
        email: email(object, &projected)?,
        customer: match projected {
            StripeObject::Customer(ref customer) => Some(customer.id.clone()),
            _ => object.id_of("customer")?,
        },
        completes_checkout: event.event_type == "checkout.session.completed",
        reconciled: None,
    };
    let links = project::invoice_payments(object, &projected)?;
    for object in std::iter::once(projected).chain(links.into_iter().map(StripeObject::InvoicePayment)) {
        facts.observations.push(Observation {
            superseded: false,
            stripe_event_id: event.id.clone(),
            stripe_event_type: event.event_type.clone(),
            created: event.created,
            change,
            object,
        });
    }
    Ok(facts)
}

/// The families of event types, by the object they carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Customer,
    Subscription,
    Schedule,
    Invoice,
    UpcomingInvoice,
    InvoicePayment,
    PaymentIntent,
    Charge,
    Refund,
    Dispute,
    CreditNote,
    CheckoutSession,
    PaymentMethod,
    Entitlements,
    Catalog,
}

impl Family {
    /// `None` for types this ledger has no use for.
    pub fn of(event_type: &str) -> Option<Self> {
        match event_type {
            "customer.created" | "customer.updated" | "customer.deleted" => Some(Self::Customer),
            "invoice.upcoming" => Some(Self::UpcomingInvoice),
            "charge.refund.updated" => Some(Self::Refund),
            "entitlements.active_entitlement_summary.updated" => Some(Self::Entitlements),
            _ => Self::of_prefix(event_type),
        }
    }

    fn of_prefix(event_type: &str) -> Option<Self> {
        const PREFIXES: &[(&str, Family)] = &[
            ("customer.subscription.", Family::Subscription),
            ("subscription_schedule.", Family::Schedule),
            ("invoice.", Family::Invoice),
            ("invoice_payment.", Family::InvoicePayment),
            ("payment_intent.", Family::PaymentIntent),
            ("charge.dispute.", Family::Dispute),
            ("charge.", Family::Charge),
            ("refund.", Family::Refund),
            ("credit_note.", Family::CreditNote),
            ("checkout.session.", Family::CheckoutSession),
            ("payment_method.", Family::PaymentMethod),
            ("product.", Family::Catalog),
            ("price.", Family::Catalog),
        ];
        PREFIXES.iter().find(|(prefix, _)| event_type.starts_with(prefix)).map(|(_, family)| *family)
    }
}

fn project(family: Family, object: &Fields<'_>, event_type: &str) -> Result<Option<StripeObject>, FieldError> {
    let is_deleted = event_type.ends_with(".deleted");
    Ok(Some(match family {
        Family::Customer => StripeObject::Customer(project::customer(object, is_deleted)?),
        Family::Subscription => StripeObject::Subscription(project::subscription(object)?),
        Family::Schedule => StripeObject::SubscriptionSchedule(project::schedule(object)?),
        Family::Invoice => StripeObject::Invoice(project::invoice(object, is_deleted)?),
        Family::UpcomingInvoice => match project::upcoming_invoice(object)? {
            Some(upcoming) => StripeObject::UpcomingInvoice(upcoming),
            None => return Ok(None),
        },
        Family::InvoicePayment => match project::invoice_payment(object)? {
            Some(payment) => StripeObject::InvoicePayment(payment),
            None => return Ok(None),
        },
        Family::PaymentIntent => StripeObject::PaymentIntent(project::payment_intent(object)?),
        Family::Charge => StripeObject::Charge(project::charge(object)?),
        Family::Refund => StripeObject::Refund(project::refund(object)?),
        Family::Dispute => StripeObject::Dispute(project::dispute(object)?),
        Family::CreditNote => StripeObject::CreditNote(project::credit_note(object)?),
        Family::CheckoutSession => StripeObject::CheckoutSession(project::checkout_session(object, event_type)?),
        Family::PaymentMethod => StripeObject::PaymentMethod(project::payment_method(object)?),
        Family::Entitlements => StripeObject::ActiveEntitlements(project::active_entitlements(object)?),
        Family::Catalog => StripeObject::CatalogObject(project::catalog_object(object, is_deleted)?),
    }))
}

/// A member that is there, even if it is null.
fn member<'a>(value: &'a Value<'a>, key: &str) -> Option<&'a Value<'a>> {
    value.as_object()?.get(key)
}

/// Puts the previous values back: objects member by member, everything else whole.
fn overlay<'a>(value: &mut Value<'a>, previous: &'a Value<'a>) {
    match (value, previous) {
        (Value::Object(fields), Value::Object(previous)) => {
            for (key, old) in previous.iter() {
                overlay(fields.insert_or_get_mut(key, Value::Null), old);
            }
        }
        (value, previous) => *value = previous.clone(),
    }
}

/// A short digest of a snapshot, the same whatever API version it came in.
fn digest(object: &StripeObject) -> u32 {
    let bytes = serde_json::to_vec(object).unwrap_or_default();
    let hash = Sha256::digest(bytes);
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn claim(object: &Fields<'_>, settings: Settings<'_>) -> Result<Option<AccountId>, FieldError> {
    let named = match object.string("client_reference_id")? {
        Some(id) => Some(id),
        None => claim_in_metadata(object, settings)?,
    };
    // An id that cannot be one of our caller's names nobody: whoever fills in a metadata field must not reach the
    // system's stream, nor another customer's by its Stripe id.
    let is_callers = |id: &AccountId| id.as_str() != SYSTEM_ACCOUNT && id.standing() == Ownership::Account;
    Ok(named.and_then(|id| AccountId::new(&id).ok()).filter(is_callers))
}

/// The object's own metadata, then what an invoice copied from its subscription's.
fn claim_in_metadata(object: &Fields<'_>, settings: Settings<'_>) -> Result<Option<String>, FieldError> {
    let parent = object.object("parent")?.and_then(|parent| parent.object("subscription_details").transpose());
    let details = match parent {
        Some(details) => Some(details?),
        None => object.object("subscription_details")?,
    };
    for holder in [Some(object.clone()), details].into_iter().flatten() {
        let Some(metadata) = holder.object("metadata")? else {
            continue;
        };
        for key in settings.account_metadata_keys {
            if let Some(id) = metadata.string(key)? {
                return Ok(Some(id));
            }
        }
    }
    Ok(None)
}

fn email(object: &Fields<'_>, projected: &StripeObject) -> Result<Option<String>, FieldError> {
    match projected {
        StripeObject::Customer(_) => object.string("email"),
        StripeObject::CheckoutSession(_) => match object.object("customer_details")? {
            Some(details) => details.string("email"),
            None => object.string("customer_email"),
        },
        _ => Ok(None),
    }
}

fn missing(field: &str) -> TranslateError {
    TranslateError::Field(FieldError { field: field.to_owned(), problem: "is missing".to_owned() })
}
