//! What the ledger says of revenue: recurring revenue and how it moved, money received and when it is earned, credits sold,
//! spent and outstanding. Pure, and additive: each account adds its part to the [`Books`].
//!
//! Amounts are minor units, never converted: each currency is a book of its own. Days and months are UTC's.
//!
//! *MRR* is what subscriptions bring in a month (see [`recurring`] for what counts); *ARR* is twelve times that. Movements
//! compare each account at the close of days, as subscription metrics are commonly defined (Stripe's Billing analytics,
//! ChartMogul, Baremetrics; they differ in what counts, hence the definition): *new* from nothing for the first time,
//! *reactivation* from nothing after it had brought something, *churn* to nothing, *expansion* and *contraction* between. So
//! `mrr_end = mrr_start + new + expansion + reactivation − contraction − churn`. A book of one plan is that plan's alone: who
//! moves to another plan churns in one and is new in the other.
//!
//! A subscription's states count from the second in which Stripe told of them, also those that were delivered after newer
//! ones: so movements are the same in every order of delivery, and a month that is over moves if news of it comes late.
//!
//! *Churn rates* are of what a month began with: accounts that churned, and MRR that churned or contracted.
//!
//! *Trials* are counted by subscription: in the month of their start; as converted in the month in which it first brings
//! something; as lost in that of its end, if it never did.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_with::{DeserializeFromStr, SerializeDisplay};

pub mod answer;
pub mod flows;
pub mod month;
mod pack;
pub mod recognition;
pub mod recurring;
pub mod share;

use self::flows::{CreditFlows, PackUses};
use self::month::{Month, day_of};
use self::pack::Pack;
pub use self::pack::{PackMoney, PackMonth};
use self::recognition::{InvoiceMoney, Recognition, money_back};
use self::recurring::{Course, Discounts, Excluded, ToldSubscription, is_counted, level_of, movements, plan_of};
use super::billing::Billing;
use super::catalog::{Catalog, PriceKey};
use super::credit::{Credits, Lot, LotSource};
use super::invoice_record::InvoiceRecord;
use super::stripe_object::InvoiceLine;

/// Whose revenue a book tells: of all plans together, of one, or of prices that no plan names. Written `*`, the plan's id, or
/// `-`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, SerializeDisplay, DeserializeFromStr)]
pub enum PlanOf {
    All,
    Plan(String),
    Unmapped,
}

impl fmt::Display for PlanOf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::All => "*",
            Self::Plan(plan) => plan,
            Self::Unmapped => "-",
        })
    }
}

impl FromStr for PlanOf {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "*" => Self::All,
            "-" => Self::Unmapped,
            plan => Self::Plan(plan.to_owned()),
        })
    }
}

/// One currency, and all of its plans or one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Book {
    /// ISO 4217, in lower case.
    pub currency: String,
    pub plan: PlanOf,
}

impl Book {
    /// Of a plan, and of all in its currency.
    fn and_all(currency: &str, plan: PlanOf) -> [Self; 2] {
        let of = |plan| Self { currency: currency.to_owned(), plan };
        [of(PlanOf::All), of(plan)]
    }
}

/// What happened in a month.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonthFigures {
    pub new: i128,
    pub expansion: i128,
    pub reactivation: i128,
    pub contraction: i128,
    pub churn: i128,
    /// At the end of the month, or by now.
    pub mrr_end: i128,
    pub new_accounts: u64,
    pub reactivated_accounts: u64,
    pub churned_accounts: u64,
    /// Accounts that bring something at the end of the month, or by now.
    pub accounts_end: u64,
    pub trials_started: u64,
    pub trials_converted: u64,
    pub trials_lost: u64,
    /// Earned in it by now, out of invoices.
    pub recognised: i128,
    /// To be earned in it from tomorrow on, out of invoices that are paid.
    pub deferred: i128,
}

/// How a book stands now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookNow {
    pub mrr: i128,
    /// Subscriptions that count.
    pub active_subscriptions: u64,
    pub trialing_subscriptions: u64,
    /// Those among the active ones whose payment is overdue, what they bring, and what is owed.
    pub past_due_subscriptions: u64,
    pub past_due_mrr: i128,
    pub past_due_amount: i128,
}

/// What became of credits from one source, over all time: `granted = spent + breakage + clawed_back + outstanding`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreditTotals {
    pub granted: i128,
    pub spent: i128,
    pub breakage: i128,
    pub clawed_back: i128,
    pub outstanding: i128,
}

/// Revenue of the whole ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub as_of: DateTime<Utc>,
    pub books: Vec<BookReport>,
    pub money: BTreeMap<String, InvoiceMoney>,
    pub packs: BTreeMap<String, PackMoney>,
    #[serde(default)]
    pub pack_months: BTreeMap<String, BTreeMap<Month, PackMonth>>,
    /// By source, in the words of a lot's `source`.
    pub credits: BTreeMap<String, CreditTotals>,
    /// What accounts owe.
    pub credits_owed: i128,
    pub credit_flows: BTreeMap<Month, CreditFlows>,
    pub excluded: Excluded,
}

/// One book of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BookReport {
    pub book: Book,
    pub now: BookNow,
    /// Those in which something happened, or stood.
    pub months: BTreeMap<Month, MonthFigures>,
}

/// All that is known of one account.
#[derive(Debug, Clone, Copy)]
pub struct AccountFacts<'a> {
    pub billing: &'a Billing,
    pub credits: &'a Credits,
    /// By subscription: what Stripe said of it.
    pub snapshots: &'a BTreeMap<String, Vec<ToldSubscription>>,
    /// What went out of its packs, by month.
    pub pack_uses: &'a PackUses,
}

/// Revenue, as accounts are added one by one.
#[derive(Debug)]
pub struct Books<'c> {
    catalog: &'c Catalog,
    as_of: DateTime<Utc>,
    books: BTreeMap<Book, (BookNow, BTreeMap<Month, MonthFigures>)>,
    report: Report,
}

impl<'c> Books<'c> {
    pub fn new(catalog: &'c Catalog, as_of: DateTime<Utc>) -> Self {
        Self { catalog, as_of, books: BTreeMap::new(), report: Report { as_of, ..Report::default() } }
    }

    /// Adds all that is known of an account. Each account is added once.
    pub fn add(&mut self, facts: &AccountFacts<'_>) {
        let courses = facts.billing.subscriptions.iter().map(|(id, tracked)| {
            let told = facts.snapshots.get(id).into_iter().flatten();
            let newest = (tracked.observed_at, &*tracked.current);
            Course::of(told, newest, facts.billing, self.catalog)
        });
        let courses: Vec<Course<'_>> = courses.collect();
        self.add_movements(&courses);
        for course in &courses {
            self.add_now(course, facts.billing);
            self.add_trial(course);
        }
        for record in facts.billing.invoices.values() {
            self.add_invoice(record, facts);
        }
        for lot in facts.credits.lots.iter().chain(facts.billing.closed_lots.values()) {
            self.add_lot(lot, facts);
        }
        self.report.credits_owed += i128::from(facts.credits.debt);
    }

    /// What the books say.
    pub fn report(self, credit_flows: BTreeMap<Month, CreditFlows>) -> Report {
        let books = self.books.into_iter().map(|(book, (now, months))| BookReport { book, now, months });
        Report { books: books.collect(), credit_flows, ..self.report }
    }

    fn month(&mut self, book: &Book, month: Month) -> &mut MonthFigures {
        self.books.entry(book.clone()).or_default().1.entry(month).or_default()
    }

    fn add_movements(&mut self, courses: &[Course<'_>]) {
        let this_month = Month::of(self.as_of.date_naive());
        for (book, moved) in movements(courses, self.as_of.timestamp()) {
            for movement in &moved {
                let figures = self.month(&book, Month::of(movement.day));
                let by = movement.to - movement.from;
                match (movement.from > 0, movement.to > 0) {
                    (false, true) if movement.is_known => {
                        figures.reactivation += by;
                        figures.reactivated_accounts += 1;
                    }
                    (false, true) => {
                        figures.new += by;
                        figures.new_accounts += 1;
                    }
                    (true, false) => {
                        figures.churn -= by;
                        figures.churned_accounts += 1;
                    }
                    _ if by > 0 => figures.expansion += by,
                    _ => figures.contraction -= by,
                }
            }
            let Some(first) = moved.first() else { continue };
            for month in Month::of(first.day).until(this_month) {
                let end = month.next().first_day();
                let closing = moved.iter().rev().find(|movement| movement.day < end).map_or(0, |movement| movement.to);
                let figures = self.month(&book, month);
                figures.mrr_end += closing;
                figures.accounts_end += u64::from(closing > 0);
            }
        }
    }

    fn add_now(&mut self, course: &Course<'_>, billing: &Billing) {
        let subscription = course.last;
        let second = self.as_of.timestamp();
        let plan = plan_of(subscription, self.catalog);
        let currency = subscription.currency.as_deref().unwrap_or_default();
        let is_trialing = subscription.status == "trialing";
        let counts = is_counted(subscription) && course.ended_at.is_none();
        if !counts && !is_trialing {
            return;
        }
        if counts {
            let discounts = Discounts::of(&subscription.id, billing);
            let (_, excluded) = level_of(subscription, discounts.at(second), self.catalog);
            self.report.excluded.metered_items += excluded.metered_items;
            self.report.excluded.unpriced_items += excluded.unpriced_items;
            self.report.excluded.unmapped_subscriptions += u64::from(plan == PlanOf::Unmapped);
        }
        let unpaid = billing.invoices.values().filter(|record| record.is_unpaid_after_failure());
        let unpaid = unpaid.filter_map(InvoiceRecord::current);
        let owed = unpaid.filter(|invoice| invoice.subscription.as_ref() == Some(&subscription.id));
        let owed: i128 = owed.map(|invoice| i128::from(invoice.amount_remaining)).sum();
        let is_overdue = counts && (owed > 0 || subscription.status == "past_due");
        for book in Book::and_all(currency, plan) {
            let now = &mut self.books.entry(book).or_default().0;
            now.active_subscriptions += u64::from(counts);
            now.trialing_subscriptions += u64::from(is_trialing);
            now.past_due_subscriptions += u64::from(is_overdue);
            now.past_due_amount += if is_overdue { owed } else { 0 };
        }
        for (book, amount) in course.level_at(second).into_iter().flatten() {
            let now = &mut self.books.entry(book.clone()).or_default().0;
            now.mrr += amount;
            now.past_due_mrr += if is_overdue { *amount } else { 0 };
        }
    }

    fn add_trial(&mut self, course: &Course<'_>) {
        let (subscription, now) = (course.last, self.as_of.timestamp());
        let Some(started) = subscription.trial_start.filter(|started| *started <= now) else { return };
        let converted = course.first_paid_after(started).filter(|at| *at <= now);
        let lost = course.ended_at.filter(|at| converted.is_none() && *at <= now);
        let currency = subscription.currency.as_deref().unwrap_or_default();
        for book in Book::and_all(currency, plan_of(subscription, self.catalog)) {
            self.month(&book, Month::of(day_of(started))).trials_started += 1;
            if let Some(at) = converted {
                self.month(&book, Month::of(day_of(at))).trials_converted += 1;
            }
            if let Some(at) = lost {
                self.month(&book, Month::of(day_of(at))).trials_lost += 1;
            }
        }
    }

    fn add_invoice(&mut self, record: &InvoiceRecord, facts: &AccountFacts<'_>) {
        let catalog = self.catalog;
        let plan_of = |line: &InvoiceLine| {
            let price = line.price.as_deref();
            let lookup_key = price.and_then(|price| facts.credits.lookup_keys.get(price)).map(String::as_str);
            let key = price.map(|price| PriceKey { stripe_price_id: price, lookup_key });
            let plan = key.and_then(|key| catalog.plan_of_price(key));
            plan.map_or(PlanOf::Unmapped, |(plan, _)| PlanOf::Plan(plan.id.clone()))
        };
        let Some(recognition) = Recognition::of(record, facts.billing, plan_of) else { return };
        let Some(invoice) = record.current() else { return };
        let today = self.as_of.date_naive();
        *self.report.money.entry(invoice.currency.clone()).or_default() += recognition.money(today);
        for ((plan, month), (recognised, deferred)) in recognition.by_month(today) {
            for book in Book::and_all(&invoice.currency, plan) {
                let figures = self.month(&book, month);
                figures.recognised += recognised;
                figures.deferred += deferred;
            }
        }
    }

    fn add_lot(&mut self, lot: &Lot, facts: &AccountFacts<'_>) {
        // What has expired is breakage, whether or not that is on record yet; what a hold has set aside may still be spent.
        let is_over = lot.is_expired_at(self.as_of);
        let outstanding = if is_over { lot.held } else { lot.remaining };
        let totals = self.report.credits.entry(source_name(lot.source).to_owned()).or_default();
        totals.granted += i128::from(lot.granted);
        totals.spent += i128::from(lot.spent());
        totals.breakage += i128::from(lot.expired + lot.remaining - outstanding);
        totals.clawed_back += i128::from(lot.clawed_back);
        totals.outstanding += i128::from(outstanding);
        let session = lot.bought_by.as_deref().and_then(|id| facts.billing.checkout_sessions.get(id));
        let Some(session) = session.filter(|_| lot.source == LotSource::Pack).map(|record| &record.session.current)
        else {
            return;
        };
        let payment = session.payment_intent.as_deref().and_then(|intent| facts.billing.payments.get(intent));
        let pack = Pack {
            lot,
            paid: session.amount_total.unwrap_or(0).into(),
            back: payment.into_iter().flat_map(money_back).map(|(at, amount)| (day_of(at), amount)).collect(),
            outstanding,
            uses: facts.pack_uses.get(&lot.id),
        };
        let currency = session.currency.clone().unwrap_or_default();
        let packs = self.report.packs.entry(currency.clone()).or_default();
        *packs += pack.money();
        let months = self.report.pack_months.entry(currency).or_default();
        for (month, of_month) in pack.by_month(self.as_of.date_naive()) {
            *months.entry(month).or_default() += of_month;
        }
    }
}

/// As lots are shown with.
fn source_name(source: LotSource) -> &'static str {
    match source {
        LotSource::Plan => "plan",
        LotSource::FreePlan => "free_plan",
        LotSource::Pack => "pack",
        LotSource::Promotion => "promotion",
        LotSource::Manual => "manual",
        LotSource::Reinstatement => "reinstatement",
    }
}
