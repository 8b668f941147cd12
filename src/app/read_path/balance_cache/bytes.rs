//! What an account takes in memory. An estimate from above: it bounds, it does not count.

use std::mem::{size_of, size_of_val};

use super::Balance;
use crate::domain::credit::Credits;
use crate::domain::ids::AccountId;
use crate::domain::overrides::{OverrideEffect, Suspension};
use crate::domain::plan_credits::SpentLater;

/// What an entry takes in the cache beside its value: key, place in the table and in the order of use, and what tables
/// grow ahead.
const ENTRY_BYTES: usize = 96;
/// What the allocator rounds up, and what a list or an `Arc` counts with, a piece of memory.
const PIECE_BYTES: usize = 16;

/// What an account takes that is as large as it must be, without room to spare.
pub(super) fn bytes_of(id: &AccountId, credits: &Credits) -> usize {
    let lots = credits.lots.iter().map(|lot| {
        let spent_later = lot.spent_later.as_ref().map_or(0, |_| size_of::<SpentLater>() + PIECE_BYTES);
        text(&lot.cause) + some(&lot.subscription) + some(&lot.bought_by) + spent_later
    });
    let allowances = credits.allowances.iter().map(|allowance| {
        let parts = allowance.parts.iter().map(|part| text(&part.price) + some(&part.lookup_key));
        let ids = text(&allowance.cause) + text(&allowance.invoice) + some(&allowance.subscription);
        ids + some(&allowance.item) + list(&allowance.parts) + parts.sum::<usize>()
    });
    let access = credits.access.iter().map(|access| {
        let items = access.items.iter().map(|item| text(&item.price) + some(&item.lookup_key));
        text(&access.subscription) + text(&access.status) + list(&access.items) + items.sum::<usize>()
    });
    let caps = credits.caps.iter().map(|cap| text(&cap.subscription));
    let holds = credits.holds.iter().map(|hold| some(&hold.feature) + list(&hold.cover.lots));
    let lookup_keys = credits.lookup_keys.iter().map(|(price, key)| text(price) + text(key));
    let usage = credits.usage.features.iter().map(|(feature, _)| text(feature));
    let others = credits.usage.others.iter().map(|other| {
        list(other.features.as_slice()) + other.features.keys().map(|feature| text(feature)).sum::<usize>()
    });
    let overrides = credits.overrides.iter().map(|(feature, set)| {
        let values: &[String] = if let OverrideEffect::Values(values) = &set.effect { values } else { &[] };
        text(feature) + some(&set.reason) + list(values) + values.iter().map(|value| text(value)).sum::<usize>()
    });
    let suspension =
        credits.suspension.as_ref().map_or(0, |known| size_of::<Suspension>() + PIECE_BYTES + some(&known.reason));
    let merged_into = credits.merged_into.as_ref().map_or(0, |into| text(into.as_str()));
    let parts = [
        list(&credits.lots) + lots.sum::<usize>(),
        list(&credits.allowances) + allowances.sum::<usize>(),
        list(&credits.access) + access.sum::<usize>(),
        list(&credits.caps) + caps.sum::<usize>(),
        list(&credits.holds) + holds.sum::<usize>(),
        list(credits.lookup_keys.as_slice()) + lookup_keys.sum::<usize>(),
        list(credits.usage.features.as_slice()) + usage.sum::<usize>(),
        list(&credits.usage.others) + others.sum::<usize>(),
        list(credits.overrides.as_slice()) + overrides.sum::<usize>(),
    ];
    let own = ENTRY_BYTES + text(id.as_str()) + size_of::<Balance>() + PIECE_BYTES + suspension + merged_into;
    // An eighth more: the larger a piece, the more the allocator rounds up.
    (own + parts.iter().sum::<usize>()) * 9 / 8
}

fn text(text: &str) -> usize {
    text.len() + PIECE_BYTES
}

fn some(known: &Option<impl AsRef<str>>) -> usize {
    known.as_ref().map_or(0, |known| text(known.as_ref()))
}

fn list<T>(items: &[T]) -> usize {
    if items.is_empty() { 0 } else { size_of_val(items) + PIECE_BYTES }
}
