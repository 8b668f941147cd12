//! Reading stretches of the log fast and in order: COPY in binary, parsed in place.

use std::fmt::Write as _;
use std::pin::Pin;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use tokio_postgres::{Client, CopyOutStream};

use super::error::StoreError;
use super::log::{COLUMNS, StoredEvent};

/// What every binary COPY opens with: a signature, flags, and the length of an extension.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const HEADER: usize = SIGNATURE.len() + 8;
/// Postgres counts microseconds from 2000-01-01.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// An event as it stands in the log, borrowed from the row that was read last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned<'a> {
    pub partition_id: i16,
    pub position: i64,
    pub account_id: &'a str,
    pub version: i64,
    /// Of the account's event before this one; 0 before its first.
    pub previous_position: i64,
    pub event_type: &'a str,
    pub type_version: i16,
    /// Microseconds since the Unix epoch.
    pub at_us: i64,
    /// JSON, byte for byte as it was written.
    pub payload: &'a str,
    /// Empty if the scan leaves hashes out.
    pub hash: &'a [u8],
}

impl Scanned<'_> {
    pub fn at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.at_us).unwrap_or_default()
    }

    pub fn to_stored(self) -> StoredEvent {
        StoredEvent {
            partition_id: self.partition_id,
            position: self.position,
            account_id: self.account_id.to_owned(),
            version: self.version,
            previous_position: self.previous_position,
            event_type: self.event_type.to_owned(),
            type_version: self.type_version,
            at: self.at(),
            payload: self.payload.to_owned(),
        }
    }
}

impl<'a> From<&'a StoredEvent> for Scanned<'a> {
    fn from(stored: &'a StoredEvent) -> Self {
        Self {
            partition_id: stored.partition_id,
            position: stored.position,
            account_id: &stored.account_id,
            version: stored.version,
            previous_position: stored.previous_position,
            event_type: &stored.event_type,
            type_version: stored.type_version,
            at_us: stored.at.timestamp_micros(),
            payload: &stored.payload,
            hash: &[],
        }
    }
}

/// A stretch of the log on its way from the server.
pub struct Scan {
    stream: Pin<Box<CopyOutStream>>,
    row: Bytes,
    has_begun: bool,
}

impl Scan {
    /// All events of the partitions from `first` to `last`, ascending by partition and position. The connection is busy
    /// until the scan has ended.
    pub async fn of_partitions(client: &Client, first: i16, last: i16, hashes: bool) -> Result<Self, StoreError> {
        let hash = if hashes { ", hash" } else { "" };
        let statement = format!(
            "/* scan_of_partitions */ copy (
                 select {COLUMNS}, payload{hash}
                 from events where partition_id between {first} and {last} order by partition_id, position
             ) to stdout (format binary)"
        );
        Self::open(client, &statement).await
    }

    /// The same without hashes, as they lie in the table: nearly, but not quite, in the order of their positions. That
    /// reads the table once, from end to end; in order, every page is visited by nearly every partition.
    pub async fn as_stored(client: &Client, first: i16, last: i16) -> Result<Self, StoreError> {
        let statement = format!(
            "/* scan_as_stored */ copy (
                 select {COLUMNS}, payload from events where partition_id between {first} and {last}
             ) to stdout (format binary)"
        );
        // Else a scan may begin where another one is at the moment, or be several that take turns.
        let in_turn = "set synchronize_seqscans = off; set max_parallel_workers_per_gather = 0";
        client.batch_execute(&format!("/* scan_as_stored */ {in_turn}")).await?;
        Self::open(client, &statement).await
    }

    /// The events after a position in each of some partitions, as of one moment.
    pub async fn of_tails(client: &Client, after: &[(i16, i64)]) -> Result<Self, StoreError> {
        let mut ends = String::new();
        for (partition_id, position) in after {
            let comma = if ends.is_empty() { "" } else { ", " };
            let _ = write!(ends, "{comma}({partition_id}::smallint, {position}::bigint)");
        }
        let statement = format!(
            "/* scan_of_tails */ copy (
                 select {COLUMNS}, payload from events join (values {ends}) as t (of_partition, after)
                     on partition_id = t.of_partition and position > t.after
                 order by partition_id, position
             ) to stdout (format binary)"
        );
        Self::open(client, &statement).await
    }

    async fn open(client: &Client, statement: &str) -> Result<Self, StoreError> {
        let stream = Box::pin(client.copy_out(statement).await?);
        Ok(Self { stream, row: Bytes::new(), has_begun: false })
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Scanned<'_>>, StoreError> {
        let Some(row) = self.stream.next().await else { return Ok(None) };
        self.row = row?;
        let mut fields = Fields { rest: &self.row };
        if !self.has_begun {
            if fields.take(HEADER)?.get(..SIGNATURE.len()) != Some(SIGNATURE) {
                return Err(unexpected("the stream does not begin like a binary COPY"));
            }
            self.has_begun = true;
        }
        let hashes = match i16::from_be_bytes(fields.array()?) {
            // The trailer; what comes after it is only the end of the stream.
            -1 => return Ok(None),
            9 => false,
            10 => true,
            count => return Err(unexpected(&format!("a row has {count} columns"))),
        };
        Ok(Some(Scanned {
            partition_id: i16::from_be_bytes(fields.sized()?),
            position: i64::from_be_bytes(fields.sized()?),
            account_id: fields.text()?,
            version: i64::from_be_bytes(fields.sized()?),
            previous_position: i64::from_be_bytes(fields.sized()?),
            event_type: fields.text()?,
            type_version: i16::from_be_bytes(fields.sized()?),
            at_us: i64::from_be_bytes(fields.sized()?).saturating_add(POSTGRES_EPOCH_US),
            payload: fields.text()?,
            hash: if hashes { fields.field()? } else { &[] },
        }))
    }
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Scan").field("has_begun", &self.has_begun).finish_non_exhaustive()
    }
}

/// The bytes of a row that have not been read yet.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| unexpected("a row ends too soon"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| unexpected("a row ends too soon"))
    }

    /// A field with its length before it; no column of the log can be null.
    fn field(&mut self) -> Result<&'a [u8], StoreError> {
        let len = i32::from_be_bytes(self.array()?);
        let len = usize::try_from(len).map_err(|_| unexpected("a column is null"))?;
        self.take(len)
    }

    fn sized<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let field = self.field()?;
        field.try_into().map_err(|_| unexpected("a column has another width"))
    }

    fn text(&mut self) -> Result<&'a str, StoreError> {
        std::str::from_utf8(self.field()?).map_err(|_| unexpected("a text is not UTF-8"))
    }
}

fn unexpected(what: &str) -> StoreError {
    StoreError::Corrupt(format!("the log cannot be scanned: {what}"))
}
