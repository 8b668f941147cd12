//! Metered usage on its way to Stripe.

use chrono::{DateTime, Utc};
use deadpool_postgres::Transaction;
use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::error::StoreError;
use crate::domain::metering::ReportId;

/// What was used within one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowUse {
    pub account_id: String,
    pub meter: String,
    pub window_start: i64,
    pub period_start: i64,
    pub quantity: i64,
    pub last_at: i64,
    pub due_at: DateTime<Utc>,
}

/// Adds uses to their windows; each window at most once.
pub async fn add_uses(client: &impl GenericClient, uses: &[WindowUse]) -> Result<(), StoreError> {
    let accounts: Vec<&str> = uses.iter().map(|used| used.account_id.as_str()).collect();
    let meters: Vec<&str> = uses.iter().map(|used| used.meter.as_str()).collect();
    let windows: Vec<i64> = uses.iter().map(|used| used.window_start).collect();
    let periods: Vec<i64> = uses.iter().map(|used| used.period_start).collect();
    let quantities: Vec<i64> = uses.iter().map(|used| used.quantity).collect();
    let lasts: Vec<i64> = uses.iter().map(|used| used.last_at).collect();
    let dues: Vec<DateTime<Utc>> = uses.iter().map(|used| used.due_at).collect();
    client
        .execute(
            "/* add_uses */ insert into usage_windows
                 (account_id, meter, window_start, period_start, quantity, last_at, due_at)
             select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                 $7::timestamptz[])
             on conflict (account_id, meter, window_start, period_start) do update set
                 quantity = usage_windows.quantity + excluded.quantity,
                 last_at = greatest(usage_windows.last_at, excluded.last_at),
                 due_at = case usage_windows.quantity when 0 then excluded.due_at
                     else least(usage_windows.due_at, excluded.due_at) end",
            &[&accounts, &meters, &windows, &periods, &quantities, &lasts, &dues],
        )
        .await?;
    Ok(())
}

/// Lets what an account used before a moment be reported at once: its period is over.
pub async fn flush(
    client: &impl GenericClient,
    account_id: &str,
    before: i64,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    client
        .execute(
            "/* flush */ update usage_windows set due_at = $3
             where account_id = $1 and last_at < $2 and quantity <> 0 and due_at > $3",
            &[&account_id, &before, &now],
        )
        .await?;
    Ok(())
}

/// Turns windows that are due into reports. Answers how many.
pub async fn seal(tx: &Transaction<'_>, now: DateTime<Utc>, limit: i64) -> Result<usize, StoreError> {
    let rows = tx
        .query(
            "/* seal */ select account_id, meter, window_start, period_start, quantity, last_at, reports, ledger_id
             from usage_windows cross join ledger where quantity <> 0 and due_at <= $1
             order by due_at limit $2 for update of usage_windows skip locked",
            &[&now, &limit],
        )
        .await?;
    for row in &rows {
        let (account, meter): (&str, &str) = (row.get(0), row.get(1));
        let (window_start, period_start): (i64, i64) = (row.get(2), row.get(3));
        let (quantity, at): (i64, i64) = (row.get(4), row.get(5));
        let number = row.get::<_, i32>(6) + 1;
        let ledger: Uuid = row.get(7);
        let identifier = ReportId { ledger, account, meter, window_start, period_start, number }.identifier();
        tx.execute(
            "/* seal */ insert into usage_reports
                 (identifier, account_id, meter, quantity, at, status, next_attempt_at, created_at)
             values ($1, $2, $3, $4, $5, 'pending', $6, $6)",
            &[&identifier, &account, &meter, &quantity, &at, &now],
        )
        .await?;
        tx.execute(
            "/* seal */ update usage_windows set quantity = 0, reports = $5
             where account_id = $1 and meter = $2 and window_start = $3 and period_start = $4",
            &[&account, &meter, &window_start, &period_start, &number],
        )
        .await?;
    }
    Ok(rows.len())
}

/// A meter event to be sent.
#[derive(Debug, Clone)]
pub struct Report {
    pub identifier: String,
    pub account_id: String,
    pub meter: String,
    pub quantity: i64,
    pub at: i64,
    pub attempts: i32,
}

/// Takes reports that are due, for nobody else to send until `again_at`.
pub async fn claim(
    client: &impl GenericClient,
    now: DateTime<Utc>,
    again_at: DateTime<Utc>,
    limit: i64,
) -> Result<Vec<Report>, StoreError> {
    let rows = client
        .query(
            "/* claim */ update usage_reports set next_attempt_at = $2, attempts = attempts + 1
             where identifier in (
                 select identifier from usage_reports where status = 'pending' and next_attempt_at <= $1
                 order by next_attempt_at limit $3 for update skip locked)
             returning identifier, account_id, meter, quantity, at, attempts",
            &[&now, &again_at, &limit],
        )
        .await?;
    let report = |row: &tokio_postgres::Row| Report {
        identifier: row.get(0),
        account_id: row.get(1),
        meter: row.get(2),
        quantity: row.get(3),
        at: row.get(4),
        attempts: row.get(5),
    };
    Ok(rows.iter().map(report).collect())
}

/// The Stripe customer who pays for an account: that of the subscription that lives, or lived last.
pub async fn paying_customer(client: &impl GenericClient, account_id: &str) -> Result<Option<String>, StoreError> {
    let row = client
        .query_one(
            "/* paying_customer */ select coalesce(
                 (select state #>> '{current,customer}' from billing_objects
                  where account_id = $1 and kind = 'subscription'
                  order by state #>> '{current,status}' in ('canceled', 'incomplete_expired'), sort_at desc limit 1),
                 (select stripe_id from stripe_links where account_id = $1 and stripe_id like 'cus\\_%'
                  order by stripe_id limit 1))",
            &[&account_id],
        )
        .await?;
    Ok(row.get(0))
}

/// Notes that a report needs no more tries.
pub async fn end(
    client: &impl GenericClient,
    identifier: &str,
    status: &str,
    problem: Option<&str>,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    client
        .execute(
            "/* end */ update usage_reports set status = $2, problem = $3, ended_at = $4
             where identifier = $1 and status = 'pending'",
            &[&identifier, &status, &problem, &now],
        )
        .await?;
    Ok(())
}

/// Notes why a report could not be sent, and when it is tried again.
pub async fn postpone(
    client: &impl GenericClient,
    identifier: &str,
    problem: &str,
    again_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    client
        .execute(
            "/* postpone */ update usage_reports set problem = $2, next_attempt_at = $3
             where identifier = $1 and status = 'pending'",
            &[&identifier, &problem, &again_at],
        )
        .await?;
    Ok(())
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// When the oldest pending report was made.
    pub oldest_pending: Option<DateTime<Utc>>,
    /// Reports that Stripe takes no more.
    pub too_old: i64,
}

pub async fn backlog(client: &impl GenericClient) -> Result<Backlog, StoreError> {
    let row = client
        .query_one(
            "/* backlog */ select (select min(created_at) from usage_reports where status = 'pending'),
                 (select count(*) from usage_reports where status = 'too_old')",
            &[],
        )
        .await?;
    Ok(Backlog { oldest_pending: row.get(0), too_old: row.get(1) })
}

/// Forgets windows and reports that nothing more can come of: everything of them is older than `before`.
pub async fn prune(client: &impl GenericClient, before: DateTime<Utc>) -> Result<(), StoreError> {
    client
        .execute(
            "/* prune */ delete from usage_windows where quantity = 0 and last_at < extract(epoch from $1::timestamptz)",
            &[&before],
        )
        .await?;
    client
        .execute("/* prune */ delete from usage_reports where status = 'reported' and ended_at < $1", &[&before])
        .await?;
    Ok(())
}
