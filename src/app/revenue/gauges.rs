//! What Prometheus is told of revenue: as the last report had it. Few labels: currencies and plans.

use prometheus::{Gauge, GaugeVec, Opts, Registry};

use crate::domain::revenue::{PlanOf, Report};

/// Gauges of the last report, in minor units.
#[derive(Debug, Clone)]
pub struct RevenueGauges {
    mrr: GaugeVec,
    past_due_mrr: GaugeVec,
    active_subscriptions: GaugeVec,
    trialing_subscriptions: GaugeVec,
    deferred_revenue: GaugeVec,
    outstanding_packs: GaugeVec,
    outstanding_credits: Gauge,
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
            outstanding_packs: by(
                "subledger_outstanding_packs",
                "Unspent credits of packs, at what they were bought for, in minor units",
                &["currency"],
            )?,
            outstanding_credits: single("subledger_outstanding_credits", "Credits that may still be spent")?,
            as_of: single("subledger_revenue_as_of_seconds", "Unix time of the report that these are from")?,
        })
    }

    /// Shows a report.
    #[allow(clippy::cast_precision_loss)]
    pub fn show(&self, report: &Report) {
        let all = [&self.mrr, &self.past_due_mrr, &self.active_subscriptions, &self.trialing_subscriptions];
        all.into_iter().chain([&self.deferred_revenue, &self.outstanding_packs]).for_each(GaugeVec::reset);
        for report in report.books.iter().filter(|report| report.book.plan != PlanOf::All) {
            let plan = report.book.plan.to_string();
            let labels = [report.book.currency.as_str(), plan.as_str()];
            self.mrr.with_label_values(&labels).set(report.now.mrr as f64);
            self.past_due_mrr.with_label_values(&labels).set(report.now.past_due_mrr as f64);
            self.active_subscriptions.with_label_values(&labels).set(report.now.active_subscriptions as f64);
            self.trialing_subscriptions.with_label_values(&labels).set(report.now.trialing_subscriptions as f64);
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
}
