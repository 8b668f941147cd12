//! Commands: requests that may be refused, and the decisions on them.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::account::Changes;
use super::billing::{Billing, Observation};
use super::billing_rejection::BillingRejection;
use super::charge::{Charge, Cover, Priced, require_amount};
use super::credit::{Credits, Lot, LotSource};
use super::debt::repay_debt;
use super::draft::{Context, Draft};
use super::event::{
    AccountAbsorbed, AccountMerged, AccountOpened, CatalogApplied, ChargeRejected, CreditsDebited, CreditsGranted,
    CustomerLinked, Event, LowBalanceSet, UsageRecorded,
};
use super::hold::{self, Hold, HoldRecord, HoldStatus, Used};
use super::ids::AccountId;
use super::limits::admit;
use super::overrides::{
    Override, decide_override, decide_override_removal, decide_reinstatement, decide_suspension, refuse_suspended,
};
use super::reconciliation::Reconciled;
use super::rejection::Rejection;
use super::settle::{settle_all, settle_clock, settle_debtor, settle_idle};
use super::stripe_object::StripeObject;
use super::stripe_outcome::StripeOutcome;
use super::usage::{RecordUsage, decide_usage};

/// Most credits one command may move; far from overflow even when summed.
pub const MAX_AMOUNT: i64 = 1_000_000_000_000;

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
        /// Why the ledger did not know this already, if that was looked into.
        reconciled: Option<Box<Reconciled>>,
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
    /// Set credits aside.
    Hold {
        hold: Uuid,
        charge: Charge,
        expires_at: DateTime<Utc>,
    },
    /// End a hold, or let it last until another time.
    OfHold(OfHold),
    /// Take in that a feature was used.
    RecordUsage(RecordUsage),
    /// Let something else than the plan decide over a feature.
    SetOverride {
        feature: String,
        set: Override,
    },
    RemoveOverride {
        feature: String,
    },
    Suspend {
        reason: Option<String>,
    },
    Reinstate,
    /// Let the account's holder be told when fewer credits than this are left; `None`: when the plan says.
    SetLowBalance {
        threshold: Option<i64>,
    },
    /// Record what the clock has made due, but for the free plan's month, which waits for a spender.
    Settle,
    ApplyCatalog(Box<CatalogApplied>),
    /// Keep what came of a request that Stripe answered, under the command's key.
    Conclude(Box<Result<StripeOutcome, BillingRejection>>),
}

/// A request about one hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfHold {
    pub hold: Uuid,
    /// How the hold's row says it has ended, if it does.
    pub ended: Option<HoldStatus>,
    pub act: HoldAct,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldAct {
    Capture(Used),
    Release,
    Extend { expires_at: DateTime<Utc> },
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
    /// Credits are set aside, until the time that the hold says.
    Held {
        hold: Hold,
        available: i64,
    },
    HoldEnded {
        record: HoldRecord,
        available: i64,
    },
    UsageRecorded(UsageRecorded),
    Stripe(StripeOutcome),
}

impl Command {
    /// Whether deciding needs the account's Stripe objects too.
    pub fn needs_billing(&self) -> bool {
        match self {
            Command::Open { .. } | Command::Observe { .. } | Command::Absorb { .. } | Command::MergeInto { .. } => true,
            // A use at a stated time may be of a day that has left the hot part.
            Command::RecordUsage(record) => record.at.is_some(),
            Command::SetOverride { .. } | Command::RemoveOverride { .. } => false,
            Command::Suspend { .. } | Command::Reinstate | Command::SetLowBalance { .. } => false,
            Command::Grant(_) | Command::Debit { .. } | Command::Hold { .. } | Command::OfHold(_) => false,
            Command::Settle | Command::ApplyCatalog(_) | Command::Conclude(_) => false,
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
        Command::Observe { observations, link: customer, reconciled } => {
            link(draft, customer.as_ref());
            settle_debtor(draft, context);
            let applied = observe(draft, observations);
            if let Some(reconciled) = reconciled.as_ref().filter(|_| applied) {
                draft.emit(Event::Reconciled(reconciled.clone()));
            }
            settle_all(draft, context);
            Ok(Outcome::Observed { applied })
        }
        Command::Absorb { from, credits, billing, links } => {
            let mut absorbed = AccountAbsorbed {
                from: from.clone(),
                credits: (**credits).clone(),
                billing: (**billing).clone(),
                links: links.clone(),
                balance_change: 0,
            };
            // What both streams were given of one cause counts once, so only the outcome tells.
            let mut after = draft.account.clone();
            after.evolve(&Event::AccountAbsorbed(Box::new(absorbed.clone())), &mut Changes::default());
            absorbed.balance_change = after.credits.balance() - draft.account.credits.balance();
            draft.emit(Event::AccountAbsorbed(Box::new(absorbed)));
            settle_all(draft, context);
            Ok(Outcome::Done)
        }
        Command::MergeInto { into } => {
            draft.emit(Event::AccountMerged(AccountMerged { into: into.clone() }));
            Ok(Outcome::Done)
        }
        Command::Grant(grant) => decide_grant(draft, grant, context),
        Command::Debit { debit, charge } => {
            let decided = decide_debit(draft, *debit, charge, context);
            record_rejection(draft, *debit, false, charge, decided, context)
        }
        Command::Hold { hold, charge, expires_at } => {
            let decided = decide_hold(draft, *hold, charge, *expires_at, context);
            record_rejection(draft, *hold, true, charge, decided, context)
        }
        Command::OfHold(OfHold { hold, ended, act }) => {
            let hold = hold::find(draft, *hold, *ended, context)?;
            match act {
                HoldAct::Capture(used) => hold::capture(draft, hold, *used, context),
                HoldAct::Release => hold::release(draft, hold, context),
                HoldAct::Extend { expires_at } => hold::extend(draft, hold, *expires_at, context),
            }
        }
        Command::RecordUsage(record) => decide_usage(draft, record, context),
        Command::SetOverride { feature, set } => decide_override(draft, feature, set, context),
        Command::RemoveOverride { feature } => decide_override_removal(draft, feature, context),
        Command::Suspend { reason } => decide_suspension(draft, reason.as_ref(), context),
        Command::Reinstate => decide_reinstatement(draft, context),
        Command::SetLowBalance { threshold } => decide_low_balance(draft, *threshold),
        Command::Settle => {
            settle_idle(draft, context);
            Ok(Outcome::Done)
        }
        Command::ApplyCatalog(applied) => {
            draft.emit(Event::CatalogApplied(applied.clone()));
            Ok(Outcome::Done)
        }
        Command::Conclude(outcome) => match &**outcome {
            Ok(outcome) => Ok(Outcome::Stripe(outcome.clone())),
            Err(because) => Err(Rejection::Billing { because: because.clone() }),
        },
    }
}

fn link(draft: &mut Draft<'_>, customer: Option<&String>) {
    let Some(customer) = customer else { return };
    let linked = CustomerLinked { stripe_customer_id: customer.clone() };
    draft.emit(Event::CustomerLinked(linked));
}

/// Appends those observations that say something new: of an object as it is, or of a subscription as it was, which changes
/// nothing but what is told of the past.
fn observe(draft: &mut Draft<'_>, observations: &[Observation]) -> bool {
    let mut applied = false;
    for observation in observations {
        let Some(billing) = &mut draft.account.billing else {
            continue;
        };
        // Recording twice is recording once, so trying here costs the event nothing when it is applied.
        let is_news = billing.record(observation, &mut draft.changes.touched);
        let superseded = match &observation.object {
            StripeObject::Subscription(subscription) => billing.is_superseded(observation, subscription),
            _ => false,
        };
        // Old news may still be the oldest: it tells since when the account exists.
        let opened_at = draft.account.credits.opened_at.map(|opened| opened.timestamp());
        let changes = is_news
            || teaches_lookup_key(&draft.account.credits, &observation.object)
            || opened_at.is_none_or(|opened| observation.created < opened);
        if changes || superseded {
            draft.emit(Event::StripeObserved(Box::new(Observation { superseded, ..observation.clone() })));
        }
        applied |= changes;
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
        ..Lot::new(grant.source, &format!("grant:{}", grant.grant), grant.amount, effective_at)
    };
    settle_clock(draft, context);
    let catalog = context.catalog_digest.to_owned();
    let granted = CreditsGranted { lot, catalog, allowance: None, reason: grant.reason.clone() };
    draft.emit(Event::CreditsGranted(granted));
    repay_debt(draft, context.now);
    // With what has gone to a debt.
    let left = draft.account.credits.lot(grant.grant).or_else(|| draft.changes.closed_lots.get(&grant.grant));
    left.cloned().map(Outcome::Granted).ok_or(Rejection::AlreadyExpired)
}

fn decide_debit(
    draft: &mut Draft<'_>,
    debit: Uuid,
    charge: &Charge,
    context: Context<'_>,
) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    refuse_suspended(draft, context)?;
    let Priced { amount, feature, quantity } = charge.price(draft, context)?;
    settle_clock(draft, context);
    let credits = &draft.account.credits;
    let counted = match (&feature, quantity) {
        (Some(feature), Some(quantity)) => Some(admit(credits, feature, quantity, context)?),
        _ => None,
    };
    let Cover { lots, debt, overage, unlimited } = credits.cover(amount, feature.as_deref(), context)?;
    let before = credits.available_at(context.now);
    let available = if unlimited { before } else { before - (amount - overage) };
    let catalog = Some(context.catalog_version());
    let debited = CreditsDebited {
        debit,
        amount,
        feature,
        quantity,
        kept: draft.account.credits.kept_of(&lots, None, context.now),
        lots,
        debt,
        debt_since: (debt > 0).then_some(context.now),
        overage,
        available,
        counted,
        unlimited,
        catalog,
    };
    draft.emit(Event::CreditsDebited(debited.clone()));
    Ok(Outcome::Debited(debited))
}

fn decide_hold(
    draft: &mut Draft<'_>,
    hold: Uuid,
    charge: &Charge,
    expires_at: DateTime<Utc>,
    context: Context<'_>,
) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    refuse_suspended(draft, context)?;
    let priced = charge.price(draft, context)?;
    settle_clock(draft, context);
    hold::place(draft, hold, priced, expires_at, context)
}

/// Puts a refusal on record if it lies in the account.
fn record_rejection(
    draft: &mut Draft<'_>,
    id: Uuid,
    is_hold: bool,
    charge: &Charge,
    decided: Result<Outcome, Rejection>,
    context: Context<'_>,
) -> Result<Outcome, Rejection> {
    decided.inspect_err(|rejection| {
        if rejection.lies_in_account() {
            let (charge, rejection, catalog) = (charge.clone(), rejection.clone(), context.catalog_version());
            let rejected = ChargeRejected { id, is_hold, capture: None, charge, rejection, catalog };
            draft.emit(Event::ChargeRejected(rejected));
        }
    })
}

/// Setting it again as it is changes nothing.
fn decide_low_balance(draft: &mut Draft<'_>, threshold: Option<i64>) -> Result<Outcome, Rejection> {
    require_known(draft)?;
    if draft.account.credits.low_balance != threshold {
        draft.emit(Event::LowBalanceSet(LowBalanceSet { threshold }));
    }
    Ok(Outcome::Done)
}

pub(super) fn require_known(draft: &Draft<'_>) -> Result<(), Rejection> {
    if draft.account.is_unknown() {
        return Err(Rejection::AccountNotFound { account: draft.account.id.to_string() });
    }
    Ok(())
}
