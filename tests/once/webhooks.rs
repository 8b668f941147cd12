//! Webhooks while the service is killed: nothing that was appended is left untold, and only what was on its way is told
//! twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

use super::client::Caller;
use super::ground::Ground;
use super::program::{Program, free_address};

const ACCOUNTS: usize = 12;
const ROUNDS: usize = 6;
/// Accounts that one replica delivers to one endpoint at a time.
const PLACES: usize = 8;
const PATIENCE: Duration = Duration::from_secs(90);

/// What came, in order: account, position, id.
type Told = Arc<Mutex<Vec<(String, i64, String)>>>;

async fn receiver() -> (MockServer, Told) {
    let told = Told::default();
    let server = MockServer::start().await;
    let note = Arc::clone(&told);
    let answer = move |request: &Request| {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        let text = |field: &str| body[field].as_str().expect("text").to_owned();
        let position = body["position"].as_i64().expect("a position");
        note.lock().unwrap_or_else(PoisonError::into_inner).push((text("account"), position, text("id")));
        // So long that a kill finds some of them on their way.
        ResponseTemplate::new(200).set_delay(Duration::from_millis(5))
    };
    Mock::given(any()).respond_with(answer).mount(&server).await;
    (server, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_again_and_again_it_tells_everything_in_order_and_little_of_it_twice() {
    let (ground, address) = (Ground::new().await, free_address());
    let (server, told) = receiver().await;
    let caller = Caller::new(address);
    for round in 0..ROUNDS {
        let mut program = Program::start(&ground.url, address);
        program.ready(address).await;
        if round == 0 {
            let body = json!({"url": server.uri(), "event_types": ["credits_granted"]}).to_string();
            let made = caller.ask(Method::POST, "/v1/webhook-endpoints", &[], Some(body)).await.expect("an answer");
            assert_eq!(made.status, 201, "{made:?}");
            for n in 0..ACCOUNTS {
                caller.put_account(&format!("user_{n}"), &json!({})).await.expect("opened");
            }
        }
        for n in 0..ACCOUNTS * 4 {
            let granted = caller.grant(&format!("user_{}", n % ACCOUNTS), &format!("key {round} {n}"), 1).await;
            assert_eq!(granted.expect("an answer").status, 201);
        }
        if round + 1 < ROUNDS {
            program.kill();
            // As if the time had passed for which whoever was killed had leased the cursor and claimed queues.
            let expire =
                "update cursors set held_until = now() - interval '1 s'; update webhook_queues set due_at = now()";
            ground.admin.batch_execute(expire).await.expect("expired");
            continue;
        }
        let deadline = Instant::now() + PATIENCE;
        let open = "select count(*) from events e left join webhook_deliveries d
                 on d.partition_id = e.partition_id and d.position = e.position and d.status = 'delivered'
             where e.type = 'credits_granted' and d.position is null";
        while ground.count(open).await > 0 {
            assert!(Instant::now() < deadline, "{} were not told", ground.count(open).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let ids: BTreeSet<&String> = told.iter().map(|(_, _, id)| id).collect();
    let events = ground.count("select count(*) from events where type = 'credits_granted'").await;
    assert_eq!(ids.len() as i64, events);
    let twice = told.len() - ids.len();
    println!("webhooks: {} told, {twice} of them twice", told.len());
    assert!(twice <= (ROUNDS - 1) * PLACES, "{twice} were told twice");
    // The first time that each was told, the account's earlier ones had been.
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for (account, position, id) in &told {
        if seen.insert(id) {
            let before = last.insert(account, *position).unwrap_or(0);
            assert!(before < *position, "{account}: {position} came after {before}");
        }
    }
}
