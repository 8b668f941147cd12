//! What account holders are to be told, out of the log: once for each cause.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;

use super::billing::Observation;
use super::catalog::Catalog;
use super::credit::Credits;
use super::event::Event;
use super::ids::AccountId;
use super::standing::Standing;
use super::stripe_object::{CheckoutSession, Invoice, StripeObject, Subscription};

/// Stripe delivers for three days; what is older was imported or read again, and its time is over.
const LATEST_NEWS: TimeDelta = TimeDelta::days(4);

/// How long before its end a trial is spoken of, as Stripe does it.
pub const REMIND_BEFORE: TimeDelta = TimeDelta::days(3);

/// Types of events that may give cause for a notification by themselves.
pub const TELLING_TYPES: &[&str] =
    &["checkout_session_observed", "invoice_observed", "refund_observed", "subscription_observed"];

/// Types of events after which less, or more, may be left to spend.
pub const SPENDING_TYPES: &[&str] = &[
    "account_absorbed",
    "credits_clawed_back",
    "credits_debited",
    "credits_expired",
    "credits_granted",
    "credits_reinstated",
    "debt_repaid",
    "hold_captured",
    "hold_expired",
    "hold_placed",
    "hold_released",
    "lot_amended",
    "low_balance_set",
];

/// Something an account's holder is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notification {
    /// There is one notification for it, for ever.
    pub cause: String,
    pub notice: Notice,
}

/// What is said. Amounts are in minor units of `currency`, links are Stripe's.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Notice {
    PaymentFailed(FailedPayment),
    /// The bank wants the payer to confirm a payment.
    ActionRequired(FailedPayment),
    TrialEnding {
        stripe_subscription_id: String,
        trial_end: DateTime<Utc>,
    },
    SubscriptionEnded {
        stripe_subscription_id: String,
        ended_at: DateTime<Utc>,
    },
    Refunded {
        stripe_refund_id: String,
        stripe_payment_intent_id: Option<String>,
        amount: i64,
        currency: String,
    },
    LowBalance {
        /// Credits that may be spent.
        available: i64,
        /// The account's own `low_balance`, else its plan's, which they are below.
        threshold: i64,
        plan: Option<String>,
    },
    /// For the operators of other endpoints, not for account holders.
    WebhookEndpointDisabled {
        webhook_endpoint_id: String,
        reason: String,
        failing_since: Option<DateTime<Utc>>,
    },
}

/// A payment that did not go through.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedPayment {
    pub stripe_invoice_id: Option<String>,
    pub stripe_checkout_session_id: Option<String>,
    pub stripe_subscription_id: Option<String>,
    pub amount: i64,
    pub currency: String,
    /// How often it was tried by now.
    pub attempt: Option<i64>,
    /// When Stripe tries again.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// Where it can be paid.
    pub hosted_invoice_url: Option<String>,
}

impl Notice {
    /// Its type as a message.
    pub fn message_type(&self) -> &'static str {
        match self {
            Self::PaymentFailed(_) => "notification.payment_failed",
            Self::ActionRequired(_) => "notification.action_required",
            Self::TrialEnding { .. } => "notification.trial_ending",
            Self::SubscriptionEnded { .. } => "notification.subscription_ended",
            Self::Refunded { .. } => "notification.refunded",
            Self::LowBalance { .. } => "notification.low_balance",
            Self::WebhookEndpointDisabled { .. } => "notification.webhook_endpoint_disabled",
        }
    }
}

/// What an event gives cause to say, that was recorded at `at`.
pub fn notification_of(event: &Event, at: DateTime<Utc>) -> Option<Notification> {
    let Event::StripeObserved(observation) = event else { return None };
    let created = DateTime::from_timestamp(observation.created, 0)?;
    if at - created > LATEST_NEWS {
        return None;
    }
    let Observation { object, stripe_event_type, .. } = observation.as_ref();
    let (cause, notice) = match (object, stripe_event_type.as_str()) {
        (StripeObject::Invoice(invoice), "invoice.payment_failed") => {
            let cause = format!("payment_failed:{}/{}", invoice.id, invoice.attempt_count);
            (cause, Notice::PaymentFailed(of_invoice(invoice)))
        }
        (StripeObject::Invoice(invoice), "invoice.payment_action_required") => {
            let cause = format!("action_required:{}/{}", invoice.id, invoice.attempt_count);
            (cause, Notice::ActionRequired(of_invoice(invoice)))
        }
        (StripeObject::CheckoutSession(session), "checkout.session.async_payment_failed") => {
            (format!("payment_failed:{}", session.id), Notice::PaymentFailed(of_session(session)))
        }
        // One that expired incomplete never began.
        (StripeObject::Subscription(subscription), _) if subscription.status == "canceled" => {
            (format!("subscription_ended:{}", subscription.id), subscription_ended(subscription, created))
        }
        (StripeObject::Refund(refund), _) if refund.status == "succeeded" => {
            let notice = Notice::Refunded {
                stripe_refund_id: refund.id.clone(),
                stripe_payment_intent_id: refund.payment_intent.clone(),
                amount: refund.amount,
                currency: refund.currency.clone(),
            };
            (format!("refunded:{}", refund.id), notice)
        }
        _ => return None,
    };
    Some(Notification { cause, notice })
}

/// A subscription's trial, as an event shows it: when it ends, if it is to be followed by payment; else there is nothing to
/// remind of.
///
/// Stripe's own `trial_will_end` is no cause: mostly it shows the subscription as it was before, so it is no news.
pub fn trial_of(event: &Event) -> Option<(&str, Option<DateTime<Utc>>)> {
    let Event::StripeObserved(observation) = event else { return None };
    let StripeObject::Subscription(subscription) = &observation.object else { return None };
    if observation.superseded {
        return None;
    }
    let ends_with_trial = subscription.cancel_at_period_end || subscription.cancel_at.is_some();
    let is_followed = subscription.status == "trialing" && !ends_with_trial;
    Some((&subscription.id, time(subscription.trial_end).filter(|_| is_followed)))
}

/// That a trial ends soon.
pub fn trial_ending(subscription: &str, trial_end: DateTime<Utc>) -> Notification {
    Notification {
        cause: format!("trial_ending:{subscription}/{}", trial_end.timestamp()),
        notice: Notice::TrialEnding { stripe_subscription_id: subscription.to_owned(), trial_end },
    }
}

fn time(seconds: Option<i64>) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds?, 0)
}

fn subscription_ended(subscription: &Subscription, heard_at: DateTime<Utc>) -> Notice {
    let ended_at = time(subscription.ended_at.or(subscription.canceled_at)).unwrap_or(heard_at);
    Notice::SubscriptionEnded { stripe_subscription_id: subscription.id.clone(), ended_at }
}

fn of_invoice(invoice: &Invoice) -> FailedPayment {
    FailedPayment {
        stripe_invoice_id: Some(invoice.id.clone()),
        stripe_checkout_session_id: None,
        stripe_subscription_id: invoice.subscription.clone(),
        amount: invoice.amount_remaining,
        currency: invoice.currency.clone(),
        attempt: Some(invoice.attempt_count),
        next_attempt_at: time(invoice.next_payment_attempt),
        hosted_invoice_url: invoice.hosted_invoice_url.clone(),
    }
}

fn of_session(session: &CheckoutSession) -> FailedPayment {
    FailedPayment {
        stripe_invoice_id: None,
        stripe_checkout_session_id: Some(session.id.clone()),
        stripe_subscription_id: session.subscription.clone(),
        amount: session.amount_total.unwrap_or(0),
        currency: session.currency.clone().unwrap_or_default(),
        attempt: None,
        next_attempt_at: None,
        hosted_invoice_url: None,
    }
}

/// How an account's credits stand to its own `low_balance`, else its plan's: `None` where there is none, `Some(None)` where
/// enough is left. `credits` are those of `now`, with all that the clock has made due.
pub fn low_balance(credits: &Credits, catalog: &Catalog, now: DateTime<Utc>) -> Option<Option<Notice>> {
    if credits.merged_into.is_some() {
        return None;
    }
    let standing = Standing::of(credits, catalog, now);
    if standing.is_unlimited(None) {
        return None;
    }
    let plan = standing.plan;
    let threshold =
        credits.low_balance.or(plan.and_then(|plan| plan.low_balance)).filter(|threshold| *threshold > 0)?;
    let available = credits.available_at(now);
    let is_low = available < threshold;
    Some(is_low.then(|| Notice::LowBalance { available, threshold, plan: plan.map(|plan| plan.id.clone()) }))
}

/// The cause of telling that a balance is low: its having become so, which the account's version then names.
pub fn low_balance_cause(account: &AccountId, version: i64) -> String {
    format!("low_balance:{account}/{version}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::stripe_object::Refund;
    use crate::domain::tracked::Change;

    fn refund(status: &str, created: i64) -> Event {
        let refund = Refund {
            id: "re_1".to_owned(),
            charge: None,
            payment_intent: Some("pi_1".to_owned()),
            status: status.to_owned(),
            currency: "usd".to_owned(),
            amount: 500,
            created: Some(created),
        };
        Event::StripeObserved(Box::new(Observation {
            stripe_event_id: "evt_1".to_owned(),
            stripe_event_type: "refund.updated".to_owned(),
            created,
            change: Change { before: None, after: 1, asked: false },
            superseded: false,
            object: StripeObject::Refund(refund),
        }))
    }

    #[test]
    fn a_refund_is_told_once_it_succeeded_and_not_when_it_is_history() {
        let now = DateTime::from_timestamp(1_768_478_400, 0).expect("a time");
        let told = notification_of(&refund("succeeded", now.timestamp()), now).expect("told");
        assert_eq!(told.cause, "refunded:re_1");
        assert_eq!(told.notice.message_type(), "notification.refunded");
        assert_eq!(notification_of(&refund("pending", now.timestamp()), now), None);
        let imported = refund("succeeded", now.timestamp() - 30 * 86_400);
        assert_eq!(notification_of(&imported, now), None);
    }
}
