//! In any order, duplicates and races included, with the account linked whenever: every story ends in its facts, and in
//! the same credits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use subledger::clock::Clock;
use subledger::domain::draft::Context;
use subledger::domain::ids::{AccountId, Ownership};
use subledger::domain::settle::credits_at;
use subledger::store::load;

use super::client::Caller;
use super::ground::{Ground, Replica, clock_at};
use super::story::{End, Link, Story, answers_like, end_in_order};
use super::support::lifecycle::{self, Lifecycle};
use super::support::shuffle::Random;

/// Orders of the longer stories, over all batches.
const ORDERS: usize = 300;
/// Stories that share a database.
const BATCH: usize = 75;
/// Tries before a delivery that is turned away counts as lost.
const MAX_TRIES: u32 = 50;

/// Something to send.
#[derive(Debug, Clone, Copy)]
enum Step {
    Event { story: usize, event: usize },
    Link { story: usize },
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_orders_of_the_longer_stories_end_the_same() {
    let mut stories = lifecycle::all();
    if stories.iter().any(|story| story.events.len() > 7) {
        stories.retain(|story| story.events.len() > 7);
    }
    // Stories of about the same time come together, so that none lies far in the past of all others.
    stories.sort_by_key(|story| story.expect["as_of"].as_i64());
    let copies = ORDERS.div_ceil(stories.len());
    let orders: Vec<(usize, &Lifecycle)> =
        stories.iter().flat_map(|story| (0..copies).map(move |copy| (copy, story))).collect();
    let mut played = 0;
    for (batch, orders) in orders.chunks(BATCH).enumerate() {
        let connections = [16, 1, 6][batch % 3];
        let stories = orders.iter().enumerate();
        let stories = stories.map(|(n, (copy, story))| Story::new(story, *copy, (batch * 1_000 + n) as u64)).collect();
        played += play(stories, batch as u64, connections).await;
    }
    assert!(played >= ORDERS, "{played} orders");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_short_stories_race_on_sixteen_connections() {
    let mut stories = lifecycle::all();
    stories.retain(|story| story.events.len() <= 7);
    let stories = stories.iter().enumerate().map(|(n, story)| Story::new(story, 0, 900_000 + n as u64)).collect();
    play(stories, 900, 16).await;
}

/// Delivers stories, all mixed up, to a fresh database, and checks every end. Answers how many there were.
async fn play(stories: Vec<Story>, seed: u64, connections: usize) -> usize {
    let as_of = stories.iter().filter_map(|story| story.expect["as_of"].as_i64()).max().expect("stories");
    let clock = clock_at(as_of + 1);
    let ground = Ground::new().await;
    let replica = ground.replica(clock.clone()).await;
    let steps = Arc::new(steps(&stories, seed, connections > 1));
    let stories = Arc::new(stories);
    let (next, busy) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let received: Arc<Mutex<HashMap<String, Vec<String>>>> = Arc::default();
    let mut workers = Vec::new();
    for caller in Caller::many(connections, &[replica.address]).await {
        let (steps, stories, next) = (Arc::clone(&steps), Arc::clone(&stories), Arc::clone(&next));
        let (busy, received) = (Arc::clone(&busy), Arc::clone(&received));
        workers.push(tokio::spawn(async move {
            while let Some(step) = steps.get(next.fetch_add(1, Ordering::Relaxed)) {
                let became = send(&caller, &stories, *step, as_of + 1, &busy).await;
                if let Some((id, status)) = became {
                    received.lock().expect("unpoisoned").entry(id).or_default().push(status);
                }
            }
        }));
    }
    for worker in workers {
        worker.await.expect("all delivered");
    }
    for (id, became) in received.lock().expect("unpoisoned").iter() {
        let first = became.iter().filter(|status| *status != "duplicate").count();
        assert_eq!(first, 1, "{id} was taken in as {became:?} (batch {seed})");
    }
    let busy = busy.load(Ordering::Relaxed);
    assert!(connections > 1 || busy == 0, "a lone caller was turned away {busy} times (batch {seed})");
    for story in stories.iter() {
        check(&ground, &replica, story, clock.now()).await;
    }
    ground.assert_whole(&format!("batch {seed}")).await;
    replica.stop().await;
    stories.len()
}

/// All stories' steps, each story's in its own order, mixed. Where deliveries may race, some are sent twice in a row.
fn steps(stories: &[Story], seed: u64, may_race: bool) -> Vec<Step> {
    let mut random = Random(seed);
    let mut placed: Vec<(u64, Step)> = Vec::new();
    for (story, told) in stories.iter().enumerate() {
        let mut places: Vec<u64> = told.order.iter().map(|_| random.next()).collect();
        places.sort_unstable();
        for (place, event) in places.into_iter().zip(&told.order) {
            let step = event.map_or(Step::Link { story }, |event| Step::Event { story, event });
            placed.push((place, step));
            if may_race && random.below(10) == 0 {
                placed.push((place, step));
            }
        }
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, step)| step).collect()
}

/// Sends one step until it is answered, as Stripe would. Answers the event's id and what became of it.
async fn send(
    caller: &Caller,
    stories: &[Story],
    step: Step,
    second: i64,
    busy: &AtomicU64,
) -> Option<(String, String)> {
    let (Step::Event { story, .. } | Step::Link { story }) = step;
    let story = &stories[story];
    let customers: Vec<&str> = story.customers().collect();
    for _ in 0..MAX_TRIES {
        let reply = match step {
            Step::Event { event, .. } => caller.deliver(&story.bodies[event], second).await,
            Step::Link { .. } => caller.link(&story.account, customers[0]).await,
        };
        let reply = reply.expect("an answer");
        match (reply.status, step) {
            (200, Step::Event { event, .. }) => return Some((story.ids[event].clone(), reply.received())),
            (200 | 201, Step::Link { .. }) => return None,
            (503, _) => {
                busy.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            _ => panic!("{step:?} of {}: {reply:?}", story.hint()),
        }
    }
    panic!("{step:?} was turned away {MAX_TRIES} times: {}", story.hint());
}

async fn check(ground: &Ground, replica: &Replica, story: &Story, now: DateTime<Utc>) {
    let (name, hint) = (story.reference(), story.hint());
    let owners = load::links(&ground.admin, &[name.to_owned()]).await.expect("links");
    let owner = owners.get(name).cloned().unwrap_or_else(|| AccountId::new(name).expect("an id"));
    match story.link {
        Link::Never => assert_ne!(owner.standing(), Ownership::Account, "{hint}"),
        Link::Put | Link::ToldAndPut => assert_eq!(owner.as_str(), story.account, "{hint}"),
        Link::Told => {}
    }
    let catalog = replica.service.catalog.current();
    let context = Context { catalog: &catalog.catalog, catalog_digest: &catalog.digest, now };
    let (end, want) = (end_of(ground, &owner, context).await, end_in_order(story, &owner, context));
    end.assert_facts(story);
    assert_eq!(end.credits, want.credits, "credits of {hint}");
    assert!(end.billing == want.billing, "billing of {hint}");
    let caller = Caller::new(replica.address);
    let wanted = story.expected_answers();
    // Either name means the same account.
    let name = if story.seed.is_multiple_of(2) { name } else { owner.as_str() };
    for route in wanted.as_object().expect("routes").keys() {
        let reply = caller.get(&format!("/v1/accounts/{name}/{route}?limit=500")).await;
        let got = answers_like(&wanted, route, &reply.json()["data"]);
        assert_eq!(got, wanted[route], "GET {route} of {name}: {hint}");
    }
    let reply = caller.get(&format!("/v1/accounts/{name}/credits?consistency=strong")).await;
    assert_eq!(reply.json()["available"], want.credits.available_at(now), "GET credits: {hint}");
}

/// The account as the read models have it.
async fn end_of(ground: &Ground, id: &AccountId, context: Context<'_>) -> End {
    let ids = [id.as_str()];
    let account =
        load::accounts(&ground.admin, load::ACCOUNTS, &ids).await.expect("readable").pop().expect("an account");
    let billing = load::billings(&ground.admin, &ids).await.expect("readable").remove(id).unwrap_or_default();
    End { billing, credits: credits_at(id, &account.credits, context) }
}
