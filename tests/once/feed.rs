//! The feed while two replicas write: a consumer that is cut and comes back, to whichever of them, misses nothing and is
//! told nothing twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subledger::clock::SystemClock;
use tokio::task::JoinHandle;

use super::client::Caller;
use super::ground::{Ground, Replica};

/// Nothing here takes as long; who waits longer waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);
const WRITERS: usize = 4;
const ROUNDS: usize = 60;

/// What a consumer was told, and how far it came.
#[derive(Debug, Default)]
struct Heard {
    events: Vec<Value>,
    cursor: Option<String>,
}

impl Heard {
    /// That each partition came without gaps, in order, and nothing twice. Answers how many events there were.
    fn assert_gapless(&self) -> i64 {
        let mut positions: BTreeMap<i64, i64> = BTreeMap::new();
        for event in &self.events {
            let number = |field: &str| event[field].as_i64().expect("a number");
            let last = positions.entry(number("partition")).or_default();
            assert_eq!(number("position"), *last + 1, "in partition {}", number("partition"));
            *last += 1;
        }
        self.events.len() as i64
    }

    /// Reads a stream until some events have come, or the writers are done and nothing more does. Then it is cut, perhaps in
    /// the middle of an event.
    async fn listen(&mut self, replica: &Replica, most: usize, is_over: impl AsyncFn(usize) -> bool) {
        let mut request = reqwest::Client::new()
            .get(format!("http://{}/v1/events?limit=7", replica.address))
            .header("accept", "text/event-stream");
        if let Some(cursor) = &self.cursor {
            request = request.header("last-event-id", cursor);
        }
        let mut response = request.send().await.expect("a stream");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let (mut text, begun) = (String::new(), self.events.len());
        while self.events.len() - begun < most && !is_over(self.events.len()).await {
            let Ok(chunk) = tokio::time::timeout(Duration::from_millis(200), response.chunk()).await else { continue };
            text.push_str(std::str::from_utf8(&chunk.expect("no error").expect("more")).expect("text"));
            while let Some((frame, rest)) = text.split_once("\n\n") {
                self.take(frame);
                text = rest.to_owned();
            }
        }
    }

    fn take(&mut self, frame: &str) {
        let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        if let Some(data) = field("data: ") {
            let event: Value = serde_json::from_str(&data).expect("JSON");
            assert_eq!(field("event: ").as_deref(), event["type"].as_str());
            self.events.push(event);
        }
        self.cursor = field("id: ").or(self.cursor.take());
    }

    /// Asks in long polls, until nothing more comes and the writers are done.
    async fn poll(&mut self, replica: &Replica, writers_are_done: &AtomicBool) {
        let caller = Caller::new(replica.address);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let was_over = writers_are_done.load(Ordering::SeqCst);
            let after = self.cursor.as_ref().map_or(String::new(), |cursor| format!("&after={cursor}"));
            let page = caller.get(&format!("/v1/events?wait_seconds=1&limit=11{after}")).await.json();
            let events = page["data"].as_array().expect("events");
            self.events.extend(events.iter().cloned());
            self.cursor = page["next_cursor"].as_str().map(str::to_owned);
            if was_over && events.is_empty() && page["has_more"] == false {
                return;
            }
            assert!(Instant::now() < deadline, "it never ends");
        }
    }
}

fn write(replica: &Replica, name: String) -> JoinHandle<()> {
    let caller = Caller::new(replica.address);
    tokio::spawn(async move {
        for round in 0..ROUNDS {
            let account = format!("{name}_{}", round % 5);
            assert!(caller.put_account(&account, &json!({})).await.expect("an answer").status < 300);
            let key = format!("{name} {round}");
            assert_eq!(caller.grant(&account, &key, 5).await.expect("an answer").status, 201);
            // Both replicas write to this one.
            assert!(caller.grant("shared", &format!("shared {key}"), 1).await.expect("an answer").status < 300);
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_is_cut_and_comes_back_misses_nothing() {
    let ground = Ground::new().await;
    let replicas = [ground.replica(Arc::new(SystemClock)).await, ground.replica(Arc::new(SystemClock)).await];
    Caller::new(replicas[0].address).put_account("shared", &json!({})).await.expect("opened");
    let writers: Vec<_> = (0..WRITERS).map(|n| write(&replicas[n % 2], format!("writer_{n}"))).collect();
    let are_done = AtomicBool::new(false);
    let (mut listener, mut poller) = (Heard::default(), Heard::default());
    let total = async || ground.count("select sum(position)::bigint from heads").await;
    tokio::join!(
        async {
            for writer in writers {
                writer.await.expect("written");
            }
            are_done.store(true, Ordering::SeqCst);
        },
        async {
            let deadline = Instant::now() + PATIENCE;
            let is_over = async |heard: usize| are_done.load(Ordering::SeqCst) && heard as i64 >= total().await;
            let mut cuts = 0;
            while !is_over(listener.events.len()).await {
                listener.listen(&replicas[cuts % 2], 40, &is_over).await;
                cuts += 1;
                assert!(Instant::now() < deadline, "it never ends");
            }
            assert!(cuts > 5, "only {cuts} cuts");
        },
        poller.poll(&replicas[1], &are_done),
    );
    let log = total().await;
    assert!(log > WRITERS as i64 * ROUNDS as i64 * 2);
    assert_eq!((listener.assert_gapless(), poller.assert_gapless()), (log, log));
    let accounts: BTreeSet<&str> = listener.events.iter().filter_map(|event| event["account"].as_str()).collect();
    assert!(accounts.contains("shared") && accounts.len() > WRITERS * 5, "{accounts:?}");
    for replica in replicas {
        replica.stop().await;
    }
}
