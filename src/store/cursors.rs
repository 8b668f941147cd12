//! Named cursors: how far somebody who follows the log has come, durably, and which process does so now.
//!
//! Times are the database's own, so that the clocks of processes need not agree.

use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::error::StoreError;
use super::log;

/// Each partition with the last position that was taken in.
pub type Positions = Vec<(i16, i64)>;

/// Where a follower begins that has never run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// With the first event there ever was.
    First,
    /// With what comes next.
    Next,
}

/// An array as cursors are stored: partition 0 first.
pub fn array(positions: &[(i16, i64)]) -> Vec<i64> {
    positions.iter().map(|(_, position)| *position).collect()
}

/// The same, as it is worked with.
pub fn positions(array: Vec<i64>) -> Positions {
    (0..).zip(array).collect()
}

/// Makes a cursor, unless there is one. What is appended from then on comes to its follower, whenever that begins.
pub async fn make(client: &impl GenericClient, name: &str, beginning: Beginning) -> Result<(), StoreError> {
    let ends = log::positions(client).await?;
    let begins: Vec<i64> = match beginning {
        Beginning::First => vec![0; ends.len()],
        Beginning::Next => array(&ends),
    };
    client
        .execute(
            "/* make */ insert into cursors (name, positions) values ($1, $2) on conflict do nothing",
            &[&name, &begins],
        )
        .await?;
    Ok(())
}

/// Takes or keeps the lease on a cursor for so many seconds; `None`: another process has it. Answers how far it has come.
pub async fn hold(
    client: &impl GenericClient,
    name: &str,
    holder: Uuid,
    seconds: f64,
) -> Result<Option<Positions>, StoreError> {
    let row = client
        .query_opt(
            "/* hold */ update cursors set holder = $2, held_until = now() + make_interval(secs => $3)
             where name = $1 and (holder = $2 or holder is null or held_until < now()) returning positions",
            &[&name, &holder, &seconds],
        )
        .await?;
    Ok(row.map(|row| positions(row.get(0))))
}

/// Moves a cursor, within the transaction of what was done, and keeps the lease; `false`: it is another's by now, and what
/// was done must be undone.
pub async fn advance(
    client: &impl GenericClient,
    name: &str,
    holder: Uuid,
    seconds: f64,
    to: &[(i16, i64)],
) -> Result<bool, StoreError> {
    let moved = client
        .execute(
            "/* advance */ update cursors set positions = $3, moved_at = now(),
                 held_until = now() + make_interval(secs => $4)
             where name = $1 and holder = $2",
            &[&name, &holder, &array(to), &seconds],
        )
        .await?;
    Ok(moved == 1)
}

/// Gives the lease up, so that another process need not wait for its end.
pub async fn release(client: &impl GenericClient, name: &str, holder: Uuid) -> Result<(), StoreError> {
    client
        .execute(
            "/* release */ update cursors set holder = null, held_until = null where name = $1 and holder = $2",
            &[&name, &holder],
        )
        .await?;
    Ok(())
}
