//! Revenue, for people and for machines.

use std::process::ExitCode;

use chrono::TimeDelta;
use clap::Args;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde_json::Value;
use subledger::config::Config;
use subledger::domain::money::{Currency, Money};
use subledger::domain::revenue::answer::{
    Answer, Asked, CreditsAnswer, CurrencyAnswer, MAX_MONTHS, MonthAnswer, PackMonthAnswer, PlanAnswer,
};
use subledger::domain::revenue::month::Month;
use subledger::domain::revenue::{MonthFigures, PackMonth};
use subledger::startup::StartError;

use super::{close, open, print};

#[derive(Debug, Args)]
pub struct RevenueArguments {
    /// First month, such as 2026-01; eleven months before the last, if left out
    #[arg(long)]
    from: Option<Month>,
    /// Last month; the current one, if left out
    #[arg(long)]
    to: Option<Month>,
    /// One currency only
    #[arg(long, value_parser = parse_currency)]
    currency: Option<Currency>,
    /// One plan only
    #[arg(long)]
    plan: Option<String>,
    /// A kept report will do if it is no older than this; 0: make a new one
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32))]
    max_age_seconds: u32,
}

fn parse_currency(code: &str) -> Result<Currency, String> {
    Currency::parse(code).map_err(|error| error.to_string())
}

/// Prints the report.
pub async fn revenue(arguments: RevenueArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let RevenueArguments { from, to, currency, plan, max_age_seconds } = arguments;
    let wrong = |argument, problem: &str| StartError::Argument { argument, problem: problem.to_owned() };
    let (ground, running) = open(config).await?;
    let to = to.unwrap_or_else(|| Month::of(running.service.clock.now().date_naive()));
    let from = from.unwrap_or(to.plus(-11));
    let is_known = plan.as_ref().is_none_or(|plan| running.service.catalog.current().catalog.plan(plan).is_some());
    let problem = if from > to {
        Some(wrong("--from", "must not lie after --to"))
    } else if from.until(to).take(MAX_MONTHS + 1).count() > MAX_MONTHS {
        Some(wrong("--from", "lies too many months before --to"))
    } else {
        (!is_known).then(|| wrong("--plan", "is no plan of the catalog"))
    };
    let max_age = TimeDelta::seconds(i64::from(max_age_seconds));
    let report = match problem {
        Some(problem) => Err(problem),
        None => running.service.revenue(Some(max_age)).await.map_err(StartError::from),
    };
    close(ground, running).await?;
    let asked = Asked { from, to, currency: currency.map(|currency| currency.as_str().to_owned()), plan };
    let answer = report?.answer(&asked);
    print(json, &serde_json::to_value(&answer).unwrap_or(Value::Null), &in_words(&answer));
    Ok(ExitCode::SUCCESS)
}

fn in_words(answer: &Answer) -> String {
    let plan = answer.plan.as_ref().map_or(String::new(), |plan| format!(", plan {plan}"));
    let mut parts = vec![format!("as of {}{plan}", answer.as_of.format("%F %T UTC"))];
    if answer.currencies.is_empty() {
        parts.push("no revenue yet".to_owned());
    }
    parts.extend(answer.currencies.iter().map(of_currency));
    parts.extend(answer.credits.as_ref().map(of_credits));
    let excluded = answer.excluded;
    if excluded.metered_items + excluded.unpriced_items > 0 {
        parts.push(format!(
            "not in MRR: {} metered items, {} items whose price states no amount",
            excluded.metered_items, excluded.unpriced_items
        ));
    }
    parts.join("\n\n")
}

/// In major units, without the currency's name.
fn shown(amount: i128, currency: &str) -> String {
    let (Ok(amount), Ok(currency)) = (i64::try_from(amount), Currency::parse(currency)) else {
        return amount.to_string();
    };
    let text = Money::new(amount, currency).to_string();
    text.split(' ').next().unwrap_or_default().to_owned()
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header.iter().copied());
    table
}

/// The table with all but its first column aligned to the right.
fn finished(mut table: Table) -> String {
    table.column_iter_mut().skip(1).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn of_currency(answer: &CurrencyAnswer) -> String {
    let money = |amount: i128| shown(amount, &answer.currency);
    let percent = |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %"));
    let mut lines = vec![format!(
        "{}: MRR {}, ARR {}, {} active subscriptions, {} trialing",
        answer.currency.to_uppercase(),
        money(answer.mrr),
        money(answer.arr),
        answer.active_subscriptions,
        answer.trialing_subscriptions
    )];
    if answer.past_due.subscriptions > 0 {
        let due = answer.past_due;
        lines.push(format!(
            "at risk: {} past due, MRR {}, {} owed",
            due.subscriptions,
            money(due.mrr),
            money(due.amount)
        ));
    }
    // Two tables: one would be wider than a terminal.
    let mut movements = table(&["month", "MRR", "new", "expansion", "reactivation", "contraction", "churn", "churn %"]);
    let mut accounts = table(&["month", "accounts", "churn %", "trials", "converted", "earned"]);
    let is_before = |month: &&MonthAnswer| month.mrr_start == 0 && month.figures == MonthFigures::default();
    for month in answer.months.iter().skip_while(is_before) {
        let figures = month.figures;
        movements.add_row([
            month.month.to_string(),
            money(figures.mrr_end),
            money(figures.new),
            money(figures.expansion),
            money(figures.reactivation),
            money(figures.contraction),
            money(figures.churn),
            percent(month.revenue_churn_percent),
        ]);
        accounts.add_row([
            month.month.to_string(),
            figures.accounts_end.to_string(),
            percent(month.account_churn_percent),
            figures.trials_started.to_string(),
            figures.trials_converted.to_string(),
            money(figures.recognised),
        ]);
    }
    lines.extend([movements, accounts].into_iter().filter(|months| !months.is_empty()).map(finished));
    if let Some(plans) = answer.by_plan.as_ref().filter(|plans| !plans.is_empty()) {
        let mut rows = table(&["plan", "MRR", "active", "trialing"]);
        for PlanAnswer { plan, mrr, active_subscriptions, trialing_subscriptions } in plans {
            rows.add_row([
                plan.clone().unwrap_or_else(|| "-".to_owned()),
                money(*mrr),
                active_subscriptions.to_string(),
                trialing_subscriptions.to_string(),
            ]);
        }
        lines.push(finished(rows));
    }
    if let Some(all) = answer.money {
        lines.push(format!(
            "invoices: paid {}, from balances {}, returned {}, tax {}; earned {}, deferred {}",
            money(all.paid),
            money(all.from_balance),
            money(all.returned),
            money(all.tax),
            money(all.recognised),
            money(all.deferred)
        ));
    }
    if !answer.deferred.is_empty() {
        let months = answer.deferred.iter().map(|row| format!("{} {}", row.month, money(row.amount)));
        lines.push(format!("deferred to: {}", months.collect::<Vec<_>>().join(", ")));
    }
    if let Some(packs) = answer.packs.as_ref().filter(|packs| packs.all.paid != 0) {
        let all = packs.all;
        lines.push(format!(
            "credit packs: paid {}, returned {}; earned {}, outstanding {}",
            money(all.paid),
            money(all.returned),
            money(all.recognised),
            money(all.outstanding)
        ));
        let mut rows = table(&["month", "packs paid", "returned", "earned"]);
        for PackMonthAnswer { month, figures } in packs.months.iter().filter(|row| row.figures != PackMonth::default())
        {
            rows.add_row([month.to_string(), money(figures.paid), money(figures.returned), money(figures.recognised)]);
        }
        lines.push(finished(rows));
    }
    lines.join("\n")
}

fn of_credits(answer: &CreditsAnswer) -> String {
    let mut sources = table(&["credits", "granted", "spent", "expired", "clawed back", "outstanding"]);
    for (source, totals) in &answer.by_source {
        let row = [totals.granted, totals.spent, totals.breakage, totals.clawed_back, totals.outstanding];
        sources.add_row(std::iter::once(source.clone()).chain(row.map(|credits| credits.to_string())));
    }
    format!("credits: {} outstanding, {} owed\n{}", answer.outstanding, answer.owed, finished(sources))
}
