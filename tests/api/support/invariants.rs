//! What must be true of a ledger whatever was done to it. Checked whenever a test's application ends.

use std::collections::BTreeMap;

use subledger::app::upkeep::verify::{VerifyOptions, verify};
use subledger::domain::credit::{Credits, Draw, LotSource};
use subledger::domain::event::{Event, HoldExpired, HoldReleased};
use subledger::domain::ids::LotId;
use subledger::store::connect::Database;
use tokio_postgres::Client;
use uuid::Uuid;

/// Panics if the ledger is not sound.
pub async fn check(url: &str) {
    the_ledger_verifies(url).await;
    let client = super::house::owner(url).await;
    for (account, log) in &logs(&client).await {
        lots_add_up(account, log, &balance(&client, account).await);
    }
    nothing_personal_is_in_the_log(&client).await;
}

/// The service's own judgement: the hash chain, and every read model against the log.
async fn the_ledger_verifies(url: &str) {
    let database = Database::parse(url).expect("a URL");
    let report = verify(&database, &VerifyOptions::default()).await.expect("a report");
    assert!(report.is_clean(), "{report:#?}");
}

/// Every account's events, in order.
async fn logs(client: &Client) -> BTreeMap<String, Vec<Event>> {
    let rows = client
        .query(
            "select account_id, version, type, type_version, payload::text from events order by account_id, version",
            &[],
        )
        .await
        .expect("the log");
    let mut logs: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for row in rows {
        let log = logs.entry(row.get(0)).or_default();
        let event = Event::read(row.get(2), row.get(3), row.get(4)).expect("a readable event");
        log.push(event);
        assert_eq!(log.len() as i64, row.get::<_, i64>(1), "versions of {} have gaps", row.get::<_, String>(0));
    }
    logs
}

async fn balance(client: &Client, account: &str) -> Credits {
    let row = client.query_one("select state::text from balances where account_id = $1", &[&account]).await;
    serde_json::from_str(row.expect("every account has a balance").get(0)).expect("credits")
}

/// Adds up every movement by itself, without the code under test, and compares it with what the balance says is left.
fn lots_add_up(account: &str, log: &[Event], balance: &Credits) {
    let mut left: BTreeMap<LotId, i64> = BTreeMap::new();
    let mut holds: BTreeMap<Uuid, Vec<Draw>> = BTreeMap::new();
    let (mut debt, mut free_months, mut shares_free_month) = (0, 0, false);
    for event in log {
        match event {
            Event::CreditsGranted(granted) => {
                let before = left.insert(granted.lot.id, granted.lot.granted - granted.lot.clawed_back);
                assert_eq!(before, None, "{account}: {} was granted twice", granted.lot.cause);
                free_months += usize::from(granted.lot.source == LotSource::FreePlan);
            }
            Event::CreditsDebited(debited) => {
                let drawn: i64 = debited.lots.iter().map(|draw| draw.amount).sum();
                let from_lots = debited.amount - debited.debt - debited.overage;
                assert_eq!(drawn, if debited.unlimited { 0 } else { from_lots }, "{account}: {debited:?}");
                debt += debited.debt;
                debited.lots.iter().for_each(|draw| *left.entry(draw.lot).or_default() -= draw.amount);
            }
            Event::CreditsExpired(expired) => {
                expired.lots.iter().for_each(|draw| *left.entry(draw.lot).or_default() -= draw.amount);
            }
            Event::DebtRepaid(repaid) => {
                repaid.lots.iter().for_each(|draw| *left.entry(draw.lot).or_default() -= draw.amount);
                debt -= repaid.lots.iter().map(|draw| draw.amount).sum::<i64>();
                assert!(debt >= 0, "{account}: more was repaid than was owed");
            }
            Event::CreditsClawedBack(clawed) => {
                *left.entry(clawed.lot).or_default() -= clawed.clawed_back;
                debt += clawed.debt;
            }
            Event::CreditsReinstated(reinstated) => {
                *left.entry(reinstated.lot).or_default() += reinstated.reinstated;
                debt = (debt - reinstated.debt).max(0);
            }
            Event::LotAmended(amended) => *left.entry(amended.lot).or_default() += amended.added,
            Event::AccountAbsorbed(absorbed) => {
                let theirs = absorbed.credits.lots.iter().filter(|lot| lot.source == LotSource::FreePlan);
                shares_free_month |= free_months > 0 && theirs.count() > 0;
                for lot in &absorbed.credits.lots {
                    left.entry(lot.id).or_insert(lot.remaining);
                }
                let theirs = absorbed.credits.holds.iter();
                holds.extend(theirs.map(|hold| (hold.id, hold.cover.lots.clone())));
                debt += absorbed.credits.debt;
            }
            Event::HoldPlaced(placed) => {
                holds.insert(placed.hold.id, placed.hold.cover.lots.clone());
            }
            Event::HoldCaptured(captured) => {
                assert!(holds.remove(&captured.hold).is_some(), "{account}: captured twice: {captured:?}");
                captured.cover.lots.iter().for_each(|draw| *left.entry(draw.lot).or_default() -= draw.amount);
                debt += captured.cover.debt;
            }
            Event::HoldReleased(HoldReleased { hold, .. }) | Event::HoldExpired(HoldExpired { hold, .. }) => {
                assert!(holds.remove(hold).is_some(), "{account}: the hold {hold} ended twice");
            }
            Event::AccountMerged(_) => {
                left.clear();
                holds.clear();
            }
            _ => {}
        }
    }
    // Two months that became one: tests/lifecycles/linked_holds.rs adds those up.
    if shares_free_month {
        return;
    }
    assert!(left.values().all(|remaining| *remaining >= 0), "{account} is overspent: {left:?}");
    left.retain(|_, remaining| *remaining != 0);
    let said: BTreeMap<LotId, i64> = balance.lots.iter().map(|lot| (lot.id, lot.remaining)).collect();
    assert_eq!(said, left, "{account}: the lots do not add up");
    let mut held: BTreeMap<LotId, i64> = BTreeMap::new();
    holds.values().flatten().for_each(|draw| *held.entry(draw.lot).or_default() += draw.amount);
    let said: BTreeMap<LotId, i64> =
        balance.lots.iter().filter(|lot| lot.held != 0).map(|lot| (lot.id, lot.held)).collect();
    assert_eq!(said, held, "{account}: the holds do not add up");
    assert!(balance.lots.iter().all(|lot| lot.held <= lot.remaining), "{account}: more is held than there is");
    if balance.merged_into.is_none() {
        assert_eq!(balance.debt, debt, "{account}: the debt does not add up");
    }
}

/// Names and e-mail addresses live in the erasable table and in the inbox, never in the log.
async fn nothing_personal_is_in_the_log(client: &Client) {
    let found = client.query("select type, payload::text from events where payload::text like '%@%'", &[]).await;
    let found: Vec<(String, String)> = found.expect("the log").iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(found.is_empty(), "an e-mail address is in the log: {found:?}");
}
