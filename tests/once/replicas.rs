//! Answers from memory while others write: never older than they say, never older than the bound, and always what the
//! caller himself wrote through the same replica.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use subledger::domain::catalog::Catalog;
use subledger::store::migrate::DEFAULT_PARTITIONS;
use subledger::store::partition::partition_of;

use super::client::Caller;
use super::ground::{CATALOG, Ground, Memory, Replica};
use super::proxy::{Fault, Proxy};
use super::story::{now, sale};

/// What the seller's free plan gives every account.
const FREE: i64 = 10;
/// The bound of a replica that was not told another.
const BOUND_MS: i64 = 250;
/// Nothing here takes as long; who waits longer waits in vain.
const PATIENCE: Duration = Duration::from_secs(30);

/// A replica with a caller of its own.
struct Side {
    replica: Replica,
    caller: Caller,
}

impl Side {
    async fn new(url: &str, memory: Memory) -> Self {
        let replica = Replica::with_memory(url, memory).await;
        let caller = Caller::new(replica.address);
        Self { replica, caller }
    }

    async fn open(&self, account: &str, credits: i64) {
        assert_eq!(self.caller.put_account(account, &json!({})).await.expect("an answer").status, 201);
        let granted = self.caller.grant(account, &format!("grant {account}"), credits).await.expect("an answer");
        assert_eq!(granted.status, 201, "{granted:?}");
    }

    /// Spends a credit. Answers the position.
    async fn debit(&self, account: &str, key: &str) -> i64 {
        self.spend(account, key, 1).await
    }

    async fn spend(&self, account: &str, key: &str, amount: i64) -> i64 {
        let reply = self.caller.debit(account, key, amount).await.expect("an answer");
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()["position"].as_i64().expect("a position")
    }

    async fn credits(&self, account: &str, query: &str) -> Value {
        let reply = self.caller.get(&format!("/v1/accounts/{account}/credits{query}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    async fn available(&self, account: &str, query: &str) -> i64 {
        self.credits(account, query).await["available"].as_i64().expect("a number")
    }

    async fn metric(&self, series: &str) -> f64 {
        let metrics = self.caller.get("/metrics").await.text;
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |number| number.parse().expect("a number"))
    }

    /// Asks until the answer comes from memory.
    async fn warm(&self, account: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let before = self.metric("subledger_cached_reads_total").await;
            self.available(account, "").await;
            if self.metric("subledger_cached_reads_total").await > before {
                return;
            }
            assert!(Instant::now() < deadline, "{account} is never answered from memory");
        }
    }

    async fn wait_for_metric(&self, series: &str, is_reached: impl Fn(f64) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_reached(self.metric(series).await) {
            assert!(Instant::now() < deadline, "{series} is {}", self.metric(series).await);
        }
    }
}

/// Two replicas on one database, and an account with a thousand credits.
async fn two(memory: Memory) -> (Ground, Side, Side) {
    let ground = Ground::new().await;
    let (a, b) = (Side::new(&ground.url, memory).await, Side::new(&ground.url, memory).await);
    a.open("user_1", 1_000).await;
    (ground, a, b)
}

async fn end(ground: Ground, sides: impl IntoIterator<Item = Side>) {
    ground.assert_whole("replicas").await;
    for side in sides {
        side.replica.stop().await;
    }
}

fn whole(answer: &Value, pointer: &str) -> i64 {
    answer.pointer(pointer).and_then(Value::as_i64).unwrap_or_else(|| panic!("{pointer} in {answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debit_through_one_replica_is_seen_by_checks_of_another_and_no_answer_claims_more_than_it_shows() {
    let (ground, a, b) = two(Memory::default()).await;
    a.warm("user_1").await;
    b.warm("user_1").await;
    let mut left = 1_000 + FREE;
    let mut older = 0;
    // Whether an answer is older is a matter of luck, of which a slow machine has less.
    for round in 0..1_000 {
        if round >= 60 && older > 0 {
            break;
        }
        let (writer, reader) = if round % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let position = writer.debit("user_1", &format!("debit {round}")).await;
        let written = Instant::now();
        left -= 1;
        let deadline = written + PATIENCE;
        loop {
            let asked = Instant::now();
            let answer = reader.credits("user_1", "").await;
            let age_ms = whole(&answer, "/as_of/age_ms");
            if whole(&answer, "/available") == left {
                assert!(whole(&answer, "/as_of/position") >= position, "round {round}: {answer}");
                break;
            }
            older += 1;
            assert_eq!(whole(&answer, "/available"), left + 1, "round {round}: {answer}");
            assert!(whole(&answer, "/as_of/position") < position, "round {round}: {answer}");
            // The answer was made when it was asked for, or later; what it says it shows must lie before the write.
            let claims = asked.checked_sub(Duration::from_millis(age_ms.unsigned_abs()));
            assert!(claims.is_none_or(|claims| claims < written), "round {round}: {answer}");
            // The bound holds when it is looked at; the age is told a moment later.
            assert!(age_ms < BOUND_MS + 1_000, "round {round}: {answer}");
            assert!(Instant::now() < deadline, "round {round}: {answer}");
        }
    }
    assert!(older > 0, "no answer came from memory before the write was followed");
    end(ground, [a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_log_cannot_be_followed_answers_are_read_from_the_database_and_right() {
    for fault in [Fault::CutBefore, Fault::Silence] {
        let ground = Ground::new().await;
        let a = Side::new(&ground.url, Memory::default()).await;
        a.open("user_1", 1_000).await;
        let proxy = Proxy::before(&ground.url).await;
        let b = Side::new(&proxy.url, Memory::default()).await;
        b.warm("user_1").await;
        // Its reader has a connection; the follower loses its own, and gets no other.
        proxy.refuse(true);
        proxy.arm("/* ends */", fault);
        let bound = BOUND_MS as f64 / 1_000.0;
        b.wait_for_metric("subledger_follower_age_seconds", |age| age > bound).await;
        let stale = "subledger_read_throughs_total{reason=\"stale\"}";
        let early = b.metric(stale).await;
        for round in 0..5 {
            let position = a.debit("user_1", &format!("debit {round}")).await;
            let answer = b.credits("user_1", "").await;
            assert_eq!(whole(&answer, "/available"), 1_000 + FREE - 1 - round, "{answer}");
            assert!(whole(&answer, "/as_of/position") >= position, "{answer}");
        }
        assert_eq!(b.metric(stale).await, early + 5.0);
        proxy.refuse(false);
        b.wait_for_metric("subledger_follower_age_seconds", |age| age < bound).await;
        assert_eq!(b.available("user_1", "").await, 1_000 + FREE - 5);
        b.warm("user_1").await;
        end(ground, [a, b]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strong_reads_and_positions_go_past_memory() {
    let ground = Ground::new().await;
    let a = Side::new(&ground.url, Memory::default()).await;
    a.open("user_1", 1_000).await;
    let proxy = Proxy::before(&ground.url).await;
    // Old answers are good enough here, so what comes from memory is seen to.
    let b = Side::new(&proxy.url, Memory { staleness: PATIENCE * 10, ..Memory::default() }).await;
    b.warm("user_1").await;
    proxy.refuse(true);
    proxy.arm("/* ends */", Fault::CutBefore);
    b.wait_for_metric("subledger_follower_age_seconds", |age| age > 0.5).await;
    let reason = async |reason: &str| b.metric(&format!("subledger_read_throughs_total{{reason=\"{reason}\"}}")).await;
    // Before the first poll, nothing was known to be fresh.
    let early = reason("stale").await;
    let position = a.debit("user_1", "a debit").await;
    let check = async |query: &str| {
        let answer = b.caller.get(&format!("/v1/accounts/user_1/entitlements/generation{query}")).await.json();
        whole(&answer, "/remaining")
    };
    let (old, new) = (1_000 + FREE, 1_000 + FREE - 1);
    assert_eq!(b.available("user_1", "").await, old);
    assert_eq!(b.available("user_1", "?consistency=bounded").await, old);
    assert_eq!(check("").await, old);
    assert_eq!(check(&format!("?min_position={}", position - 1)).await, old, "it had been reached");
    assert_eq!(check("?consistency=strong").await, new);
    // Nobody may take a newer version out again.
    assert_eq!((b.available("user_1", "").await, check("").await), (new, new));
    let position = a.debit("user_1", "another debit").await;
    assert_eq!(b.available("user_1", "").await, new);
    assert_eq!(b.available("user_1", &format!("?min_position={position}")).await, new - 1);
    let far = b.caller.get(&format!("/v1/accounts/user_1/credits?min_position={}", position + 1)).await;
    assert_eq!((far.status, far.code().as_str()), (409, "position_not_reached"), "{far:?}");
    assert_eq!((reason("strong").await, reason("behind").await, reason("stale").await), (1.0, 2.0, early));
    let refused = b.caller.get("/v1/accounts/user_1/credits?consistency=eventual").await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_parameter"), "{refused:?}");
    end(ground, [a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_wrote_through_a_replica_reads_it_there_at_once_whatever_others_do() {
    // In the smallest memory hardly anything stays; in the other, everything does.
    for bytes in [4_000, 256 << 20] {
        const ACCOUNTS: usize = 8;
        let (ground, a, b) = two(Memory { bytes, ..Memory::default() }).await;
        let names: Vec<String> = (0..ACCOUNTS).map(|n| format!("user_of_many_{n}")).collect();
        for name in &names {
            a.open(name, 1_000_000).await;
        }
        let mut left = [1_000_000 + FREE; ACCOUNTS];
        for round in 0..200 {
            // Others write to the same partitions, and ask for the same accounts, at the same time. Their amounts differ
            // from ours, so that what is missing tells whose it is.
            let (own, other) = (round % ACCOUNTS, (round + 3) % ACCOUNTS);
            let (ours, theirs) = (format!("ours {round}"), format!("theirs {round}"));
            let write_and_read = async {
                a.debit(&names[own], &ours).await;
                a.available(&names[own], "").await
            };
            let (seen, _, _) =
                tokio::join!(write_and_read, b.spend(&names[other], &theirs, 100), a.credits(&names[own], ""));
            left[own] -= 1;
            left[other] -= 100;
            let missing = seen - left[own];
            assert!(missing == 0 || missing == 100, "round {round}: {missing} of what was spent is missing");
            assert_eq!(a.available(&names[own], "?consistency=strong").await, left[own], "round {round}");
        }
        let held = a.metric("subledger_cached_bytes").await;
        assert!(held <= bytes as f64, "{held} bytes of {bytes}");
        end(ground, [a, b]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_applied_through_one_replica_comes_into_force_on_all() {
    let (ground, a, b) = two(Memory::default()).await;
    let text = std::fs::read_to_string(CATALOG).expect("a catalog");
    let version = async |side: &Side| side.caller.get("/v1/plans").await.json()["catalog"].clone();
    let first = version(&b).await;
    let other = Catalog::from_toml(&text.replace("generation", "creation")).expect("valid");
    assert!(a.replica.service.apply_catalog(other).await.expect("applied"));
    let second = version(&a).await;
    assert_ne!(first, second);
    let until = async |side: &Side, wanted: &Value| {
        let deadline = Instant::now() + PATIENCE;
        while version(side).await != *wanted {
            assert!(Instant::now() < deadline, "still another catalog");
        }
    };
    until(&b, &second).await;
    let known = b.caller.get("/v1/accounts/user_1/entitlements/creation").await;
    assert_eq!(known.status, 200, "{known:?}");
    // Back again, through the other.
    assert!(b.replica.service.apply_catalog(Catalog::from_toml(&text).expect("valid")).await.expect("applied"));
    assert_eq!(version(&b).await, first);
    until(&a, &first).await;
    end(ground, [a, b]).await;
}

/// Another replica that hears of nothing: its follower is stuck, and whatever it has in memory is good enough for it.
async fn deaf(ground: &Ground) -> Side {
    let proxy = Proxy::before(&ground.url).await;
    let side = Side::new(&proxy.url, Memory { staleness: PATIENCE * 10, ..Memory::default() }).await;
    side.warm("user_1").await;
    side.debit("user_1", "its lane has a connection").await;
    proxy.refuse(true);
    proxy.arm("/* ends */", Fault::Silence);
    side.wait_for_metric("subledger_follower_age_seconds", |age| age > 0.5).await;
    side
}

/// Has one replica put a catalog in force.
async fn apply(side: &Side, text: &str) {
    let catalog = Catalog::from_toml(text).expect("valid");
    assert!(side.replica.service.apply_catalog(catalog).await.expect("applied"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strong_read_shows_the_catalog_in_force_through_a_replica_that_cannot_follow() {
    let ground = Ground::new().await;
    let a = Side::new(&ground.url, Memory::default()).await;
    a.open("user_1", 1_000).await;
    let b = deaf(&ground).await;
    let text = std::fs::read_to_string(CATALOG).expect("a catalog");
    apply(&a, &text.replace("generation", "creation")).await;
    let check =
        async |query: &str| b.caller.get(&format!("/v1/accounts/user_1/entitlements/creation{query}")).await.status;
    assert_eq!(check("").await, 404, "what is in memory is as old as it may be");
    assert_eq!(check("?consistency=strong").await, 200);
    assert_eq!(check("").await, 200, "it has been read");
    apply(&a, &text).await;
    let version =
        async |side: &Side, query: &str| side.caller.get(&format!("/v1/plans{query}")).await.json()["catalog"].clone();
    let (first, now) = (version(&b, "").await, version(&a, "").await);
    assert_ne!(first, now, "what is in memory is as old as it may be");
    assert_eq!(version(&b, "?consistency=strong").await, now);
    end(ground, [a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debit_is_decided_under_the_catalog_in_force_through_a_replica_that_cannot_follow() {
    let ground = Ground::new().await;
    let a = Side::new(&ground.url, Memory::default()).await;
    a.open("user_1", 1_000).await;
    let b = deaf(&ground).await;
    let text = std::fs::read_to_string(CATALOG).expect("a catalog");
    let debit = async |feature: &str, key: &str| {
        let body = json!({"feature": feature, "quantity": 1});
        let reply = b.caller.command("/v1/accounts/user_1/credits/debits", key, &body).await.expect("an answer");
        (reply.status, if reply.status == 201 { whole(&reply.json(), "/amount") } else { 0 })
    };
    assert_eq!(debit("generation", "first").await, (201, 1));
    apply(&a, &text.replace("credit_cost = 1", "credit_cost = 7")).await;
    assert_eq!(debit("generation", "dearer").await, (201, 7));
    assert_eq!(debit("generation", "as dear").await, (201, 7));
    apply(&a, &text.replace("generation", "creation")).await;
    assert_eq!(debit("generation", "gone").await, (404, 0));
    let again = b.metric("subledger_tx_retries_total{reason=\"catalog\"}").await;
    assert_eq!(again, 2.0, "one append is refused for each catalog, and no more");
    end(ground, [a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_catalog_that_cannot_be_read_stops_nobody() {
    let (ground, a, b) = two(Memory::default()).await;
    a.debit("user_1", "before").await;
    let unreadable = "insert into events
         select partition_id, position + 1000000, account_id, version + 1000000, position, type, type_version, at,
                '{\"digest\": \"0\", \"catalog\": {\"plans\": \"of another kind\"}}', hash
         from events where type = 'catalog_applied' limit 1";
    ground.admin.batch_execute(unreadable).await.expect(unreadable);
    a.debit("user_1", "after").await;
    assert_eq!(b.available("user_1", "?consistency=strong").await, 1_000 + FREE - 2);
    assert_eq!(a.caller.get("/v1/plans").await.status, 200);
    a.replica.stop().await;
    b.replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_put_through_one_replica_is_shown_by_another_that_is_given_its_position() {
    let (ground, a, b) = two(Memory::default()).await;
    for n in 0..20 {
        let plan = json!({"name": format!("Plan {n}"), "rank": 1_000 + n, "features": {"export": {}}}).to_string();
        let path = format!("/v1/plans/plan_{n}");
        let put = a.caller.ask(reqwest::Method::PUT, &path, &[], Some(plan)).await.expect("an answer");
        assert_eq!(put.status, 200, "{put:?}");
        let position = whole(&put.json(), "/position");
        let shown = b.caller.get(&format!("{path}?min_position={position}")).await;
        assert_eq!(shown.status, 200, "{shown:?}");
    }
    end(ground, [a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_linked_through_one_replica_is_the_accounts_on_all() {
    let (ground, a, b) = two(Memory::default()).await;
    let mut body = sale("1", "", 500);
    body["data"]["object"]["customer"] = json!("cus_1");
    body["data"]["object"]["client_reference_id"] = Value::Null;
    assert_eq!(a.caller.deliver(&body.to_string(), now()).await.expect("an answer").received(), "applied");
    a.warm("cus_1").await;
    b.warm("cus_1").await;
    assert_eq!(b.available("cus_1", "").await, 500 + FREE);
    let linked = a.caller.link("user_1", "cus_1").await.expect("an answer");
    assert_eq!(linked.status, 200, "{linked:?}");
    let together = 1_000 + 500 + FREE;
    assert_eq!(a.available("cus_1", "").await, together, "at once where it was linked");
    assert_eq!(a.available("user_1", "").await, together);
    let deadline = Instant::now() + PATIENCE;
    while b.available("cus_1", "").await != together || b.available("user_1", "").await != together {
        assert!(Instant::now() < deadline);
    }
    a.debit("cus_1", "after").await;
    assert_eq!(a.available("cus_1", "").await, together - 1);
    end(ground, [a, b]).await;
}

/// A merged stream's partition and its account's count positions of their own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_asked_for_under_a_linked_name_is_the_accounts_or_one_of_before_the_link() {
    const BEFORE: i64 = 80;
    let (ground, a, b) = two(Memory::default()).await;
    let partition = |name: &str| partition_of(name, DEFAULT_PARTITIONS);
    let names = (1..).map(|n| format!("cus_{n}"));
    let customer = names.into_iter().find(|name| partition(name) != partition("user_1")).expect("another partition");
    let mut body = sale("1", "", 500);
    body["data"]["object"]["customer"] = json!(customer);
    body["data"]["object"]["client_reference_id"] = Value::Null;
    assert_eq!(a.caller.deliver(&body.to_string(), now()).await.expect("an answer").received(), "applied");
    let mut given = 0;
    for round in 0..BEFORE {
        given = a.debit(&customer, &format!("before {round}")).await;
    }
    b.warm(&customer).await;
    b.warm("user_1").await;
    assert_eq!(a.caller.link("user_1", &customer).await.expect("an answer").status, 200);
    let mut left = 1_000 + 500 + FREE - BEFORE;
    let deadline = Instant::now() + PATIENCE;
    while b.available(&customer, "").await != left {
        assert!(Instant::now() < deadline, "the link is never heard of");
    }
    for consistency in ["bounded", "strong"] {
        let query = format!("?min_position={given}&consistency={consistency}");
        let answer = b.credits(&customer, &query).await;
        assert_eq!(whole(&answer, "/available"), left, "{consistency}: {answer}");
        assert!(whole(&answer, "/position") < given, "the account's own partition has not got so far: {answer}");
    }
    for name in [customer.as_str(), "user_1"] {
        let far = b.caller.get(&format!("/v1/accounts/{name}/credits?min_position={}", given + 1_000)).await;
        assert_eq!((far.status, far.code().as_str()), (409, "position_not_reached"), "{far:?}");
    }
    // What is written from now on is seen by its position, although the merged stream's partition is far ahead of it.
    for round in 0..BEFORE / 2 {
        let position = a.debit(&customer, &format!("after {round}")).await;
        left -= 1;
        assert!(position < given, "{position} and {given}");
        let answer = b.credits(&customer, &format!("?min_position={position}")).await;
        assert_eq!(whole(&answer, "/available"), left, "round {round}: {answer}");
        assert!(whole(&answer, "/position") >= position, "round {round}: {answer}");
    }
    end(ground, [a, b]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_mean_nothing_take_no_room() {
    let (ground, a, b) = two(Memory { bytes: 100_000, ..Memory::default() }).await;
    b.warm("user_1").await;
    let checks: Vec<Value> =
        (0..1_000).map(|n| json!({"account": format!("nobody_{n}"), "feature": "export"})).collect();
    let body = json!({"checks": checks}).to_string();
    for _ in 0..5 {
        let reply = b.caller.ask(reqwest::Method::POST, "/v1/entitlements/check", &[], Some(body.clone())).await;
        let reply = reply.expect("an answer").json();
        let rows = reply["data"].as_array().expect("rows");
        assert!(rows.len() == 1_000 && rows.iter().all(|row| row["problem"]["code"] == "account_not_found"), "{reply}");
    }
    assert_eq!(b.metric("subledger_cached_accounts").await, 1.0);
    let before = b.metric("subledger_cached_reads_total").await;
    b.warm("user_1").await;
    assert_eq!(b.metric("subledger_cached_reads_total").await, before + 1.0, "it is still there");
    end(ground, [a, b]).await;
}
