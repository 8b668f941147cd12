//! Which plan an account is on, and whether it may use a feature.

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, CreditAllowance, Overage, Plan, PriceKey};
use super::credit::{Access, Credits};

/// The plan in force, and the subscription behind it.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// `None` when the deciding subscription's price is named by no plan.
    pub plan: Option<&'a Plan>,
    /// `None` on the default plan.
    pub subscription: Option<&'a Access>,
    /// A payment failed, and the plan's days of grace are running.
    pub in_grace: bool,
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
    /// The catalog knows no such feature.
    UnknownFeature,
    /// The plan does not include it.
    NotInPlan,
    /// A payment failed, and the days of grace are over.
    PaymentOverdue,
    /// More was asked than the plan's limit.
    LimitExceeded,
    /// The plan includes it, and lets it go beyond the credits there are.
    Overage,
    /// Too little credit.
    InsufficientCredits,
}

/// The answer to "may this account do this now?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entitlement {
    pub allowed: bool,
    pub reason: Reason,
    pub feature: String,
    pub plan: Option<String>,
    /// Units that the credits still buy; `None` when credits do not bound it.
    pub remaining: Option<i64>,
    pub limit: Option<i64>,
    pub unlimited: bool,
    /// Such as the models a tier may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

impl<'a> Standing<'a> {
    /// Decides at `now`: of the subscriptions that grant access, the one on the highest plan; else the default plan.
    pub fn of(credits: &'a Credits, catalog: &'a Catalog, now: DateTime<Utc>) -> Self {
        let best =
            credits.access.iter().filter_map(|access| Self::through(access, catalog, now)).max_by_key(|standing| {
                let created = standing.subscription.map(|access| (access.created, access.subscription.as_str()));
                (standing.plan.map(|plan| plan.rank), created)
            });
        best.unwrap_or(Self { plan: Some(catalog.default_plan()), subscription: None, in_grace: false })
    }

    fn through(access: &'a Access, catalog: &'a Catalog, now: DateTime<Utc>) -> Option<Self> {
        let plan = plan_of(access, catalog);
        let open = matches!(access.status.as_str(), "active" | "trialing" | "past_due");
        let in_grace = open && access.past_due_since.is_some();
        let grace_over = access.past_due_since.is_some_and(|since| {
            let days = plan.map_or(0, |plan| plan.grace_days);
            let since = DateTime::from_timestamp(since, 0);
            let end = since.and_then(|since| since.checked_add_signed(Duration::days(i64::from(days))));
            end.is_some_and(|end| now >= end)
        });
        (open && !grace_over).then_some(Self { plan, subscription: Some(access), in_grace })
    }

    pub fn is_unlimited(&self) -> bool {
        self.plan.is_some_and(|plan| plan.credits == CreditAllowance::Unlimited)
    }

    /// What happens to a charge for a feature, or for an amount, beyond the credits there are.
    pub fn overage(&self, feature: Option<&str>) -> Overage {
        let Some(plan) = self.plan else { return Overage::Deny };
        let grant = feature.and_then(|feature| plan.features.get(feature));
        grant.and_then(|grant| grant.overage).unwrap_or(plan.overage)
    }
}

/// The highest plan among a subscription's items.
pub fn plan_of<'a>(access: &Access, catalog: &'a Catalog) -> Option<&'a Plan> {
    let plans = access.items.iter().filter_map(|item| {
        let key = PriceKey { stripe_price_id: &item.price, lookup_key: item.lookup_key.as_deref() };
        catalog.plan_of_price(key).map(|(plan, _)| plan)
    });
    plans.max_by_key(|plan| plan.rank)
}

/// May the account use `quantity` units of `feature` at `now`? Authorises no spending: only a debit does.
pub fn check(credits: &Credits, catalog: &Catalog, feature: &str, quantity: i64, now: DateTime<Utc>) -> Entitlement {
    let standing = Standing::of(credits, catalog, now);
    let mut answer = Entitlement {
        allowed: false,
        reason: Reason::NotInPlan,
        feature: feature.to_owned(),
        plan: standing.plan.map(|plan| plan.id.clone()),
        remaining: None,
        limit: None,
        unlimited: standing.is_unlimited(),
        values: Vec::new(),
    };
    let Some(declared) = catalog.feature(feature) else {
        answer.reason = Reason::UnknownFeature;
        return answer;
    };
    let Some(grant) = standing.plan.and_then(|plan| plan.features.get(feature)) else {
        if is_overdue(credits, catalog, feature) {
            answer.reason = Reason::PaymentOverdue;
        }
        return answer;
    };
    answer.limit = grant.limit;
    answer.values = grant.values.clone();
    answer.reason = if standing.in_grace { Reason::InGrace } else { Reason::Included };
    answer.allowed = true;
    if grant.limit.is_some_and(|limit| quantity > limit) {
        answer.allowed = false;
        answer.reason = Reason::LimitExceeded;
    }
    if declared.costs_credits() {
        if answer.unlimited {
            if answer.allowed && !standing.in_grace {
                answer.reason = Reason::Unlimited;
            }
        } else {
            let available = credits.available_at(now);
            answer.remaining = declared.units_for(available);
            let beyond = match standing.overage(Some(feature)) {
                Overage::Deny => Some(0),
                Overage::Limit(limit) => Some(limit),
                Overage::Unlimited => None,
            };
            let cost = declared.cost_of(quantity);
            let is_covered = cost.is_some_and(|cost| beyond.is_none_or(|more| cost <= available.saturating_add(more)));
            if !is_covered {
                answer.allowed = false;
                answer.reason = Reason::InsufficientCredits;
            } else if answer.allowed && cost.is_some_and(|cost| cost > available) && !standing.in_grace {
                answer.reason = Reason::Overage;
            }
        }
    }
    answer
}

/// A subscription would include the feature, had it been paid for.
fn is_overdue(credits: &Credits, catalog: &Catalog, feature: &str) -> bool {
    credits.access.iter().any(|access| {
        let unpaid = access.past_due_since.is_some() || access.status == "unpaid";
        unpaid && plan_of(access, catalog).is_some_and(|plan| plan.features.contains_key(feature))
    })
}
