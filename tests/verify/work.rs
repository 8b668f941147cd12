//! Work for a ledger: every kind of event, in disorder.

use std::sync::Arc;

use chrono::Duration;
use serde_json::Value;

use super::ledger::{Ledger, account, story};
use super::support::lifecycle;
use super::support::shuffle::{Random, delivery_order};
use subledger::app::error::AppError;
use subledger::domain::command::Command;

/// Stripe's customers in random order, each event at least once, several at a time; and accounts that spend meanwhile.
pub async fn everything(ledger: &Ledger, seed: u64) {
    let mut stories: Vec<Vec<Value>> = (0..8).map(|n| story(&format!("{seed}x{n}"))).collect();
    stories.extend(lifecycle::all().into_iter().map(|story| story.events));
    let events: Vec<&Value> = stories.iter().flatten().collect();
    let order = delivery_order(events.len(), seed);
    spend(ledger, seed).await;
    for (n, together) in order.chunks(16).enumerate() {
        let deliveries = together.iter().map(|at| ledger.receive(events[*at]));
        futures_util::future::join_all(deliveries).await;
        if n % 20 == 0 {
            ledger.pass(Duration::hours(30));
        }
    }
    spend(ledger, seed + 1).await;
    // Those who bought something spend it.
    let accounts: Vec<String> = ledger
        .admin
        .query("select account_id from balances where available > 0", &[])
        .await
        .expect("accounts")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let mut random = Random(seed);
    for name in &accounts {
        for _ in 0..3 {
            debit_as_far_as_it_goes(ledger, name, 1 + random.below(200) as i64).await;
        }
    }
    ledger.pass(Duration::days(40));
    for name in accounts.iter().step_by(2) {
        let settled = ledger.service.execute(account(name), Command::Settle, None).await;
        settled.expect("settled").result.expect("accepted");
    }
}

/// Accounts opened, given credits of all kinds, and debited at the same time, refusals among them.
pub async fn spend(ledger: &Ledger, seed: u64) {
    let names: Arc<Vec<String>> = Arc::new((0..40).map(|n| format!("user_{seed}_{n}")).collect());
    futures_util::future::join_all(names.iter().map(|name| async {
        ledger.open(name).await;
        ledger.grant(name, 100).await;
        let now = subledger::clock::Clock::now(&*ledger.clock);
        ledger.grant_until(name, 40, None, Some(now + Duration::days(2))).await;
        // Not spendable yet: what is available changes without any event.
        ledger.grant_until(name, 25, Some(now + Duration::hours(20)), None).await;
    }))
    .await;
    use_features(ledger, &names).await;
    for round in 0..6 {
        let debits = names.iter().enumerate().map(|(n, name)| ledger.debit(name, 10 + (n as i64 % 7) * 9));
        futures_util::future::join_all(debits).await;
        if round % 2 == 1 {
            ledger.pass(Duration::hours(13));
        }
    }
}

/// Features used over some days, now and in hindsight, under overrides and suspensions.
async fn use_features(ledger: &Ledger, names: &[String]) {
    use subledger::domain::catalog::{Per, WindowLimit};
    use subledger::domain::charge::Charge;
    use subledger::domain::overrides::{Override, OverrideEffect};
    use subledger::domain::usage::{RecordUsage, UsageAction};

    let feature = || "generation".to_owned();
    let now = || subledger::clock::Clock::now(&*ledger.clock);
    for day in 0..4i64 {
        let uses = names.iter().enumerate().flat_map(|(n, name)| {
            let quantity = 1 + n as i64 % 3;
            let at = now() - Duration::hours(20 * (n as i64 % 4));
            let action = if n % 3 == 0 { UsageAction::Set } else { UsageAction::Increment };
            let window = WindowLimit { limit: 5, per: if n % 2 == 0 { Per::Day } else { Per::Period } };
            let effect = if n % 7 == 0 { OverrideEffect::Denied } else { OverrideEffect::Window(Some(window)) };
            let expires_at = Some(now() + Duration::hours(n as i64));
            let set = Override { effect, expires_at, reason: Some("a test".to_owned()) };
            let mut commands = vec![
                Command::Debit {
                    debit: uuid::Uuid::new_v4(),
                    charge: Charge::Feature { feature: feature(), quantity },
                },
                Command::RecordUsage(RecordUsage { feature: feature(), quantity, action, at: Some(at) }),
                Command::RecordUsage(RecordUsage { feature: feature(), quantity, action, at: None }),
            ];
            match (n as i64 + day) % 5 {
                0 => commands.push(Command::SetOverride { feature: feature(), set }),
                1 => commands.push(Command::RemoveOverride { feature: feature() }),
                2 => commands.push(Command::Suspend { reason: None }),
                3 => commands.push(Command::Reinstate),
                _ => {}
            }
            commands.into_iter().map(move |command| (name, command))
        });
        let uses = uses.map(|(name, command)| ledger.service.execute(account(name), command, None));
        for answer in futures_util::future::join_all(uses).await {
            answer.expect("answered");
        }
        ledger.pass(Duration::hours(17));
    }
    let reinstated = names.iter().map(|name| ledger.service.execute(account(name), Command::Reinstate, None));
    for answer in futures_util::future::join_all(reinstated).await {
        answer.expect("answered").result.expect("accepted");
    }
}

async fn debit_as_far_as_it_goes(ledger: &Ledger, name: &str, amount: i64) {
    use subledger::domain::charge::Charge;
    let debit = Command::Debit { debit: uuid::Uuid::new_v4(), charge: Charge::Amount(amount) };
    match ledger.service.execute(account(name), debit, None).await {
        Ok(_) | Err(AppError::Rejected(_)) => {}
        Err(error) => panic!("{error}"),
    }
}
