//! Following the log: where its partitions end, and whom a stretch of it is about.

use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::error::StoreError;
use super::load::account_id;
use crate::domain::ids::AccountId;

/// Positions of one partition: those after `after`, up to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    pub partition_id: i16,
    pub after: i64,
    pub to: i64,
}

/// Every partition's last position. No statement is prepared for it, so it is one round trip.
pub async fn ends(client: &impl GenericClient) -> Result<Vec<(i16, i64)>, StoreError> {
    let rows = client.query_typed("/* ends */ select partition_id, position from heads", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// An account that something happened to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    pub id: AccountId,
    pub partition_id: i16,
    /// Its last version within the stretch.
    pub version: i64,
    /// A catalog was put on record.
    pub applies_catalog: bool,
}

/// The accounts that the events of some stretches are about.
pub async fn touched(client: &impl GenericClient, stretches: &[Stretch]) -> Result<Vec<Touched>, StoreError> {
    let partitions: Vec<i16> = stretches.iter().map(|stretch| stretch.partition_id).collect();
    let after: Vec<i64> = stretches.iter().map(|stretch| stretch.after).collect();
    let to: Vec<i64> = stretches.iter().map(|stretch| stretch.to).collect();
    let rows = client
        .query_typed(
            "/* touched */ select e.account_id, c.partition_id, max(e.version), bool_or(e.type = 'catalog_applied')
             from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as c (partition_id, after, upto)
             cross join lateral (
                 select account_id, version, type from events
                 where events.partition_id = c.partition_id and events.position > c.after
                     and events.position <= c.upto offset 0) e
             group by e.account_id, c.partition_id",
            &[(&partitions, Type::INT2_ARRAY), (&after, Type::INT8_ARRAY), (&to, Type::INT8_ARRAY)],
        )
        .await?;
    let touched = |row: &tokio_postgres::Row| {
        let (partition_id, version, applies_catalog) = (row.get(1), row.get(2), row.get(3));
        Ok(Touched { id: account_id(row.get(0))?, partition_id, version, applies_catalog })
    };
    rows.iter().map(touched).collect()
}
