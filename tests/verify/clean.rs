//! Real work leaves a ledger that verifies, and rebuilds to the very same rows.

use subledger::app::upkeep::rebuild::rebuild;

use super::ledger::Ledger;
use super::work;

async fn work_verifies_and_rebuilds(partitions: i16, seed: u64) {
    let mut ledger = Ledger::new(partitions).await;
    work::everything(&ledger, seed).await;
    let report = ledger.assert_clean().await;
    assert!(report.events > 1_000 && report.billing_objects > 50 && report.stripe_links > 30, "{report:?}");
    assert_eq!(report.anchors.len(), partitions as usize);
    let days: i64 = ledger.one("select count(*) from billing_objects where kind = 'usage_day'").await;
    assert!(days > 100, "only {days} days of usage have left the hot part");

    let before = ledger.rows().await;
    let rebuilt = rebuild(&ledger.database, std::sync::Arc::new(|_, _| {})).await.expect("rebuilt");
    assert_eq!((rebuilt.events, rebuilt.accounts), (report.events, report.accounts));
    assert_eq!(ledger.rows().await, before);
    ledger.assert_clean().await;

    // The lanes go on, with what they had prepared and kept in memory before the swap.
    work::spend(&ledger, seed + 10).await;
    ledger.assert_clean().await;
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_in_one_partition_verifies_and_rebuilds_to_the_same_rows() {
    work_verifies_and_rebuilds(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_in_64_partitions_verifies_and_rebuilds_to_the_same_rows() {
    work_verifies_and_rebuilds(64, 2).await;
}
