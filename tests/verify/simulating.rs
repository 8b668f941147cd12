//! What if another catalog had been in force: the same one changes nothing, another one what it says.

use chrono::{DateTime, Duration, Utc};
use serde_json::json;
use subledger::app::catalog::ActiveCatalog;
use subledger::app::upkeep::simulate::{Difference, Question, Simulation, Tally, simulate};
use subledger::clock::Clock;
use subledger::domain::catalog::{Catalog, CreditAllowance, PlanChange};
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, HoldAct, OfHold};
use subledger::domain::hold::Used;

use super::ledger::{Ledger, account, stripe_event};
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

/// A stream brings along to its account what it would have come to: what it was charged and granted, and its lots.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_linked_since_would_have_been_otherwise_too() {
    let mut ledger = Ledger::new(4).await;
    ledger.open("user_1").await;
    let begin = ledger.clock.now();
    let spend = async |name: &str, quantity: i64| {
        let charge = Charge::Feature { feature: "generation".to_owned(), quantity };
        let debit = Command::Debit { debit: uuid::Uuid::new_v4(), charge };
        let answer = ledger.service.execute(account(name), debit, None).await.expect("answered");
        assert!(answer.result.is_ok(), "{name}: {answer:?}");
    };
    for name in ["pi_1", "cus_1"] {
        ledger.open(name).await;
    }
    // Each stream has the free plan's ten credits; together they have one month of it.
    spend("pi_1", 1).await;
    spend("cus_1", 1).await;
    ledger.pass(Duration::seconds(1));
    ledger.service.move_stream(&account("pi_1"), &account("cus_1")).await.expect("moved");
    spend("cus_1", 2).await;
    ledger.pass(Duration::seconds(1));
    ledger.service.move_stream(&account("cus_1"), &account("user_1")).await.expect("moved");
    spend("user_1", 1).await;
    let unchanged = ask(&ledger, begin, |_| {}).await;
    assert_eq!((unchanged.affected, unchanged.total.charged), (0, 5), "{unchanged:#?}");

    let dearer = ask(&ledger, begin, |draft| {
        let generation = draft.features.iter_mut().find(|feature| feature.id == "generation");
        generation.expect("a feature").credit_cost = Some(2);
    });
    let dearer = dearer.await;
    let total = dearer.total;
    assert_eq!((dearer.accounts, dearer.affected), (1, 1), "{dearer:#?}");
    assert_eq!((total.charged, total.charged_by_draft, total.charged_differently), (5, 10, 4));
    assert_eq!((dearer.listed[0].available, dearer.listed[0].available_by_draft), (5, 0));

    let generous = ask(&ledger, begin, |draft| {
        draft.plans.iter_mut().find(|plan| plan.default).expect("a free plan").credits = CreditAllowance::PerPeriod(50);
    });
    let generous = generous.await;
    assert_eq!((generous.listed[0].available, generous.listed[0].available_by_draft), (5, 45), "{generous:#?}");
    assert!(generous.total.granted >= 20, "{generous:#?}");
    assert_eq!(generous.total.granted_by_draft, 5 * generous.total.granted, "{generous:#?}");
    ledger.stop().await;
}

/// No debit asks for them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn features_that_nobody_is_charged_for_would_be_lost_and_gained() {
    let mut ledger = Ledger::new(2).await;
    let features = "[features.models]\nname = \"Models\"\nkind = \"list\"\n\n[features.seats]\nname = \"Seats\"\nkind = \"limit\"\n\n\
                    [features.support]";
    let free = "features = { generation = { limit = 5, per = \"hour\" }, export = true, models = [\"small\", \"large\"], seats = 10 }";
    let text = include_str!("../fixtures/seller.toml").replacen("[features.support]", features, 1).replacen(
        "features = { generation = true }",
        free,
        1,
    );
    ledger.service.apply_catalog(Catalog::from_toml(&text).expect("a catalog")).await.expect("applied");
    let begin = ledger.clock.now();
    ledger.open("user_1").await;
    ledger.open("user_2").await;
    ledger.debit("user_2", 10).await;
    ledger.pass(Duration::hours(1));
    let change = |from: &str, to: &str| {
        let text = text.replacen(from, to, 1);
        assert!(text.contains(to));
        move |draft: &mut Catalog| *draft = Catalog::from_toml(&text).expect("a draft")
    };
    let told = |difference: &Difference| {
        let told = serde_json::to_value(difference).expect("JSON");
        let entitlements = told["entitlements"].as_array().expect("features").clone();
        assert_eq!(entitlements.len(), 1, "{told}");
        let of = |catalog: &str| {
            let granted = &entitlements[0][catalog];
            json!([granted["allowed"], granted["limits"], granted["values"]])
        };
        (entitlements[0]["feature"].clone(), of("now"), of("by_draft"))
    };
    let seats = |limit: i64| json!([true, [{"limit": limit, "per": null}], []]);
    let hourly = |limit: i64| json!([true, [{"limit": limit, "per": "hour"}], []]);
    let models = |names: &[&str]| json!([true, [], names]);
    for (from, to, feature, now, by_draft) in [
        ("export = true, ", "", "export", json!([true, [], []]), json!([false, [], []])),
        (
            "export = true, ",
            "export = true, support = true, ",
            "support",
            json!([false, [], []]),
            json!([true, [], []]),
        ),
        ("[\"small\", \"large\"]", "[\"small\"]", "models", models(&["small", "large"]), models(&["small"])),
        ("seats = 10", "seats = 3", "seats", seats(10), seats(3)),
        ("limit = 5", "limit = 2", "generation", hourly(5), hourly(2)),
    ] {
        // Also of accounts to whom nothing happened since.
        for (since, accounts) in [(begin, 2), (ledger.clock.now(), 0)] {
            let simulated = ask(&ledger, since, change(from, to)).await;
            let counts = (simulated.accounts, simulated.affected, simulated.other_entitlements);
            assert_eq!(counts, (accounts, 2, 2), "{to}: {simulated:#?}");
            for difference in &simulated.listed {
                assert_eq!(told(difference), (json!(feature), now.clone(), by_draft.clone()), "{to}");
            }
        }
    }
    let same = ask(&ledger, begin, |_| {}).await;
    assert_eq!((same.affected, same.other_entitlements), (0, 0), "{same:#?}");
    ledger.stop().await;
}

/// Of what a plan change gives anew, some was given before: only the rest counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_back_as_it_was_granted_was_not_granted() {
    const STARTER: &str = "price_1LATyAQhTzLmW4rNUy3GVgva";
    const PRO: &str = "price_1xqAJDQhTzLmW4rNZiBlUdq6";
    let mut ledger = Ledger::new(1).await;
    let begin = ledger.clock.now();
    let (start, end) = (begin.timestamp(), begin.timestamp() + 30 * 86_400);
    let middle = start + 15 * 86_400;
    let invoice = |id: &str, reason: &str, lines: &[(&str, i64, bool)], at: i64| {
        let line = |(price, amount, proration): &(&str, i64, bool)| {
            json!({"id": format!("il_{id}_{price}"), "amount": amount, "quantity": 1, "subscription": "sub_1",
                "subscription_item": "si_1", "price": {"id": price}, "proration": proration,
                "period": {"start": if *proration { at } else { start }, "end": end}})
        };
        let total: i64 = lines.iter().map(|(_, amount, _)| amount).sum();
        let lines: Vec<_> = lines.iter().map(line).collect();
        let bill = json!({"id": id, "object": "invoice", "customer": "cus_1", "currency": "usd", "status": "paid",
            "billing_reason": reason, "subscription": "sub_1", "total": total, "subtotal": total, "amount_paid": total,
            "created": at, "lines": {"data": lines}});
        stripe_event(&format!("evt_{id}"), "invoice.paid", at, bill)
    };
    let up = [(STARTER, -450, true), (PRO, 1_450, true)];
    let down = [(PRO, -1_450, true), (STARTER, 450, true)];
    ledger.receive(&invoice("in_1", "subscription_create", &[(STARTER, 900, false)], start)).await;
    ledger.pass(Duration::days(15));
    ledger.receive(&invoice("in_2", "subscription_update", &up, middle)).await;
    ledger.receive(&invoice("in_3", "subscription_update", &down, middle + 60)).await;
    ledger.receive(&invoice("in_4", "subscription_update", &up, middle + 120)).await;
    ledger.pass(Duration::minutes(5));
    let total = ask(&ledger, begin, |draft| {
        draft.plans.iter_mut().for_each(|plan| plan.plan_change = PlanChange::None);
    });
    let total = total.await.total;
    assert_eq!((total.granted, total.granted_by_draft), (300, 100));
    ledger.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn captures_would_be_refused_and_cost_otherwise_too() {
    let mut ledger = Ledger::new(1).await;
    let change = |cost: i64, beyond: bool| {
        move |draft: &mut Catalog| {
            let generation = draft.features.iter_mut().find(|feature| feature.id == "generation").expect("a feature");
            (generation.credit_cost, generation.capture_beyond_hold) = (Some(cost), beyond);
        }
    };
    let mut catalog = ledger.service.catalog.current().catalog.clone();
    change(1, true)(&mut catalog);
    ledger.service.apply_catalog(catalog).await.expect("applied");
    let begin = ledger.clock.now();
    ledger.open("user_1").await;
    let execute = async |command: Command| {
        let answer = ledger.service.execute(account("user_1"), command, None).await.expect("answered");
        answer.result.is_ok()
    };
    let place = async |quantity: i64| {
        let hold = uuid::Uuid::new_v4();
        let expires_at = ledger.clock.now() + Duration::hours(1);
        let charge = Charge::Feature { feature: "generation".to_owned(), quantity };
        (hold, execute(Command::Hold { hold, charge, expires_at }).await)
    };
    let capture = async |hold: uuid::Uuid, quantity: i64| {
        let act = HoldAct::Capture(Used::Quantity(quantity));
        execute(Command::OfHold(OfHold { hold, ended: None, act })).await
    };
    let (hold, _) = place(5).await;
    assert!(!capture(hold, 50).await, "there are not as many credits");
    assert!(capture(hold, 8).await);
    let (rest, _) = place(2).await;
    assert!(capture(rest, 2).await);
    let refusals = |total: Tally| (total.newly_refused, total.newly_allowed, total.charged_differently);

    let same = ask(&ledger, begin, |_| {}).await;
    assert_eq!((same.affected, refusals(same.total)), (0, (0, 0, 0)), "{same:#?}");
    let strict = ask(&ledger, begin, change(1, false)).await.total;
    assert_eq!((refusals(strict), strict.charged, strict.charged_by_draft), ((1, 0, 0), 10, 2));
    // Of ten credits, five units at two each are set aside, so three more are refused; the second hold finds none.
    let dearer = ask(&ledger, begin, change(2, true)).await.total;
    assert_eq!(
        (refusals(dearer), dearer.charged_by_draft),
        ((2, 0, 1), 0),
        "a hold dearer, its capture and the next hold refused"
    );
    let cheaper = ask(&ledger, begin, |draft| {
        change(1, true)(draft);
        draft.plans.iter_mut().find(|plan| plan.default).expect("a free plan").credits =
            CreditAllowance::PerPeriod(100);
    });
    let cheaper = cheaper.await.total;
    assert_eq!(
        (refusals(cheaper), cheaper.charged_by_draft),
        ((0, 1, 0), 52),
        "50 were captured at once, the 8 were not asked for"
    );
    ledger.stop().await;
}
