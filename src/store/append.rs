//! Appending a batch of decided commands: one statement, one round trip, one transaction (`sql/V4__append.sql`).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::chain::Hash;
use super::error::StoreError;
use crate::domain::event::EVENT_VERSION;
use crate::projection::{BalanceRow, ObjectRow};

/// First bytes of a SHA-256, behind the time if a key tells one: enough to tell apart all keys there will ever be, and as
/// short in an index as can be.
pub type Digest = Uuid;

/// Rows to append, column by column, as the statement takes them.
#[derive(Debug, Default)]
pub struct Batch {
    pub id: Uuid,
    /// Where the catalog stands that it was decided under; a later one refuses it.
    catalog_position: i64,
    heads: Heads,
    events: Events,
    keys: Keys,
    balances: Balances,
    objects: Objects,
    links: Links,
    linked: HashMap<String, String>,
    inbox: Inbox,
    received: HashSet<String>,
}

#[derive(Debug, Default)]
struct Heads {
    partition: Vec<i16>,
    expected: Vec<i64>,
    position: Vec<i64>,
    hash: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Events {
    partition: Vec<i16>,
    position: Vec<i64>,
    account: Vec<String>,
    version: Vec<i64>,
    previous_position: Vec<i64>,
    event_type: Vec<&'static str>,
    at: Vec<DateTime<Utc>>,
    payload: Vec<String>,
    hash: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Keys {
    partition: Vec<i16>,
    digest: Vec<Digest>,
    request: Vec<Digest>,
    position: Vec<i64>,
    outcome: Vec<Option<String>>,
}

#[derive(Debug, Default)]
struct Balances {
    partition: Vec<i16>,
    account: Vec<String>,
    version: Vec<i64>,
    position: Vec<i64>,
    available: Vec<i64>,
    state: Vec<String>,
}

#[derive(Debug, Default)]
struct Objects {
    partition: Vec<i16>,
    account: Vec<String>,
    kind: Vec<&'static str>,
    id: Vec<String>,
    sort_at: Vec<DateTime<Utc>>,
    state: Vec<Option<String>>,
}

#[derive(Debug, Default)]
struct Links {
    partition: Vec<i16>,
    stripe_id: Vec<String>,
    account: Vec<String>,
    moved_from: Vec<Option<String>>,
}

#[derive(Debug, Default)]
struct Inbox {
    partition: Vec<i16>,
    event: Vec<String>,
    event_type: Vec<String>,
    status: Vec<&'static str>,
    reason: Vec<Option<String>>,
    account: Vec<Option<String>>,
    api_version: Vec<Option<String>>,
    created_at: Vec<Option<DateTime<Utc>>>,
    received_at: Vec<DateTime<Utc>>,
    body: Vec<bytes::Bytes>,
}

/// An event with its place in the log.
#[derive(Debug, Clone)]
pub struct EventRow {
    pub partition_id: i16,
    pub position: i64,
    pub account_id: String,
    pub version: i64,
    /// Of the account's event before this one; 0 before its first.
    pub previous_position: i64,
    pub event_type: &'static str,
    pub at: DateTime<Utc>,
    /// JSON.
    pub payload: String,
    pub hash: Hash,
}

/// A claimed key with its first outcome.
#[derive(Debug, Clone)]
pub struct KeyRow {
    pub key: Digest,
    pub request: Digest,
    pub position: i64,
    /// JSON; `None` when the event at `position` says it all.
    pub outcome: Option<String>,
}

/// What became of a StripeEvent's raw body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboxStatus {
    Applied,
    Superseded,
    Ignored,
    Parked,
}

impl InboxStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Superseded => "superseded",
            Self::Ignored => "ignored",
            Self::Parked => "parked",
        }
    }
}

/// A raw body as Stripe sent it.
#[derive(Debug, Clone)]
pub struct InboxRow {
    pub stripe_event_id: String,
    pub event_type: String,
    pub status: InboxStatus,
    pub reason: Option<String>,
    pub account_id: Option<String>,
    pub api_version: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    pub received_at: DateTime<Utc>,
    pub body: bytes::Bytes,
}

/// Why a partition of a batch was not written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody else wrote to the partition meanwhile.
    Stale,
    /// A key was used before.
    Key,
    /// A Stripe id leads to another account.
    Link,
    /// Another catalog was put in force.
    Catalog,
}

impl Batch {
    pub fn new(id: Uuid, catalog_position: i64) -> Self {
        Self { id, catalog_position, ..Self::default() }
    }

    /// The partition's fence: its position must be `expected`, and will be `position`, hashed `hash`.
    pub fn push_head(&mut self, partition_id: i16, expected: i64, position: i64, hash: &Hash) {
        self.heads.partition.push(partition_id);
        self.heads.expected.push(expected);
        self.heads.position.push(position);
        self.heads.hash.push(hash.to_vec());
    }

    pub fn push_event(&mut self, row: EventRow) {
        self.events.partition.push(row.partition_id);
        self.events.position.push(row.position);
        self.events.account.push(row.account_id);
        self.events.version.push(row.version);
        self.events.previous_position.push(row.previous_position);
        self.events.event_type.push(row.event_type);
        self.events.at.push(row.at);
        self.events.payload.push(row.payload);
        self.events.hash.push(row.hash.to_vec());
    }

    pub fn push_key(&mut self, partition_id: i16, row: KeyRow) {
        self.keys.partition.push(partition_id);
        self.keys.digest.push(row.key);
        self.keys.request.push(row.request);
        self.keys.position.push(row.position);
        self.keys.outcome.push(row.outcome);
    }

    pub fn push_balance(&mut self, partition_id: i16, row: BalanceRow) {
        self.balances.partition.push(partition_id);
        self.balances.account.push(row.account_id);
        self.balances.version.push(row.version);
        self.balances.position.push(row.position);
        self.balances.available.push(row.available);
        self.balances.state.push(row.state);
    }

    pub fn push_object(&mut self, partition_id: i16, row: ObjectRow) {
        self.objects.partition.push(partition_id);
        self.objects.account.push(row.account_id);
        self.objects.kind.push(row.kind);
        self.objects.id.push(row.object_id);
        self.objects.sort_at.push(DateTime::from_timestamp(row.sort_at, 0).unwrap_or_default());
        self.objects.state.push(row.state);
    }

    /// A Stripe id leads to `account` from now on; until now it led nowhere, or to `moved_from`.
    pub fn push_link(&mut self, partition_id: i16, stripe_id: &str, account: &str, moved_from: Option<&str>) {
        // Once is enough; and where one batch would have it lead to two accounts, the first stands.
        if self.linked.contains_key(stripe_id) {
            return;
        }
        self.linked.insert(stripe_id.to_owned(), account.to_owned());
        self.links.partition.push(partition_id);
        self.links.stripe_id.push(stripe_id.to_owned());
        self.links.account.push(account.to_owned());
        self.links.moved_from.push(moved_from.map(str::to_owned));
    }

    /// Whether the batch makes a Stripe id lead to another account than this.
    pub fn links_elsewhere(&self, stripe_id: &str, account: &str) -> bool {
        self.linked.get(stripe_id).is_some_and(|linked| linked != account)
    }

    /// The links it makes: partition, Stripe id, account.
    pub fn links(&self) -> impl Iterator<Item = (i16, &str, &str)> {
        let Links { partition, stripe_id, account, .. } = &self.links;
        (0..partition.len()).map(|at| (partition[at], stripe_id[at].as_str(), account[at].as_str()))
    }

    pub fn push_inbox(&mut self, partition_id: i16, row: InboxRow) {
        if !self.received.insert(row.stripe_event_id.clone()) {
            return;
        }
        self.inbox.partition.push(partition_id);
        self.inbox.event.push(row.stripe_event_id);
        self.inbox.event_type.push(row.event_type);
        self.inbox.status.push(row.status.as_str());
        self.inbox.reason.push(row.reason);
        self.inbox.account.push(row.account_id);
        self.inbox.api_version.push(row.api_version);
        self.inbox.created_at.push(row.created_at);
        self.inbox.received_at.push(row.received_at);
        self.inbox.body.push(row.body);
    }

    /// Events in the batch.
    pub fn events(&self) -> usize {
        self.events.position.len()
    }

    /// For each partition, proof of whether it was written.
    pub fn ends(&self) -> Vec<BatchEnd<'_>> {
        let heads = &self.heads;
        let end = |at: usize| {
            let partition_id = heads.partition[at];
            let keys = (0..self.keys.partition.len()).filter(|key| self.keys.partition[*key] == partition_id);
            BatchEnd {
                partition_id,
                event: (heads.position[at] > heads.expected[at]).then(|| (heads.position[at], &heads.hash[at][..])),
                keys: keys.map(|key| self.keys.claimed(key)).collect(),
            }
        };
        (0..heads.partition.len()).map(end).collect()
    }
}

/// What a committed partition of a batch has: an event that no other batch could have put there; or, where none was
/// written, its keys.
#[derive(Debug, Clone)]
pub struct BatchEnd<'a> {
    pub partition_id: i16,
    /// Position and hash of the last event.
    pub event: Option<(i64, &'a [u8])>,
    /// The claimed keys.
    pub keys: Vec<ClaimedKey<'a>>,
}

/// A key as a batch claims it.
#[derive(Debug, Clone, Copy)]
pub struct ClaimedKey<'a> {
    pub digest: Digest,
    pub request: Digest,
    pub position: i64,
    pub outcome: Option<&'a str>,
}

impl Keys {
    fn claimed(&self, at: usize) -> ClaimedKey<'_> {
        ClaimedKey {
            digest: self.digest[at],
            request: self.request[at],
            position: self.position[at],
            outcome: self.outcome[at].as_deref(),
        }
    }
}

/// Prepares the statement on a connection.
pub async fn prepare(client: &Client) -> Result<Statement, StoreError> {
    const PARAMETERS: usize = 47;
    let places: Vec<String> = (1..=PARAMETERS).map(|n| format!("${n}")).collect();
    let text = format!("/* append */ select refused_partition, reason from append_batch({})", places.join(", "));
    Ok(client.prepare(&text).await?)
}

/// Sees to it that a writer who has gone, with heads locked and an answer under way, is given up soon: everybody else
/// waits for it. Nor is anything written late: when a statement has taken so long, whoever waited for it has been told that
/// the outcome is unknown.
pub async fn limit_stall(client: &Client) -> Result<(), StoreError> {
    Ok(client.batch_execute("/* limit_stall */ set tcp_user_timeout = '10s'; set statement_timeout = '15s'").await?)
}

/// Cuts the transaction off if it does nothing for a while: everybody else waits for the heads it locks.
pub const CUT_OFF: &str = "set local idle_in_transaction_session_timeout = '5s'";

/// Begins a transaction in which heads can be locked before the append. What it reads after it got a lock is as the others
/// left it.
pub async fn begin(client: &Client) -> Result<(), StoreError> {
    Ok(client.batch_execute(&format!("/* begin */ begin isolation level read committed; {CUT_OFF}")).await?)
}

pub async fn commit(client: &Client) -> Result<(), StoreError> {
    Ok(client.batch_execute("/* commit */ commit").await?)
}

pub async fn rollback(client: &Client) -> Result<(), StoreError> {
    Ok(client.batch_execute("/* rollback */ rollback").await?)
}

/// Appends a batch. Answers the partitions that were refused, whole; everything else is durable.
pub async fn append(
    client: &impl tokio_postgres::GenericClient,
    statement: &Statement,
    batch: &Batch,
) -> Result<Vec<(i16, Refusal)>, StoreError> {
    let Batch { id, catalog_position, heads, events, keys, balances, objects, links, inbox, .. } = batch;
    let bodies: Vec<&[u8]> = inbox.body.iter().map(AsRef::as_ref).collect();
    let rows = client
        .query(
            statement,
            &[
                id,
                catalog_position,
                &heads.partition,
                &heads.expected,
                &heads.position,
                &heads.hash,
                &events.partition,
                &events.position,
                &events.account,
                &events.version,
                &events.previous_position,
                &events.event_type,
                &EVENT_VERSION,
                &events.at,
                &events.payload,
                &events.hash,
                &keys.partition,
                &keys.digest,
                &keys.request,
                &keys.position,
                &keys.outcome,
                &balances.partition,
                &balances.account,
                &balances.version,
                &balances.position,
                &balances.available,
                &balances.state,
                &objects.partition,
                &objects.account,
                &objects.kind,
                &objects.id,
                &objects.sort_at,
                &objects.state,
                &links.partition,
                &links.stripe_id,
                &links.account,
                &links.moved_from,
                &inbox.partition,
                &inbox.event,
                &inbox.event_type,
                &inbox.status,
                &inbox.reason,
                &inbox.account,
                &inbox.api_version,
                &inbox.created_at,
                &inbox.received_at,
                &bodies,
            ],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let reason = match row.get::<_, &str>(1) {
                "stale" => Refusal::Stale,
                "key" => Refusal::Key,
                "link" => Refusal::Link,
                "catalog" => Refusal::Catalog,
                other => return Err(StoreError::Corrupt(format!("append_batch gave the reason {other}"))),
            };
            Ok((row.get(0), reason))
        })
        .collect()
}
