//! What Prometheus is told of revenue: as the last report had it. Few labels: currencies and plans.

use prometheus::{Gauge, GaugeVec, Opts, Registry};

use crate::domain::revenue::month::Month;
use crate::domain::revenue::{BookReport, PlanOf, Report};

/// Gauges of the last report, in minor units.
#[derive(Debug, Clone)]
pub struct RevenueGauges {
    mrr: GaugeVec,
    arr: GaugeVec,
    mrr_moved: GaugeVec,
    trials: GaugeVec,
    past_due_mrr: GaugeVec,
    active_subscriptions: GaugeVec,
    trialing_subscriptions: GaugeVec,
    deferred_revenue: GaugeVec,
    deferred_by_month: GaugeVec,
    outstanding_packs: GaugeVec,
    outstanding_credits: Gauge,
    credits_moved: GaugeVec,
    /// Unix time of the report; 0 before the first.
    pub as_of: Gauge,
}

impl RevenueGauges {
    /// Makes and registers them. `plan` is `-` for prices that no plan of the catalog names.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let by = |name: &str, help: &str, labels: &[&str]| {
            let gauge = GaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let single = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        const OF_BOOK: &[&str] = &["currency", "plan"];
        Ok(Self {
            mrr: by("subledger_mrr", "What subscriptions bring in a month, in minor units", OF_BOOK)?,
            arr: by("subledger_arr", "Twelve times subledger_mrr, in minor units", OF_BOOK)?,
            mrr_moved: by(
                "subledger_mrr_moved",
                "How MRR moved in the current month (UTC), in minor units",
                &["currency", "movement"],
            )?,
            trials: by(
                "subledger_trials",
                "Trials that started, converted or were lost in the current month (UTC)",
                &["currency", "outcome"],
            )?,
            past_due_mrr: by("subledger_past_due_mrr", "Of that, what waits for an overdue payment", OF_BOOK)?,
            active_subscriptions: by(
                "subledger_active_subscriptions",
                "Subscriptions that are collected for",
                OF_BOOK,
            )?,
            trialing_subscriptions: by("subledger_trialing_subscriptions", "Subscriptions in their trial", OF_BOOK)?,
            deferred_revenue: by(
                "subledger_deferred_revenue",
                "Paid for in invoices and still to be earned, in minor units",
                &["currency"],
            )?,
            deferred_by_month: by(
                "subledger_deferred_revenue_by_month",
                "The month (UTC) in which subledger_deferred_revenue will be earned, in minor units",
                &["currency", "month"],
            )?,
            outstanding_packs: by(
                "subledger_outstanding_packs",
                "Unspent credits of packs, at what they were bought for, in minor units",
                &["currency"],
            )?,
            outstanding_credits: single("subledger_outstanding_credits", "Credits that may still be spent")?,
            credits_moved: by(
                "subledger_credits_moved",
                "Credits that moved in the current month (UTC)",
                &["movement"],
            )?,
            as_of: single("subledger_revenue_as_of_seconds", "Unix time of the report that these are from")?,
        })
    }

    /// Shows a report.
    #[allow(clippy::cast_precision_loss)]
    pub fn show(&self, report: &Report) {
        let by_book =
            [&self.mrr, &self.arr, &self.past_due_mrr, &self.active_subscriptions, &self.trialing_subscriptions];
        let of_months = [&self.mrr_moved, &self.trials, &self.deferred_by_month, &self.credits_moved];
        let others = [&self.deferred_revenue, &self.outstanding_packs];
        by_book.into_iter().chain(of_months).chain(others).for_each(GaugeVec::reset);
        for report in report.books.iter().filter(|report| report.book.plan != PlanOf::All) {
            let plan = report.book.plan.to_string();
            let labels = [report.book.currency.as_str(), plan.as_str()];
            self.mrr.with_label_values(&labels).set(report.now.mrr as f64);
            self.arr.with_label_values(&labels).set(report.now.mrr as f64 * 12.0);
            self.past_due_mrr.with_label_values(&labels).set(report.now.past_due_mrr as f64);
            self.active_subscriptions.with_label_values(&labels).set(report.now.active_subscriptions as f64);
            self.trialing_subscriptions.with_label_values(&labels).set(report.now.trialing_subscriptions as f64);
        }
        self.show_month(report);
        for BookReport { book, months, .. } in report.books.iter().filter(|report| report.book.plan == PlanOf::All) {
            for (month, figures) in months.iter().filter(|(_, figures)| figures.deferred != 0) {
                let labels = [book.currency.as_str(), &month.to_string()];
                self.deferred_by_month.with_label_values(&labels).set(figures.deferred as f64);
            }
        }
        for (currency, money) in &report.money {
            self.deferred_revenue.with_label_values(&[currency]).set(money.deferred as f64);
        }
        for (currency, packs) in &report.packs {
            self.outstanding_packs.with_label_values(&[currency]).set(packs.outstanding as f64);
        }
        let outstanding: i128 = report.credits.values().map(|totals| totals.outstanding).sum();
        self.outstanding_credits.set(outstanding as f64);
        self.as_of.set(report.as_of.timestamp() as f64);
    }

    /// What moved in the month of the report.
    #[allow(clippy::cast_precision_loss)]
    fn show_month(&self, report: &Report) {
        let month = Month::of(report.as_of.date_naive());
        for BookReport { book, months, .. } in report.books.iter().filter(|report| report.book.plan == PlanOf::All) {
            let figures = months.get(&month).copied().unwrap_or_default();
            for (movement, amount) in [
                ("new", figures.new),
                ("expansion", figures.expansion),
                ("reactivation", figures.reactivation),
                ("contraction", figures.contraction),
                ("churn", figures.churn),
            ] {
                self.mrr_moved.with_label_values(&[book.currency.as_str(), movement]).set(amount as f64);
            }
            for (outcome, trials) in [
                ("started", figures.trials_started),
                ("converted", figures.trials_converted),
                ("lost", figures.trials_lost),
            ] {
                self.trials.with_label_values(&[book.currency.as_str(), outcome]).set(trials as f64);
            }
        }
        let flows = report.credit_flows.get(&month).copied().unwrap_or_default();
        for (movement, credits) in [
            ("sold", flows.sold),
            ("granted", flows.granted),
            ("spent", flows.spent),
            ("breakage", flows.breakage),
            ("clawed_back", flows.clawed_back),
            ("reinstated", flows.reinstated),
            ("overage", flows.overage),
        ] {
            self.credits_moved.with_label_values(&[movement]).set(credits as f64);
        }
    }
}
