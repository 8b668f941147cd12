//! What plan changes within a period add, and what they make superfluous.
//!
//! A subscription's changes (upgrades, downgrades, seats, a switch to another billing interval) are put in the order in
//! which Stripe made them: by the moment that their prorations begin. Within a window (a monthly period, or one month of a
//! longer one) their worth is summed up as they come, what was given up counting as negative, and what they grant together
//! is the *high-water mark* of that sum: going up, down and up again grants once. A new period that begins before the one
//! before it is over is one of the changes, since its invoice gives the rest of the old period back. A window that begins
//! where the one before it ended starts a new sum.
//!
//! Later windows of a longer period are granted as high as the plan is when they begin: a downgrade takes the upgrades
//! before it away, the last one first, and then the period's own.
//!
//! Each invoice's lot is granted with all that it would be worth alone, and what is not due of that is claimed on it, at
//! once or when news of an earlier change comes late ([`super::claims`]). So lots are functions of the set of known
//! facts; and a claim takes only what has not been spent.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::catalog::{Catalog, Plan, PlanChange};
use super::credit::Allowance;
use super::draft::Context;
use super::terms::{Keeping, MILLION, Terms, plans_of};

/// What lots are due, by their causes, where it is less than what they would be worth alone; and how those of later months
/// are kept, where another plan is in force by then than the one that grants them.
#[derive(Debug, Default)]
pub struct Dues {
    dues: BTreeMap<String, Due>,
    keeping: BTreeMap<String, Keeping>,
}

#[derive(Debug, Clone, Copy)]
struct Due {
    alone: i64,
    due: i64,
}

/// An allowance with a price that a plan names.
#[derive(Debug)]
struct Known<'a> {
    allowance: &'a Allowance,
    terms: Terms,
}

impl Dues {
    /// Of allowances of any subscriptions, for windows that have begun. Those of whose prices no plan names any yet count
    /// for nothing.
    pub fn of<'a>(allowances: impl IntoIterator<Item = &'a Allowance>, context: Context<'_>) -> Self {
        let mut subscriptions: BTreeMap<&Option<String>, Vec<Known<'_>>> = BTreeMap::new();
        for allowance in allowances {
            if let Some(terms) = Terms::of(allowance, context.catalog) {
                subscriptions.entry(&allowance.subscription).or_default().push(Known { allowance, terms });
            }
        }
        let mut dues = Self::default();
        for mut known in subscriptions.into_values() {
            known.sort_by_key(Known::place);
            dues.add_first_windows(&known);
            dues.add_refills(&known, context.now);
            if known.iter().any(|one| one.terms.counts_for_others(one.allowance)) {
                dues.add_keeping(&known, context);
            }
        }
        dues
    }

    /// How the lot of a window is kept, unless as its own plan says.
    pub fn keeping(&self, cause: &str) -> Option<Keeping> {
        self.keeping.get(cause).copied()
    }

    fn add_keeping(&mut self, known: &[Known<'_>], context: Context<'_>) {
        for (at, one) in known.iter().enumerate().filter(|(_, one)| one.terms.has_refills()) {
            let Some(own) = plans_of(one.allowance, context.catalog).1 else { continue };
            for n in 1.. {
                let window = one.terms.window(one.allowance, n).filter(|(start, _)| *start <= context.now);
                let Some((start, _)) = window else { break };
                let in_force = plan_in_force(own, one, &known[at + 1..], start, context.catalog);
                if in_force.id != own.id {
                    self.keeping.insert(window_cause(one.allowance, n), Keeping::of(in_force));
                }
            }
        }
    }

    /// How many of the credits that a lot was granted are not due.
    ///
    /// Told as a share, so that a catalog that has changed since does not change what was granted under an older one.
    pub fn excess(&self, cause: &str, granted: i64) -> i64 {
        let Some(Due { alone, due }) = self.dues.get(cause) else { return 0 };
        let excess = i128::from(granted) * i128::from(alone - due) / i128::from(*alone).max(1);
        i64::try_from(excess).unwrap_or(granted)
    }

    fn put(&mut self, cause: String, alone: i64, due: i64) {
        if due < alone {
            self.dues.insert(cause, Due { alone, due: due.max(0) });
        }
    }

    fn add_first_windows(&mut self, known: &[Known<'_>]) {
        let mut sum = RunningSum::default();
        for one in known {
            let (start, end) = (one.allowance.period_start, one.terms.billed_end(one.allowance, 0));
            if start >= sum.until {
                sum = RunningSum::default();
            }
            let before = sum.high / MILLION;
            if one.allowance.is_change() {
                sum.until = sum.until.max(end);
                if known.iter().any(|other| other.is_switch() && one.makes_room_for(other)) {
                    sum.give_back(&one.terms);
                } else {
                    sum.change(&one.terms);
                }
            } else {
                sum.until = end;
                if !one.is_switch() {
                    continue;
                }
                sum.begin_anew(&one.terms);
            }
            let due = i64::try_from(sum.high / MILLION - before).unwrap_or(i64::MAX);
            self.put(window_cause(one.allowance, 0), one.terms.granted(0), due);
        }
    }

    fn add_refills(&mut self, known: &[Known<'_>], now: DateTime<Utc>) {
        for (at, one) in known.iter().enumerate().filter(|(_, one)| one.terms.has_refills()) {
            for n in 1.. {
                let window = one.terms.window(one.allowance, n).filter(|(start, _)| *start <= now);
                let Some((start, _)) = window else { break };
                let is_over = one.allowance.refills_until.is_some_and(|until| until <= start);
                let due = if is_over { 0 } else { level_left(known, at, start) };
                self.put(window_cause(one.allowance, n), one.terms.granted(n), due);
            }
        }
    }
}

impl Known<'_> {
    /// At one moment, whole periods come first, and what is given up before what is added, so that the sum rises no higher
    /// than to what the moment ends in; and of that, a new period before what is changed of it.
    fn place(&self) -> (DateTime<Utc>, u8, i64, String) {
        let rank = match (self.is_switch(), self.allowance.is_change()) {
            (false, false) => 0,
            (_, true) if self.terms.credits < 0 => 1,
            (true, _) => 2,
            (false, true) => 3,
        };
        (self.allowance.period_start, rank, self.terms.credits, self.allowance.cause.clone())
    }

    fn is_switch(&self) -> bool {
        self.allowance.begins_early && !self.allowance.is_change()
    }

    /// It gives back the rest of a period in which another one begins.
    fn makes_room_for(&self, switch: &Self) -> bool {
        let (this, next) = (self.allowance, switch.allowance);
        self.terms.credits < 0 && this.invoice == next.invoice && next.period_start < this.billed_until()
    }
}

/// The plan that has taken the place of `own`, of a period that is or holds `one`, when a window begins.
fn plan_in_force<'c>(
    own: &'c Plan,
    one: &Known<'_>,
    later: &[Known<'_>],
    start: DateTime<Utc>,
    catalog: &'c Catalog,
) -> &'c Plan {
    let concerned = |other: &&Known<'_>| {
        let same_period = other.allowance.billed_until() == one.allowance.billed_until();
        same_period && other.allowance.is_change() && other.allowance.period_start < start
    };
    later.iter().filter(concerned).fold(own, |plan, other| match plans_of(other.allowance, catalog) {
        (given_up, Some(added)) if given_up.iter().any(|left| left.id == plan.id) => added,
        _ => plan,
    })
}

/// How many of the credits that `known[at]` adds to a period are left when a window of it begins.
fn level_left(known: &[Known<'_>], at: usize, start: DateTime<Utc>) -> i64 {
    let period = known[at].allowance.billed_until();
    let mut steps: Vec<(usize, i64)> = Vec::new();
    // What a moment gives up before it is known what was there: nothing tells the order within a second.
    let (mut moment, mut given_up) = (DateTime::<Utc>::MIN_UTC, 0);
    for (index, one) in known.iter().enumerate() {
        let concerned = one.allowance.billed_until() == period && one.allowance.period_start < start;
        if !concerned || !one.terms.has_refills() {
            continue;
        }
        if moment != one.allowance.period_start {
            (moment, given_up) = (one.allowance.period_start, 0);
        }
        let mut left = -one.terms.credits;
        while left > 0
            && let Some((_, height)) = steps.last_mut()
        {
            let taken = left.min(*height);
            *height -= taken;
            left -= taken;
            steps.retain(|(_, height)| *height > 0);
        }
        given_up += left.max(0);
        let added = one.terms.credits.max(0);
        let kept = added - added.min(given_up);
        given_up -= added - kept;
        if kept > 0 {
            steps.push((index, kept));
        }
    }
    steps.iter().find(|(index, _)| *index == at).map_or(0, |(_, height)| *height)
}

/// The worth of the changes within one window, in millionths of a credit.
#[derive(Debug)]
struct RunningSum {
    until: DateTime<Utc>,
    sum: i128,
    high: i128,
    /// Of the period that runs: the sum as it began, how high the plan is above where it began, in credits, and how high it
    /// has been.
    first: i128,
    level: i128,
    highest: i128,
    /// By how much the plan has risen, or fallen, step by step, and under which policy: going back undoes the last step
    /// under the policy it was made under, so that a round trip through plans of different policies gains nothing.
    steps: Vec<(i128, PlanChange)>,
}

impl Default for RunningSum {
    fn default() -> Self {
        Self { until: DateTime::<Utc>::MIN_UTC, sum: 0, high: 0, first: 0, level: 0, highest: 0, steps: Vec::new() }
    }
}

impl RunningSum {
    fn change(&mut self, terms: &Terms) {
        let worth = |credits: i128, policy: PlanChange| match policy {
            PlanChange::Prorated if terms.credits == 0 => 0,
            PlanChange::Prorated => terms.prorated * credits / i128::from(terms.credits),
            PlanChange::Full => credits * MILLION,
            PlanChange::None => 0,
        };
        let mut left = i128::from(terms.credits);
        while left != 0
            && let Some((step, policy)) = self.steps.last_mut()
            && step.signum() != left.signum()
        {
            let undone = left.signum() * left.abs().min(step.abs());
            self.sum += worth(undone, *policy);
            *step += undone;
            left -= undone;
            if *step == 0 {
                self.steps.pop();
            }
        }
        if left != 0 {
            self.sum += worth(left, terms.policy);
            self.steps.push((left, terms.policy));
        }
        self.level += i128::from(terms.credits);
        self.highest = self.highest.max(self.level);
        // No way through plans of different policies is worth more than the highest of them whole.
        self.high = self.high.max(self.sum.min(self.first + self.highest * MILLION));
    }

    /// The rest of a period that was paid for is given back: what it was worth counts, whatever the policy.
    fn give_back(&mut self, terms: &Terms) {
        self.sum += terms.prorated;
    }

    /// A new period was paid for in full.
    fn begin_anew(&mut self, terms: &Terms) {
        self.sum += i128::from(terms.credits) * MILLION;
        self.high = self.high.max(self.sum);
        (self.first, self.level, self.highest) = (self.sum, 0, 0);
        self.steps.clear();
    }
}

/// Names the lot of the n-th window.
pub fn window_cause(allowance: &Allowance, n: u32) -> String {
    if n == 0 { allowance.cause.clone() } else { format!("{}#{n}", allowance.cause) }
}
