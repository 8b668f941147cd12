//! Commands: requests that may be refused, and the decisions on them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::billing::{Billing, Observation};
use super::credit::{Credits, Draw, Lot, LotSource};
use super::draft::{Context, Draft};
use super::event::{
    AccountAbsorbed, AccountMerged, AccountOpened, CatalogApplied, CreditsDebited, CreditsGranted, CustomerLinked,
    Event,
};
use super::ids::AccountId;
use super::rejection::Rejection;
use super::settle::{settle_all, settle_clock, settle_idle};
use super::standing::Standing;
use super::stripe_object::StripeObject;

/// Most credits one command may move; far from overflow even when summed.
pub const MAX_AMOUNT: i64 = 1_000_000_000_000;

/// What a debit is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Charge {
    /// So many units of a feature, at the catalog's cost.
    Feature { feature: String, quantity: i64 },
    /// So many credits.
    Amount(i64),
}

/// A request to one account.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Create the account, or do nothing if it exists.
    Open {
        stripe_customer_id: Option<String>,
    },
    /// Take in what a StripeEvent shows; for a customer that is not linked, this opens its stream.
    Observe {
        observations: Vec<Observation>,
        link: Option<String>,
    },
    /// Take over another stream.
    Absorb {
        from: AccountId,
        credits: Box<Credits>,
        billing: Box<Billing>,
        links: Vec<String>,
    },
    /// Be taken over by another stream.
    MergeInto {
        into: AccountId,
    },
    Grant(Grant),
    Debit {
        debit: Uuid,
        charge: Charge,
    },
    /// Record what the clock has made due, but for the free plan's month, which waits for a spender.
    Settle,
    ApplyCatalog {
        digest: String,
        catalog: serde_json::Value,
    },
}

/// Credits given by hand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Grant {
    pub grant: Uuid,
    pub amount: i64,
    pub source: LotSource,
    pub priority: i32,
    pub effective_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub reason: Option<String>,
}

/// What an accepted command came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    /// The StripeEvent changed something (`true`), or told of nothing that newer news had not already told.
    Observed {
        applied: bool,
    },
    Granted(Lot),
    Debited(CreditsDebited),
}

impl Command {
    /// Whether deciding needs the account's Stripe objects too.
    pub fn needs_billing(&self) -> bool {
        match self {
            Command::Open { .. } | Command::Observe { .. } | Command::Absorb { .. } | Command::MergeInto { .. } => true,
            Command::Grant(_) | Command::Debit { .. } | Command::Settle | Command::ApplyCatalog { .. } => false,
        }
    }
}

/// Decides a command. What the clock had made due is recorded even when the command is refused.
pub fn decide(draft: &mut Draft<'_>, command: &Command, context: Context<'_>) -> Result<Outcome, Rejection> {
    match command {
        Command::Open { stripe_customer_id } => {
            if draft.account.is_unknown() {
                draft.emit(Event::AccountOpened(AccountOpened { at: context.now }));
            }
            link(draft, stripe_customer_id.as_ref());
            settle_all(draft, context);
            Ok(Outcome::Done)
        }
        Command::Observe { observations, link: customer } => {
            link(draft, customer.as_ref());
            let applied = observe(draft, observations);
            settle_all(draft, context);
            Ok(Outcome::Observed { applied })
        }
        Command::Absorb { from, credits, billing, links } => {
            let absorbed = AccountAbsorbed {
                from: from.clone(),
                credits: (**credits).clone(),
                billing: (**billing).clone(),
                links: links.clone(),
            };
            draft.emit(Event::AccountAbsorbed(Box::new(absorbed)));
            settle_all(draft, context);
            Ok(Outcome::Done)
        }
        Command::MergeInto { into } => {
            draft.emit(Event::AccountMerged(AccountMerged { into: into.clone() }));
            Ok(Outcome::Done)
        }
        Command::Grant(grant) => decide_grant(draft, grant, context),
        Command::Debit { debit, charge } => decide_debit(draft, *debit, charge, context),
        Command::Settle => {
            settle_idle(draft, context);
            Ok(Outcome::Done)
        }
        Command::ApplyCatalog { digest, catalog } => {
            let applied = CatalogApplied { digest: digest.clone(), catalog: catalog.clone() };
            draft.emit(Event::CatalogApplied(Box::new(applied)));
            Ok(Outcome::Done)
        }
    }
}

fn link(draft: &mut Draft<'_>, customer: Option<&String>) {
    let Some(customer) = customer else { return };
    let linked = CustomerLinked { stripe_customer_id: customer.clone() };
    draft.emit(Event::CustomerLinked(linked));
}

/// Appends those observations that say something new.
fn observe(draft: &mut Draft<'_>, observations: &[Observation]) -> bool {
    let mut applied = false;
    for observation in observations {
        let Some(billing) = &mut draft.account.billing else {
            continue;
        };
        // Recording twice is recording once, so trying here costs the event nothing when it is applied.
        let is_news = billing.record(observation, &mut draft.changes.touched);
        // Old news may still be the oldest: it tells since when the account exists.
        let opened_at = draft.account.credits.opened_at.map(|opened| opened.timestamp());
        if is_news
            || teaches_lookup_key(&draft.account.credits, &observation.object)
            || opened_at.is_none_or(|opened| observation.created < opened)
        {
            draft.emit(Event::StripeObserved(Box::new(observation.clone())));
            applied = true;
        }
    }
    applied
}

/// So may it be the only one to tell a price's lookup key.
fn teaches_lookup_key(credits: &Credits, object: &StripeObject) -> bool {
    let StripeObject::Subscription(subscription) = object else {
        return false;
    };
    subscription.lookup_keys().any(|(price, key)| !credits.knows_lookup_key(price, key))
}

fn decide_grant(draft: &mut Draft<'_>, grant: &Grant, context: Context<'_>) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    require_amount("amount", grant.amount)?;
    let effective_at = grant.effective_at.unwrap_or(context.now);
    if grant.expires_at.is_some_and(|expires_at| expires_at <= effective_at.max(context.now)) {
        return Err(Rejection::AlreadyExpired);
    }
    let lot = Lot {
        id: grant.grant,
        priority: grant.priority,
        expires_at: grant.expires_at,
        ..Lot::new(grant.source, format!("grant:{}", grant.grant), grant.amount, effective_at)
    };
    settle_clock(draft, context);
    let catalog = context.catalog_digest.to_owned();
    let granted = CreditsGranted { lot: lot.clone(), catalog, allowance: None, reason: grant.reason.clone() };
    draft.emit(Event::CreditsGranted(granted));
    Ok(Outcome::Granted(lot))
}

fn decide_debit(
    draft: &mut Draft<'_>,
    debit: Uuid,
    charge: &Charge,
    context: Context<'_>,
) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    let (amount, feature, quantity) = price_of(draft, charge, context)?;
    settle_clock(draft, context);
    let unlimited = Standing::of(&draft.account.credits, context.catalog, context.now).is_unlimited();
    let available = draft.account.credits.available_at(context.now);
    let lots: Vec<Draw> = if unlimited {
        Vec::new()
    } else {
        let draws = draft.account.credits.draw(amount, context.now);
        draws.ok_or(Rejection::InsufficientCredits { required: amount, available })?
    };
    let left = if unlimited { available } else { available - amount };
    let debited = CreditsDebited { debit, amount, feature, quantity, lots, available: left, unlimited };
    draft.emit(Event::CreditsDebited(debited.clone()));
    Ok(Outcome::Debited(debited))
}

/// Credits that a debit costs, with the feature and quantity it was priced by.
fn price_of(
    draft: &Draft<'_>,
    charge: &Charge,
    context: Context<'_>,
) -> Result<(i64, Option<String>, Option<i64>), Rejection> {
    match charge {
        Charge::Amount(amount) => {
            require_amount("amount", *amount)?;
            Ok((*amount, None, None))
        }
        Charge::Feature { feature, quantity } => {
            require_amount("quantity", *quantity)?;
            let unknown = || Rejection::UnknownFeature { feature: feature.clone() };
            let declared = context.catalog.feature(feature).ok_or_else(unknown)?;
            let standing = Standing::of(&draft.account.credits, context.catalog, context.now);
            if !standing.plan.is_some_and(|plan| plan.features.contains_key(feature)) {
                let plan = standing.plan.map_or_else(|| "none".to_owned(), |plan| plan.id.clone());
                return Err(Rejection::FeatureNotInPlan { feature: feature.clone(), plan });
            }
            let without_cost = || Rejection::FeatureWithoutCost { feature: feature.clone() };
            let cost = declared.credit_cost.ok_or_else(without_cost)?;
            let amount = cost.checked_mul(*quantity).filter(|amount| *amount <= MAX_AMOUNT);
            let too_much = || Rejection::OutOfRange { field: "quantity".to_owned(), max: MAX_AMOUNT / cost.max(1) };
            Ok((amount.ok_or_else(too_much)?, Some(feature.clone()), Some(*quantity)))
        }
    }
}

fn require_known(draft: &Draft<'_>) -> Result<(), Rejection> {
    if draft.account.is_unknown() {
        return Err(Rejection::AccountNotFound { account: draft.account.id.to_string() });
    }
    Ok(())
}

fn require_amount(field: &str, amount: i64) -> Result<(), Rejection> {
    if (1..=MAX_AMOUNT).contains(&amount) {
        return Ok(());
    }
    Err(Rejection::OutOfRange { field: field.to_owned(), max: MAX_AMOUNT })
}
