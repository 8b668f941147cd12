//! Payloads of the events that move credits.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::skip_serializing_none;
use uuid::Uuid;

use crate::domain::charge::{Charge, Cover};
use crate::domain::credit::{Allowance, Draw, Lot, is_zero};
use crate::domain::hold::{Hold, Used};
use crate::domain::ids::LotId;
use crate::domain::rejection::Rejection;
use crate::domain::usage::Counted;

/// A paid invoice line will grant credits over its period.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllowanceArmed {
    /// The mark by which the invoice remembers it.
    pub line: String,
    pub allowance: Allowance,
}

/// How far an allowance has been granted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AllowanceProgress {
    pub cause: String,
    pub windows: u32,
    /// Nothing more will come of it.
    pub done: bool,
}

/// A subscription ended: what it granted, and would have granted later, ends with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubscriptionCreditsEnded {
    pub subscription: String,
    pub at: DateTime<Utc>,
    /// It had been paid for, so the free plan starts afresh.
    pub restarts_free_plan: bool,
}

/// A lot came to be.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreditsGranted {
    pub lot: Lot,
    /// Catalog in force, by digest.
    pub catalog: String,
    pub allowance: Option<AllowanceProgress>,
    /// Why, in the words of whoever granted it by hand.
    pub reason: Option<String>,
}

/// Credits expired unused.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreditsExpired {
    pub lots: Vec<Draw>,
    /// What ended all of these lots: `expired_at:` and their date, or `rollover_cap:` and their subscription. `None` in
    /// events from before it was kept.
    pub cause: Option<String>,
}

/// Credits that came to be spendable made good what was owed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DebtRepaid {
    pub lots: Vec<Draw>,
    /// What of it had rolled over under a cap, by the lot that caps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Draw>,
}

/// A refund or dispute took back what its payment had bought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreditsClawedBack {
    pub lot: LotId,
    /// Credits asked back.
    pub claimed: i64,
    /// Credits that were still there to be taken.
    pub clawed_back: i64,
    /// Credits that had expired unused, and count as taken back instead.
    #[serde(default)]
    pub from_expired: i64,
    /// Credits owed because they were spent already and the plan makes that a debt.
    pub debt: i64,
    /// When they came to be owed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debt_since: Option<DateTime<Utc>>,
    /// The payment whose refund or dispute it was.
    pub cause: String,
}

/// A refund failed or a dispute was won: what it had taken back returns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreditsReinstated {
    pub lot: LotId,
    pub claimed: i64,
    pub reinstated: i64,
    pub debt: i64,
    pub cause: String,
}

/// Late news changed what a lot has, or how it is kept: one of credits that came back, or of a month whose plan had changed.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LotAmended {
    pub lot: LotId,
    /// Credits that it has more; fewer, if negative.
    pub added: i64,
    /// Credits fewer that had expired in it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub from_expired: i64,
    pub effective_at: DateTime<Utc>,
    pub expires_at: Option<DateTime<Utc>>,
    /// See [`Lot::keeps_earlier`].
    pub keeps_earlier: Option<i64>,
    /// Had the news come in time, it would never have been granted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forgotten: bool,
    /// The lot's.
    pub cause: String,
}

impl LotAmended {
    /// Some of what had expired in a lot had not, after all.
    pub fn returned(lot: &Lot, credits: i64) -> Self {
        Self { added: credits, from_expired: credits, ..Self::of(lot) }
    }

    /// Leaves a lot as it is.
    pub fn of(lot: &Lot) -> Self {
        Self {
            lot: lot.id,
            added: 0,
            from_expired: 0,
            effective_at: lot.effective_at,
            expires_at: lot.expires_at,
            keeps_earlier: lot.keeps_earlier,
            forgotten: false,
            cause: lot.cause.to_string(),
        }
    }
}

/// Credits were spent.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreditsDebited {
    pub debit: Uuid,
    pub amount: i64,
    pub feature: Option<String>,
    pub quantity: Option<i64>,
    // A `Cover`, written out: reading one that is flattened takes twice as long, and most of a log is debits.
    pub lots: Vec<Draw>,
    /// What of it had rolled over under a cap, by the lot that caps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Draw>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub debt: i64,
    /// When what is owed of it came to be owed.
    pub debt_since: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overage: i64,
    /// What could be spent afterwards.
    pub available: i64,
    /// Where the use of the feature counts. `None` for a debit by amount, and for those before uses were counted.
    pub counted: Option<Counted>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlimited: bool,
    /// Catalog in force: the beginning of its digest.
    pub catalog: Option<String>,
}

/// Credits were set aside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldPlaced {
    #[serde(flatten)]
    pub hold: Hold,
    /// Catalog in force: the beginning of its digest.
    pub catalog: String,
}

/// A hold lasts until another time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldExtended {
    pub hold: Uuid,
    pub expires_at: DateTime<Utc>,
}

/// Credits that were set aside were spent, and the rest of them given back.
#[skip_serializing_none]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldCaptured {
    pub hold: Uuid,
    /// Credits spent.
    pub amount: i64,
    pub feature: Option<String>,
    pub quantity: Option<i64>,
    #[serde(flatten)]
    pub cover: Cover,
    /// What of it had rolled over under a cap, by the lot that caps; not what was set aside before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<Draw>,
    /// When what is owed of it came to be owed.
    pub debt_since: Option<DateTime<Utc>>,
    /// Where the use of the feature counts.
    pub counted: Option<Counted>,
    /// Credits given back; negative, when more were taken than were set aside.
    pub released: i64,
    /// Catalog in force: the beginning of its digest.
    pub catalog: String,
    /// What was asked for. `None` in events from before it was kept.
    pub used: Option<Used>,
}

/// Credits that were set aside were given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldReleased {
    pub hold: Uuid,
    /// Credits given back.
    pub amount: i64,
}

/// A hold ended by the clock, and its credits were given back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HoldExpired {
    pub hold: Uuid,
    /// Credits given back.
    pub amount: i64,
}

/// A debit, a hold or a capture was refused, for a reason that lies in the account: on record so that it can be explained, and
/// asked again of another catalog. Changes nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChargeRejected {
    /// Of the debit or hold that was asked for; of a capture, the hold's.
    pub id: Uuid,
    /// A new hold was asked for.
    pub is_hold: bool,
    /// What was used of the hold, if it was a capture that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<Used>,
    /// Of a capture: all that was used, not only what went beyond the hold.
    pub charge: Charge,
    pub rejection: Rejection,
    /// Catalog in force: the beginning of its digest.
    pub catalog: String,
}
