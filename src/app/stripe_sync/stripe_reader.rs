//! Reading what a whole Stripe account holds: its objects, kind by kind, and the StripeEvents it still lists.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use stripe_billing::invoice::{ListInvoice, RetrieveInvoice};
use stripe_billing::subscription::{ListSubscription, ListSubscriptionStatus, RetrieveSubscription};
use stripe_checkout::checkout_session::{ListCheckoutSession, RetrieveCheckoutSession};
use stripe_client_core::StripeRequest;
use stripe_core::charge::{ListCharge, RetrieveCharge};
use stripe_core::customer::{ListCustomer, RetrieveCustomer};
use stripe_core::dispute::{ListDispute, RetrieveDispute};
use stripe_core::event::{ListEvent, RetrieveEvent};
use stripe_core::payment_intent::{ListPaymentIntent, RetrievePaymentIntent};
use stripe_core::refund::{ListRefund, RetrieveRefund};
use stripe_types::RangeQueryTs;
use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior};

use super::object_kind::ObjectKind;
use crate::domain::reconciliation::Told;
use crate::stripe::client::{StripeCallError, StripeClient};
use crate::stripe::listing::{List, PAGE};

/// How often a read is made again while Stripe is away, before the work is given up.
const PATIENCE: u32 = 10;
/// Requests a second, unless somebody says otherwise: Stripe allows 25 in test mode, and 100 in live mode, to all that use
/// the account together (<https://docs.stripe.com/rate-limits>).
pub const DEFAULT_REQUESTS_PER_SECOND: u32 = 15;
/// How far back Stripe lists events (<https://docs.stripe.com/api/events>).
pub const EVENTS_KEPT_S: i64 = 30 * 86_400;

/// Whose objects are listed.
#[derive(Debug, Clone, Copy)]
pub enum Scope<'a> {
    All,
    Customer(&'a str),
    /// Refunds and disputes name no customer.
    Charge(&'a str),
}

impl<'a> Scope<'a> {
    fn customer(self) -> Option<&'a str> {
        if let Self::Customer(customer) = self { Some(customer) } else { None }
    }

    fn charge(self) -> Option<&'a str> {
        if let Self::Charge(charge) = self { Some(charge) } else { None }
    }
}

/// One of Stripe's objects, in its own bytes.
#[derive(Debug, Clone)]
pub struct Object {
    pub id: String,
    pub body: Box<RawValue>,
}

#[derive(Deserialize)]
struct Head {
    id: String,
}

impl Object {
    fn of(body: Box<RawValue>) -> Result<Self, StripeCallError> {
        let head: Head = serde_json::from_str(body.get()).map_err(unreadable)?;
        Ok(Self { id: head.id, body })
    }
}

fn unreadable(error: serde_json::Error) -> StripeCallError {
    StripeCallError::Unreadable(error.to_string())
}

/// A StripeEvent out of Stripe's list.
#[derive(Debug, Clone)]
pub struct ListedEvent {
    pub told: Told,
    /// Id of the object it tells of; of an invoice's payment, the invoice.
    pub about: String,
    pub body: Box<RawValue>,
}

#[derive(Deserialize)]
struct EventHead {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    created: i64,
    data: EventData,
}

#[derive(Deserialize)]
struct EventData {
    object: About,
}

#[derive(Deserialize)]
struct About {
    id: Option<String>,
    invoice: Option<serde_json::Value>,
}

impl ListedEvent {
    fn of(body: Box<RawValue>) -> Result<Self, StripeCallError> {
        let head: EventHead = serde_json::from_str(body.get()).map_err(unreadable)?;
        let About { id, invoice } = head.data.object;
        let of_payment = invoice.filter(|_| head.event_type.starts_with("invoice_payment."));
        let about = of_payment.and_then(|invoice| invoice.as_str().map(str::to_owned)).or(id).unwrap_or_default();
        let told = Told { stripe_event_id: head.id, stripe_event_type: head.event_type, created: head.created };
        Ok(Self { told, about, body })
    }
}

/// Reads Stripe at a pace, and patiently.
#[derive(Debug)]
pub struct StripeReader {
    client: StripeClient,
    pace: Mutex<Interval>,
}

impl StripeReader {
    pub fn new(client: StripeClient, requests_per_second: u32) -> Self {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / requests_per_second.max(1));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { client, pace: Mutex::new(pace) }
    }

    async fn get<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        request: &impl StripeRequest,
    ) -> Result<T, StripeCallError> {
        let mut tries = 0;
        loop {
            self.pace.lock().await.tick().await;
            match self.client.read(operation, request).await {
                Err(StripeCallError::Unavailable { retry_after, .. }) if tries < PATIENCE => {
                    tries += 1;
                    tokio::time::sleep(retry_after).await;
                }
                answer => return answer,
            }
        }
    }

    /// A page of a kind's objects, the newest first.
    pub async fn page(
        &self,
        kind: ObjectKind,
        scope: Scope<'_>,
        after: Option<&str>,
    ) -> Result<(Vec<Object>, bool), StripeCallError> {
        macro_rules! listed {
            ($request:expr $(, $by:ident)?) => {{
                let mut request = $request.limit(PAGE);
                if let Some(after) = after {
                    request = request.starting_after(after);
                }
                $(if let Some($by) = scope.$by() {
                    request = request.$by($by);
                })?
                request
            }};
        }
        let list: List<Box<RawValue>> = match kind {
            ObjectKind::Customer => self.get("customer.list", &listed!(ListCustomer::new())).await?,
            ObjectKind::Subscription => {
                let request = ListSubscription::new().status(ListSubscriptionStatus::All);
                self.get("subscription.list", &listed!(request, customer)).await?
            }
            ObjectKind::Invoice => {
                let request = ListInvoice::new().expand(vec!["data.payments".to_owned()]);
                self.get("invoice.list", &listed!(request, customer)).await?
            }
            ObjectKind::CheckoutSession => {
                let request = ListCheckoutSession::new().expand(vec!["data.payment_intent".to_owned()]);
                self.get("checkout_session.list", &listed!(request, customer)).await?
            }
            ObjectKind::PaymentIntent => {
                self.get("payment_intent.list", &listed!(ListPaymentIntent::new(), customer)).await?
            }
            ObjectKind::Charge => self.get("charge.list", &listed!(ListCharge::new(), customer)).await?,
            ObjectKind::Refund => self.get("refund.list", &listed!(ListRefund::new(), charge)).await?,
            ObjectKind::Dispute => self.get("dispute.list", &listed!(ListDispute::new(), charge)).await?,
        };
        let has_more = list.has_more && !list.data.is_empty();
        let objects = list.data.into_iter().map(Object::of).collect::<Result<_, _>>()?;
        Ok((objects, has_more))
    }

    /// One object; `None`: Stripe has none of that id.
    pub async fn object(&self, kind: ObjectKind, id: &str) -> Result<Option<Object>, StripeCallError> {
        let answer: Result<Box<RawValue>, StripeCallError> = match kind {
            ObjectKind::Customer => self.get("customer.retrieve", &RetrieveCustomer::new(id)).await,
            ObjectKind::Subscription => self.get("subscription.retrieve", &RetrieveSubscription::new(id)).await,
            ObjectKind::Invoice => {
                let request = RetrieveInvoice::new(id).expand(vec!["payments".to_owned()]);
                self.get("invoice.retrieve", &request).await
            }
            ObjectKind::CheckoutSession => {
                let request = RetrieveCheckoutSession::new(id).expand(vec!["payment_intent".to_owned()]);
                self.get("checkout_session.retrieve", &request).await
            }
            ObjectKind::PaymentIntent => self.get("payment_intent.retrieve", &RetrievePaymentIntent::new(id)).await,
            ObjectKind::Charge => self.get("charge.retrieve", &RetrieveCharge::new(id)).await,
            ObjectKind::Refund => self.get("refund.retrieve", &RetrieveRefund::new(id)).await,
            ObjectKind::Dispute => self.get("dispute.retrieve", &RetrieveDispute::new(id)).await,
        };
        match answer {
            Err(error) if error.is_missing() => Ok(None),
            answer => Object::of(answer?).map(Some),
        }
    }

    /// A page of StripeEvents since a Unix second, the newest first: those about a kind of object, or all.
    pub async fn events(
        &self,
        kind: Option<ObjectKind>,
        since: i64,
        after: Option<&str>,
    ) -> Result<(Vec<ListedEvent>, bool), StripeCallError> {
        let mut request = ListEvent::new().limit(PAGE).created(RangeQueryTs::gte(since));
        if let Some(kind) = kind {
            let types: Vec<String> = kind.event_types().iter().map(|name| (*name).to_owned()).collect();
            request = request.types(types);
        }
        if let Some(after) = after {
            request = request.starting_after(after);
        }
        let list: List<Box<RawValue>> = self.get("event.list", &request).await?;
        let has_more = list.has_more && !list.data.is_empty();
        let events = list.data.into_iter().map(ListedEvent::of).collect::<Result<_, _>>()?;
        Ok((events, has_more))
    }

    /// One StripeEvent's own bytes.
    pub async fn event(&self, id: &str) -> Result<Box<RawValue>, StripeCallError> {
        self.get("event.retrieve", &RetrieveEvent::new(id)).await
    }
}
