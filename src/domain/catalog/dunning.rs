//! What a plan does while a payment of it is overdue: after the days of grace, which features stay, and when all of them
//! stop.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Plan;
use super::errors::{path, quoted};
use super::reader::{Reader, Section};
use super::validate::{MAX_GRACE_DAYS, Rules, declaration_is_unreadable};

/// What follows on a plan's days of grace.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dunning {
    /// Features of the plan that stay as the plan has them. `None`: the account is on the default plan instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restricted_features: Option<Vec<String>>,
    /// Days after the failed payment, those of grace among them, until nothing is allowed any more. `None`: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend_after_days: Option<u32>,
}

impl Dunning {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a feature of the plan stays once the days of grace are over.
    pub fn keeps(&self, feature: &str) -> bool {
        self.restricted_features.iter().flatten().any(|kept| kept == feature)
    }

    /// The order of restricted features means nothing.
    pub(super) fn sort(&mut self) {
        if let Some(features) = &mut self.restricted_features {
            features.sort();
        }
    }
}

impl Reader {
    pub(super) fn dunning(&mut self, section: &Section<'_>) -> Dunning {
        self.refuse_unknown_names(section, &["restricted_features", "suspend_after_days"]);
        Dunning {
            restricted_features: self.field(section, "restricted_features").map(|field| self.texts(&field)),
            suspend_after_days: self.optional_integer(section, "suspend_after_days"),
        }
    }
}

impl Rules<'_> {
    pub(super) fn dunning(&mut self, at: &str, plan: &Plan) {
        let Dunning { restricted_features, suspend_after_days } = &plan.dunning;
        if plan.default && !plan.dunning.is_default() {
            self.problem(at, "the default plan costs nothing, so no payment of it is overdue (leave dunning out)");
        }
        if let Some(days) = *suspend_after_days {
            let field = path(at, "suspend_after_days");
            self.within(&field, days.into(), 1, MAX_GRACE_DAYS);
            if days < plan.grace_days {
                let message = format!("{days} lies within the {} days of grace (write at least that)", plan.grace_days);
                self.problem(&field, message);
            }
        }
        let field = path(at, "restricted_features");
        let mut met = BTreeSet::new();
        for feature in restricted_features.iter().flatten() {
            if !met.insert(feature) {
                self.problem(&field, format!("{} stands in the list twice (remove one)", quoted(feature)));
            }
            let grant = path(&path(&path("plans", &plan.id), "features"), feature);
            let is_readable = !declaration_is_unreadable(feature, self.unreadable) && !self.unreadable.contains(&grant);
            if is_readable && !plan.features.contains_key(feature) {
                let message = format!("{} is no feature of the plan (name those that stay)", quoted(feature));
                self.problem(&field, message);
            }
        }
    }
}
