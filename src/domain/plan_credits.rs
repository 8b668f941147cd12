//! What becomes of the credits that a plan gives: those of the period that runs, and what was left of earlier ones.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::credit::{Credits, Draw, Lot, LotSource};
use super::limits::Period;

/// What was spent of a lot since a later period than its own began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpentLater {
    /// Unix second in which the latest of these periods began.
    pub since: i64,
    pub credits: i64,
}

/// A plan's credits within a period: `granted + rolled_over = used + remaining`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PlanCredits {
    /// Credits that the period gave, without what was taken back or has expired.
    pub granted: i64,
    /// What earlier periods had left for it, without what has gone in the same ways.
    pub rolled_over: i64,
    /// Spent of both since the period began.
    pub used: i64,
    /// Left of both; what is held is among it.
    pub remaining: i64,
}

impl PlanCredits {
    /// Adds up an account's lots: all that were given within the period, and of the others those with something left, or that
    /// something was spent of since.
    pub fn within<'a>(period: Period, lots: impl Iterator<Item = &'a Lot>, now: DateTime<Utc>) -> Self {
        let mut sum = Self::default();
        for lot in lots.filter(|lot| lot.is_of_plan() && lot.effective_at <= now) {
            let is_own = period.start <= lot.effective_at.timestamp();
            let used = if is_own { lot.spent() } else { lot.spent_since(period.start) };
            let remaining = if lot.is_expired_at(now) { 0 } else { lot.remaining };
            let given = if is_own { &mut sum.granted } else { &mut sum.rolled_over };
            *given += used + remaining;
            sum.used += used;
            sum.remaining += remaining;
        }
        sum
    }
}

impl Lot {
    fn is_of_plan(&self) -> bool {
        matches!(self.source, LotSource::Plan | LotSource::FreePlan)
    }

    /// Credits spent of it since a later period began.
    fn spent_since(&self, start: i64) -> i64 {
        let later = self.spent_later.as_deref().filter(|later| start <= later.since);
        later.map_or(0, |later| later.credits.clamp(0, self.spent().max(0)))
    }

    fn spend_later(&mut self, since: i64, credits: i64) {
        let known = self.spent_later.as_deref().copied();
        // The month that was the latest may be used up, and gone from here.
        let since = known.map_or(since, |known| known.since.max(since));
        let before = known.filter(|known| known.since == since).map_or(0, |known| known.credits);
        let credits = before.saturating_add(credits);
        self.spent_later = Some(Box::new(SpentLater { since, credits }));
    }

    /// Takes over what another stream spent of the same lot.
    pub(super) fn merge_spent_later(&mut self, other: &Self) {
        let Some(theirs) = other.spent_later.as_deref().copied() else { return };
        if self.spent_later.as_deref().is_none_or(|ours| ours.since <= theirs.since) {
            self.spend_later(theirs.since, theirs.credits);
        }
    }
}

impl Credits {
    /// Notes what is being spent of lots that are of earlier periods than the one that runs. Nobody says what time it is: the
    /// period is the latest that Stripe has told of, or the latest month that credits were given for.
    pub(super) fn note_spent_later(&mut self, draws: &[Draw]) {
        let told = self.access.iter().filter_map(|access| access.period_start);
        let months = self.lots.iter().filter(|lot| lot.source == LotSource::FreePlan || lot.is_refill());
        let Some(latest) = told.chain(months.map(|lot| lot.effective_at.timestamp())).max() else { return };
        for draw in draws {
            if let Some(lot) = self.lot_mut(draw.lot)
                && lot.is_of_plan()
                && lot.effective_at.timestamp() < latest
            {
                lot.spend_later(latest, draw.amount);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FEBRUARY: i64 = 1_769_904_000;
    const MARCH: i64 = FEBRUARY + 28 * 86_400;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn free_month(name: &str, start: i64) -> Lot {
        Lot::new(LotSource::FreePlan, name, 100, at(start))
    }

    fn spend(credits: &mut Credits, lot: &str, amount: i64) {
        let draw = Draw { lot: super::super::ids::lot_id_of(lot), amount };
        credits.note_spent_later(&[draw]);
        credits.lot_mut(draw.lot).expect("known").remaining -= amount;
    }

    fn told(credits: &Credits, start: i64) -> [i64; 4] {
        let period = Period { start, end: start + 28 * 86_400 };
        let sum = PlanCredits::within(period, credits.lots.iter(), at(start + 86_400));
        assert_eq!(sum.granted + sum.rolled_over, sum.used + sum.remaining);
        [sum.granted, sum.rolled_over, sum.used, sum.remaining]
    }

    #[test]
    fn what_is_spent_counts_in_the_period_that_runs() {
        let mut credits = Credits::default();
        credits.insert_lot(free_month("january", FEBRUARY - 31 * 86_400));
        spend(&mut credits, "january", 30);
        credits.insert_lot(free_month("february", FEBRUARY));
        assert_eq!(told(&credits, FEBRUARY), [100, 70, 0, 170]);
        spend(&mut credits, "january", 20);
        spend(&mut credits, "january", 5);
        spend(&mut credits, "february", 40);
        assert_eq!(told(&credits, FEBRUARY), [100, 70, 65, 105]);
        credits.insert_lot(free_month("march", MARCH));
        assert_eq!(told(&credits, MARCH), [100, 105, 0, 205]);
        spend(&mut credits, "january", 45);
        assert_eq!(told(&credits, MARCH), [100, 105, 45, 160], "the lot is used up, and of this month's use");
    }

    #[test]
    fn packs_and_what_is_not_given_yet_are_left_out_and_what_expired_is_not_told_of() {
        let mut credits = Credits::default();
        let expired = Lot { expires_at: Some(at(FEBRUARY)), ..free_month("january", FEBRUARY - 31 * 86_400) };
        credits.insert_lot(expired);
        credits.insert_lot(Lot::new(LotSource::Pack, "pack", 500, at(FEBRUARY)));
        credits.insert_lot(free_month("february", FEBRUARY));
        credits.insert_lot(free_month("march", MARCH));
        assert_eq!(told(&credits, FEBRUARY), [100, 0, 0, 100]);
    }

    #[test]
    fn what_two_streams_spent_of_one_lot_adds_up_within_the_same_period() {
        let spent =
            |since, credits| Lot { spent_later: Some(Box::new(SpentLater { since, credits })), ..free_month("a", 0) };
        let merged = |mut ours: Lot, theirs: &Lot| {
            ours.merge_spent_later(theirs);
            ours.spent_later.map(|later| (later.since, later.credits))
        };
        assert_eq!(merged(spent(FEBRUARY, 3), &spent(FEBRUARY, 4)), Some((FEBRUARY, 7)));
        assert_eq!(merged(spent(FEBRUARY, 3), &spent(MARCH, 4)), Some((MARCH, 4)));
        assert_eq!(merged(spent(MARCH, 3), &spent(FEBRUARY, 4)), Some((MARCH, 3)));
        assert_eq!(merged(free_month("a", 0), &spent(FEBRUARY, 4)), Some((FEBRUARY, 4)));
    }
}
