//! Typed refusals of what callers ask of Stripe through us.

use serde::{Deserialize, Serialize};

use super::stripe_refusal::StripeRefusal;

/// Why something was not sold, changed or given back. Frozen with its idempotency key, like every rejection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum BillingRejection {
    #[error("the catalog has no plan {plan}")]
    UnknownPlan { plan: String },
    #[error("the catalog has no credit pack {pack}")]
    UnknownCreditPack { pack: String },
    #[error("the plan {plan} has no price; it cannot be bought")]
    PlanNotForSale { plan: String },
    #[error("{what} is not offered by the {interval}; it is offered by the {}", offered.join(", "))]
    IntervalNotOffered { what: String, interval: String, offered: Vec<String> },
    #[error("{what} is not offered in {currency}; it is offered in {}", offered.join(", "))]
    CurrencyNotOffered { what: String, currency: String, offered: Vec<String> },
    #[error("{what} is offered in {}; say which currency", offered.join(", "))]
    CurrencyAmbiguous { what: String, offered: Vec<String> },
    #[error("the catalog's price {price} leads to no price of Stripe's; `subledger catalog push` makes it")]
    PriceNotInStripe { price: String },
    #[error("{price} is a product; give the id of one of its prices, price_…")]
    PriceIsProduct { price: String },
    #[error("Stripe knows no price {price}")]
    UnknownPrice { price: String },
    #[error("the price {price} exists in Stripe's other mode only: this service works in {} mode", mode(*livemode))]
    PriceOfOtherMode { price: String, livemode: bool },
    #[error("{field}: {problem}")]
    RedirectNotAllowed { field: String, problem: String },
    #[error(
        "the account has the subscription {subscription} already; change that one, or let its customer do so in the portal"
    )]
    SubscriptionExists { subscription: String },
    #[error("the account {account} has no subscription that goes on")]
    NoSubscription { account: String },
    #[error("the account {account} has no customer at Stripe yet; a Checkout session makes one")]
    NoStripeCustomer { account: String },
    #[error("the subscription {subscription} has ended for good; a new one begins with a Checkout session")]
    SubscriptionEnded { subscription: String },
    #[error("the subscription {subscription} is not ending, so there is nothing to resume")]
    SubscriptionNotEnding { subscription: String },
    #[error("the subscription {subscription} is at that price and quantity already")]
    SubscriptionUnchanged { subscription: String },
    #[error("the subscription {subscription} has several items, and none of them is of a plan; change it in Stripe")]
    SeveralItems { subscription: String },
    #[error("the subscription {subscription} is in {currency}; Stripe does not change a subscription's currency")]
    CurrencyFixed { subscription: String, currency: String },
    #[error("the subscription {subscription} has no change that waits for the period's end")]
    NoPendingChange { subscription: String },
    #[error("collection of the subscription {subscription} is not paused")]
    CollectionNotPaused { subscription: String },
    #[error("Stripe knows no active promotion code {promotion_code}")]
    UnknownPromotionCode { promotion_code: String },
    #[error("no payment is called {payment}")]
    PaymentNotFound { payment: String },
    #[error("the payment {payment} is {status}; only one that succeeded can be given back")]
    PaymentNotRefundable { payment: String, status: String },
    #[error("{left} of the payment are left to give back, in minor units of {currency}")]
    RefundExceedsPayment { left: i64, currency: String },
    #[error("Stripe refused: {}", .refusal.message)]
    StripeRefused { refusal: Box<StripeRefusal> },
}

fn mode(livemode: bool) -> &'static str {
    if livemode { "live" } else { "test" }
}
