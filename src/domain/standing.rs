//! Which plan an account is on, and whether it may use a feature.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, CreditAllowance, FeatureGrant, Overage, Per, Plan, PlanPrice, PriceKey, WhilePaused};
use super::credit::{Access, Credits};
use super::dunning::{Overdue, Stage};
use super::limits::{LimitNow, limits_at, period_of, tightest};
use super::overrides::{Override, ruling};

/// The plan in force, and the subscription behind it.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// `None` when the deciding subscription's price is named by no plan.
    pub plan: Option<&'a Plan>,
    /// The plan's price that the deciding subscription pays by.
    pub price: Option<&'a PlanPrice>,
    /// `None` on the default plan.
    pub subscription: Option<&'a Access>,
    /// A payment of the subscription failed, or of the one that would decide, were it paid.
    pub overdue: Option<Overdue>,
}

/// How an account stands with its subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountState {
    Active,
    Trialing,
    /// A payment failed, and the plan's days of grace are running.
    InGrace,
    /// They are over: the features that the plan keeps for that go on, or the default plan holds.
    Restricted,
    /// The subscription is paused, whether or not its features go on.
    Paused,
    /// Suspended, by a caller or because a payment stayed overdue: nothing is allowed.
    Suspended,
    /// No subscription decides: the default plan does.
    Free,
}

/// Why a feature may or may not be used. The codes are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The plan includes it, and credits and limits suffice.
    Included,
    /// The plan includes it without limit.
    Unlimited,
    /// Included; a payment failed, and the days of grace are running.
    InGrace,
    /// Included; a payment is overdue, and the feature is one of those that go on all the same.
    Restricted,
    /// An override allows it.
    Override,
    /// An override denies it.
    OverrideDenied,
    /// The account is suspended.
    Suspended,
    /// A payment stayed overdue for so long that nothing is allowed.
    SuspendedUnpaid,
    /// A paused subscription would include it.
    Paused,
    /// The catalog knows no such feature.
    UnknownFeature,
    /// The plan does not include it.
    NotInPlan,
    /// A payment failed, and the days of grace are over.
    PaymentOverdue,
    /// More was asked than the limit, or than is left of it in its window.
    LimitExceeded,
    /// The plan includes it, and lets it go beyond the credits there are.
    Overage,
    /// Too little credit.
    InsufficientCredits,
    /// So much costs more credits than one debit may take.
    OutOfRange,
}

/// The answer to "may this account do this now?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entitlement<'a> {
    pub allowed: bool,
    pub reason: Reason,
    pub feature: &'a str,
    pub plan: Option<&'a str>,
    pub state: AccountState,
    /// While a payment is overdue: how far it has come, and what follows when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dunning: Option<Overdue>,
    /// Units that the credits still buy and the limits still allow; `None` when neither bounds it.
    pub remaining: Option<i64>,
    /// The limit; of several, the one that allows least now.
    pub limit: Option<i64>,
    /// The window that `limit` is for; `None` for features that are not metered.
    pub per: Option<Per>,
    /// When that window ends.
    pub resets_at: Option<DateTime<Utc>>,
    pub unlimited: bool,
    /// Such as the models a tier may use.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub values: Cow<'a, [String]>,
    /// Every limit, from the shortest window to the longest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<LimitNow>,
    #[serde(rename = "override")]
    pub overridden: Option<OverrideSeen<'a>>,
}

/// The override that decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OverrideSeen<'a> {
    pub expires_at: Option<DateTime<Utc>>,
    pub reason: Option<&'a str>,
}

impl<'a> Standing<'a> {
    /// Decides at `now`: of the subscriptions that grant access, the one on the highest plan; else the default plan. One that
    /// is paid for, or in grace, comes before one that is overdue, and that before one that is suspended for it.
    pub fn of(credits: &'a Credits, catalog: &'a Catalog, now: DateTime<Utc>) -> Self {
        let best =
            credits.access.iter().filter_map(|access| Self::through(access, catalog, now)).max_by_key(|standing| {
                let openness = std::cmp::Reverse(standing.stage().filter(|stage| *stage != Stage::InGrace));
                let created = standing.subscription.map(|access| (access.created, access.subscription.as_str()));
                (openness, standing.plan.map(|plan| plan.rank), created)
            });
        best.unwrap_or_else(|| Self::on_default_plan(catalog, None))
    }

    fn on_default_plan(catalog: &'a Catalog, overdue: Option<Overdue>) -> Self {
        Self { plan: Some(catalog.default_plan()), price: None, subscription: None, overdue }
    }

    fn through(access: &'a Access, catalog: &'a Catalog, now: DateTime<Utc>) -> Option<Self> {
        let (plan, price) = plan_of(access, catalog).unzip();
        if access.is_paused() && plan.is_none_or(|plan| plan.while_paused == WhilePaused::Stop) {
            return None;
        }
        if !matches!(access.status.as_str(), "active" | "trialing" | "past_due" | "paused" | "unpaid") {
            return None;
        }
        let overdue = Overdue::of(access, plan, now);
        if access.status == "unpaid" && overdue.is_none() {
            return None;
        }
        let is_restricted = overdue.is_some_and(|overdue| overdue.stage == Stage::Restricted);
        if is_restricted && plan.is_none_or(|plan| plan.dunning.restricted_features.is_none()) {
            return Some(Self::on_default_plan(catalog, overdue));
        }
        Some(Self { plan, price, subscription: Some(access), overdue })
    }

    /// How far an overdue payment has come.
    pub fn stage(&self) -> Option<Stage> {
        self.overdue.map(|overdue| overdue.stage)
    }

    /// What the plan grants of a feature, as far as it is paid for.
    pub fn grant(&self, feature: &str) -> Option<&'a FeatureGrant> {
        self.plan?.features.get(feature).filter(|_| self.goes_on(Some(feature)))
    }

    /// Whether what the plan gives for a feature, or for a charge by amount, goes on although a payment is overdue.
    fn goes_on(&self, feature: Option<&str>) -> bool {
        match self.stage().filter(|_| self.subscription.is_some()) {
            None | Some(Stage::InGrace) => true,
            Some(Stage::Restricted) => {
                self.plan.zip(feature).is_some_and(|(plan, feature)| plan.dunning.keeps(feature))
            }
            Some(Stage::Suspended) => false,
        }
    }

    /// How the account stands, of whose credits this is the standing.
    pub fn state(&self, credits: &Credits) -> AccountState {
        if credits.suspension.is_some() {
            return AccountState::Suspended;
        }
        match self.stage() {
            None => {}
            Some(Stage::InGrace) => return AccountState::InGrace,
            Some(Stage::Restricted) => return AccountState::Restricted,
            Some(Stage::Suspended) => return AccountState::Suspended,
        }
        match self.subscription {
            Some(access) if access.is_paused() => AccountState::Paused,
            Some(access) if access.status == "trialing" => AccountState::Trialing,
            Some(_) => AccountState::Active,
            None if credits.access.iter().any(Access::is_paused) => AccountState::Paused,
            None => AccountState::Free,
        }
    }

    /// Whether a charge for a feature, or for an amount, takes no credits. An overdue plan's are without limit only for the
    /// features that it keeps.
    pub fn is_unlimited(&self, feature: Option<&str>) -> bool {
        self.plan.is_some_and(|plan| plan.credits == CreditAllowance::Unlimited) && self.goes_on(feature)
    }

    /// What happens to a charge for a feature, or for an amount, beyond the credits there are.
    pub fn overage(&self, feature: Option<&str>) -> Overage {
        let Some(plan) = self.plan else { return Overage::Deny };
        // Whoever is overdue gets nothing more on credit.
        if self.stage() == Some(Stage::Restricted) {
            return Overage::Deny;
        }
        let grant = feature.and_then(|feature| plan.features.get(feature));
        grant.and_then(|grant| grant.overage).unwrap_or(plan.overage)
    }
}

/// The highest plan among a subscription's items, and the price of it.
fn plan_of<'a>(access: &Access, catalog: &'a Catalog) -> Option<(&'a Plan, &'a PlanPrice)> {
    let plans = access.items.iter().filter_map(|item| {
        let key = PriceKey { stripe_price_id: &item.price, lookup_key: item.lookup_key.as_deref() };
        catalog.plan_of_price(key)
    });
    plans.max_by_key(|(plan, _)| plan.rank)
}

/// May the account use `quantity` units of `feature` at `now`? Authorises no spending: only a debit does.
pub fn check<'a>(
    credits: &'a Credits,
    catalog: &'a Catalog,
    feature: &'a str,
    quantity: i64,
    now: DateTime<Utc>,
) -> Entitlement<'a> {
    let standing = Standing::of(credits, catalog, now);
    let mut answer = Entitlement {
        allowed: false,
        reason: Reason::NotInPlan,
        feature,
        plan: standing.plan.map(|plan| plan.id.as_str()),
        state: standing.state(credits),
        dunning: standing.overdue,
        remaining: None,
        limit: None,
        per: None,
        resets_at: None,
        unlimited: standing.is_unlimited(Some(feature)),
        values: Cow::default(),
        limits: Vec::new(),
        overridden: None,
    };
    let Some(declared) = catalog.feature(feature) else {
        answer.reason = Reason::UnknownFeature;
        return answer;
    };
    let ruling = ruling(credits, &standing, feature, now);
    answer.overridden = ruling.by.map(OverrideSeen::of);
    if answer.state == AccountState::Suspended {
        answer.reason = if credits.suspension.is_some() { Reason::Suspended } else { Reason::SuspendedUnpaid };
        return answer;
    }
    let Some(grant) = ruling.grant else {
        answer.reason = match ruling.by {
            Some(_) => Reason::OverrideDenied,
            None => why_missing(credits, catalog, feature).into(),
        };
        return answer;
    };
    if !grant.windows.is_empty() {
        answer.limits = limits_at(credits, &grant.windows, feature, period_of(credits, &standing, now), now);
    }
    let tightest = tightest(&answer.limits);
    answer.limit = grant.limit.or(tightest.map(|limit| limit.limit));
    answer.per = tightest.map(|limit| limit.per);
    answer.resets_at = tightest.map(|limit| limit.resets_at);
    answer.remaining = tightest.map(|limit| limit.remaining);
    answer.reason = match (ruling.by, standing.stage()) {
        (Some(_), _) => Reason::Override,
        (None, None) => Reason::Included,
        (None, Some(Stage::InGrace)) => Reason::InGrace,
        (None, Some(Stage::Restricted | Stage::Suspended)) => Reason::Restricted,
    };
    answer.allowed = true;
    if grant.limit.or(answer.remaining).is_some_and(|limit| quantity > limit) {
        answer.allowed = false;
        answer.reason = Reason::LimitExceeded;
    }
    if declared.bounded_cost_of(quantity).is_err() {
        answer.allowed = false;
        answer.reason = Reason::OutOfRange;
    }
    if declared.costs_credits() {
        if answer.unlimited {
            if answer.reason == Reason::Included && answer.limits.is_empty() {
                answer.reason = Reason::Unlimited;
            }
        } else {
            let available = credits.available_at(now);
            let units = declared.units_for(available);
            answer.remaining = answer.remaining.into_iter().chain(units).min();
            let most = match standing.overage(Some(feature)) {
                Overage::Deny => available,
                Overage::Limit(limit) => available.saturating_add(limit),
                Overage::Unlimited => i64::MAX,
            };
            // What is free takes nothing, whatever is owed.
            let cost = declared.cost_of(quantity).unwrap_or(i64::MAX);
            if answer.allowed && cost > most.max(0) {
                answer.allowed = false;
                answer.reason = Reason::InsufficientCredits;
            } else if answer.reason == Reason::Included && cost > available.max(0) {
                answer.reason = Reason::Overage;
            }
        }
    }
    answer.values = match grant {
        Cow::Borrowed(grant) => Cow::Borrowed(&grant.values),
        Cow::Owned(grant) => Cow::Owned(grant.values),
    };
    answer
}

impl<'a> OverrideSeen<'a> {
    fn of(known: &'a Override) -> Self {
        Self { expires_at: known.expires_at, reason: known.reason.as_deref() }
    }
}

/// Why the plan in force lacks a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// No subscription would include it.
    NotInPlan,
    /// One that is not paid for would.
    PaymentOverdue,
    /// One that is paused would.
    Paused,
}

impl From<Missing> for Reason {
    fn from(missing: Missing) -> Self {
        match missing {
            Missing::NotInPlan => Self::NotInPlan,
            Missing::PaymentOverdue => Self::PaymentOverdue,
            Missing::Paused => Self::Paused,
        }
    }
}

/// Why the plan in force lacks a feature: a subscription would include it, were it not paused or unpaid.
pub fn why_missing(credits: &Credits, catalog: &Catalog, feature: &str) -> Missing {
    let has = |access: &Access| plan_of(access, catalog).is_some_and(|(plan, _)| plan.features.contains_key(feature));
    let is_unpaid = |access: &Access| access.past_due_since.is_some() || access.status == "unpaid";
    if credits.access.iter().any(|access| is_unpaid(access) && has(access)) {
        Missing::PaymentOverdue
    } else if credits.access.iter().any(|access| access.is_paused() && has(access)) {
        Missing::Paused
    } else {
        Missing::NotInPlan
    }
}
