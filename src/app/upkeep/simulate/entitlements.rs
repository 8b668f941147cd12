//! What an account may use under one catalog, beside another: what a debit never asks for is seen here alone.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::domain::catalog::{Catalog, Per};
use crate::domain::credit::Credits;
use crate::domain::draft::Context;
use crate::domain::standing::{Reason, check};

/// A feature that an account would have otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EntitlementDifference {
    pub feature: String,
    pub now: Entitled,
    pub by_draft: Entitled,
}

/// What an account may use of a feature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entitled {
    /// The plan or an override allows it, whatever is left of credits and limits.
    pub allowed: bool,
    pub limits: Vec<LimitOf>,
    pub values: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitOf {
    pub limit: i64,
    /// `None`: it is no limit of use within a time.
    pub per: Option<Per>,
}

/// The features of both catalogs.
pub fn features<'a>(now: &'a Catalog, draft: &'a Catalog) -> BTreeSet<&'a str> {
    now.features.iter().chain(&draft.features).map(|feature| feature.id.as_str()).collect()
}

/// Where an account would have something else of a feature: as it is under one catalog, and as it would be under another.
pub fn differences(
    features: &BTreeSet<&str>,
    (real, current): (&Credits, Context<'_>),
    (drafted, draft): (&Credits, Context<'_>),
) -> Vec<EntitlementDifference> {
    let differences = features.iter().filter_map(|feature| {
        let (now, by_draft) = (entitled(feature, real, current), entitled(feature, drafted, draft));
        (now != by_draft).then(|| EntitlementDifference { feature: (*feature).to_owned(), now, by_draft })
    });
    differences.collect()
}

fn entitled(feature: &str, credits: &Credits, context: Context<'_>) -> Entitled {
    let answer = check(credits, context.catalog, feature, 1, context.now);
    let is_used_up = matches!(answer.reason, Reason::InsufficientCredits | Reason::LimitExceeded | Reason::OutOfRange);
    let windows = answer.limits.iter().map(|limit| LimitOf { limit: limit.limit, per: Some(limit.per) });
    let limits = match answer.limits.is_empty() {
        true => answer.limit.map(|limit| LimitOf { limit, per: None }).into_iter().collect(),
        false => windows.collect(),
    };
    Entitled { allowed: answer.allowed || is_used_up, limits, values: answer.values.into_owned() }
}
