//! From TOML text to a [`Catalog`].
//!
//! Read by hand rather than by serde, which stops at its first error: whoever edits a catalog wants all of them at
//! once, each with its line. A value that cannot be read is replaced by a stand-in, so that reading goes on; the
//! stand-in never leaves this folder, because a reported problem makes the whole result an error.

use super::errors::{self, CatalogErrors, path, quoted};
use super::reader::{Field, Reader, Section};
use super::{
    Catalog, ClawbackPolicy, CostTier, CreditAllowance, CreditPack, DEFAULT_PACK_PRIORITY, Feature, FeatureGrant,
    FeatureKind, Interval, Overage, PackPrice, Per, Plan, PlanChange, PlanPrice, Rollover, TrialCredits, TrialPolicy,
    WhilePaused, WindowLimit, validate,
};
use crate::domain::money::Currency;
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

pub(super) fn catalog(text: &str) -> Result<Catalog, CatalogErrors> {
    let mut reader = Reader::new(text);
    let (document, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        // What was recovered from broken syntax is a guess; problems found in a guess would mislead.
        return Err(reader.syntax_errors(&syntax_errors));
    }
    let mut catalog = reader.catalog(document.get_ref());
    let mut problems = std::mem::take(&mut reader.problems);
    problems.extend(validate::problems(&catalog, &reader.unreadable));
    catalog.sort();
    errors::result(catalog, problems, |field| reader.line_of_path(field))
}

impl Reader {
    fn catalog(&mut self, document: &DeTable<'_>) -> Catalog {
        let root = Section { path: String::new(), table: document };
        self.refuse_unknown_names(&root, &["plans", "credit_packs", "features", "credit_display_scale"]);
        let features: Vec<_> = self.sections(&root, "features").iter().map(|(id, s)| self.feature(id, s)).collect();
        Catalog {
            plans: self.sections(&root, "plans").iter().map(|(id, section)| self.plan(id, section)).collect(),
            credit_packs: self.sections(&root, "credit_packs").iter().map(|(id, s)| self.pack(id, s)).collect(),
            features,
            credit_display_scale: self.optional_integer(&root, "credit_display_scale").unwrap_or(0),
        }
    }

    fn feature(&mut self, id: &str, section: &Section<'_>) -> Feature {
        const KINDS: &[(&str, FeatureKind)] = &[
            ("boolean", FeatureKind::Boolean),
            ("limit", FeatureKind::Limit),
            ("metered", FeatureKind::Metered),
            ("list", FeatureKind::List),
        ];
        self.refuse_unknown_names(section, &["name", "kind", "credit_cost", "capture_beyond_hold", "stripe_meter"]);
        let kind = self.required(section, "kind", "\"boolean\"").and_then(|field| self.one_of(&field, KINDS));
        if let Some(kind) = kind {
            self.feature_kinds.insert(id.to_owned(), kind);
        }
        let cost = self.field(section, "credit_cost");
        let (credit_cost, credit_cost_tiers) = cost.map(|field| self.credit_cost(&field)).unwrap_or_default();
        Feature {
            id: id.to_owned(),
            name: self.required_text(section, "name", "\"Image generation\""),
            kind: kind.unwrap_or(FeatureKind::Boolean),
            credit_cost,
            credit_cost_tiers,
            capture_beyond_hold: self.optional_boolean(section, "capture_beyond_hold").unwrap_or(false),
            stripe_meter: self.optional_text(section, "stripe_meter"),
        }
    }

    fn plan(&mut self, id: &str, section: &Section<'_>) -> Plan {
        self.refuse_unknown_names(
            section,
            &[
                "name",
                "description",
                "rank",
                "default",
                "prices",
                "credits",
                "rollover",
                "renewal_hours",
                "trial",
                "grace_days",
                "dunning",
                "while_paused",
                "clawback",
                "plan_change",
                "per_seat",
                "overage",
                "low_balance",
                "features",
            ],
        );
        Plan {
            id: id.to_owned(),
            name: self.required_text(section, "name", "\"Basic\""),
            description: self.optional_text(section, "description"),
            rank: self.required_integer(section, "rank", "20").unwrap_or(0),
            default: self.optional_boolean(section, "default").unwrap_or(false),
            prices: self.sections(section, "prices").iter().map(|(name, s)| self.plan_price(id, name, s)).collect(),
            credits: self.field(section, "credits").map(|field| self.allowance(&field)).unwrap_or_default(),
            rollover: self.field(section, "rollover").map(|field| self.rollover(&field)).unwrap_or_default(),
            renewal_hours: self.optional_integer(section, "renewal_hours").unwrap_or(0),
            trial: self.section(section, "trial").map(|trial| self.trial(&trial)).unwrap_or_default(),
            grace_days: self.optional_integer(section, "grace_days").unwrap_or(0),
            dunning: self.section(section, "dunning").map(|dunning| self.dunning(&dunning)).unwrap_or_default(),
            while_paused: self.field(section, "while_paused").and_then(|f| self.while_paused(&f)).unwrap_or_default(),
            clawback: self.field(section, "clawback").and_then(|field| self.clawback(&field)).unwrap_or_default(),
            plan_change: self
                .field(section, "plan_change")
                .and_then(|field| self.plan_change(&field))
                .unwrap_or_default(),
            per_seat: self.optional_boolean(section, "per_seat").unwrap_or(true),
            overage: self.field(section, "overage").map(|field| self.overage(&field)).unwrap_or_default(),
            low_balance: self.optional_integer(section, "low_balance"),
            features: self.section(section, "features").map(|grants| self.grants(&grants)).unwrap_or_default(),
        }
    }

    fn plan_price(&mut self, plan: &str, name: &str, section: &Section<'_>) -> PlanPrice {
        const INTERVALS: &[(&str, Interval)] =
            &[("day", Interval::Day), ("week", Interval::Week), ("month", Interval::Month), ("year", Interval::Year)];
        self.refuse_unknown_names(
            section,
            &[
                "stripe_price_id",
                "lookup_key",
                "former_stripe_price_ids",
                "currency",
                "unit_amount",
                "interval",
                "interval_count",
            ],
        );
        let interval = self.required(section, "interval", "\"month\"").and_then(|field| self.one_of(&field, INTERVALS));
        PlanPrice {
            id: format!("{plan}.{name}"),
            stripe_price_id: self.optional_text(section, "stripe_price_id"),
            lookup_key: self.optional_text(section, "lookup_key"),
            former_stripe_price_ids: self.optional_texts(section, "former_stripe_price_ids"),
            currency: self.currency(section),
            unit_amount: self.unit_amount(section),
            interval: interval.unwrap_or(Interval::Month),
            interval_count: self.optional_integer(section, "interval_count").unwrap_or(1),
        }
    }

    fn pack(&mut self, id: &str, section: &Section<'_>) -> CreditPack {
        self.refuse_unknown_names(section, &["name", "credits", "prices", "expires_after_days", "priority"]);
        CreditPack {
            id: id.to_owned(),
            name: self.required_text(section, "name", "\"100 credits\""),
            credits: self.required_integer(section, "credits", "100").unwrap_or(1),
            prices: self.sections(section, "prices").iter().map(|(name, s)| self.pack_price(id, name, s)).collect(),
            expires_after_days: self.optional_integer(section, "expires_after_days"),
            priority: self.optional_integer(section, "priority").unwrap_or(DEFAULT_PACK_PRIORITY),
        }
    }

    fn pack_price(&mut self, pack: &str, name: &str, section: &Section<'_>) -> PackPrice {
        self.refuse_unknown_names(
            section,
            &["stripe_price_id", "lookup_key", "former_stripe_price_ids", "currency", "unit_amount"],
        );
        PackPrice {
            id: format!("{pack}.{name}"),
            stripe_price_id: self.optional_text(section, "stripe_price_id"),
            lookup_key: self.optional_text(section, "lookup_key"),
            former_stripe_price_ids: self.optional_texts(section, "former_stripe_price_ids"),
            currency: self.currency(section),
            unit_amount: self.unit_amount(section),
        }
    }

    // ---- values with a spelling of their own ----

    fn currency(&mut self, section: &Section<'_>) -> Currency {
        let Some(field) = self.required(section, "currency", "\"usd\"") else {
            return Currency::USD;
        };
        let Some(code) = self.text(&field) else {
            return Currency::USD;
        };
        Currency::parse(&code).unwrap_or_else(|unknown| {
            self.problem(&field.path, format!("{} {unknown}", quoted(&code)));
            Currency::USD
        })
    }

    fn allowance(&mut self, field: &Field<'_>) -> CreditAllowance {
        match field.value {
            DeValue::Integer(_) => self.integer(field).map_or(CreditAllowance::None, CreditAllowance::PerPeriod),
            DeValue::String(word) if word == "unlimited" => CreditAllowance::Unlimited,
            DeValue::String(word) if word == "none" => CreditAllowance::None,
            other => {
                self.unfit(field, other, "200, \"unlimited\" or \"none\"");
                CreditAllowance::None
            }
        }
    }

    fn rollover(&mut self, field: &Field<'_>) -> Rollover {
        match field.value {
            DeValue::String(word) if word == "none" => Rollover::None,
            DeValue::String(word) if word == "all" => Rollover::All,
            DeValue::Table(table) => {
                let section = Section { path: field.path.clone(), table };
                self.refuse_unknown_names(&section, &["cap"]);
                self.required_integer(&section, "cap", "100").map_or(Rollover::None, Rollover::Capped)
            }
            other => {
                self.unfit(field, other, "\"none\", \"all\" or { cap = 100 }");
                Rollover::None
            }
        }
    }

    fn trial(&mut self, section: &Section<'_>) -> TrialPolicy {
        self.refuse_unknown_names(section, &["days", "credits"]);
        TrialPolicy {
            days: self.required_integer(section, "days", "14").unwrap_or(0),
            credits: self.field(section, "credits").map(|field| self.trial_credits(&field)).unwrap_or_default(),
        }
    }

    fn trial_credits(&mut self, field: &Field<'_>) -> TrialCredits {
        match field.value {
            DeValue::Integer(_) => self.integer(field).map_or(TrialCredits::None, TrialCredits::Amount),
            DeValue::String(word) if word == "full" => TrialCredits::Full,
            DeValue::String(word) if word == "none" => TrialCredits::None,
            other => {
                self.unfit(field, other, "\"full\", \"none\" or 50");
                TrialCredits::None
            }
        }
    }

    fn overage(&mut self, field: &Field<'_>) -> Overage {
        match field.value {
            DeValue::String(word) if word == "deny" => Overage::Deny,
            DeValue::String(word) if word == "unlimited" => Overage::Unlimited,
            DeValue::Table(table) => {
                let section = Section { path: field.path.clone(), table };
                self.refuse_unknown_names(&section, &["limit"]);
                self.required_integer(&section, "limit", "100").map_or(Overage::Deny, Overage::Limit)
            }
            other => {
                self.unfit(field, other, "\"deny\", \"unlimited\" or { limit = 100 }");
                Overage::Deny
            }
        }
    }

    /// `2`, or tiers: `[{ up_to = 1000, each = 2 }, { each = 1 }]`.
    fn credit_cost(&mut self, field: &Field<'_>) -> (Option<i64>, Vec<CostTier>) {
        let DeValue::Array(items) = field.value else {
            if !matches!(field.value, DeValue::Integer(_)) {
                self.unfit(
                    field,
                    field.value,
                    "a number such as 2, or tiers: [{ up_to = 1000, each = 2 }, { each = 1 }]",
                );
                return (None, Vec::new());
            }
            return (self.integer(field), Vec::new());
        };
        if items.is_empty() {
            self.problem(&field.path, "has no tiers (write a number such as 2, or at least { each = 2 })");
        }
        let mut tiers = Vec::new();
        for item in items.iter() {
            let DeValue::Table(table) = item.get_ref() else {
                self.unfit(field, item.get_ref(), "each tier as { up_to = 1000, each = 2 }");
                continue;
            };
            let section = Section { path: field.path.clone(), table };
            self.refuse_unknown_names(&section, &["up_to", "each"]);
            let up_to = self.optional_integer(&section, "up_to");
            tiers.push(CostTier { up_to, each: self.required_integer(&section, "each", "2").unwrap_or(1) });
        }
        (None, tiers)
    }

    fn clawback(&mut self, field: &Field<'_>) -> Option<ClawbackPolicy> {
        self.one_of(field, &[("write_off", ClawbackPolicy::WriteOff), ("debt", ClawbackPolicy::Debt)])
    }

    fn while_paused(&mut self, field: &Field<'_>) -> Option<WhilePaused> {
        self.one_of(field, &[("stop", WhilePaused::Stop), ("keep", WhilePaused::Keep)])
    }

    fn plan_change(&mut self, field: &Field<'_>) -> Option<PlanChange> {
        let words = [("prorated", PlanChange::Prorated), ("full", PlanChange::Full), ("none", PlanChange::None)];
        self.one_of(field, &words)
    }

    /// What a plan says about features: `true`, `false`, `5`, `"unlimited"`, `["a", "b"]`, a table of `limit` and
    /// `values`, or, for a metered one, a table of `limit` and `per` or a list of such tables.
    fn grants(&mut self, section: &Section<'_>) -> BTreeMap<String, FeatureGrant> {
        let mut grants = BTreeMap::new();
        for (id, field) in self.fields(section) {
            if let Some(grant) = self.grant(&id, &field) {
                grants.insert(id, grant);
            }
        }
        grants
    }

    fn grant(&mut self, feature: &str, field: &Field<'_>) -> Option<FeatureGrant> {
        // A limit without its number must be said in full: read as "no limit", a forgotten number would give it away.
        let is_limit = self.feature_kinds.get(feature) == Some(&FeatureKind::Limit);
        match field.value {
            DeValue::Boolean(false) => {
                // No trace of it remains for the rules to see, so its name is checked here.
                if !self.feature_kinds.contains_key(feature)
                    && !validate::declaration_is_unreadable(feature, &self.unreadable)
                {
                    let known = self.feature_kinds.keys().map(String::as_str);
                    let message = validate::undeclared_feature(feature, known);
                    self.problem(&field.path, message);
                }
                None
            }
            DeValue::Boolean(true) if is_limit => {
                self.problem(&field.path, "a limit needs its number (write 5, or \"unlimited\")");
                None
            }
            DeValue::Boolean(true) => Some(FeatureGrant::default()),
            DeValue::String(word) if is_limit && word == "unlimited" => Some(FeatureGrant::default()),
            DeValue::Integer(_) => Some(FeatureGrant { limit: self.integer(field), ..FeatureGrant::default() }),
            DeValue::Array(_) if self.is_metered(feature) => {
                Some(FeatureGrant { windows: self.windows(field), ..FeatureGrant::default() })
            }
            DeValue::Table(table) if self.is_metered(feature) => {
                let section = Section { path: field.path.clone(), table };
                self.refuse_unknown_names(&section, &["limit", "per", "limits", "overage"]);
                let overage = self.field(&section, "overage").map(|field| self.overage(&field));
                let names = ["limit", "per"].into_iter();
                let has_window = names.filter(|name| self.field(&section, name).is_some()).count() > 0;
                let windows = match self.field(&section, "limits") {
                    Some(limits) => self.windows(&limits),
                    None if has_window || overage.is_none() => self.window_of(&section).into_iter().collect(),
                    None => Vec::new(),
                };
                Some(FeatureGrant { windows, overage, ..FeatureGrant::default() })
            }
            DeValue::Array(_) => Some(FeatureGrant { values: self.texts(field), ..FeatureGrant::default() }),
            DeValue::Table(table) => {
                let section = Section { path: field.path.clone(), table };
                self.refuse_unknown_names(&section, &["limit", "values"]);
                let values = self.field(&section, "values").map(|values| self.texts(&values)).unwrap_or_default();
                let limit = match is_limit {
                    true => self.required_integer(&section, "limit", "5"),
                    false => self.optional_integer(&section, "limit"),
                };
                Some(FeatureGrant { limit, values, ..FeatureGrant::default() })
            }
            other => {
                self.unfit(field, other, "true, false, a number such as 5, or a list such as [\"a\", \"b\"]");
                None
            }
        }
    }

    fn is_metered(&self, feature: &str) -> bool {
        self.feature_kinds.get(feature) == Some(&FeatureKind::Metered)
    }

    /// One limit within a window, or a list of them.
    fn windows(&mut self, field: &Field<'_>) -> Vec<WindowLimit> {
        let items: Vec<Field<'_>> = match field.value {
            DeValue::Array(items) => {
                let at = |n: usize| path(&field.path, &n.to_string());
                items.iter().enumerate().map(|(n, item)| Field { path: at(n), value: item.get_ref() }).collect()
            }
            other => vec![Field { path: field.path.clone(), value: other }],
        };
        if items.is_empty() {
            self.problem(
                &field.path,
                "is an empty list (write true, or limits such as [{ limit = 100, per = \"day\" }])",
            );
        }
        items.iter().filter_map(|item| self.window(item)).collect()
    }

    fn window(&mut self, field: &Field<'_>) -> Option<WindowLimit> {
        let DeValue::Table(table) = field.value else {
            self.unfit(field, field.value, "a limit with its window, such as { limit = 100, per = \"day\" }");
            return None;
        };
        let section = Section { path: field.path.clone(), table };
        self.refuse_unknown_names(&section, &["limit", "per"]);
        self.window_of(&section)
    }

    fn window_of(&mut self, section: &Section<'_>) -> Option<WindowLimit> {
        let limit = self.required_integer(section, "limit", "100");
        let per = self.required(section, "per", "\"day\"").and_then(|per| self.one_of(&per, &Per::ALL));
        Some(WindowLimit { limit: limit?, per: per? })
    }
}
