//! When invoiced money is earned: each line over its period, by day; what went back, off what was still to be earned.
//!
//! Only paid invoices count. An invoice's lines, less discounts, credit notes before payment and tax, are spread over the
//! days (UTC) of their periods: the first day is in, the last is not, and a period within one day is that day. Earned by the
//! end of a day is the nearest whole number to the exact share, so the months of a line add up to it, and a month that is
//! over never changes as time goes on. A refund, a lost dispute or a credit note after payment takes from what is to be
//! earned from its day on, all lines in proportion; what goes beyond that is taken off on that very day. Months that are
//! over stay as they were reported. (So a refund is treated as a change of what is still owed under the contract, as
//! IFRS 15.18-21 and ASC 606-10-25-13 have modifications.)

use std::collections::BTreeMap;
use std::ops::AddAssign;

use chrono::{Days, NaiveDate};
use serde::{Deserialize, Serialize};

use super::PlanOf;
use super::month::{Month, day_of};
use super::share::{allocated, rounded};
use crate::domain::billing::Billing;
use crate::domain::invoice_record::InvoiceRecord;
use crate::domain::payment::Payment;
use crate::domain::stripe_object::{Invoice, InvoiceLine};

/// What became of invoiced money of one currency, in minor units:
/// `recognised + deferred + tax = paid + from_balance − returned`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvoiceMoney {
    /// That came in for invoices.
    pub paid: i128,
    /// Settled out of customers' credit balances with Stripe; negative: added to them.
    pub from_balance: i128,
    /// That went back: refunds, lost disputes, credit notes after payment. A credit note and a refund of one invoice are
    /// taken for the same money, up to the larger.
    pub returned: i128,
    /// Of what was kept; it belongs to the tax office.
    pub tax: i128,
    /// Earned so far.
    pub recognised: i128,
    /// Received, and still to be earned.
    pub deferred: i128,
}

impl AddAssign for InvoiceMoney {
    fn add_assign(&mut self, other: Self) {
        self.paid += other.paid;
        self.from_balance += other.from_balance;
        self.returned += other.returned;
        self.tax += other.tax;
        self.recognised += other.recognised;
        self.deferred += other.deferred;
    }
}

/// No line is earned over more: what Stripe was told wrongly must not make endless months.
const MAX_DAYS: u32 = 36_525;

/// An amount that is earned over some days.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spread {
    plan: PlanOf,
    first: NaiveDate,
    days: u32,
    amount: i128,
    /// Days that still count: fewer than `days` once something took the rest.
    counted: u32,
}

impl Spread {
    fn on_day(plan: PlanOf, day: NaiveDate, amount: i128) -> Self {
        Self { plan, first: day, days: 1, amount, counted: 1 }
    }

    fn of_line(plan: PlanOf, line: &InvoiceLine, amount: i128) -> Self {
        let (first, last) = (day_of(line.period_start), day_of(line.period_end));
        let days = u32::try_from((last - first).num_days()).unwrap_or(0).clamp(1, MAX_DAYS);
        Self { plan, first, days, amount, counted: days }
    }

    /// Earned before a day begins.
    fn earned_before(&self, day: NaiveDate) -> i128 {
        let passed = u32::try_from((day - self.first).num_days().max(0)).unwrap_or(u32::MAX);
        rounded(self.amount * i128::from(passed.min(self.counted)), i128::from(self.days))
    }

    fn total(&self) -> i128 {
        rounded(self.amount * i128::from(self.counted), i128::from(self.days))
    }

    /// The first day on which all is earned.
    fn end(&self) -> NaiveDate {
        self.first.checked_add_days(Days::new(u64::from(self.counted))).unwrap_or(NaiveDate::MAX)
    }
}

/// How an invoice is earned.
#[derive(Debug, Clone)]
pub struct Recognition {
    spreads: Vec<Spread>,
    paid: i128,
    from_balance: i128,
    returned: i128,
    tax: i128,
}

impl Recognition {
    /// `None` for an invoice that is not paid. `plan_of` tells the plan of a line.
    pub fn of(record: &InvoiceRecord, billing: &Billing, plan_of: impl Fn(&InvoiceLine) -> PlanOf) -> Option<Self> {
        let invoice = record.current().filter(|invoice| invoice.status == "paid")?;
        let gross = i128::from(invoice.total) - i128::from(invoice.pre_payment_credit_notes_amount);
        let tax_free = i128::from(invoice.total) - i128::from(invoice.tax);
        // Of an amount with tax, what is left without.
        let net_of = |amount: i128| match i128::from(invoice.total) {
            0 => amount,
            total if total < 0 => rounded(-amount * tax_free, -total),
            total => rounded(amount * tax_free, total),
        };
        let net = net_of(gross);
        let mut recognition = Self {
            spreads: spreads_of(invoice, net, plan_of),
            paid: i128::from(invoice.amount_paid),
            from_balance: gross - i128::from(invoice.amount_paid),
            returned: 0,
            tax: gross - net,
        };
        let (mut returned, mut returned_net) = (0, 0);
        for (day, amount) in returns_of(record, invoice, billing) {
            let most = gross.max(0) - returned;
            let amount = amount.min(most);
            returned += amount;
            let so_far = net_of(returned);
            recognition.give_back(day, so_far - returned_net);
            returned_net = so_far;
        }
        recognition.returned = returned;
        recognition.tax -= returned - returned_net;
        Some(recognition)
    }

    /// Takes `amount` off what is to be earned from a day on, and what that does not hold off the day itself.
    fn give_back(&mut self, day: NaiveDate, amount: i128) {
        let open: Vec<i128> = self.spreads.iter().map(|spread| spread.total() - spread.earned_before(day)).collect();
        let off = amount.clamp(0, open.iter().sum::<i128>().max(0));
        if off > 0 {
            let shares = allocated(off, &open);
            let mut later = Vec::new();
            for ((spread, open), share) in self.spreads.iter_mut().zip(&open).zip(shares) {
                if *open == 0 {
                    continue;
                }
                let passed = u32::try_from((day - spread.first).num_days().max(0)).unwrap_or(u32::MAX);
                let days = spread.counted.saturating_sub(passed).max(1);
                let first = spread.first.max(day);
                later.push(Spread { plan: spread.plan.clone(), first, days, amount: open - share, counted: days });
                spread.counted = passed.min(spread.counted);
            }
            self.spreads.extend(later);
        }
        let weights: Vec<i128> = self.spreads.iter().map(|spread| spread.amount.max(0)).collect();
        let beyond = allocated(amount - off, &weights);
        let plans = self.spreads.iter().map(|spread| spread.plan.clone()).collect::<Vec<_>>();
        let parts = plans.into_iter().zip(beyond).filter(|(_, part)| *part != 0);
        self.spreads.extend(parts.map(|(plan, part)| Spread::on_day(plan, day, -part)));
    }

    /// What has been earned by the end of `today`, and what has not.
    pub fn money(&self, today: NaiveDate) -> InvoiceMoney {
        let tomorrow = today.succ_opt().unwrap_or(today);
        let recognised = self.spreads.iter().map(|spread| spread.earned_before(tomorrow)).sum();
        let total: i128 = self.spreads.iter().map(Spread::total).sum();
        let Self { paid, from_balance, returned, tax, .. } = *self;
        InvoiceMoney { paid, from_balance, returned, tax, recognised, deferred: total - recognised }
    }

    /// Amounts by plan and month: earned by the end of `today`, and to be earned after it.
    pub fn by_month(&self, today: NaiveDate) -> BTreeMap<(PlanOf, Month), (i128, i128)> {
        let tomorrow = today.succ_opt().unwrap_or(today);
        let mut months: BTreeMap<(PlanOf, Month), (i128, i128)> = BTreeMap::new();
        for spread in &self.spreads {
            let last = spread.end().pred_opt().unwrap_or(spread.first).max(spread.first);
            for month in Month::of(spread.first).until(Month::of(last)) {
                let (begin, end) = (month.first_day(), month.next().first_day());
                let cut = tomorrow.clamp(begin, end);
                let earned = spread.earned_before(cut) - spread.earned_before(begin);
                let open = spread.earned_before(end) - spread.earned_before(cut);
                if (earned, open) == (0, 0) {
                    continue;
                }
                let known = months.entry((spread.plan.clone(), month)).or_default();
                *known = (known.0 + earned, known.1 + open);
            }
        }
        months
    }
}

/// The lines of an invoice, so that they add up to `net`.
fn spreads_of(invoice: &Invoice, net: i128, plan_of: impl Fn(&InvoiceLine) -> PlanOf) -> Vec<Spread> {
    let amounts: Vec<i128> = invoice.lines.iter().map(|line| i128::from(line.amount)).collect();
    let sum: i128 = amounts.iter().sum();
    let paid_on = day_of(invoice.paid_at.or(invoice.created).unwrap_or(0));
    if sum == 0 && net != 0 {
        return vec![Spread::on_day(PlanOf::Unmapped, paid_on, net)];
    }
    let amounts = if sum == net { amounts } else { allocated(net, &amounts) };
    let lines = invoice.lines.iter().zip(amounts);
    lines.map(|(line, amount)| Spread::of_line(plan_of(line), line, amount)).collect()
}

/// What went back of an invoice's money, with the day, in the order of time.
fn returns_of(record: &InvoiceRecord, invoice: &Invoice, billing: &Billing) -> Vec<(NaiveDate, i128)> {
    let payments = record.payment_intents().filter_map(|id| billing.payments.get(id));
    let mut returns: Vec<(i64, i128)> = payments.flat_map(money_back).collect();
    let money: i128 = returns.iter().map(|(_, amount)| amount).sum();
    let notes = billing.credit_notes.values().map(|note| &*note.current);
    let notes = notes.filter(|note| {
        note.invoice.as_deref() == Some(invoice.id.as_str())
            && note.status == "issued"
            && note.kind.as_deref() == Some("post_payment")
    });
    let (mut noted, mut noted_at) = (0, None);
    for note in notes {
        noted += i128::from(note.amount);
        noted_at = noted_at.max(note.created);
    }
    noted = noted.max(i128::from(invoice.post_payment_credit_notes_amount));
    if noted > money {
        let at = noted_at.or(invoice.paid_at).or(invoice.created).unwrap_or(0);
        returns.push((at, noted - money));
    }
    returns.sort_unstable();
    returns.into_iter().map(|(at, amount)| (day_of(at), amount)).collect()
}

/// Refunds and lost disputes of a payment, each with its second.
pub fn money_back(payment: &Payment) -> Vec<(i64, i128)> {
    let mut back = Vec::new();
    let good = payment.refunds.values().filter(|refund| !refund.current.has_failed());
    back.extend(
        good.map(|refund| (refund.current.created.unwrap_or(refund.observed_at), i128::from(refund.current.amount))),
    );
    let told: i128 = back.iter().map(|(_, amount)| amount).sum();
    // Some are told of by their charge alone.
    let untold = i128::from(payment.amount_refunded()) - told;
    if untold > 0 {
        let newest = payment.charges.values().filter(|charge| charge.current.amount_refunded > 0);
        back.push((newest.map(|charge| charge.observed_at).max().unwrap_or(0), untold));
    }
    let lost = payment.disputes.values().filter(|dispute| dispute.current.is_lost());
    back.extend(lost.map(|dispute| {
        let dispute = (&dispute.current, dispute.observed_at);
        (dispute.0.created.unwrap_or(dispute.1), i128::from(dispute.0.amount))
    }));
    back
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a day")
    }

    fn spread(first: &str, days: u32, amount: i128) -> Spread {
        Spread { plan: PlanOf::Unmapped, first: day(first), days, amount, counted: days }
    }

    fn recognition(spreads: Vec<Spread>) -> Recognition {
        Recognition { spreads, paid: 0, from_balance: 0, returned: 0, tax: 0 }
    }

    fn months(recognition: &Recognition) -> Vec<(String, i128)> {
        let all = recognition.by_month(NaiveDate::MAX.pred_opt().expect("a day")).into_iter();
        all.map(|((_, month), (earned, _))| (month.to_string(), earned)).collect()
    }

    #[test]
    fn a_year_is_earned_day_by_day() {
        // 365 a year are one a day.
        let months = months(&recognition(vec![spread("2026-01-15", 365, 365)]));
        let days = [17, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 14];
        assert_eq!(months.iter().map(|(_, earned)| *earned).collect::<Vec<_>>(), days);
    }

    #[test]
    fn months_of_a_line_add_up_to_it_however_it_rounds() {
        for amount in [1, 99, 100, 1_999, -1_999] {
            let earned: i128 =
                months(&recognition(vec![spread("2026-01-20", 365, amount)])).iter().map(|(_, earned)| earned).sum();
            assert_eq!(earned, amount);
        }
    }

    #[test]
    fn what_goes_back_is_taken_off_what_is_still_to_be_earned() {
        let mut half_way = recognition(vec![spread("2026-01-01", 59, 5_900)]);
        half_way.give_back(day("2026-02-01"), 1_400);
        assert_eq!(months(&half_way), [("2026-01".to_owned(), 3_100), ("2026-02".to_owned(), 1_400)]);
        // More than there is left: the rest comes off the day itself.
        half_way.give_back(day("2026-02-15"), 1_000);
        assert_eq!(months(&half_way), [("2026-01".to_owned(), 3_100), ("2026-02".to_owned(), 400)]);
        half_way.give_back(day("2026-03-05"), 400);
        let expected = [("2026-01", 3_100), ("2026-02", 400), ("2026-03", -400)];
        assert_eq!(months(&half_way), expected.map(|(month, earned)| (month.to_owned(), earned)));
    }
}
