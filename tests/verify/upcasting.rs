//! What an older version of the service wrote is read for ever.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use subledger::app::upkeep::rebuild::rebuild;
use subledger::app::upkeep::verify::Report;
use subledger::store::chain::{self, Link};

use super::ledger::Ledger;

/// Appends an event as another version wrote it: chained, with its head, and without any row.
async fn append(ledger: &Ledger, event_type: &str, type_version: i16, payload: &str) {
    let row = ledger
        .admin
        .query_one("select h.partition_id, h.position, h.hash, b.version, b.position from balances b join heads h using (partition_id) where account_id = 'user_1'", &[])
        .await
        .expect("an account");
    let (partition_id, position, version): (i16, i64, i64) =
        (row.get(0), row.get::<_, i64>(1) + 1, row.get::<_, i64>(3) + 1);
    let (previous, previous_position): (Vec<u8>, i64) = (row.get(2), row.get(4));
    let at: DateTime<Utc> = subledger::clock::Clock::now(&*ledger.clock);
    let link = Link {
        partition_id,
        position,
        account_id: "user_1",
        version,
        previous_position,
        event_type,
        type_version,
        at_us: at.timestamp_micros(),
        payload,
    };
    let hash = chain::hash(&previous.try_into().expect("32 bytes"), link).to_vec();
    let insert = "insert into events
        (partition_id, position, account_id, version, previous_position, type, type_version, at, payload, hash)
        values ($1, $2, 'user_1', $3, $4, $5, $6, $7, $8::text::json, $9)";
    ledger
        .admin
        .execute(
            insert,
            &[&partition_id, &position, &version, &previous_position, &event_type, &type_version, &at, &payload, &hash],
        )
        .await
        .expect("inserted");
    let head = "update heads set position = $2, hash = $3 where partition_id = $1";
    ledger.admin.execute(head, &[&partition_id, &position, &hash]).await.expect("updated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_debit_of_version_1_is_read_by_verify_and_by_rebuild() {
    let mut ledger = Ledger::new(4).await;
    ledger.open("user_1").await;
    ledger.grant("user_1", 100).await;
    let lot: String =
        ledger.one("select lot_id from credit_lots where account_id = 'user_1' and source = 'manual'").await;
    ledger.stop().await;
    let payload = format!(
        r#"{{"debit":"00000000-0000-0000-0000-000000000001","amount":30,"available":80,"drawn":[["{lot}",30]]}}"#
    );
    append(&ledger, "credits_debited", 1, &payload).await;
    let Report { listed, .. } = ledger.verify().await;
    // The log is in order, it was read, and it says that 80 are left.
    assert!(listed.iter().all(|difference| difference.table == "balances"), "{listed:#?}");
    let available = listed.iter().find(|difference| difference.what == "available").expect("a difference");
    assert_eq!((available.expected.as_str(), available.found.as_str()), ("80", "110"));

    rebuild(&ledger.database, Arc::new(|_, _| {})).await.expect("rebuilt");
    ledger.assert_clean().await;
    assert_eq!(ledger.one::<i64>("select available from balances where account_id = 'user_1'").await, 80);
    // The log itself stays as it was written.
    assert_eq!(ledger.one::<i16>("select min(type_version) from events where type = 'credits_debited'").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_of_a_newer_version_is_told_and_not_rebuilt_over() {
    let mut ledger = Ledger::new(4).await;
    ledger.open("user_1").await;
    ledger.stop().await;
    append(&ledger, "credits_lent", 9, "{}").await;
    let Report { listed, .. } = ledger.verify().await;
    assert!(
        listed.iter().any(|difference| difference.what == "payload" && difference.found.contains("version 9")),
        "{listed:#?}"
    );
    let error = rebuild(&ledger.database, Arc::new(|_, _| {})).await.expect_err("refused");
    assert!(error.to_string().contains("version 9 is newer"), "{error}");
}
