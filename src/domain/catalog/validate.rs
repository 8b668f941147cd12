//! The rules a catalog must keep, however it was written.

use super::errors::{Problem, nearest, path, quoted};
use super::{
    Catalog, CostTier, CreditAllowance, CreditPack, Feature, FeatureGrant, FeatureKind, Overage, Plan, PlanChange,
    Rollover, TrialCredits, WindowLimit,
};
use std::collections::{BTreeMap, BTreeSet};

/// The most credits one grant, cap or cost may state: a million million, so that millions of seats still fit an i64.
const MAX_CREDITS: i64 = 1_000_000_000_000;
/// Stripe's longest trial.
const MAX_TRIAL_DAYS: i64 = 730;
pub(super) const MAX_GRACE_DAYS: i64 = 365;
/// Beyond, credits would roll over in all but name.
const MAX_RENEWAL_HOURS: i64 = 72;
const MAX_EXPIRY_DAYS: i64 = 36_500;
const MAX_DISPLAY_SCALE: i64 = 9;
pub(super) const MAX_ID_CHARS: usize = 64;
const MAX_NAME_CHARS: usize = 200;
/// Stripe's own limit of a meter's event name.
const MAX_METER_CHARS: usize = 100;
const MAX_DESCRIPTION_CHARS: usize = 2_000;

/// Everything wrong with the catalog, except about the paths in `unreadable`, whose problems are reported already.
pub(super) fn problems(catalog: &Catalog, unreadable: &BTreeSet<String>) -> Vec<Problem> {
    let mut rules = Rules { catalog, unreadable, problems: Vec::new(), seen: BTreeMap::new() };
    rules.within("credit_display_scale", catalog.credit_display_scale.into(), 0, MAX_DISPLAY_SCALE);
    catalog.features.iter().for_each(|feature| rules.feature(feature));
    catalog.plans.iter().for_each(|plan| rules.plan(plan));
    catalog.credit_packs.iter().for_each(|pack| rules.pack(pack));
    rules.plans_together();
    rules.problems
}

/// Whether it cannot be known if and how a feature is declared.
pub(super) fn declaration_is_unreadable(feature: &str, unreadable: &BTreeSet<String>) -> bool {
    let declaration = path("features", feature);
    unreadable.contains("features")
        || unreadable.contains(&declaration)
        || unreadable.contains(&path(&declaration, "kind"))
}

/// What to say of a plan that names a feature nobody declared.
pub(super) fn undeclared_feature<'k>(feature: &str, declared: impl IntoIterator<Item = &'k str>) -> String {
    match nearest(feature, declared) {
        Some(meant) => format!("is not a declared feature (did you mean `{meant}`?)"),
        None => format!("is not a declared feature (declare it: [{}])", path("features", feature)),
    }
}

pub(super) struct Rules<'c> {
    catalog: &'c Catalog,
    pub(super) unreadable: &'c BTreeSet<String>,
    problems: Vec<Problem>,
    /// Where each thing that must be unique was met first, by (what it is, its value).
    seen: BTreeMap<(&'static str, String), String>,
}

impl Rules<'_> {
    pub(super) fn problem(&mut self, field: &str, message: impl Into<String>) {
        if !self.unreadable.contains(field) {
            self.problems.push(Problem { field: field.to_owned(), message: message.into() });
        }
    }

    fn plans_together(&mut self) {
        if self.catalog.plans.is_empty() {
            // A table that could not be read may have been the plan that is missed.
            if self.unreadable.iter().all(|field| field != "plans" && !field.starts_with("plans.")) {
                self.problem("plans", "there is no plan (add one for accounts that pay nothing: [plans.free])");
            }
            return;
        }
        let defaults: Vec<_> = self.catalog.plans.iter().filter(|plan| plan.default).collect();
        match defaults[..] {
            [] => {
                let unknown = |field: &String| is_plan_path(field) || field.ends_with(".default");
                if !self.unreadable.iter().any(unknown) {
                    self.problem("plans", "no plan is the default (write `default = true` in the free one)");
                }
            }
            [default] => self.default_ranks_lowest(default),
            [first, ref others @ ..] => {
                for plan in others {
                    let message = format!("{} is the default already (keep one of them)", path("plans", &first.id));
                    self.problem(&path(&path("plans", &plan.id), "default"), message);
                }
            }
        }
    }

    fn default_ranks_lowest(&mut self, default: &Plan) {
        let rank_of = |plan: &Plan| path(&path("plans", &plan.id), "rank");
        let lowest = self
            .catalog
            .plans
            .iter()
            .filter(|plan| plan.id != default.id && !self.unreadable.contains(&rank_of(plan)))
            .min_by_key(|plan| plan.rank);
        if let Some(lower) = lowest.filter(|plan| plan.rank < default.rank) {
            let message = format!(
                "the default plan must rank lowest, but {} ranks {} (write a rank below it)",
                path("plans", &lower.id),
                lower.rank
            );
            self.problem(&rank_of(default), message);
        }
    }

    fn plan(&mut self, plan: &Plan) {
        let at = path("plans", &plan.id);
        self.id(&at, &plan.id, "plan");
        self.name(&path(&at, "name"), &plan.name);
        if let Some(description) = &plan.description {
            self.text(&path(&at, "description"), description, MAX_DESCRIPTION_CHARS, &['\n']);
        }
        let rank = path(&at, "rank");
        if !self.unreadable.contains(&rank) {
            self.unique(
                "rank",
                &plan.rank.to_string(),
                &rank,
                "the higher rank decides when an account has several plans",
            );
        }
        if let CreditAllowance::PerPeriod(credits) = plan.credits {
            self.within(&path(&at, "credits"), credits, 0, MAX_CREDITS);
        }
        if let Rollover::Capped(cap) = plan.rollover {
            self.within(&path(&path(&at, "rollover"), "cap"), cap, 0, MAX_CREDITS);
        }
        let grants_credits = matches!(plan.credits, CreditAllowance::PerPeriod(_));
        if plan.rollover != Rollover::None && !grants_credits && !self.unreadable.contains(&path(&at, "credits")) {
            self.problem(
                &path(&at, "rollover"),
                "there are no credits to roll over (state a number of credits, or leave rollover out)",
            );
        }
        let renewal_hours = path(&at, "renewal_hours");
        self.within(&renewal_hours, plan.renewal_hours.into(), 0, MAX_RENEWAL_HOURS);
        if plan.default {
            self.nothing_outlives_free_months(&at, plan);
        } else if plan.renewal_hours > 0 && (plan.rollover != Rollover::None || !grants_credits) {
            self.problem(&renewal_hours, "only for credits that do not roll over (leave renewal_hours out)");
        }
        self.overage(&path(&at, "overage"), plan.overage);
        if plan.plan_change != PlanChange::default()
            && !grants_credits
            && !self.unreadable.contains(&path(&at, "credits"))
        {
            self.problem(
                &path(&at, "plan_change"),
                "there are no credits for an upgrade to add (state a number of credits, or leave plan_change out)",
            );
        }
        let trial = path(&at, "trial");
        self.within(&path(&trial, "days"), plan.trial.days.into(), 0, MAX_TRIAL_DAYS);
        if let TrialCredits::Amount(credits) = plan.trial.credits {
            self.within(&path(&trial, "credits"), credits, 0, MAX_CREDITS);
        }
        self.within(&path(&at, "grace_days"), plan.grace_days.into(), 0, MAX_GRACE_DAYS);
        self.dunning(&path(&at, "dunning"), plan);
        if let Some(credits) = plan.low_balance {
            self.within(&path(&at, "low_balance"), credits, 1, MAX_CREDITS);
        }
        for price in &plan.prices {
            let field = self.price(&at, &plan.id, price.into());
            self.interval(&path(&field, "interval_count"), price.interval, price.interval_count);
            if plan.default && price.unit_amount > 0 {
                self.problem(
                    &path(&field, "unit_amount"),
                    "the default plan costs nothing (write 0, leave the price out, or make another plan the default)",
                );
            }
        }
        for (feature, grant) in &plan.features {
            self.grant(&path(&path(&at, "features"), feature), feature, grant);
        }
    }

    /// The default plan's months come without a payment, and end with what is left of them.
    fn nothing_outlives_free_months(&mut self, at: &str, plan: &Plan) {
        if plan.rollover != Rollover::None && matches!(plan.credits, CreditAllowance::PerPeriod(_)) {
            self.problem(
                &path(at, "rollover"),
                "the default plan's months do not roll over (leave rollover out, or make another plan the default)",
            );
        }
        if plan.renewal_hours > 0 {
            self.problem(
                &path(at, "renewal_hours"),
                "the default plan has no renewal to wait for (leave renewal_hours out, or make another plan the default)",
            );
        }
    }

    fn pack(&mut self, pack: &CreditPack) {
        let at = path("credit_packs", &pack.id);
        self.id(&at, &pack.id, "credit pack");
        self.name(&path(&at, "name"), &pack.name);
        self.within(&path(&at, "credits"), pack.credits, 1, MAX_CREDITS);
        if let Some(days) = pack.expires_after_days {
            self.within(&path(&at, "expires_after_days"), days.into(), 1, MAX_EXPIRY_DAYS);
        }
        let prices = path(&at, "prices");
        let price_unreadable = self.unreadable.iter().any(|field| field.starts_with(&prices));
        if pack.prices.is_empty() && !price_unreadable {
            self.problem(&prices, format!("a pack needs a price (add one: [{prices}.usd])"));
        }
        for price in &pack.prices {
            self.price(&at, &pack.id, price.into());
        }
    }

    fn feature(&mut self, feature: &Feature) {
        let at = path("features", &feature.id);
        self.id(&at, &feature.id, "feature");
        self.name(&path(&at, "name"), &feature.name);
        if let Some(cost) = feature.credit_cost {
            let field = path(&at, "credit_cost");
            self.within(&field, cost, 1, MAX_CREDITS);
        }
        let field = path(&at, "credit_cost");
        self.cost_tiers(&field, &feature.credit_cost_tiers);
        let is_metered = feature.kind == FeatureKind::Metered || self.unreadable.contains(&path(&at, "kind"));
        if feature.costs_credits() && !is_metered {
            self.problem(&field, "only a metered feature costs credits (write kind = \"metered\", or no credit_cost)");
        }
        if feature.capture_beyond_hold && !is_metered {
            let field = path(&at, "capture_beyond_hold");
            self.problem(
                &field,
                "only a metered feature is held (write kind = \"metered\", or no capture_beyond_hold)",
            );
        }
        if let Some(meter) = &feature.stripe_meter {
            let field = path(&at, "stripe_meter");
            self.text(&field, meter, MAX_METER_CHARS, &[]);
            if !is_metered {
                self.problem(
                    &field,
                    "only a metered feature is reported to a meter (write kind = \"metered\", or no stripe_meter)",
                );
            }
        }
    }

    fn cost_tiers(&mut self, field: &str, tiers: &[CostTier]) {
        let mut begun = 0;
        for (n, tier) in tiers.iter().enumerate() {
            self.within(&path(field, "each"), tier.each, 0, MAX_CREDITS);
            if let Some(up_to) = tier.up_to {
                self.within(&path(field, "up_to"), up_to, 1, MAX_CREDITS);
            }
            match tier.up_to {
                Some(up_to) if up_to <= begun => {
                    self.problem(field, format!("the tier up to {up_to} begins past its end (order them by up_to)"));
                }
                Some(up_to) => begun = up_to,
                None if n + 1 < tiers.len() => self.problem(field, "only the last tier has no up_to (add one)"),
                None => {}
            }
        }
        if tiers.last().is_some_and(|tier| tier.up_to.is_some()) {
            self.problem(field, "the last tier must have no end (leave its up_to out)");
        }
        if !tiers.is_empty() && tiers.iter().all(|tier| tier.each == 0) {
            self.problem(field, "no tier costs anything (leave credit_cost out)");
        }
    }

    fn overage(&mut self, field: &str, overage: Overage) {
        if let Overage::Limit(limit) = overage {
            self.within(&path(field, "limit"), limit, 1, MAX_CREDITS);
        }
    }

    fn grant(&mut self, at: &str, feature: &str, grant: &FeatureGrant) {
        if declaration_is_unreadable(feature, self.unreadable) {
            return;
        }
        let Some(declared) = self.catalog.feature(feature) else {
            let known = self.catalog.features.iter().map(|feature| feature.id.as_str());
            return self.problem(at, undeclared_feature(feature, known));
        };
        if !grant.windows.is_empty() && declared.kind != FeatureKind::Metered {
            self.problem(at, "is not metered, so it has no limit within a window (leave `per` out)");
        }
        self.windows(at, &grant.windows);
        let has_values = !grant.values.is_empty();
        if let Some(overage) = grant.overage {
            self.overage(&path(at, "overage"), overage);
            if !declared.costs_credits() {
                self.problem(&path(at, "overage"), "the feature costs no credits (leave it out)");
            }
        }
        match (declared.kind, grant.limit, has_values) {
            (FeatureKind::Boolean, None, false) | (FeatureKind::Metered, None, false) => {}
            (FeatureKind::Limit, None, false) | (FeatureKind::List, None, true) => {}
            (FeatureKind::Limit, Some(limit), false) => self.within(at, limit, 0, i64::MAX),
            (FeatureKind::Boolean, ..) => self.problem(at, "is a boolean feature (write true or false)"),
            (FeatureKind::Metered, ..) => {
                self.problem(
                    at,
                    "is a metered feature (write true, false, or a limit with its window: { limit = 100, per = \"day\" })",
                );
            }
            (FeatureKind::Limit, ..) => self.problem(at, "is a limit (write a number such as 5, or \"unlimited\")"),
            (FeatureKind::List, ..) => self.problem(at, "is a list (write its values, such as [\"a\", \"b\"])"),
        }
        let mut met = BTreeSet::new();
        for value in &grant.values {
            self.text(at, value, MAX_NAME_CHARS, &[]);
            if !met.insert(value) {
                self.problem(at, format!("{} stands in the list twice (remove one)", quoted(value)));
            }
        }
    }

    fn windows(&mut self, at: &str, windows: &[WindowLimit]) {
        let mut met = BTreeSet::new();
        for WindowLimit { limit, per } in windows {
            self.within(at, *limit, 1, MAX_CREDITS);
            if !met.insert(per) {
                self.problem(at, format!("has two limits per {} (remove one)", per.as_str()));
            }
        }
    }

    fn id(&mut self, at: &str, id: &str, what: &'static str) {
        if !is_id(id) {
            self.problem(at, format!("{} is no {what} id (use 1 to {MAX_ID_CHARS} of a-z, 0-9 and _)", quoted(id)));
        }
        self.unique(what, id, at, "name one of them differently");
    }

    fn name(&mut self, field: &str, name: &str) {
        self.text(field, name, MAX_NAME_CHARS, &[]);
    }

    fn text(&mut self, field: &str, text: &str, max_chars: usize, allowed: &[char]) {
        if text.trim().is_empty() {
            self.problem(field, "is empty (write at least one letter)");
        }
        if text.chars().count() > max_chars {
            self.problem(field, format!("is too long (write at most {max_chars} characters)"));
        }
        if text.chars().any(|letter| letter.is_control() && !allowed.contains(&letter)) {
            self.problem(field, format!("{} holds a control character (remove it)", quoted(text)));
        }
    }

    pub(super) fn within(&mut self, field: &str, value: i64, least: i64, most: i64) {
        if value < least {
            self.problem(field, format!("{value} is too low (write at least {least})"));
        } else if value > most {
            self.problem(field, format!("{value} is too high (write at most {most})"));
        }
    }

    pub(super) fn unique(&mut self, what: &'static str, value: &str, at: &str, cure: &str) {
        match self.seen.get(&(what, value.to_owned())) {
            Some(first) => {
                let message = format!("the {what} {} is taken by {first} ({cure})", quoted(value));
                self.problem(at, message);
            }
            None => {
                self.seen.insert((what, value.to_owned()), at.to_owned());
            }
        }
    }
}

pub(super) fn is_id(text: &str) -> bool {
    (1..=MAX_ID_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Whether it is the path of all plans or of a whole plan.
fn is_plan_path(field: &str) -> bool {
    field == "plans" || field.strip_prefix("plans.").is_some_and(|plan| !plan.contains('.'))
}
