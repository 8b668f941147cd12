//! How often an account calls payment routes, over all replicas.

use chrono::{DateTime, Utc};
use tokio_postgres::GenericClient;

use super::error::StoreError;

/// Counts a call in the window that began at `window`, and answers how many that makes, and which window they are in: a
/// replica whose clock is behind counts in the window that others are in already.
pub async fn count_call(
    client: &impl GenericClient,
    account: &str,
    window: DateTime<Utc>,
) -> Result<(i64, DateTime<Utc>), StoreError> {
    let row = client
        .query_one(
            "/* count_call */ insert into payment_route_calls as known (account_id, window_started_at, calls)
             values ($1, $2, 1)
             on conflict (account_id) do update set
                 calls = case when excluded.window_started_at > known.window_started_at then 1
                              else least(known.calls, 1000000) + 1 end,
                 window_started_at = greatest(known.window_started_at, excluded.window_started_at)
             returning calls, window_started_at",
            &[&account, &window],
        )
        .await?;
    Ok((i64::from(row.get::<_, i32>(0)), row.get(1)))
}
