//! What revenue is told from: collected out of the log, read from the read models page by page, and kept.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use tokio_postgres::{GenericClient, IsolationLevel};

use super::error::StoreError;
use super::load::{account, insert_object};
use crate::domain::account::Account;
use crate::domain::billing::{Billing, Kind};
use crate::domain::credit::LotSource;
use crate::domain::ids::{AccountId, LotId};
use crate::domain::revenue::flows::{CreditFlows, PackUses};
use crate::domain::revenue::month::Month;
use crate::domain::revenue::recurring::ToldSubscription;

/// How far a partition has been collected, and how far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub partition_id: i16,
    pub position: i64,
    pub head: i64,
}

/// What a stretch of a partition says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Collected {
    pub snapshots: Vec<CollectedSnapshot>,
    /// By the first day of the month.
    pub flows: BTreeMap<NaiveDate, CreditFlows>,
    /// Lots that are known to be packs from now on.
    pub packs: Vec<LotId>,
    /// Credits that left lots for good, by the first day of the month; of lots that are no packs, nothing is kept.
    pub uses: BTreeMap<(LotId, NaiveDate), i64>,
}

/// A subscription, as an event of the log shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectedSnapshot {
    pub position: i64,
    pub told: ToldSubscription,
}

/// How far each partition has been collected.
pub async fn cursors(client: &impl GenericClient) -> Result<Vec<Cursor>, StoreError> {
    let rows = client
        .query(
            "/* revenue_cursors */ select h.partition_id, coalesce(c.position, 0), h.position
             from heads h left join revenue_cursors c on c.partition_id = h.partition_id order by h.partition_id",
            &[],
        )
        .await?;
    let cursor =
        |row: &tokio_postgres::Row| Cursor { partition_id: row.get(0), position: row.get(1), head: row.get(2) };
    Ok(rows.iter().map(cursor).collect())
}

/// Keeps what the stretch from a cursor to a position says, and moves the cursor there, in one statement; `false` when another
/// replica has moved it meanwhile, and nothing was kept.
pub async fn collect(
    client: &impl GenericClient,
    from: Cursor,
    to: i64,
    collected: &Collected,
) -> Result<bool, StoreError> {
    client
        .execute(
            "/* begin_revenue_cursor */ insert into revenue_cursors (partition_id) values ($1) on conflict do nothing",
            &[&from.partition_id],
        )
        .await?;
    let snapshots = &collected.snapshots;
    let ids: Vec<&str> = snapshots.iter().map(|snapshot| snapshot.told.subscription.id.as_str()).collect();
    let positions: Vec<i64> = snapshots.iter().map(|snapshot| snapshot.position).collect();
    let observed: Vec<i64> = snapshots.iter().map(|snapshot| snapshot.told.observed_at).collect();
    let states: Vec<String> = snapshots
        .iter()
        .map(|snapshot| serde_json::to_string(&snapshot.told.subscription))
        .collect::<Result<_, _>>()?;
    let changes: Vec<String> =
        snapshots.iter().map(|snapshot| serde_json::to_string(&snapshot.told.change)).collect::<Result<_, _>>()?;
    let months: Vec<NaiveDate> = collected.flows.keys().copied().collect();
    let column = |of: fn(&CreditFlows) -> i64| collected.flows.values().map(of).collect::<Vec<i64>>();
    let (used_lots, used_months): (Vec<LotId>, Vec<NaiveDate>) = collected.uses.keys().copied().unzip();
    let used: Vec<i64> = collected.uses.values().copied().collect();
    let row = client
        .query_one(
            "/* collect_revenue */ with moved as (
                 update revenue_cursors set position = $3 where partition_id = $1 and position = $2 returning 1),
             told as (
                 insert into subscription_snapshots
                     (stripe_subscription_id, partition_id, position, observed_at, snapshot, change)
                 select s.id, $1, s.position, s.observed_at, s.state::json, s.change::json
                 from moved, unnest($4::text[], $5::bigint[], $6::bigint[], $7::text[], $20::text[])
                     as s (id, position, observed_at, state, change)),
             flowed as (
                 insert into credit_flows as known
                     (month, sold, granted, spent, breakage, clawed_back, reinstated, overage)
                 select f.* from moved, unnest($8::date[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[],
                     $13::bigint[], $14::bigint[], $15::bigint[]) as f
                 on conflict (month) do update set
                     sold = known.sold + excluded.sold, granted = known.granted + excluded.granted,
                     spent = known.spent + excluded.spent, breakage = known.breakage + excluded.breakage,
                     clawed_back = known.clawed_back + excluded.clawed_back,
                     reinstated = known.reinstated + excluded.reinstated, overage = known.overage + excluded.overage),
             packed as (
                 insert into pack_lots (lot_id) select p.id from moved, unnest($16::uuid[]) as p (id)
                 on conflict do nothing),
             used as (
                 insert into pack_uses as known (lot_id, month, used)
                 select u.* from moved, unnest($17::uuid[], $18::date[], $19::bigint[]) as u (lot_id, month, used)
                 where u.lot_id = any($16::uuid[]) or exists (select from pack_lots p where p.lot_id = u.lot_id)
                 on conflict (lot_id, month) do update set used = known.used + excluded.used)
             select exists (select from moved)",
            &[
                &from.partition_id,
                &from.position,
                &to,
                &ids,
                &positions,
                &observed,
                &states,
                &months,
                &column(|flows| flows.sold),
                &column(|flows| flows.granted),
                &column(|flows| flows.spent),
                &column(|flows| flows.breakage),
                &column(|flows| flows.clawed_back),
                &column(|flows| flows.reinstated),
                &column(|flows| flows.overage),
                &collected.packs,
                &used_lots,
                &used_months,
                &used,
                &changes,
            ],
        )
        .await?;
    Ok(row.get(0))
}

/// Credits that moved, by month.
pub async fn credit_flows(client: &impl GenericClient) -> Result<BTreeMap<Month, CreditFlows>, StoreError> {
    let rows = client
        .query(
            "/* credit_flows */ select month, sold, granted, spent, breakage, clawed_back, reinstated, overage
             from credit_flows",
            &[],
        )
        .await?;
    let flows = |row: &tokio_postgres::Row| CreditFlows {
        sold: row.get(1),
        granted: row.get(2),
        spent: row.get(3),
        breakage: row.get(4),
        clawed_back: row.get(5),
        reinstated: row.get(6),
        overage: row.get(7),
    };
    Ok(rows.iter().map(|row| (Month::of(row.get(0)), flows(row))).collect())
}

/// Accounts with all that revenue asks of them.
#[derive(Debug, Default)]
pub struct AccountPage {
    /// Each with its Stripe objects and its lots that are used up.
    pub accounts: Vec<(Account, Billing)>,
    /// By subscription.
    pub snapshots: BTreeMap<String, Vec<ToldSubscription>>,
    pub pack_uses: PackUses,
}

/// The accounts after one, in the order of their ids, all as of one moment: a lot that is used up meanwhile is in one place.
pub async fn account_page(
    client: &mut tokio_postgres::Client,
    after: &str,
    limit: i64,
) -> Result<AccountPage, StoreError> {
    let tx = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?;
    let rows = tx
        .query(
            "/* revenue_accounts */ select account_id, version, position, state::text from balances
             where account_id > $1 order by account_id limit $2",
            &[&after, &limit],
        )
        .await?;
    let accounts = rows.iter().map(account).collect::<Result<Vec<Account>, StoreError>>()?;
    let ids: Vec<&str> = accounts.iter().map(|account| account.id.as_str()).collect();
    let kinds =
        [Kind::Subscription, Kind::Invoice, Kind::Payment, Kind::CheckoutSession, Kind::CreditNote, Kind::ClosedLot]
            .map(Kind::as_str);
    let rows = tx
        .query(
            "/* revenue_objects */ select account_id, kind, object_id, state::text from billing_objects
             where account_id = any($1) and kind = any($2)",
            &[&ids, &kinds.as_slice()],
        )
        .await?;
    let mut billings: BTreeMap<&str, Billing> = BTreeMap::new();
    for row in &rows {
        let kind: &str = row.get(1);
        let kind = Kind::parse(kind).ok_or_else(|| StoreError::Corrupt(format!("no kind is called {kind}")))?;
        insert_object(billings.entry(row.get(0)).or_default(), kind, row.get(2), row.get(3))?;
    }
    let subscriptions: Vec<&str> =
        billings.values().flat_map(|billing| billing.subscriptions.keys().map(String::as_str)).collect();
    let told = tx
        .query(
            "/* subscription_snapshots */ select stripe_subscription_id, observed_at, snapshot::text, change::text
             from subscription_snapshots where stripe_subscription_id = any($1)
             order by stripe_subscription_id, observed_at, partition_id, position",
            &[&subscriptions],
        )
        .await?;
    let mut snapshots: BTreeMap<String, Vec<ToldSubscription>> = BTreeMap::new();
    for row in &told {
        let (subscription, change) = (serde_json::from_str(row.get(2))?, serde_json::from_str(row.get(3))?);
        let told = ToldSubscription { observed_at: row.get(1), change, subscription };
        snapshots.entry(row.get(0)).or_default().push(told);
    }
    let packs = accounts.iter().flat_map(|account| account.credits.lots.iter());
    let packs = packs.chain(billings.values().flat_map(|billing| billing.closed_lots.values()));
    let packs: Vec<LotId> = packs.filter(|lot| lot.source == LotSource::Pack).map(|lot| lot.id).collect();
    let used =
        tx.query("/* pack_uses */ select lot_id, month, used from pack_uses where lot_id = any($1)", &[&packs]).await?;
    let mut pack_uses = PackUses::new();
    for row in &used {
        pack_uses.entry(row.get(0)).or_default().insert(Month::of(row.get(1)), row.get(2));
    }
    let billing_of = |id: &AccountId| billings.get(id.as_str()).cloned().unwrap_or_default();
    let billing: Vec<Billing> = accounts.iter().map(|account| billing_of(&account.id)).collect();
    tx.commit().await?;
    Ok(AccountPage { accounts: accounts.into_iter().zip(billing).collect(), snapshots, pack_uses })
}

/// Keeps a report, unless a later one is kept already.
pub async fn keep(client: &impl GenericClient, as_of: DateTime<Utc>, report: &str) -> Result<(), StoreError> {
    client
        .execute(
            "/* keep_revenue */ insert into revenue_reports as kept (as_of, report) values ($1, $2::text::json)
             on conflict (singleton) do update set as_of = excluded.as_of, report = excluded.report
             where kept.as_of <= excluded.as_of",
            &[&as_of, &report],
        )
        .await?;
    Ok(())
}

/// The report that was kept last, as JSON, if it is no older than that.
pub async fn kept(client: &impl GenericClient, oldest: DateTime<Utc>) -> Result<Option<String>, StoreError> {
    let row = client
        .query_opt("/* kept_revenue */ select report::text from revenue_reports where as_of >= $1", &[&oldest])
        .await?;
    Ok(row.map(|row| row.get(0)))
}
