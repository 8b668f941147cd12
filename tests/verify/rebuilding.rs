//! A rebuild beside a service at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use subledger::app::upkeep::rebuild::{Rebuilt, rebuild};
use subledger::domain::charge::Charge;
use subledger::domain::command::Command;
use subledger::store::error::StoreError;

use super::ledger::{Ledger, account, connect, debit, story};
use super::work;

async fn rebuild_now(ledger: &Ledger) -> Result<Rebuilt, StoreError> {
    rebuild(&ledger.database, Arc::new(|_, _| {})).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_beside_writers_and_readers_loses_nothing_and_fails_nobody() {
    const NAMES: [&str; 16] = [
        "user_a", "user_b", "user_c", "user_d", "user_e", "user_f", "user_g", "user_h", "user_i", "user_j", "user_k",
        "user_l", "user_m", "user_n", "user_o", "user_p",
    ];
    for partitions in [1, 64] {
        let mut ledger = Ledger::new(partitions).await;
        for name in NAMES {
            ledger.open(name).await;
            ledger.grant(name, 1_000_000).await;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (debits, reads) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (second, second_lanes) = ledger.replica().await;
        let mut tasks = Vec::new();
        for task in 0..8 {
            // Two replicas, so that heads move under each other's feet too.
            let service = if task % 2 == 0 { Arc::clone(&ledger.service) } else { Arc::clone(&second) };
            let (stop, debits) = (Arc::clone(&stop), Arc::clone(&debits));
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    for name in [NAMES[task * 2], NAMES[task * 2 + 1]] {
                        debit(&service, name, 1).await.result.expect("accepted");
                        debits.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        for task in 0..2 {
            let (service, url) = (Arc::clone(&ledger.service), ledger.url.clone());
            let (stop, reads) = (Arc::clone(&stop), Arc::clone(&reads));
            tasks.push(tokio::spawn(async move {
                let own = connect(&url).await;
                let prepared = own.prepare("select sum(remaining)::bigint from credit_lots").await.expect("prepared");
                while !stop.load(Ordering::Relaxed) {
                    let client = service.pool.get().await.expect("a connection in time");
                    let row = client.query_one("select count(*) from balances where account_id ~ '^user_.$'", &[]);
                    let count: i64 = row.await.expect("an answer").get(0);
                    assert_eq!(count, NAMES.len() as i64, "reader {task} saw a table half made");
                    let left: i64 = own.query_one(&prepared, &[]).await.expect("an answer").get(0);
                    assert!(left > 0);
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        // New customers come in, and streams move between accounts, while all that goes on.
        let stories = async {
            for n in 0..6 {
                let mut events = story(&format!("late{n}"));
                events.reverse();
                for event in &events {
                    ledger.receive(event).await;
                }
            }
        };
        let rebuilds = async {
            let mut caught_up = 0;
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                caught_up += rebuild_now(&ledger).await.expect("rebuilt").caught_up;
            }
            caught_up
        };
        let (caught_up, ()) = tokio::join!(rebuilds, stories);
        let done = (debits.load(Ordering::Relaxed), reads.load(Ordering::Relaxed));
        for _ in 0..3_000 {
            if debits.load(Ordering::Relaxed) > done.0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(debits.load(Ordering::Relaxed) > done.0, "the lanes go on after the swap");
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.expect("no task failed");
        }
        assert!(caught_up > 0, "something was written during the rebuilds");
        assert!(done.0 > 5 && done.1 > 2, "{done:?}");
        ledger.assert_clean().await;
        let rows = ledger.rows().await;
        rebuild_now(&ledger).await.expect("rebuilt");
        assert_eq!(ledger.rows().await, rows);
        let left: i64 = ledger.one("select sum(available)::bigint from balances where account_id ~ '^user_.$'").await;
        // Each was given a million, and ten by the free plan.
        let spent = NAMES.len() as i64 * 1_000_010 - left;
        assert_eq!(spent as u64, debits.load(Ordering::Relaxed), "every debit counted once");
        second.stop();
        second_lanes.finish().await;
        ledger.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_is_clean_while_the_service_writes() {
    let mut ledger = Ledger::new(64).await;
    let stop = AtomicBool::new(false);
    let working = async {
        let mut seed = 100;
        while !stop.load(Ordering::Relaxed) {
            work::spend(&ledger, seed).await;
            seed += 1;
        }
    };
    let verifying = async {
        let mut events = 0;
        for _ in 0..10 {
            events = ledger.assert_clean().await.events;
        }
        stop.store(true, Ordering::Relaxed);
        events
    };
    let (events, ()) = tokio::join!(verifying, working);
    assert!(events > 100, "{events}");
    ledger.assert_clean().await;
    ledger.stop().await;
}

/// What a rebuilt table must share with the one it replaces.
async fn shape(ledger: &Ledger) -> Vec<String> {
    const QUERY: &str = "
        with t as (select unnest(array['balances', 'billing_objects', 'stripe_links'])::regclass as oid)
        select format('column %s %s %s %s %s', a.attrelid::regclass, a.attname, a.atttypid::regtype, a.attnotnull,
            col_description(a.attrelid, a.attnum))
        from t join pg_attribute a on a.attrelid = t.oid where a.attnum > 0
        union all select format('constraint %s %s %s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid))
        from t join pg_constraint k on k.conrelid = t.oid
        union all select format('index %s', pg_get_indexdef(i.indexrelid)) from t join pg_index i on i.indrelid = t.oid
        union all select format('table %s %s %s %s %s', c.oid::regclass, c.relowner::regrole, c.reloptions, c.relkind,
            obj_description(c.oid, 'pg_class'))
        from t join pg_class c on c.oid = t.oid
        union all select format('grant %s %s %s', c.oid::regclass, a.grantee::regrole, a.privilege_type)
        from t join pg_class c on c.oid = t.oid, aclexplode(c.relacl) a
        union all select format('view %s %s %s %s', c.oid::regclass, obj_description(c.oid, 'pg_class'), c.relacl,
            pg_get_viewdef(c.oid))
        from pg_class c where c.relkind = 'v' and c.relnamespace = 'public'::regnamespace
        union all select format('schema %s', nspname) from pg_namespace where nspname !~ '^pg_'
        order by 1";
    ledger.admin.query(QUERY, &[]).await.expect("a shape").iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rebuilt_tables_are_made_like_the_ones_they_replace() {
    let mut ledger = Ledger::new(4).await;
    for event in &story("shape") {
        ledger.receive(event).await;
    }
    let before = shape(&ledger).await;
    assert!(before.iter().any(|line| line.contains("billing_objects_pkey")));
    assert!(before.iter().any(|line| line.starts_with("grant balances subledger_service UPDATE")));
    // Left behind by an attempt that was cut short.
    ledger
        .admin
        .batch_execute("create schema public_rebuild; create table public_rebuild.balances ()")
        .await
        .expect("made");
    rebuild_now(&ledger).await.expect("rebuilt");
    assert_eq!(shape(&ledger).await, before);
    rebuild_now(&ledger).await.expect("rebuilt again");
    assert_eq!(shape(&ledger).await, before);
    // The views read the new tables.
    ledger.admin.batch_execute("delete from billing_objects where kind = 'invoice'").await.expect("deleted");
    assert_eq!(ledger.one::<i64>("select count(*) from invoices").await, 0);
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_repairs_what_was_damaged() {
    let mut ledger = Ledger::new(4).await;
    for event in &story("repair") {
        ledger.receive(event).await;
    }
    let before = ledger.rows().await;
    let damage = "update balances set available = available + 5, state = '{}'; delete from billing_objects where kind = 'invoice';
        insert into billing_objects values ('user_repair', 'invoice', 'in_forged', 0, now(), '{}');
        insert into balances values ('nobody', 0, 1, 1, 1000000, '{}'); update stripe_links set account_id = 'nobody'";
    ledger.admin.batch_execute(damage).await.expect("damaged");
    assert!(!ledger.verify().await.is_clean());
    rebuild_now(&ledger).await.expect("rebuilt");
    assert_eq!(ledger.rows().await, before);
    ledger.assert_clean().await;
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_swap_waits_for_long_reads_without_stopping_anybody() {
    let mut ledger = Ledger::new(4).await;
    ledger.open("user_1").await;
    ledger.grant("user_1", 100_000).await;
    let mut backup = connect(&ledger.url).await;
    let snapshot = backup.build_transaction().isolation_level(tokio_postgres::IsolationLevel::RepeatableRead);
    let snapshot = snapshot.start().await.expect("a snapshot");
    let count = "select count(*) from balances";
    let seen: i64 = snapshot.query_one(count, &[]).await.expect("an answer").get(0);
    let reading = async {
        // Whoever waited for the snapshot would wait in vain: it is let go only after all of these.
        for _ in 0..100 {
            ledger.debit("user_1", 1).await.result.expect("accepted");
            let client = ledger.service.pool.get().await.expect("a connection in time");
            client.query_one(count, &[]).await.expect("an answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let again: i64 = snapshot.query_one(count, &[]).await.expect("an answer").get(0);
        assert_eq!(again, seen, "the long read sees its own moment all along");
        snapshot.commit().await.expect("ended");
    };
    let (rebuilt, ()) = tokio::join!(rebuild_now(&ledger), reading);
    let rebuilt = rebuilt.expect("rebuilt");
    assert!(rebuilt.swap_retries > 0, "{rebuilt:?}");
    ledger.assert_clean().await;
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_not_rebuilt_from_and_nothing_is_left_behind() {
    let mut ledger = Ledger::new(1).await;
    ledger.open("user_1").await;
    ledger.grant("user_1", 100).await;
    ledger.debit("user_1", 10).await.result.expect("accepted");
    let before = (ledger.rows().await, shape(&ledger).await);
    ledger.tamper("delete from events where position = 3").await;
    let error = rebuild_now(&ledger).await.expect_err("refused");
    assert!(error.to_string().contains("position 4 follows 2"), "{error}");
    assert_eq!((ledger.rows().await, shape(&ledger).await), before);
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_rebuild_at_a_time_and_none_past_a_materialized_view() {
    let mut ledger = Ledger::new(1).await;
    let (first, second) = tokio::join!(rebuild_now(&ledger), rebuild_now(&ledger));
    let refused: Vec<String> =
        [first, second].into_iter().filter_map(Result::err).map(|error| error.to_string()).collect();
    assert!(refused.len() == 1 && refused[0].contains("another rebuild is under way"), "{refused:?}");
    ledger.admin.batch_execute("create materialized view totals as select count(*) from balances").await.expect("made");
    let error = rebuild_now(&ledger).await.expect_err("refused");
    assert!(error.to_string().contains("materialized view totals"), "{error}");
    ledger.admin.batch_execute("drop materialized view totals").await.expect("dropped");
    rebuild_now(&ledger).await.expect("rebuilt");
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_commands_leave_rows_alone() {
    let mut ledger = Ledger::new(1).await;
    ledger.open("user_1").await;
    ledger.grant("user_1", 5).await;
    let later = subledger::clock::Clock::now(&*ledger.clock) + chrono::Duration::hours(1);
    ledger.grant_until("user_1", 7, Some(later), None).await;
    let before = ledger.rows().await;
    ledger.pass(chrono::Duration::hours(2));
    let command = Command::Debit { debit: uuid::Uuid::new_v4(), charge: Charge::Amount(1_000) };
    let refused = ledger.service.execute(account("user_1"), command, None).await.expect("answered");
    refused.result.expect_err("too much");
    let after = ledger.rows().await;
    // The free plan's month may have been granted on the way; if nothing was, nothing is written.
    if ledger.one::<i64>("select count(*) from events").await == 4 {
        assert_eq!(after, before);
    }
    ledger.assert_clean().await;
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_not_matter_in_what_order_the_log_lies_in_its_table() {
    let ledger = Ledger::new(4).await;
    for event in &story("order") {
        ledger.receive(event).await;
    }
    const ROWS: &str = "select concat(row_to_json(b), row_to_json(o)) from balances b
        left join billing_objects o using (account_id) order by 1";
    let rows = async |ledger: &Ledger| -> Vec<String> {
        ledger.admin.query(ROWS, &[]).await.expect("rows").iter().map(|row| row.get(0)).collect()
    };
    let before = rows(&ledger).await;
    assert!(!before.is_empty());
    ledger
        .admin
        .batch_execute(
            "begin; alter table events disable trigger all;
             create temp table backwards as select * from events order by partition_id, position desc;
             delete from events; insert into events select * from backwards;
             alter table events enable always trigger events_are_append_only; commit",
        )
        .await
        .expect("turned around");
    let first: i64 = ledger.one("select position from events limit 1").await;
    assert!(first > 1, "the table was turned around");
    rebuild_now(&ledger).await.expect("rebuilt");
    assert_eq!(rows(&ledger).await, before);
}
