//! A report, as far as somebody asks for it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::flows::CreditFlows;
use super::month::Month;
use super::recognition::InvoiceMoney;
use super::recurring::Excluded;
use super::{BookReport, CreditTotals, MonthFigures, PackMoney, PackMonth, PlanOf, Report};

/// Months in one answer.
pub const MAX_MONTHS: usize = 120;

/// Which part of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Both included.
    pub from: Month,
    pub to: Month,
    /// `None`: all.
    pub currency: Option<String>,
    /// `None`: all plans together.
    pub plan: Option<String>,
}

/// What is said of revenue. Amounts are minor units of their currency.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// What was paid for, spent or told later is not in it.
    pub as_of: DateTime<Utc>,
    pub from: Month,
    pub to: Month,
    pub plan: Option<String>,
    pub currencies: Vec<CurrencyAnswer>,
    /// Null when one plan is asked for: credits are nobody's plan's.
    pub credits: Option<CreditsAnswer>,
    pub excluded: Excluded,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CurrencyAnswer {
    pub currency: String,
    pub mrr: i128,
    pub arr: i128,
    pub active_subscriptions: u64,
    pub trialing_subscriptions: u64,
    pub past_due: PastDue,
    /// Null when one plan is asked for.
    pub by_plan: Option<Vec<PlanAnswer>>,
    pub months: Vec<MonthAnswer>,
    /// What is received and still to be earned, by the month that will earn it.
    pub deferred: Vec<DeferredMonth>,
    /// Null when one plan is asked for: a payment is for an invoice, whatever its lines are for.
    pub money: Option<InvoiceMoney>,
    pub packs: Option<PacksAnswer>,
}

/// Credit packs: over all time, and by month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PacksAnswer {
    #[serde(flatten)]
    pub all: PackMoney,
    pub months: Vec<PackMonthAnswer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PackMonthAnswer {
    pub month: Month,
    #[serde(flatten)]
    pub figures: PackMonth,
}

/// What brings in revenue as long as it is paid in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PastDue {
    pub subscriptions: u64,
    pub mrr: i128,
    /// Owed on their invoices.
    pub amount: i128,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanAnswer {
    /// Null for subscriptions whose price no plan names.
    pub plan: Option<String>,
    pub mrr: i128,
    pub active_subscriptions: u64,
    pub trialing_subscriptions: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MonthAnswer {
    pub month: Month,
    pub mrr_start: i128,
    pub accounts_start: u64,
    #[serde(flatten)]
    pub figures: MonthFigures,
    /// To one decimal, of what the month began with; null when that was nothing.
    pub account_churn_percent: Option<f64>,
    pub revenue_churn_percent: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DeferredMonth {
    pub month: Month,
    pub amount: i128,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CreditsAnswer {
    /// That may still be spent, of all sources: what the service owes its customers.
    pub outstanding: i128,
    /// That accounts owe.
    pub owed: i128,
    pub by_source: BTreeMap<String, CreditTotals>,
    pub months: Vec<CreditMonth>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CreditMonth {
    pub month: Month,
    #[serde(flatten)]
    pub flows: CreditFlows,
}

impl Report {
    /// The part of it that is asked for.
    pub fn answer(&self, asked: &Asked) -> Answer {
        let plan = asked.plan.clone().map_or(PlanOf::All, PlanOf::Plan);
        let mut currencies: Vec<&str> = self.books.iter().map(|book| book.book.currency.as_str()).collect();
        currencies.extend(self.money.keys().chain(self.packs.keys()).map(String::as_str));
        currencies.sort_unstable();
        currencies.dedup();
        currencies.retain(|known| asked.currency.as_deref().is_none_or(|currency| currency == *known));
        let is_whole = asked.plan.is_none();
        // Nothing is known of months after the report.
        let asked = &Asked { to: asked.to.min(Month::of(self.as_of.date_naive())), ..asked.clone() };
        Answer {
            as_of: self.as_of,
            from: asked.from,
            to: asked.to,
            plan: asked.plan.clone(),
            currencies: currencies.into_iter().map(|currency| self.of_currency(currency, &plan, asked)).collect(),
            credits: is_whole.then(|| self.of_credits(asked)),
            excluded: self.excluded,
        }
    }

    fn book(&self, currency: &str, plan: &PlanOf) -> Option<&BookReport> {
        self.books.iter().find(|report| report.book.currency == currency && report.book.plan == *plan)
    }

    fn of_currency(&self, currency: &str, plan: &PlanOf, asked: &Asked) -> CurrencyAnswer {
        let book = self.book(currency, plan);
        let now = book.map(|book| book.now).unwrap_or_default();
        let none = BTreeMap::new();
        let months = book.map_or(&none, |book| &book.months);
        let is_whole = *plan == PlanOf::All;
        let deferred = months.iter().filter(|(_, figures)| figures.deferred != 0);
        let by_plan = || {
            let plans = self.books.iter().filter(|report| report.book.currency == currency);
            let row = |report: &BookReport| {
                let plan = match &report.book.plan {
                    PlanOf::All => return None,
                    PlanOf::Plan(plan) => Some(plan.clone()),
                    PlanOf::Unmapped => None,
                };
                let now = report.now;
                let is_used = now.active_subscriptions + now.trialing_subscriptions > 0 || now.mrr != 0;
                let (active_subscriptions, trialing_subscriptions) =
                    (now.active_subscriptions, now.trialing_subscriptions);
                is_used.then_some(PlanAnswer { plan, mrr: now.mrr, active_subscriptions, trialing_subscriptions })
            };
            plans.filter_map(row).collect()
        };
        CurrencyAnswer {
            currency: currency.to_owned(),
            mrr: now.mrr,
            arr: now.mrr * 12,
            active_subscriptions: now.active_subscriptions,
            trialing_subscriptions: now.trialing_subscriptions,
            past_due: PastDue {
                subscriptions: now.past_due_subscriptions,
                mrr: now.past_due_mrr,
                amount: now.past_due_amount,
            },
            by_plan: is_whole.then(by_plan),
            months: asked.from.until(asked.to).map(|month| month_of(months, month)).collect(),
            deferred: deferred
                .map(|(month, figures)| DeferredMonth { month: *month, amount: figures.deferred })
                .collect(),
            money: is_whole.then(|| self.money.get(currency).copied().unwrap_or_default()),
            packs: is_whole.then(|| self.of_packs(currency, asked)),
        }
    }

    fn of_packs(&self, currency: &str, asked: &Asked) -> PacksAnswer {
        let all = self.packs.get(currency).copied().unwrap_or_default();
        let known = self.pack_months.get(currency);
        let figures = |month: &Month| known.and_then(|months| months.get(month)).copied().unwrap_or_default();
        let months = asked.from.until(asked.to).map(|month| PackMonthAnswer { month, figures: figures(&month) });
        PacksAnswer { all, months: months.collect() }
    }

    fn of_credits(&self, asked: &Asked) -> CreditsAnswer {
        let flows = |month| self.credit_flows.get(&month).copied().unwrap_or_default();
        CreditsAnswer {
            outstanding: self.credits.values().map(|totals| totals.outstanding).sum(),
            owed: self.credits_owed,
            by_source: self.credits.clone(),
            months: asked.from.until(asked.to).map(|month| CreditMonth { month, flows: flows(month) }).collect(),
        }
    }
}

fn month_of(months: &BTreeMap<Month, MonthFigures>, month: Month) -> MonthAnswer {
    let before = months.get(&month.plus(-1)).copied().unwrap_or_default();
    let figures = months.get(&month).copied().unwrap_or_default();
    MonthAnswer {
        month,
        mrr_start: before.mrr_end,
        accounts_start: before.accounts_end,
        figures,
        account_churn_percent: percent(figures.churned_accounts.into(), before.accounts_end.into()),
        revenue_churn_percent: percent(figures.churn + figures.contraction, before.mrr_end),
    }
}

/// To one decimal.
fn percent(part: i128, of: i128) -> Option<f64> {
    (of > 0).then(|| super::share::rounded(part * 1_000, of) as f64 / 10.0)
}
