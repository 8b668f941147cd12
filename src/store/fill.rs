//! Filling read models under construction: whole partitions by COPY, then what was written meanwhile.

use std::pin::pin;

use chrono::{DateTime, Utc};
use tokio_postgres::Client;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;

use super::error::StoreError;
use crate::projection::{BalanceRow, ObjectRow};

/// That an event of an account links a Stripe id to it.
#[derive(Debug, Clone)]
pub struct Claim {
    pub stripe_id: String,
    pub account_id: String,
    pub partition_id: i16,
    pub at: DateTime<Utc>,
}

// JSON travels as the text it is.
const BALANCE: [Type; 6] = [Type::TEXT, Type::INT2, Type::INT8, Type::INT8, Type::INT8, Type::TEXT];
const OBJECT: [Type; 6] = [Type::TEXT, Type::TEXT, Type::TEXT, Type::INT2, Type::TIMESTAMPTZ, Type::TEXT];
const CLAIM: [Type; 4] = [Type::TEXT, Type::TEXT, Type::INT2, Type::TIMESTAMPTZ];

pub async fn copy_balances(client: &Client, rows: &[(i16, BalanceRow)]) -> Result<(), StoreError> {
    let sink = client
        .copy_in(
            "/* copy_balances */ copy balances (account_id, partition_id, version, position, available, state)
             from stdin (format binary)",
        )
        .await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &BALANCE));
    for (partition_id, row) in rows {
        let BalanceRow { account_id, version, position, available, state } = row;
        writer.as_mut().write(&[account_id, partition_id, version, position, available, state]).await?;
    }
    writer.finish().await?;
    Ok(())
}

pub async fn copy_objects(client: &Client, rows: &[(i16, ObjectRow)]) -> Result<(), StoreError> {
    let sink = client
        .copy_in(
            "/* copy_objects */ copy billing_objects (account_id, kind, object_id, partition_id, sort_at, state)
             from stdin (format binary)",
        )
        .await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &OBJECT));
    for (partition_id, row) in rows {
        let sort_at = DateTime::from_timestamp(row.sort_at, 0).unwrap_or_default();
        writer
            .as_mut()
            .write(&[&row.account_id, &row.kind, &row.object_id, partition_id, &sort_at, &row.state])
            .await?;
    }
    writer.finish().await?;
    Ok(())
}

pub async fn copy_claims(client: &Client, claims: &[Claim]) -> Result<(), StoreError> {
    let sink = client
        .copy_in(
            "/* copy_claims */ copy link_claims (stripe_id, account_id, partition_id, at) from stdin (format binary)",
        )
        .await?;
    let mut writer = pin!(BinaryCopyInWriter::new(sink, &CLAIM));
    for claim in claims {
        writer.as_mut().write(&[&claim.stripe_id, &claim.account_id, &claim.partition_id, &claim.at]).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Turns claims into links, now that it is known which accounts were taken over: their claims moved with them.
pub async fn settle_claims(client: &Client) -> Result<(), StoreError> {
    let statement = "
        /* settle_claims */
        insert into stripe_links (stripe_id, account_id, partition_id)
            select distinct on (c.stripe_id) c.stripe_id, c.account_id, c.partition_id
            from link_claims c join balances b on b.account_id = c.account_id
            where b.state ->> 'merged_into' is null
            order by c.stripe_id, c.at, c.partition_id
        on conflict (stripe_id) do update set account_id = excluded.account_id, partition_id = excluded.partition_id
            where stripe_links.account_id <> excluded.account_id;
        delete from link_claims";
    Ok(client.batch_execute(statement).await?)
}
