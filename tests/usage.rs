//! Usage against a model that keeps every use and adds up. The account is kept as a lane keeps it: a hot part, rows beside
//! it, and the rows in memory only where a command needs them.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Duration, Utc};
use proptest::prelude::*;
use subledger::domain::account::{Account, Changes};
use subledger::domain::billing::Billing;
use subledger::domain::catalog::{Catalog, Per};
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, decide};
use subledger::domain::draft::{Context, Draft};
use subledger::domain::event::Event;
use subledger::domain::ids::AccountId;
use subledger::domain::standing::check;
use subledger::domain::usage::{RecordUsage, UsageAction, UsageDay};
use subledger::projection;

const CATALOG: &str = r#"
[features.calls]
name = "Calls"
kind = "metered"

[plans.free]
name = "Free"
rank = 0
default = true

[plans.free.features]
calls = [
    { limit = 1_000_000, per = "minute" }, { limit = 1_000_000, per = "hour" }, { limit = 1_000_000, per = "day" },
    { limit = 1_000_000, per = "month" }, { limit = 1_000_000, per = "period" },
]
"#;

/// 2026-01-29 23:50 UTC: a day, a month and the account's own month are all about to end within the story.
fn start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_769_730_600, 0).expect("a time")
}

/// One step: how long after the last, how many units, and, for a use that is recorded, how long ago it was.
#[derive(Debug, Clone)]
struct Step {
    later: Duration,
    quantity: i64,
    ago: Option<Duration>,
}

fn any_step() -> impl Strategy<Value = Step> {
    let later = prop_oneof![0..90i64, 0..7_200i64, 0..200_000i64];
    let ago = prop_oneof![0..90i64, 0..7_200i64, 0..35 * 86_400i64];
    (later, 1..50i64, prop::option::of(ago)).prop_map(|(later, quantity, ago)| Step {
        later: Duration::seconds(later),
        quantity,
        ago: ago.map(Duration::seconds),
    })
}

/// A ledger of one account: what is in memory, and what is stored.
struct Kept {
    account: Account,
    rows: BTreeMap<String, UsageDay>,
    log: Vec<Event>,
}

impl Kept {
    fn execute(&mut self, command: &Command, context: Context<'_>) {
        if command.needs_billing() && self.account.billing.is_none() {
            let billing = Billing { usage_days: self.rows.clone(), ..Billing::default() };
            self.account.billing = Some(Box::new(billing));
        }
        let mut changes = Changes::default();
        let mut draft = Draft::new(&mut self.account, &mut changes);
        decide(&mut draft, command, context).expect("accepted");
        self.log.extend(draft.events);
        for row in projection::object_rows(&self.account, &changes).expect("rows") {
            match row.state {
                Some(state) => self.rows.insert(row.object_id, serde_json::from_str(&state).expect("a day")),
                None => self.rows.remove(&row.object_id),
            };
        }
        // As after a restart: the hot part is all there is, and is what was stored of it.
        let stored = serde_json::to_string(&self.account.credits).expect("JSON");
        self.account.credits = serde_json::from_str(&stored).expect("readable");
        self.account.billing = None;
    }
}

fn same_window(per: Per, a: DateTime<Utc>, b: DateTime<Utc>) -> bool {
    let of_length = |length| a.timestamp().div_euclid(length) == b.timestamp().div_euclid(length);
    match per {
        Per::Minute => of_length(60),
        Per::Hour => of_length(3_600),
        Per::Day => of_length(86_400),
        Per::Month => (a.year(), a.month()) == (b.year(), b.month()),
        Per::Period => own_month(a) == own_month(b),
    }
}

/// Which of the account's own months holds it.
fn own_month(at: DateTime<Utc>) -> i64 {
    let ends = |n: i64| start().checked_add_months(chrono::Months::new(n as u32)).expect("a month");
    if at < start() { -1 } else { (1..).find(|n| at < ends(*n)).expect("one") }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_window_and_every_day_add_up(steps in prop::collection::vec(any_step(), 1..40)) {
        let catalog = Catalog::from_toml(CATALOG).expect("a catalog");
        let mut now = start();
        let context = |now| Context { catalog: &catalog, catalog_digest: "digest", now };
        let id = AccountId::new("user_1").expect("valid");
        let mut kept = Kept { account: Account::new(id.clone()), rows: BTreeMap::new(), log: Vec::new() };
        kept.execute(&Command::Open { stripe_customer_id: None }, context(now));
        let mut uses: Vec<(DateTime<Utc>, i64)> = Vec::new();
        for (n, Step { later, quantity, ago }) in steps.into_iter().enumerate() {
            now += later;
            let feature = "calls".to_owned();
            let command = match ago {
                None => {
                    let charge = Charge::Feature { feature, quantity };
                    Command::Debit { debit: uuid::Uuid::from_u128(n as u128), charge }
                }
                Some(ago) => {
                    let at = Some(now - ago);
                    Command::RecordUsage(RecordUsage { feature, quantity, action: UsageAction::Increment, at })
                }
            };
            kept.execute(&command, context(now));
            uses.push((now - ago.unwrap_or(Duration::zero()), quantity));

            for limit in check(&kept.account.credits, &catalog, "calls", 1, now).limits {
                let within = uses.iter().filter(|(at, _)| same_window(limit.per, *at, now));
                let expected: i64 = within.map(|(_, quantity)| quantity).sum();
                prop_assert_eq!(limit.used, expected, "per {}", limit.per.as_str());
                prop_assert!(limit.resets_at > now);
            }
        }
        let mut by_day: BTreeMap<String, i64> = BTreeMap::new();
        for (at, quantity) in &uses {
            *by_day.entry(at.date_naive().to_string()).or_default() += quantity;
        }
        let usage = &kept.account.credits.usage;
        let last = uses.iter().map(|(at, _)| at).max().expect("one");
        let open = (last.date_naive().to_string(), usage.open_day());
        let told = kept.rows.clone().into_iter().chain([open]).map(|(day, uses)| (day, uses["calls"].used));
        prop_assert_eq!(told.collect::<BTreeMap<String, i64>>(), by_day);

        // The same out of the log alone, with everything in memory all along.
        let mut rebuilt = Account::new(id);
        kept.log.iter().for_each(|event| rebuilt.evolve(event, &mut Changes::default()));
        prop_assert_eq!(&rebuilt.credits, &kept.account.credits);
        prop_assert_eq!(&rebuilt.billing.expect("kept").usage_days, &kept.rows);
    }
}
