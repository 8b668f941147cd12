//! When the money for credit packs is earned: as their credits are spent or expire. Until then it is owed.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use chrono::NaiveDate;
use serde::{Deserialize, Serialize};

use super::month::Month;
use super::share::rounded;
use crate::domain::credit::Lot;

/// Credit packs of one currency.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackMoney {
    pub paid: i128,
    pub returned: i128,
    /// Credits of packs that may still be spent, at what each was bought for: a liability.
    pub outstanding: i128,
    /// The rest of what was kept: for credits spent, expired or written off.
    pub recognised: i128,
}

/// Credit packs of one currency, in one month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackMonth {
    pub paid: i128,
    pub returned: i128,
    /// Earned in it: for credits that were spent, expired or written off. A return that exceeds what was outstanding takes
    /// from its own month.
    pub recognised: i128,
}

impl AddAssign for PackMoney {
    fn add_assign(&mut self, other: Self) {
        self.paid += other.paid;
        self.returned += other.returned;
        self.outstanding += other.outstanding;
        self.recognised += other.recognised;
    }
}

impl AddAssign for PackMonth {
    fn add_assign(&mut self, other: Self) {
        self.paid += other.paid;
        self.returned += other.returned;
        self.recognised += other.recognised;
    }
}

/// A pack that was bought.
pub(super) struct Pack<'a> {
    pub lot: &'a Lot,
    pub paid: i128,
    /// What went back of it, by day.
    pub back: Vec<(NaiveDate, i128)>,
    /// Its credits that may still be spent.
    pub outstanding: i64,
    /// Credits that left it for good, by month.
    pub uses: Option<&'a BTreeMap<Month, i64>>,
}

impl Pack<'_> {
    /// As it stands now.
    pub fn money(&self) -> PackMoney {
        self.standing(self.outstanding, |_| true)
    }

    /// As it stands with so many credits outstanding, after what went back on some days.
    fn standing(&self, outstanding: i64, has_gone_back: impl Fn(NaiveDate) -> bool) -> PackMoney {
        let back = self.back.iter().filter(|(day, _)| has_gone_back(*day)).map(|(_, amount)| amount);
        let (paid, returned) = (self.paid, back.sum::<i128>().min(self.paid));
        let granted = i128::from(self.lot.granted.max(1));
        let worth = rounded(paid * i128::from(outstanding), granted).min(paid - returned);
        PackMoney { paid, returned, outstanding: worth, recognised: paid - returned - worth }
    }

    /// As it stood at the end of a month that is over: out of what is left now, and what went since then.
    fn at_end_of(&self, month: Month) -> PackMoney {
        let after = month.next();
        let later: i64 = self.uses.into_iter().flat_map(|uses| uses.range(after..)).map(|(_, used)| used).sum();
        let expired = self.lot.expires_at.is_some_and(|end| end.date_naive() < after.first_day());
        let left = if expired { 0 } else { (self.lot.remaining + later).clamp(0, self.lot.granted) };
        self.standing(left, |day| day < after.first_day())
    }

    /// What each month added, from the one in which it was bought; all of them together are how it stands.
    pub fn by_month(&self, today: NaiveDate) -> Vec<(Month, PackMonth)> {
        let this_month = Month::of(today);
        let mut before = PackMoney::default();
        let bought = Month::of(self.lot.effective_at.date_naive()).min(this_month);
        let month_of = |month: Month| {
            let now = if month == this_month { self.money() } else { self.at_end_of(month) };
            let was = std::mem::replace(&mut before, now);
            let paid = now.paid - was.paid;
            let (returned, recognised) = (now.returned - was.returned, now.recognised - was.recognised);
            (month, PackMonth { paid, returned, recognised })
        };
        bought.until(this_month).map(month_of).filter(|(_, of_month)| *of_month != PackMonth::default()).collect()
    }
}
