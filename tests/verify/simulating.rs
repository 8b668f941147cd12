//! What if another catalog had been in force: the same one changes nothing, another one what it says.

use chrono::{DateTime, Utc};
use subledger::app::catalog::ActiveCatalog;
use subledger::app::upkeep::simulate::{Question, Simulation, simulate};
use subledger::clock::Clock;
use subledger::domain::catalog::{Catalog, CreditAllowance};

use super::ledger::{Ledger, account};
use super::work;

async fn ask(ledger: &Ledger, since: DateTime<Utc>, change: impl FnOnce(&mut Catalog)) -> Simulation {
    let current = (*ledger.service.catalog.current()).clone();
    let mut draft = current.catalog.clone();
    change(&mut draft);
    let now = ledger.clock.now();
    let question = Question { draft: ActiveCatalog::new(draft), current, since, now, listed: 5 };
    simulate(&ledger.database, &question, std::sync::Arc::new(|_, _| {})).await.expect("simulated")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_the_catalog_that_was_in_force_everything_would_have_been_as_it_was() {
    let mut ledger = Ledger::new(4).await;
    let begin = ledger.clock.now();
    work::everything(&ledger, 5).await;
    // Its first command is a grant by hand, which brings the free month with it.
    ledger.open("gifted").await;
    ledger.grant("gifted", 5).await;
    let simulated = ask(&ledger, begin, |_| {}).await;
    assert!(simulated.events > 1_000 && simulated.accounts > 40, "{simulated:?}");
    assert_eq!(simulated.affected, 0, "{simulated:#?}");
    assert!(simulated.total.granted > 0 && simulated.total.charged > 0, "{simulated:?}");
    let later = begin + (ledger.clock.now() - begin) / 2;
    let from_then_on = ask(&ledger, later, |_| {}).await;
    assert_eq!(from_then_on.affected, 0, "{from_then_on:#?}");
    assert!(from_then_on.events < simulated.events);
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_catalog_grants_refuses_and_charges_as_it_says() {
    let mut ledger = Ledger::new(1).await;
    let begin = ledger.clock.now();
    for name in ["poor", "rich"] {
        ledger.open(name).await;
    }
    ledger.grant("rich", 100).await;
    let spend = async |name: &str, feature: &str, quantity: i64| {
        let charge = subledger::domain::charge::Charge::Feature { feature: feature.to_owned(), quantity };
        let debit = subledger::domain::command::Command::Debit { debit: uuid::Uuid::new_v4(), charge };
        let answer = ledger.service.execute(account(name), debit, None).await.expect("answered");
        answer.result.is_ok()
    };
    // The free plan grants 10 credits, and a generation costs one.
    assert!(spend("poor", "generation", 6).await);
    assert!(!spend("poor", "generation", 6).await);
    assert!(spend("rich", "generation", 30).await);

    let dearer = ask(&ledger, begin, |draft| {
        let generation = draft.features.iter_mut().find(|feature| feature.id == "generation");
        generation.expect("a feature").credit_cost = Some(2);
    });
    let dearer = dearer.await;
    let total = dearer.total;
    assert_eq!((total.charged, total.charged_by_draft), (36, 60));
    assert_eq!((total.newly_refused, total.newly_allowed, total.charged_differently), (1, 0, 1));
    assert_eq!(dearer.listed[0].account, account("poor"), "refusals matter most");
    assert_eq!((dearer.listed[0].available, dearer.listed[0].available_by_draft), (4, 10));

    let generous = ask(&ledger, begin, |draft| {
        let free = draft.plans.iter_mut().find(|plan| plan.default).expect("a free plan");
        free.credits = CreditAllowance::PerPeriod(50);
    });
    let total = generous.await.total;
    assert_eq!((total.granted, total.granted_by_draft, total.newly_allowed), (20, 100, 1));
    ledger.stop().await;
}
