//! Holds: credits set aside for work whose cost is known only afterwards.
//!
//! A hold takes its credits out of lots at once, in burn order, and keeps them: nobody else can spend them, and a lot's
//! expiry does not touch them. It ends captured, released or expired; whatever it does not use returns to its lots. It is
//! expired from its `expires_at` on, whether or not anything has recorded that.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use uuid::Uuid;

use super::catalog::Feature;
use super::charge::{Charge, Cover, Priced, require_amount};
use super::command::Outcome;
use super::credit::{Credits, Draw};
use super::debt::repay_debt;
use super::draft::{Context, Draft};
use super::event::{
    ChargeRejected, CreditsClawedBack, Event, HoldCaptured, HoldExpired, HoldExtended, HoldPlaced, HoldReleased,
};
use super::limits::{admit, counted_now};
use super::overrides::refuse_suspended;
use super::rejection::Rejection;
use super::settle::{expire_lots, settle_clock};

/// How long a hold may last from the moment it is placed or extended.
pub const MAX_HOLD: TimeDelta = TimeDelta::days(31);

/// Open holds of one account: they are in the part of it that every debit writes.
pub const MAX_OPEN_HOLDS: usize = 1_000;

/// An open hold.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub id: Uuid,
    /// Credits set aside.
    pub amount: i64,
    pub feature: Option<String>,
    pub quantity: Option<i64>,
    /// What they are set aside out of.
    #[serde(flatten)]
    pub cover: Cover,
    pub created_at: DateTime<Utc>,
    pub expires_at: DateTime<Utc>,
}

/// How a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldStatus {
    Open,
    Captured,
    Released,
    Expired,
}

/// A hold with its end: the row that tells of it for ever.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    pub status: HoldStatus,
    #[serde(flatten)]
    pub hold: Hold,
    /// Credits spent by the capture.
    pub captured: i64,
    /// What paid for the capture. `None` of holds that were not captured, or before it was kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Cover>,
}

impl HoldRecord {
    /// Of a hold that was not captured.
    pub fn of(hold: Hold, status: HoldStatus) -> Self {
        Self { status, hold, captured: 0, capture: None }
    }

    /// What the capture spent; of a hold that was not captured, what is or was set aside.
    pub fn cover(&self) -> &Cover {
        self.capture.as_ref().unwrap_or(&self.hold.cover)
    }
}

/// How much of a hold was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Used {
    All,
    /// Credits.
    Amount(i64),
    /// Units of the hold's feature, at the catalog's cost, or at what they cost when they were held, if that is less.
    Quantity(i64),
}

impl Used {
    /// Credits, and units where they are known. The work is done, so the plan is not asked again.
    fn price(self, hold: &Hold, context: Context<'_>) -> Result<(i64, Option<i64>), Rejection> {
        match self {
            Used::All => Ok((hold.amount, hold.quantity)),
            Used::Amount(amount) => {
                require_amount("amount", amount)?;
                if amount == hold.amount {
                    return Ok((amount, hold.quantity));
                }
                let feature = hold.feature.as_ref().and_then(|feature| context.catalog.feature(feature));
                let units = feature.map(|feature| feature.units_paid_by(amount).or(hold.quantity));
                Ok((amount, units.flatten()))
            }
            Used::Quantity(quantity) => {
                require_amount("quantity", quantity)?;
                let without_feature = || Rejection::HoldWithoutFeature { hold: hold.id };
                let feature = hold.feature.as_ref().ok_or_else(without_feature)?;
                let unknown = || Rejection::UnknownFeature { feature: feature.clone() };
                let declared = context.catalog.feature(feature).ok_or_else(unknown)?;
                Ok((cost_of_held(hold, declared, quantity)?, Some(quantity)))
            }
        }
    }

    /// The refusal that is due, unless captures may go beyond their holds: more credits were used than are held, or, by the
    /// caller's count, more units, though they may cost nothing.
    fn beyond(self, hold: &Hold, amount: i64) -> Option<Rejection> {
        let held_units = hold.quantity.unwrap_or(0);
        match self {
            _ if amount > hold.amount => {
                Some(Rejection::CaptureExceedsHold { held: hold.amount, required: amount, in_units: false })
            }
            Used::Quantity(quantity) if quantity > held_units => {
                Some(Rejection::CaptureExceedsHold { held: held_units, required: quantity, in_units: true })
            }
            Used::All | Used::Amount(_) | Used::Quantity(_) => None,
        }
    }
}

/// Credits for so many units of a hold. Those that were held cost no more than was set aside for them: has the feature become
/// dearer since, they cost their share of that. Those beyond cost what the catalog says.
fn cost_of_held(hold: &Hold, feature: &Feature, quantity: i64) -> Result<i64, Rejection> {
    let held_units = hold.quantity.unwrap_or(0);
    let now = |units: i64| feature.cost_of(units).unwrap_or(i64::MAX);
    let (part, whole) = (now(quantity.min(held_units)), now(held_units));
    let beyond = if quantity > held_units { feature.bounded_cost_of(quantity)? - whole } else { 0 };
    if whole <= hold.amount {
        return Ok(part + beyond);
    }
    // Rounded up, so that nothing is had for nothing.
    let wide = |credits: i64| u128::from(credits.unsigned_abs());
    let share = (wide(part) * wide(hold.amount)).div_ceil(wide(whole));
    Ok(i64::try_from(share).unwrap_or(hold.amount) + beyond)
}

impl Hold {
    pub fn is_expired_at(&self, now: DateTime<Utc>) -> bool {
        self.expires_at <= now
    }
}

impl Credits {
    pub fn hold(&self, id: Uuid) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.id == id)
    }

    /// How many holds have not ended.
    pub fn open_holds(&self, now: DateTime<Utc>) -> usize {
        self.holds.iter().filter(|hold| !hold.is_expired_at(now)).count()
    }

    /// Units of a feature that open holds have set aside.
    pub fn units_held(&self, feature: &str, now: DateTime<Utc>) -> i64 {
        let open =
            self.holds.iter().filter(|hold| hold.feature.as_deref() == Some(feature) && !hold.is_expired_at(now));
        open.fold(0i64, |sum, hold| sum.saturating_add(hold.quantity.unwrap_or(0)))
    }
}

/// Sets credits aside. What a feature's limits leave must be enough: the hold counts towards them while it is open, and its
/// capture from then on.
pub fn place(
    draft: &mut Draft<'_>,
    id: Uuid,
    Priced { amount, feature, quantity }: Priced,
    expires_at: DateTime<Utc>,
    context: Context<'_>,
) -> Result<Outcome, Rejection> {
    require_expiry(expires_at, context.now)?;
    if draft.account.credits.open_holds(context.now) >= MAX_OPEN_HOLDS {
        return Err(Rejection::TooManyHolds { max: MAX_OPEN_HOLDS });
    }
    if let (Some(feature), Some(quantity)) = (&feature, quantity) {
        admit(&draft.account.credits, feature, quantity, context)?;
    }
    let cover = draft.account.credits.cover(amount, feature.as_deref(), context)?;
    let hold = Hold { id, amount, feature, quantity, cover, created_at: context.now, expires_at };
    let held = hold.clone();
    draft.emit(Event::HoldPlaced(HoldPlaced { hold, catalog: context.catalog_version() }));
    Ok(Outcome::Held { hold: held, available: draft.account.credits.available_at(context.now) })
}

/// Spends what a hold has set aside: all of it, a part, or more where the feature lets a capture exceed its hold.
pub fn capture(draft: &mut Draft<'_>, hold: Hold, used: Used, context: Context<'_>) -> Result<Outcome, Rejection> {
    let (amount, quantity) = used.price(&hold, context)?;
    let beyond = used.beyond(&hold, amount);
    let cover = capture_cover(draft, &hold, amount, quantity, beyond, context);
    let cover = cover.inspect_err(|rejection| {
        if rejection.lies_in_account() {
            let charge = match (&hold.feature, quantity) {
                (Some(feature), Some(quantity)) => Charge::Feature { feature: feature.clone(), quantity },
                _ => Charge::Amount(amount),
            };
            draft.emit(Event::ChargeRejected(ChargeRejected {
                id: hold.id,
                is_hold: false,
                capture: Some(used),
                charge,
                rejection: rejection.clone(),
                catalog: context.catalog_version(),
            }));
        }
    })?;
    let released = hold.cover.taken() - cover.taken();
    let kept = draft.account.credits.kept_of(&cover.lots, Some(&hold), context.now);
    let feature = hold.feature.clone();
    let counted = feature.as_ref().map(|_| counted_now(&draft.account.credits, context));
    let catalog = context.catalog_version();
    draft.emit(Event::HoldCaptured(HoldCaptured {
        hold: hold.id,
        amount,
        feature,
        quantity,
        debt_since: (cover.debt > 0).then_some(context.now),
        cover: cover.clone(),
        kept,
        counted,
        released,
        catalog,
        used: Some(used),
    }));
    settle_returned(draft, &hold, context.now);
    let record = HoldRecord { status: HoldStatus::Captured, hold, captured: amount, capture: Some(cover) };
    Ok(Outcome::HoldEnded { record, available: draft.account.credits.available_at(context.now) })
}

/// What was not set aside is asked for like a debit: it must be allowed now, and within the feature's limits, towards which
/// the open hold counts already.
fn admit_beyond(draft: &Draft<'_>, hold: &Hold, units: Option<i64>, context: Context<'_>) -> Result<(), Rejection> {
    refuse_suspended(draft, context)?;
    let more = units.unwrap_or(0) - hold.quantity.unwrap_or(0);
    if let Some(feature) = hold.feature.as_ref().filter(|_| more > 0) {
        Charge::Feature { feature: feature.clone(), quantity: more }.price(draft, context)?;
        admit(&draft.account.credits, feature, more, context)?;
    }
    Ok(())
}

/// What pays for a capture: first what was set aside, then, as far as it goes beyond that, what would pay for a debit.
fn capture_cover(
    draft: &Draft<'_>,
    hold: &Hold,
    amount: i64,
    quantity: Option<i64>,
    beyond: Option<Rejection>,
    context: Context<'_>,
) -> Result<Cover, Rejection> {
    let mut left = amount.min(hold.amount);
    let mut take = |most: i64| {
        let taken = left.min(most);
        left -= taken;
        taken
    };
    let lots = hold.cover.lots.iter().map(|draw| Draw { amount: take(draw.amount), ..*draw });
    let mut cover = Cover { lots: lots.filter(|draw| draw.amount > 0).collect(), ..Cover::default() };
    cover.debt = take(hold.cover.debt);
    cover.overage = take(hold.cover.overage);
    cover.unlimited = hold.cover.unlimited;
    if let Some(exceeds) = beyond {
        let feature = hold.feature.as_ref().and_then(|feature| context.catalog.feature(feature));
        if !feature.is_some_and(|feature| feature.capture_beyond_hold) {
            return Err(exceeds);
        }
        admit_beyond(draft, hold, quantity, context)?;
        let more_credits = (amount - hold.amount).max(0);
        let more = draft.account.credits.cover(more_credits, hold.feature.as_deref(), context)?;
        for draw in more.lots {
            match cover.lots.iter_mut().find(|known| known.lot == draw.lot) {
                Some(known) => known.amount += draw.amount,
                None => cover.lots.push(draw),
            }
        }
        cover.debt += more.debt;
        cover.overage += more.overage;
    }
    Ok(cover)
}

/// Gives all of a hold back.
pub fn release(draft: &mut Draft<'_>, hold: Hold, context: Context<'_>) -> Result<Outcome, Rejection> {
    draft.emit(Event::HoldReleased(HoldReleased { hold: hold.id, amount: hold.cover.taken() }));
    settle_returned(draft, &hold, context.now);
    let record = HoldRecord::of(hold, HoldStatus::Released);
    Ok(Outcome::HoldEnded { record, available: draft.account.credits.available_at(context.now) })
}

/// Lets a hold last longer, or shorter.
pub fn extend(
    draft: &mut Draft<'_>,
    hold: Hold,
    expires_at: DateTime<Utc>,
    context: Context<'_>,
) -> Result<Outcome, Rejection> {
    require_expiry(expires_at, context.now)?;
    draft.emit(Event::HoldExtended(HoldExtended { hold: hold.id, expires_at }));
    let available = draft.account.credits.available_at(context.now);
    Ok(Outcome::Held { hold: Hold { expires_at, ..hold }, available })
}

/// Records the holds that have expired. What returns to a lot that has expired meanwhile expires with it, right after.
pub fn expire_holds(draft: &mut Draft<'_>, now: DateTime<Utc>) {
    let expired: Vec<Hold> =
        draft.account.credits.holds.iter().filter(|hold| hold.is_expired_at(now)).cloned().collect();
    for hold in expired {
        draft.emit(Event::HoldExpired(HoldExpired { hold: hold.id, amount: hold.cover.taken() }));
        settle_returned(draft, &hold, now);
    }
}

/// What a hold gave back is in its lots again. A refund that was written off while they were held takes its share after
/// all, else a hold would keep credits from a refund; a lot that expired meanwhile expires with what it got; and what may
/// be spent makes good what is owed.
fn settle_returned(draft: &mut Draft<'_>, hold: &Hold, now: DateTime<Utc>) {
    for draw in &hold.cover.lots {
        let Some(lot) = draft.account.credits.lot(draw.lot) else { continue };
        let written_off = lot.claimed_back - lot.clawed_back - lot.owed;
        let clawed_back = written_off.min(lot.spendable());
        if clawed_back <= 0 {
            continue;
        }
        draft.emit(Event::CreditsClawedBack(CreditsClawedBack {
            lot: draw.lot,
            claimed: 0,
            clawed_back,
            from_expired: 0,
            debt: 0,
            debt_since: None,
            cause: format!("hold:{}", hold.id),
        }));
    }
    expire_lots(draft, now);
    repay_debt(draft, now);
}

/// Finds an open hold for a command that names it, once the clock has been settled.
///
/// `ended` is how the hold's row says it ended; it decides when the hold is not among the open ones any more.
pub fn find(
    draft: &mut Draft<'_>,
    id: Uuid,
    ended: Option<HoldStatus>,
    context: Context<'_>,
) -> Result<Hold, Rejection> {
    let expires_now = draft.account.credits.hold(id).is_some_and(|hold| hold.is_expired_at(context.now));
    settle_clock(draft, context);
    if let Some(hold) = draft.account.credits.hold(id) {
        return Ok(hold.clone());
    }
    match ended {
        _ if expires_now => Err(Rejection::HoldExpired { hold: id }),
        Some(HoldStatus::Captured) => Err(Rejection::HoldCaptured { hold: id }),
        Some(HoldStatus::Released) => Err(Rejection::HoldReleased { hold: id }),
        Some(HoldStatus::Expired) => Err(Rejection::HoldExpired { hold: id }),
        Some(HoldStatus::Open) | None => Err(Rejection::HoldNotFound { hold: id.to_string() }),
    }
}

fn require_expiry(expires_at: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), Rejection> {
    if expires_at > now && expires_at - now <= MAX_HOLD {
        return Ok(());
    }
    Err(Rejection::HoldExpiryOutOfRange { max_days: MAX_HOLD.num_days() })
}
