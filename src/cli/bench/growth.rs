//! What a large log costs: the rate of debits beside that of a small one, and the time a rebuild takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use subledger::app::service::{Lanes, Service};
use subledger::app::upkeep::rebuild;
use subledger::store::connect::Database;

use super::report::median;
use super::subject::{self, Keys};
use super::{Arguments, Bench, BenchError, IN_FLIGHT, settle, stop};

pub const MILLION: u64 = 1_000_000;
/// No limit on time: the number of debits is what ends it.
const HOUR: Duration = Duration::from_secs(3_600);

impl Bench<'_> {
    /// A service that has just written so many events, debits but for the accounts' first two, into an empty ledger.
    async fn write_events(
        &self,
        database: &Database,
        accounts: u64,
        keys: Keys,
        events: u64,
    ) -> Result<(Arc<Service>, Lanes), BenchError> {
        let Arguments { partitions, lanes, .. } = *self.arguments;
        let (service, lanes) = subject::start_lanes(database, partitions, lanes).await?;
        subject::open_accounts(&service, accounts).await?;
        subject::debits_in_process(&service, accounts, keys, IN_FLIGHT, HOUR, events - 2 * accounts).await?;
        Ok((service, lanes))
    }

    /// A fresh ledger with so many events, at rest.
    async fn written_ledger(&self, name: &str, accounts: u64, keys: Keys, events: u64) -> Result<Database, BenchError> {
        let (_, database, _) = self.fresh(name, self.arguments.partitions).await?;
        let (service, lanes) = self.write_events(&database, accounts, keys, events).await?;
        stop(service, lanes).await;
        settle(&database).await?;
        Ok(database)
    }

    /// Whether the rate holds as the log grows to so many events.
    pub async fn growth(&mut self, events: u64, keys: Keys) -> Result<(), BenchError> {
        const SMALL: u64 = 10_000;
        // Few enough that the small ledger stays small. So each measurement is short, and it takes many to tell.
        const MEASURED: u64 = 10_000;
        const ROUNDS: usize = 61;
        let rounds = self.arguments.rounds.max(ROUNDS);
        let Arguments { partitions, lanes, .. } = *self.arguments;
        let accounts = SMALL / 4;
        // All small ones first: dropping a database, and before PostgreSQL 15 making one, means a checkpoint, after which
        // every page that is touched is logged whole, and the large ledger would pay for that in every round.
        let mut small = Vec::with_capacity(rounds);
        for round in 0..rounds {
            let (_, database, _) = self.fresh(&format!("growth_small_{round}"), partitions).await?;
            small.push(database);
        }
        // What the rounds add is half of it before, half of it after the number it is called by.
        let before = events - (SMALL + MEASURED) * rounds as u64 / 2;
        let large = self.written_ledger("growth_large", accounts, keys, before).await?;
        let (mut rates_small, mut rates_large) = (vec![], vec![]);
        for (round, small) in small.iter().enumerate() {
            // Each is measured by a service that has just written ten thousand events: the first ones of a new ledger, or
            // the latest of the large one.
            for is_small in [round % 2 == 0, round % 2 == 1] {
                let (rates, (service, lanes)) = if is_small {
                    (&mut rates_small, self.write_events(small, accounts, keys, SMALL).await?)
                } else {
                    let (service, lanes) = subject::start_lanes(&large, partitions, lanes).await?;
                    // Like the other, it has met every account.
                    subject::debit_each(&service, accounts, keys).await?;
                    subject::debits_in_process(&service, accounts, keys, IN_FLIGHT, HOUR, SMALL - accounts).await?;
                    (&mut rates_large, (service, lanes))
                };
                rates.push(subject::debits_in_process(&service, accounts, keys, IN_FLIGHT, HOUR, MEASURED).await?);
                stop(service, lanes).await;
            }
            eprintln!("  round {round}: small {:.0}/s, large {:.0}/s", rates_small[round], rates_large[round]);
        }
        let (subject, yardstick) = (median(&rates_large), median(&rates_small));
        if keys == Keys::Timed {
            self.report.note(format!(
                "Growth: {rounds} rounds of {MEASURED} debits on either ledger, {IN_FLIGHT} in flight in the lanes' own \
                 process, over {accounts} accounts."
            ));
        }
        let name = match keys {
            Keys::Timed => format!("debits with {} M events in the log", events / MILLION),
            Keys::Random => "the same, with keys that do not begin with the time".to_owned(),
        };
        let target = if events > MILLION { 0.85 } else { 0.95 };
        self.report.row(&name, subject, "with 10 k", yardstick, Some(target));
        self.fold(&large).await
    }

    /// Rebuilding every read model, beside reading the same events and nothing else.
    pub async fn rebuild(&mut self) -> Result<(), BenchError> {
        const EVENTS: u64 = 1_000_000;
        let accounts = 10_000.min(self.arguments.accounts);
        let database = self.written_ledger("rebuild", accounts, Keys::Timed, EVENTS).await?;
        let client = database.connect_as_owner().await?;
        let (mut copied, mut rebuilt) = (vec![], vec![]);
        for round in 0..self.arguments.rounds {
            let started = Instant::now();
            let stream = client.copy_out("copy events to stdout (format binary)").await?;
            let bytes: usize = stream.try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len()) }).await?;
            copied.push(EVENTS as f64 / started.elapsed().as_secs_f64());
            let outcome = rebuild::rebuild(&database, Arc::new(|_, _| {})).await?;
            rebuilt.push(outcome.events as f64 / outcome.seconds);
            eprintln!("  round {round}: copy {:.0}/s ({bytes} bytes), rebuild {:.0}/s", copied[round], rebuilt[round]);
        }
        let (subject, yardstick) = (median(&rebuilt), median(&copied));
        self.report.row(
            "rebuild of all read models",
            subject,
            "`COPY events TO STDOUT (FORMAT binary)`",
            yardstick,
            Some(0.5),
        );
        self.fold(&database).await
    }
}
