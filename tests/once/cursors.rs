//! Named cursors: of several processes one follows, another takes over, and each event is taken in once whatever ends.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Transaction;
use serde_json::json;
use subledger::app::log_follower::{Consumer, LogFollower, Wanted};
use subledger::clock::SystemClock;
use subledger::store::cursors::{self, Beginning};
use subledger::store::error::StoreError;
use subledger::store::log::StoredEvent;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uuid::Uuid;

use super::client::Caller;
use super::ground::{Ground, Replica};
use super::support::shuffle::Random;

/// Notes the events it is given, where a second note of the same one would be refused. Fails now and then.
struct Notes {
    by: i32,
    random: Random,
}

impl Consumer for Notes {
    const NAME: &'static str = "notes";
    const BEGINNING: Beginning = Beginning::First;

    async fn wanted(&mut self, _: &Client) -> Result<Wanted, StoreError> {
        Ok(Wanted::Types(vec!["account_opened".to_owned(), "credits_granted".to_owned()]))
    }

    async fn take(&mut self, tx: &Transaction<'_>, events: &[StoredEvent]) -> Result<(), StoreError> {
        for event in events {
            let note = "insert into notes values ($1, $2, $3, default)";
            tx.execute(note, &[&event.partition_id, &event.position, &self.by]).await?;
        }
        if self.random.below(3) == 0 { Err(StoreError::Unavailable("chance".to_owned())) } else { Ok(()) }
    }
}

/// One that begins with what comes next.
struct LaterNotes(Notes);

impl Consumer for LaterNotes {
    const NAME: &'static str = "later notes";
    const BEGINNING: Beginning = Beginning::Next;

    async fn wanted(&mut self, client: &Client) -> Result<Wanted, StoreError> {
        self.0.wanted(client).await
    }

    async fn take(&mut self, tx: &Transaction<'_>, events: &[StoredEvent]) -> Result<(), StoreError> {
        self.0.take(tx, events).await
    }
}

async fn follow(replica: &Replica, by: i32) -> JoinHandle<()> {
    let notes = Notes { by, random: Random(by.unsigned_abs().into()) };
    let service = &replica.service;
    let follower = LogFollower::new(notes, service.pool.clone(), service.news(), service.metrics.clone()).await;
    tokio::spawn(follower.expect("a cursor").run(watch::channel(false).1))
}

async fn prepare(ground: &Ground) {
    let notes = "create table notes (partition_id smallint, position bigint, by integer,
         number bigint generated always as identity, primary key (partition_id, position));
         grant select, insert on notes to subledger_service";
    ground.admin.batch_execute(notes).await.expect("a table");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_fail_and_die_take_each_event_in_once() {
    let ground = Ground::new().await;
    prepare(&ground).await;
    let replica = ground.replica(Arc::new(SystemClock)).await;
    let caller = Caller::new(replica.address);
    let mut followers = vec![follow(&replica, 1).await, follow(&replica, 2).await];
    for round in 0..40 {
        let account = format!("user_{}", round % 8);
        assert!(caller.put_account(&account, &json!({})).await.expect("an answer").status < 300);
        let granted = caller.grant(&account, &format!("key {round}"), 5).await.expect("an answer");
        assert_eq!(granted.status, 201);
        if round % 10 == 5 {
            // Whoever holds the lease dies without giving it up, in the middle of whatever it does.
            followers.drain(..).for_each(|follower| follower.abort());
            ground.admin.execute("update cursors set held_until = now() - interval '1 s'", &[]).await.expect("expired");
            followers = vec![follow(&replica, round + 1).await, follow(&replica, round + 2).await];
        }
    }
    let wanted = "select count(*) from events where type in ('account_opened', 'credits_granted')";
    let wanted = ground.count(wanted).await;
    for _ in 0..600 {
        if ground.count("select count(*) from notes").await == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    followers.iter().for_each(JoinHandle::abort);
    let missing = "select count(*) from events e left join notes n using (partition_id, position)
         where (e.type in ('account_opened', 'credits_granted')) <> (n.position is not null)";
    assert_eq!(ground.count(missing).await, 0, "something was left out, or was not wanted");
    let unordered = "select count(*) from (
             select position < lag(position) over (partition by partition_id order by number) as back from notes) n
         where back";
    assert_eq!(ground.count(unordered).await, 0, "a partition came out of order");
    replica.stop().await;
}

/// Else an endpoint that is made in the first moments would miss what happens in the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_is_given_what_comes_once_it_was_made_though_it_begins_later() {
    let ground = Ground::new().await;
    prepare(&ground).await;
    let replica = ground.replica(Arc::new(SystemClock)).await;
    let caller = Caller::new(replica.address);
    assert!(caller.put_account("before", &json!({})).await.expect("an answer").status < 300);
    let (pool, metrics) = (replica.service.pool.clone(), replica.service.metrics.clone());
    let notes = LaterNotes(Notes { by: 1, random: Random(1) });
    let follower = LogFollower::new(notes, pool, replica.service.news(), metrics).await.expect("a cursor");
    assert!(caller.put_account("after", &json!({})).await.expect("an answer").status < 300);
    let follower = tokio::spawn(follower.run(watch::channel(false).1));
    for _ in 0..600 {
        if ground.count("select count(*) from notes").await > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    follower.abort();
    let noted = "select string_agg(account_id, ' ') from notes join events using (partition_id, position)
         where type = 'account_opened'";
    let noted: Option<String> = ground.admin.query_one(noted, &[]).await.expect("accounts").get(0);
    assert_eq!(noted.as_deref(), Some("after"));
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_one_holders_until_it_ends_and_the_loser_moves_nothing() {
    let ground = Ground::new().await;
    let client = ground.database.connect().await.expect("a connection");
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(cursors::hold(&client, "x", one, 60.0).await.expect("asked"), None, "nobody made it");
    cursors::make(&client, "x", Beginning::Next).await.expect("made");
    cursors::make(&client, "x", Beginning::First).await.expect("it is there, and stays as it is");
    let held = cursors::hold(&client, "x", one, 60.0).await.expect("asked").expect("held");
    let ends = subledger::store::log::positions(&client).await.expect("ends");
    assert_eq!(held, ends, "a new follower begins with what comes next");
    assert_eq!(cursors::hold(&client, "x", other, 60.0).await.expect("asked"), None);
    let expire = "update cursors set held_until = now() - interval '1 s'";
    ground.admin.execute(expire, &[]).await.expect("expired");
    let taken = cursors::hold(&client, "x", other, 60.0).await.expect("asked");
    assert_eq!(taken, Some(ends.clone()));
    assert!(!cursors::advance(&client, "x", one, 60.0, &ends).await.expect("asked"), "it was taken over");
    assert!(cursors::advance(&client, "x", other, 60.0, &ends).await.expect("asked"));
    cursors::release(&client, "x", other).await.expect("released");
    assert!(cursors::hold(&client, "x", one, 60.0).await.expect("asked").is_some());
}
