//! Charges: what a debit or a hold asks for, what that costs, and what pays for it.

use serde::{Deserialize, Serialize};

use super::catalog::{CostTier, Feature, FeatureKind, Overage};
use super::command::MAX_AMOUNT;
use super::credit::{Credits, Draw, is_zero};
use super::draft::{Context, Draft};
use super::ids::LotId;
use super::overrides::ruling;
use super::rejection::Rejection;
use super::standing::{Missing, Standing, why_missing};

/// What a debit or a hold is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charge {
    /// So many units of a feature, at the catalog's cost.
    Feature { feature: String, quantity: i64 },
    /// So many credits.
    Amount(i64),
}

/// A charge with its price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priced {
    /// Credits.
    pub amount: i64,
    pub feature: Option<String>,
    pub quantity: Option<i64>,
}

/// What pays for a charge.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cover {
    /// Empty when the plan is unlimited.
    pub lots: Vec<Draw>,
    /// Credits beyond the lots that the account owes: the plan lets it go so far into debt.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub debt: i64,
    /// Credits beyond the lots that are to be billed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub overage: i64,
    /// The plan is unlimited: nothing is taken.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unlimited: bool,
}

impl Charge {
    /// Credits that the charge costs in the plan in force.
    pub fn price(&self, draft: &Draft<'_>, context: Context<'_>) -> Result<Priced, Rejection> {
        match self {
            Charge::Amount(amount) => {
                require_amount("amount", *amount)?;
                Ok(Priced { amount: *amount, feature: None, quantity: None })
            }
            Charge::Feature { feature, quantity } => {
                require_amount("quantity", *quantity)?;
                let unknown = || Rejection::UnknownFeature { feature: feature.clone() };
                let declared = context.catalog.feature(feature).ok_or_else(unknown)?;
                let standing = Standing::of(&draft.account.credits, context.catalog, context.now);
                let ruling = ruling(&draft.account.credits, &standing, feature, context.now);
                if ruling.grant.is_none() && ruling.by.is_some() {
                    return Err(Rejection::OverrideDenied { feature: feature.clone() });
                }
                if ruling.grant.is_none() {
                    let feature = feature.clone();
                    let plan = || standing.plan.map_or_else(|| "none".to_owned(), |plan| plan.id.clone());
                    return Err(match why_missing(&draft.account.credits, context.catalog, &feature) {
                        Missing::PaymentOverdue => Rejection::PaymentOverdue { feature },
                        Missing::Paused => Rejection::SubscriptionPaused { feature },
                        Missing::NotInPlan => Rejection::FeatureNotInPlan { feature, plan: plan() },
                    });
                }
                if declared.kind != FeatureKind::Metered {
                    return Err(Rejection::FeatureNotMetered { feature: feature.clone() });
                }
                let amount = declared.bounded_cost_of(*quantity)?;
                Ok(Priced { amount, feature: Some(feature.clone()), quantity: Some(*quantity) })
            }
        }
    }
}

impl Credits {
    /// What would pay for `amount` at `now` in the plan in force: lots in burn order, and beyond them what the plan's
    /// overage policy lets pass. The clock must have been settled.
    pub fn cover(&self, amount: i64, feature: Option<&str>, context: Context<'_>) -> Result<Cover, Rejection> {
        let standing = Standing::of(self, context.catalog, context.now);
        // What is free takes nothing, whatever is owed.
        if amount == 0 {
            return Ok(Cover::default());
        }
        if standing.is_unlimited(feature) {
            return Ok(Cover { unlimited: true, ..Cover::default() });
        }
        let available = self.available_at(context.now);
        let from_lots = |amount: i64| self.draw(amount, context.now);
        if amount <= available {
            return Ok(Cover { lots: from_lots(amount), ..Cover::default() });
        }
        let insufficient =
            |overage_left| Err(Rejection::InsufficientCredits { required: amount, available, overage_left });
        match standing.overage(feature) {
            Overage::Deny => insufficient(None),
            // A clawback may have left debt beside lots, so what is left to owe is told by the sum of both.
            Overage::Limit(limit) if available.saturating_sub(amount) < limit.saturating_neg() => {
                insufficient(Some(overage_left(limit, available)))
            }
            Overage::Limit(_) => {
                let lots = from_lots(amount.min(self.spendable_at(context.now)));
                let drawn: i64 = lots.iter().map(|draw| draw.amount).sum();
                Ok(Cover { lots, debt: amount - drawn, ..Cover::default() })
            }
            Overage::Unlimited => {
                let drawn = available.max(0);
                Ok(Cover { lots: from_lots(drawn), overage: amount - drawn, ..Cover::default() })
            }
        }
    }
}

/// Credits that may still be owed where `limit` may be in all: a negative balance has used up some of it.
pub fn overage_left(limit: i64, available: i64) -> i64 {
    limit.saturating_add(available.min(0)).max(0)
}

impl Cover {
    /// Credits by which it lowers what may be spent.
    pub fn taken(&self) -> i64 {
        self.lots.iter().fold(self.debt, |sum, draw| sum.saturating_add(draw.amount))
    }

    /// Takes what came out of one lot out of another. Answers whether there was any.
    pub fn replace_lot(&mut self, from: LotId, into: LotId) -> bool {
        let Some(at) = self.lots.iter().position(|draw| draw.lot == from) else { return false };
        let amount = self.lots.remove(at).amount;
        match self.lots.iter_mut().find(|draw| draw.lot == into) {
            Some(known) => known.amount += amount,
            None => self.lots.insert(at, Draw { lot: into, amount }),
        }
        true
    }

    /// Has up to `most` of what came out of a lot be owed. Answers how much that is.
    pub fn owe(&mut self, lot: LotId, most: i64) -> i64 {
        let Some(draw) = self.lots.iter_mut().find(|draw| draw.lot == lot) else { return 0 };
        let owed = most.clamp(0, draw.amount);
        draw.amount -= owed;
        self.debt += owed;
        self.lots.retain(|draw| draw.amount > 0);
        owed
    }
}

impl Feature {
    /// Whether its use costs credits at all.
    pub fn costs_credits(&self) -> bool {
        self.credit_cost.is_some() || !self.credit_cost_tiers.is_empty()
    }

    /// Credits for so many units in one charge; `None` if that is beyond counting.
    pub fn cost_of(&self, quantity: i64) -> Option<i64> {
        if !self.costs_credits() {
            return Some(0);
        }
        if let Some(each) = self.credit_cost {
            return each.checked_mul(quantity);
        }
        let (mut cost, mut begun) = (0i64, 0i64);
        for CostTier { up_to, each } in &self.credit_cost_tiers {
            let end = up_to.unwrap_or(i64::MAX).min(quantity);
            cost = cost.checked_add(each.checked_mul(end - begun)?)?;
            if end == quantity {
                return Some(cost);
            }
            begun = end;
        }
        None
    }

    /// The same, refused when it is more than one command may move.
    pub fn bounded_cost_of(&self, quantity: i64) -> Result<i64, Rejection> {
        let amount = self.cost_of(quantity).filter(|amount| *amount <= MAX_AMOUNT);
        let max = || self.units_for(MAX_AMOUNT).unwrap_or(MAX_AMOUNT);
        amount.ok_or_else(|| Rejection::OutOfRange { field: "quantity".to_owned(), max: max() })
    }

    /// Units that so many credits were spent on: as many as they buy, and one that was used in part counts as one, else
    /// small amounts would pass every limit uncounted. `None` when they buy any number.
    pub fn units_paid_by(&self, credits: i64) -> Option<i64> {
        let bought = self.units_for(credits)?;
        let is_exact = self.cost_of(bought).is_some_and(|cost| cost >= credits);
        Some(if is_exact { bought } else { bought.saturating_add(1) })
    }

    /// Units that so many credits buy in one charge; `None` when they buy any number.
    pub fn units_for(&self, credits: i64) -> Option<i64> {
        if !self.costs_credits() {
            return None;
        }
        let mut left = credits.max(0);
        if let Some(each) = self.credit_cost {
            return left.checked_div(each);
        }
        let mut begun = 0i64;
        for CostTier { up_to, each } in &self.credit_cost_tiers {
            let units = left.checked_div(*each);
            match (units, up_to) {
                (None, None) => return None,
                (Some(units), None) => return Some(begun.saturating_add(units)),
                (Some(units), Some(up_to)) if units < up_to - begun => return Some(begun + units),
                (_, Some(up_to)) => {
                    left -= each * (up_to - begun);
                    begun = *up_to;
                }
            }
        }
        Some(begun)
    }
}

pub fn require_amount(field: &str, amount: i64) -> Result<(), Rejection> {
    if (1..=MAX_AMOUNT).contains(&amount) {
        return Ok(());
    }
    Err(Rejection::OutOfRange { field: field.to_owned(), max: MAX_AMOUNT })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::FeatureKind;

    fn feature(credit_cost: Option<i64>, tiers: &[(Option<i64>, i64)]) -> Feature {
        Feature {
            id: "render".to_owned(),
            name: "Render".to_owned(),
            kind: FeatureKind::Metered,
            credit_cost,
            credit_cost_tiers: tiers.iter().map(|(up_to, each)| CostTier { up_to: *up_to, each: *each }).collect(),
            capture_beyond_hold: false,
            stripe_meter: None,
        }
    }

    #[test]
    fn each_tiers_units_cost_what_the_tier_says() {
        let tiered = feature(None, &[(Some(10), 3), (Some(20), 2), (None, 1)]);
        let costs = [(1, 3), (10, 30), (11, 32), (20, 50), (21, 51), (100, 130)];
        assert_eq!(costs.map(|(quantity, _)| (quantity, tiered.cost_of(quantity).expect("countable"))), costs);
        assert_eq!(feature(None, &[(None, 2)]).cost_of(i64::MAX), None);
        assert_eq!(feature(Some(2), &[]).cost_of(21), Some(42));
    }

    #[test]
    fn so_many_units_are_the_most_that_so_many_credits_buy() {
        let free_first = feature(None, &[(Some(5), 0), (None, 2)]);
        for feature in [feature(Some(3), &[]), feature(None, &[(Some(10), 3), (Some(20), 2), (None, 1)]), free_first] {
            for credits in 0..200 {
                let units = feature.units_for(credits).expect("bounded");
                assert!(units == 0 || feature.cost_of(units).is_some_and(|cost| cost <= credits), "{credits}: {units}");
                assert!(feature.cost_of(units + 1).is_none_or(|cost| cost > credits), "{credits}: {units}");
            }
        }
        assert_eq!(feature(None, &[(Some(5), 1), (None, 0)]).units_for(5), None);
        assert_eq!(feature(None, &[(Some(5), 1), (None, 0)]).units_for(4), Some(4));
        assert_eq!(feature(Some(3), &[]).units_for(-3), Some(0));
    }

    #[test]
    fn a_unit_that_was_used_in_part_counts_as_one() {
        let paid = |feature: &Feature, credits: &[i64]| -> Vec<Option<i64>> {
            credits.iter().map(|credits| feature.units_paid_by(*credits)).collect()
        };
        assert_eq!(paid(&feature(Some(3), &[]), &[1, 3, 4, 6]), [Some(1), Some(1), Some(2), Some(2)]);
        let tiered = feature(None, &[(Some(10), 3), (None, 2)]);
        assert_eq!(paid(&tiered, &[29, 30, 31, 32]), [Some(10), Some(10), Some(11), Some(11)]);
        assert_eq!(paid(&feature(None, &[(Some(5), 1), (None, 0)]), &[4, 5]), [Some(4), None]);
    }
}
