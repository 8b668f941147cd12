//! The catalog: which plans, prices, credit packs and features there are.
//!
//! People write it as TOML and review it as a diff ([`Catalog::from_toml`]); once applied it is recorded as JSON in
//! an immutable event and read back for ever. So a field added later needs a `#[serde(default)]` that means what the
//! absence meant, and a `skip_serializing_if` for that default, or the digests of recorded catalogs change.

mod dunning;
mod errors;
mod parse;
mod reader;
#[cfg(test)]
mod tests;
mod validate;
mod validate_prices;
mod window;

pub use dunning::Dunning;
pub use errors::{CatalogError, CatalogErrors};
pub use window::{Per, WindowLimit};

use crate::domain::money::Currency;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::LazyLock;

/// Burn order of the credits a plan grants: before packs, which were paid for apart.
pub const PLAN_CREDITS_PRIORITY: i32 = 10;
/// Burn order of a pack's credits when the catalog states none.
pub const DEFAULT_PACK_PRIORITY: i32 = 50;

/// Everything that is for sale and what it entitles to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalog {
    /// By ascending rank when read from TOML.
    pub plans: Vec<Plan>,
    /// By ascending number of credits when read from TOML.
    #[serde(default)]
    pub credit_packs: Vec<CreditPack>,
    /// By id when read from TOML.
    #[serde(default)]
    pub features: Vec<Feature>,
    /// How many decimal digits a credit is shown with: at 2, 150 credits are shown as 1.50. 0: whole units.
    #[serde(default)]
    pub credit_display_scale: u32,
}

/// What an account may subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// `[a-z0-9_]{1,64}`, unique.
    pub id: String,
    /// For people.
    pub name: String,
    #[serde(default)]
    pub description: Option<String>,
    /// When an account has several subscriptions, the plan of the highest rank decides its entitlements. Unique.
    pub rank: u32,
    /// The free plan an account has without a subscription. Exactly one plan, and the one of the lowest rank.
    #[serde(default)]
    pub default: bool,
    #[serde(default)]
    pub prices: Vec<PlanPrice>,
    #[serde(default)]
    pub credits: CreditAllowance,
    /// The default plan's months do not roll over.
    #[serde(default)]
    pub rollover: Rollover,
    /// For how many hours after a period's end its unused credits may still be spent if nothing rolls over: Stripe has a
    /// renewal paid about an hour after the period began. They end with the next period's credits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub renewal_hours: u32,
    #[serde(default)]
    pub trial: TrialPolicy,
    /// For how many days paid features go on after a failed payment.
    #[serde(default)]
    pub grace_days: u32,
    /// What follows on them.
    #[serde(default, skip_serializing_if = "Dunning::is_default")]
    pub dunning: Dunning,
    /// What becomes of the plan's features while its subscription is paused.
    #[serde(default, skip_serializing_if = "WhilePaused::is_default")]
    pub while_paused: WhilePaused,
    #[serde(default)]
    pub clawback: ClawbackPolicy,
    /// What an upgrade to the plan grants in the middle of a period.
    #[serde(default, skip_serializing_if = "PlanChange::is_default")]
    pub plan_change: PlanChange,
    /// Whether the subscription's quantity multiplies the credits.
    #[serde(default = "yes")]
    pub per_seat: bool,
    /// What happens to a debit beyond the credits there are; a feature's grant may say otherwise for that feature.
    #[serde(default, skip_serializing_if = "Overage::is_deny")]
    pub overage: Overage,
    /// With fewer credits than this left, the account's holder is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_balance: Option<i64>,
    /// What the plan entitles to, by feature id; a feature that is absent is not in the plan.
    #[serde(default)]
    pub features: BTreeMap<String, FeatureGrant>,
}

/// How many credits a subscription grants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreditAllowance {
    /// Only packs and manual grants.
    #[default]
    None,
    /// So many every month (or every shorter billing period), also on a yearly price.
    PerPeriod(i64),
    /// Metered features cost nothing.
    Unlimited,
}

/// What becomes of the plan's unused credits when the next period's are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rollover {
    /// They expire.
    #[default]
    None,
    /// At most so many are kept.
    Capped(i64),
    /// All are kept.
    All,
}

/// What a trial gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrialPolicy {
    /// Length of the trial a checkout offers. 0: none.
    #[serde(default)]
    pub days: u32,
    /// Holds for every trial of the plan, also one that was started in Stripe.
    #[serde(default)]
    pub credits: TrialCredits,
}

/// The credits granted at the start of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrialCredits {
    /// As many as a paid period.
    #[default]
    Full,
    None,
    Amount(i64),
}

/// What becomes of credits that were refunded but are already spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClawbackPolicy {
    /// They are forgiven, and shown as written off.
    #[default]
    WriteOff,
    /// They are owed: the next grant pays them first.
    Debt,
}

/// What happens to a debit or a hold beyond the credits there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overage {
    /// It is refused.
    #[default]
    Deny,
    /// The account goes into debt, up to so many credits. New credits make it good first.
    Limit(i64),
    /// It passes, and what is beyond the credits is recorded for billing.
    Unlimited,
}

impl Overage {
    fn is_deny(&self) -> bool {
        *self == Self::Deny
    }
}

/// What becomes of a plan's features while its subscription is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhilePaused {
    /// They stop, and the account is on the default plan.
    #[default]
    Stop,
    /// They go on.
    Keep,
}

impl WhilePaused {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What an upgrade grants for the rest of the period it falls in (on a yearly price: of the month). From the next one on the
/// plan's own credits are granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanChange {
    /// The share of the difference between the plans that is paid for.
    #[default]
    Prorated,
    /// The whole difference.
    Full,
    /// Nothing.
    None,
}

impl PlanChange {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One way to pay for a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPrice {
    /// Ours: the plan's id, a dot and a name, such as `basic.monthly`. Unique over the catalog.
    pub id: String,
    /// Absent until the price exists in Stripe.
    #[serde(default)]
    pub stripe_price_id: Option<String>,
    /// Stripe's lookup key, by which the price is known while it has no `stripe_price_id` here.
    #[serde(default)]
    pub lookup_key: Option<String>,
    /// Prices that were this one before its amount changed: whoever pays by one of them still has what this one gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_stripe_price_ids: Vec<String>,
    pub currency: Currency,
    /// Minor units of `currency`, per seat and billing period.
    pub unit_amount: i64,
    pub interval: Interval,
    /// A billing period is so many intervals long.
    #[serde(default = "one")]
    pub interval_count: u32,
}

/// Stripe's billing intervals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    Day,
    Week,
    Month,
    Year,
}

/// That a plan has a feature, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FeatureGrant {
    /// For features of kind `limit`: how many at most; absent: as many as one likes.
    #[serde(default)]
    pub limit: Option<i64>,
    /// For features of kind `list`: the allowed values, such as model names.
    #[serde(default)]
    pub values: Vec<String>,
    /// For features that cost credits, in place of the plan's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overage: Option<Overage>,
    /// For features of kind `metered`: how many within each window; none: as many as one likes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<WindowLimit>,
}

/// Something a plan may entitle to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feature {
    /// `[a-z0-9_]{1,64}`, unique.
    pub id: String,
    /// For people.
    pub name: String,
    pub kind: FeatureKind,
    /// For kind `metered`: credits per unit; absent: its use is counted and costs nothing.
    #[serde(default)]
    pub credit_cost: Option<i64>,
    /// In place of `credit_cost`: each tier's units cost what the tier says. The last one has no end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credit_cost_tiers: Vec<CostTier>,
    /// Whether a capture may spend more than its hold has set aside, or count more units, if credits and limits allow it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub capture_beyond_hold: bool,
    /// For kind `metered`: the event name of the Stripe meter that its use is reported to; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stripe_meter: Option<String>,
}

/// Credits per unit for some of the units of one debit or hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CostTier {
    /// The last unit that costs so much; absent in the last tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to: Option<i64>,
    /// Credits per unit.
    pub each: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// A plan has it or not.
    Boolean,
    /// A plan has up to so many, such as projects.
    Limit,
    /// Each use is counted, and may cost credits.
    Metered,
    /// A plan has some values of it, such as models.
    List,
}

/// Credits sold once, apart from any plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditPack {
    /// `[a-z0-9_]{1,64}`, unique.
    pub id: String,
    /// For people.
    pub name: String,
    pub credits: i64,
    pub prices: Vec<PackPrice>,
    /// Days from the purchase until what remains expires; absent: never.
    #[serde(default)]
    pub expires_after_days: Option<u32>,
    /// Burn order: lower is spent first. A plan's own credits have [`PLAN_CREDITS_PRIORITY`].
    #[serde(default = "default_pack_priority")]
    pub priority: i32,
}

/// One way to pay for a credit pack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackPrice {
    /// Ours: the pack's id, a dot and a name, such as `pack_100.usd`. Unique over the catalog.
    pub id: String,
    /// Absent until the price exists in Stripe.
    #[serde(default)]
    pub stripe_price_id: Option<String>,
    /// Stripe's lookup key, by which the price is known while it has no `stripe_price_id` here.
    #[serde(default)]
    pub lookup_key: Option<String>,
    /// Prices that were this one before its amount changed: whoever pays by one of them still has what this one gives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_stripe_price_ids: Vec<String>,
    pub currency: Currency,
    /// Minor units of `currency` for one pack.
    pub unit_amount: i64,
}

/// How a Stripe object names its price.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PriceKey<'a> {
    pub stripe_price_id: &'a str,
    pub lookup_key: Option<&'a str>,
}

fn yes() -> bool {
    true
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

fn one() -> u32 {
    1
}

fn default_pack_priority() -> i32 {
    DEFAULT_PACK_PRIORITY
}

/// The plan of every account while no catalog says otherwise.
static BUILT_IN_FREE_PLAN: LazyLock<Plan> = LazyLock::new(|| Plan {
    id: "free".to_owned(),
    name: "Free".to_owned(),
    description: None,
    rank: 0,
    default: true,
    prices: Vec::new(),
    credits: CreditAllowance::None,
    rollover: Rollover::None,
    renewal_hours: 0,
    trial: TrialPolicy::default(),
    grace_days: 0,
    dunning: Dunning { restricted_features: None, suspend_after_days: None },
    while_paused: WhilePaused::Stop,
    clawback: ClawbackPolicy::WriteOff,
    plan_change: PlanChange::Prorated,
    per_seat: true,
    overage: Overage::Deny,
    low_balance: None,
    features: BTreeMap::new(),
});

impl Catalog {
    /// Reads and validates a catalog file.
    ///
    /// # Errors
    /// All problems of the file, each with its line. While the text is no TOML at all, those of its syntax only.
    pub fn from_toml(text: &str) -> Result<Catalog, CatalogErrors> {
        parse::catalog(text)
    }

    /// Checks a catalog that came another way than [`Catalog::from_toml`], which has done it already.
    ///
    /// # Errors
    /// All problems, each with line 0, for there are no lines.
    pub fn validate(&self) -> Result<(), CatalogErrors> {
        let problems = validate::problems(self, &Default::default());
        errors::result((), problems, |_| 0)
    }

    /// What holds when no catalog file is configured: a free plan `free` with neither credits nor features.
    pub fn empty() -> Catalog {
        Catalog {
            plans: vec![BUILT_IN_FREE_PLAN.clone()],
            credit_packs: Vec::new(),
            features: Vec::new(),
            credit_display_scale: 0,
        }
    }

    /// The catalog with one plan in place of the one of its id, or added.
    ///
    /// # Errors
    /// All problems that it would have, as far as can be told those of this plan.
    pub fn with_plan(mut self, plan: Plan) -> Result<Catalog, CatalogErrors> {
        self.plans.retain(|known| known.id != plan.id);
        self.plans.push(plan);
        self.validate()?;
        self.sort();
        Ok(self)
    }

    pub fn plan(&self, id: &str) -> Option<&Plan> {
        self.plans.iter().find(|plan| plan.id == id)
    }

    /// The plan of an account without a subscription. A catalog that never passed validation and has no default plan
    /// answers with the built-in free plan, never with one that costs money.
    pub fn default_plan(&self) -> &Plan {
        self.plans.iter().find(|plan| plan.default).unwrap_or(&BUILT_IN_FREE_PLAN)
    }

    /// The plan and price that a subscription or invoice line of this price is for.
    ///
    /// By Stripe price id first, then by a former one; a lookup key counts only where the catalog's price states no id, because Stripe lets
    /// a lookup key move to another price.
    pub fn plan_of_price(&self, price: PriceKey<'_>) -> Option<(&Plan, &PlanPrice)> {
        let all = || self.plans.iter().flat_map(|plan| plan.prices.iter().map(move |price| (plan, price)));
        all()
            .find(|(_, ours)| ours.stripe_price_id.as_deref() == Some(price.stripe_price_id))
            .or_else(|| all().find(|(_, ours)| price.was(&ours.former_stripe_price_ids)))
            .or_else(|| all().find(|(_, ours)| price.matches_lookup_key(&ours.stripe_price_id, &ours.lookup_key)))
    }

    /// Whether a plan's price is known by its lookup key alone: whoever knows a price's id cannot tell that it is none of them.
    pub fn names_prices_by_lookup_key(&self) -> bool {
        let prices = self.plans.iter().flat_map(|plan| &plan.prices);
        prices.into_iter().any(|price| price.stripe_price_id.is_none() && price.lookup_key.is_some())
    }

    pub fn pack(&self, id: &str) -> Option<&CreditPack> {
        self.credit_packs.iter().find(|pack| pack.id == id)
    }

    /// The credit pack and price that a checkout line of this price is for; see [`Catalog::plan_of_price`].
    pub fn pack_of_price(&self, price: PriceKey<'_>) -> Option<(&CreditPack, &PackPrice)> {
        let all = || self.credit_packs.iter().flat_map(|pack| pack.prices.iter().map(move |price| (pack, price)));
        all()
            .find(|(_, ours)| ours.stripe_price_id.as_deref() == Some(price.stripe_price_id))
            .or_else(|| all().find(|(_, ours)| price.was(&ours.former_stripe_price_ids)))
            .or_else(|| all().find(|(_, ours)| price.matches_lookup_key(&ours.stripe_price_id, &ours.lookup_key)))
    }

    pub fn feature(&self, id: &str) -> Option<&Feature> {
        self.features.iter().find(|feature| feature.id == id)
    }

    /// Identity of this version: SHA-256, in hex, of the canonical JSON. Two catalogs that say the same in another
    /// order (of plans, prices, packs or features) have the same digest.
    pub fn digest(&self) -> String {
        let mut ordered = self.clone();
        ordered.sort();
        let mut json = serde_json::to_value(&ordered).expect("a catalog has only string keys and finite numbers");
        json.sort_all_objects();
        hex::encode(Sha256::digest(json.to_string()))
    }

    /// The order in which people want to read it, whatever the order of the file.
    fn sort(&mut self) {
        self.plans.sort_by(|a, b| (a.rank, &a.id).cmp(&(b.rank, &b.id)));
        self.plans.iter_mut().for_each(|plan| plan.prices.sort_by(|a, b| a.id.cmp(&b.id)));
        self.plans.iter_mut().for_each(|plan| plan.dunning.sort());
        let grants = self.plans.iter_mut().flat_map(|plan| plan.features.values_mut());
        grants.for_each(|grant| grant.windows.sort_by_key(|window| window.per));
        self.credit_packs.sort_by(|a, b| (a.credits, &a.id).cmp(&(b.credits, &b.id)));
        self.credit_packs.iter_mut().for_each(|pack| pack.prices.sort_by(|a, b| a.id.cmp(&b.id)));
        self.features.sort_by(|a, b| a.id.cmp(&b.id));
    }
}

impl PriceKey<'_> {
    fn was(&self, former_stripe_price_ids: &[String]) -> bool {
        former_stripe_price_ids.iter().any(|former| former == self.stripe_price_id)
    }

    fn matches_lookup_key(&self, stripe_price_id: &Option<String>, lookup_key: &Option<String>) -> bool {
        stripe_price_id.is_none() && lookup_key.is_some() && lookup_key.as_deref() == self.lookup_key
    }
}
