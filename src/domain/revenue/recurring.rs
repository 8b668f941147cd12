//! What subscriptions bring in a month, and how that moved.
//!
//! A subscription counts while Stripe collects for it: `active` or `past_due`, and collection not paused. Trials bring
//! nothing until they convert; `unpaid` ones nothing any more. An item brings `unit_amount × quantity`, brought to a month:
//! a year is 12 months, 52 weeks, or 365 days. A discount on the subscription's newest invoice lowers it in proportion,
//! for as long as that invoice is the newest: one that applies once lowers one period. Metered items, and prices that state
//! no amount, are counted in [`Excluded`], not guessed. Each item is rounded once, to the nearest minor unit.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::month::day_of;
use super::share::rounded;
use super::{Book, PlanOf};
use crate::domain::billing::Billing;
use crate::domain::catalog::{Catalog, Plan, PriceKey};
use crate::domain::stripe_object::{Invoice, Subscription, SubscriptionItem};
use crate::domain::tracked::{self, Change};

/// Minor units a month, by book.
pub type Level = BTreeMap<Book, i128>;

/// Items that bring something, of which nobody can tell how much; of subscriptions that count now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Excluded {
    /// Billed by what was used.
    pub metered_items: u64,
    /// Their price states no amount or no interval, such as one in tiers.
    pub unpriced_items: u64,
    /// Subscriptions whose price no plan of the catalog names; they count, but for no plan.
    pub unmapped_subscriptions: u64,
}

/// A subscription as a StripeEvent told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToldSubscription {
    /// Unix second of the StripeEvent.
    pub observed_at: i64,
    pub change: Change,
    pub subscription: Subscription,
}

/// A subscription through time.
#[derive(Debug, Clone)]
pub struct Course<'a> {
    /// Unix second from which each level holds, ascending.
    pub steps: Vec<(i64, Level)>,
    /// The newest snapshot.
    pub last: &'a Subscription,
    pub ended_at: Option<i64>,
}

impl<'a> Course<'a> {
    /// Out of what was told of a subscription, the newest that is known of it with the second of its telling, and its
    /// invoices. Nothing but its end may be known.
    pub fn of(
        told: impl IntoIterator<Item = &'a ToldSubscription>,
        newest: (i64, &'a Subscription),
        billing: &Billing,
        catalog: &Catalog,
    ) -> Self {
        let mut taken = by_second(told);
        taken.insert(newest.0, Cow::Borrowed(newest.1));
        // Once it has ended, that is what it is known by.
        let last = newest.1;
        let end = taken.iter().find(|(_, snapshot)| snapshot.has_ended());
        let ended_at = end.map(|(second, ended)| ended.ended_at.or(ended.canceled_at).unwrap_or(*second));
        if let Some(at) = ended_at {
            taken.retain(|second, snapshot| *second < at && !snapshot.has_ended());
        }
        let mut begun: Vec<(i64, Cow<'_, Subscription>)> = taken.into_iter().collect();
        if let Some((second, first)) = begun.first_mut() {
            *second = began_at(first, *second);
        } else if let Some(at) =
            ended_at.filter(|at| last.status == "canceled" && last.trial_end.is_none_or(|trial_end| trial_end < *at))
        {
            // Nothing is known of it but its end, and that it was no trial.
            begun.push((began_at(last, at), Cow::Borrowed(last)));
        }
        let discounts = Discounts::of(&last.id, billing);
        let mut seconds: Vec<i64> = begun.iter().map(|(second, _)| *second).collect();
        seconds.extend(discounts.0.iter().map(|discount| discount.from));
        seconds.sort_unstable();
        seconds.dedup();
        let mut steps = Vec::new();
        for second in seconds.into_iter().filter(|second| ended_at.is_none_or(|end| *second < end)) {
            let Some((_, snapshot)) = begun.iter().rev().find(|(begun, _)| *begun <= second) else { continue };
            let is_only_known_by_its_end = snapshot.has_ended();
            let counts = is_only_known_by_its_end || is_counted(snapshot);
            let level = if counts { level_of(snapshot, discounts.at(second), catalog).0 } else { Level::new() };
            steps.push((second, level));
        }
        steps.extend(ended_at.map(|at| (at, Level::new())));
        Self { steps, last, ended_at }
    }

    pub fn level_at(&self, second: i64) -> Option<&Level> {
        self.steps.iter().rev().find(|(begun, _)| *begun <= second).map(|(_, level)| level)
    }

    /// Levels by the close of each day (UTC) on which they changed, up to a second.
    fn closings(&self, until: i64) -> BTreeMap<NaiveDate, &Level> {
        self.steps.iter().filter(|(at, _)| *at <= until).map(|(at, level)| (day_of(*at), level)).collect()
    }

    /// The first second in which it brought something after `second`.
    pub fn first_paid_after(&self, second: i64) -> Option<i64> {
        self.steps
            .iter()
            .find(|(at, level)| *at >= second && level.values().any(|amount| *amount > 0))
            .map(|(at, _)| *at)
    }
}

/// What was told of a subscription, by second: of what was told in one, the last.
fn by_second<'a>(told: impl IntoIterator<Item = &'a ToldSubscription>) -> BTreeMap<i64, Cow<'a, Subscription>> {
    let mut seconds: BTreeMap<i64, Vec<&ToldSubscription>> = BTreeMap::new();
    for told in told {
        seconds.entry(told.observed_at).or_default().push(told);
    }
    let last_of = |told: Vec<&'a ToldSubscription>| match told.as_slice() {
        [only] => Cow::Borrowed(&only.subscription),
        several => {
            let mut tracked = None;
            for ToldSubscription { observed_at, change, subscription } in several {
                tracked::observe(&mut tracked, subscription.clone(), *observed_at, *change);
            }
            tracked.map_or_else(|| Cow::Borrowed(&several[0].subscription), |tracked| Cow::Owned(*tracked.current))
        }
    };
    seconds.into_iter().map(|(second, told)| (second, last_of(told))).collect()
}

/// When a subscription of which this is the first snapshot began to be what it shows.
fn began_at(first: &Subscription, second: i64) -> i64 {
    let created = first.created.unwrap_or(second);
    let began = first.trial_end.filter(|end| *end <= second).map_or(created, |end| end.max(created));
    began.min(second)
}

/// Whether Stripe collects for it.
pub fn is_counted(subscription: &Subscription) -> bool {
    matches!(subscription.status.as_str(), "active" | "past_due") && subscription.pause_collection.is_none()
}

fn plan_of_item<'a>(item: &SubscriptionItem, catalog: &'a Catalog) -> Option<&'a Plan> {
    let key = PriceKey { stripe_price_id: &item.price.id, lookup_key: item.price.lookup_key.as_deref() };
    catalog.plan_of_price(key).map(|(plan, _)| plan)
}

/// The plan that a subscription is counted under: the highest among its items.
pub fn plan_of(subscription: &Subscription, catalog: &Catalog) -> PlanOf {
    let plans = subscription.items.iter().filter_map(|item| plan_of_item(item, catalog));
    plans.max_by_key(|plan| plan.rank).map_or(PlanOf::Unmapped, |plan| PlanOf::Plan(plan.id.clone()))
}

/// What a subscription brings in a month, whatever its status; and what of it cannot be told.
pub fn level_of(subscription: &Subscription, discount: Option<&Discount>, catalog: &Catalog) -> (Level, Excluded) {
    let (mut level, mut excluded) = (Level::new(), Excluded::default());
    for item in &subscription.items {
        if item.price.metered {
            excluded.metered_items += 1;
            continue;
        }
        let currency = item.price.currency.as_ref().or(subscription.currency.as_ref());
        let per_month = per_month(item.price.interval.as_deref(), item.price.interval_count.unwrap_or(1));
        let (Some(unit_amount), Some(currency), Some((n, d))) = (item.price.unit_amount, currency, per_month) else {
            excluded.unpriced_items += 1;
            continue;
        };
        let (kept, of) = discount.map_or((1, 1), |discount| (discount.kept, discount.of));
        let amount = rounded(i128::from(unit_amount) * i128::from(item.quantity) * n * kept, d * of);
        let plan = plan_of_item(item, catalog).map_or(PlanOf::Unmapped, |plan| PlanOf::Plan(plan.id.clone()));
        if amount != 0 {
            *level.entry(Book { currency: currency.clone(), plan }).or_default() += amount;
            *level.entry(Book { currency: currency.clone(), plan: PlanOf::All }).or_default() += amount;
        }
    }
    (level, excluded)
}

/// By what an amount of a billing interval is multiplied and divided to be one of a month.
fn per_month(interval: Option<&str>, count: i64) -> Option<(i128, i128)> {
    let count = i128::from(count);
    let (n, d) = match interval? {
        "day" => (365, 12 * count),
        "week" => (52, 12 * count),
        "month" => (1, count),
        "year" => (1, 12 * count),
        _ => return None,
    };
    (d > 0).then_some((n, d))
}

/// That of so much, only so much is charged, from a second on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discount {
    from: i64,
    kept: i128,
    of: i128,
}

/// What a subscription's invoices say of discounts, ascending by time.
#[derive(Debug, Clone, Default)]
pub struct Discounts(Vec<Discount>);

impl Discounts {
    pub fn of(subscription: &str, billing: &Billing) -> Self {
        let invoices = billing.invoices.values().filter_map(|record| record.current());
        let of_period = |invoice: &&Invoice| {
            invoice.subscription.as_deref() == Some(subscription)
                && matches!(invoice.status.as_str(), "paid" | "open" | "uncollectible")
                && invoice.subtotal > 0
                && invoice.lines.iter().any(|line| !line.proration && line.amount > 0)
        };
        let mut discounts: Vec<Discount> = invoices
            .filter(of_period)
            .map(|invoice| Discount {
                from: invoice.created.unwrap_or(0),
                kept: i128::from((invoice.subtotal - invoice.discount).max(0)),
                of: i128::from(invoice.subtotal),
            })
            .collect();
        discounts.sort_by_key(|discount| (discount.from, discount.kept, discount.of));
        Self(discounts)
    }

    /// What the newest invoice says by then; before the first, what the first says: it may be made a moment after its
    /// subscription.
    pub fn at(&self, second: i64) -> Option<&Discount> {
        self.0.iter().rev().find(|discount| discount.from <= second).or(self.0.first())
    }
}

/// How one account's level in one book moved on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Movement {
    pub day: NaiveDate,
    pub from: i128,
    pub to: i128,
    /// It had brought something before.
    pub is_known: bool,
}

/// One account's movements in each book, day by day: what changes back within a day has not moved.
pub fn movements(courses: &[Course<'_>], until: i64) -> BTreeMap<Book, Vec<Movement>> {
    let mut days: BTreeMap<NaiveDate, Vec<(usize, &Level)>> = BTreeMap::new();
    for (at, course) in courses.iter().enumerate() {
        for (day, level) in course.closings(until) {
            days.entry(day).or_default().push((at, level));
        }
    }
    let empty = Level::new();
    let mut current: Vec<&Level> = courses.iter().map(|_| &empty).collect();
    let mut movements: BTreeMap<Book, Vec<Movement>> = BTreeMap::new();
    for (day, changes) in days {
        for (at, level) in changes {
            current[at] = level;
        }
        let mut totals = Level::new();
        for (book, amount) in current.iter().flat_map(|level| level.iter()) {
            *totals.entry(book.clone()).or_default() += amount;
        }
        let mut books: Vec<Book> = totals.keys().chain(movements.keys()).cloned().collect();
        books.sort();
        books.dedup();
        for book in books {
            let to = totals.get(&book).copied().unwrap_or(0);
            let known = movements.entry(book).or_default();
            let from = known.last().map_or(0, |last| last.to);
            if from != to {
                known.push(Movement { day, from, to, is_known: !known.is_empty() });
            }
        }
    }
    movements.retain(|_, moved| !moved.is_empty());
    movements
}
