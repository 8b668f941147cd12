//! `subledger import`: a whole account comes in, however often the program is killed on the way.

use serde_json::Value;
use subledger_simulator::Clock;

use crate::support::stripe::STARTER_CREDITS;
use crate::support::stripe_account::Stripe;
use crate::support::*;

/// Three pages of each kind.
const SUBSCRIPTIONS: usize = 240;

async fn import(stripe: &Stripe, app: &TestApp) -> Value {
    let arguments = ["--json", "import", "--requests-per-second", "100"];
    let (code, output, errors) = stripe.run(Some(&app.database_url), &arguments).await;
    assert_eq!(code, Some(0), "{output}{errors}");
    serde_json::from_str(&output).expect("JSON")
}

/// How many of a kind the subscriptions bring with them.
fn objects_of(kind: &Value) -> usize {
    match kind["kind"].as_str().expect("a kind") {
        "checkout_session" | "refund" | "dispute" => 0,
        _ => SUBSCRIPTIONS,
    }
}

async fn count(app: &TestApp, what: &str) -> i64 {
    let count = format!("select count(*) from {what}");
    app.database().await.query_one(&count, &[]).await.expect("a count").get(0)
}

/// What came of it: each object as it is known, and what each account may spend and why.
async fn ledger(app: &TestApp) -> Vec<String> {
    let rows = "select concat_ws(' ', account_id, kind, object_id, state::text) from billing_objects
         union all select concat_ws(' ', account_id, available, state ->> 'lots') from balances order by 1";
    let rows = app.database().await.query(rows, &[]).await.expect("rows");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn an_import_that_is_killed_and_resumed_equals_one_run() {
    let stripe = Stripe::start(Clock::Running { ahead_s: 0 });
    for n in 0..SUBSCRIPTIONS {
        let account = (n % 2 == 0).then(|| format!("user_{n}"));
        stripe.subscribe(account.as_deref(), &format!("{n}@example.com"));
    }
    let killed = {
        let app = TestApp::start().await;
        for objects in [150, SUBSCRIPTIONS + 160] {
            // A page a second: at each of these moments, most of the pages are still to come.
            let slow = ["import", "--requests-per-second", "1"];
            let mut program = stripe.spawn(Some(&app.database_url), &slow);
            while count(&app, "billing_objects where kind in ('customer', 'subscription', 'invoice')").await
                < objects as i64
            {
                if program.try_wait().expect("a child").is_some() {
                    panic!("it ended before it was killed: {:?}", program.wait_with_output().await);
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            program.kill().await.expect("killed");
        }
        let report = import(&stripe, &app).await;
        assert_eq!(report["resumed"], true);
        for kind in report["kinds"].as_array().expect("kinds") {
            assert_eq!(kind["objects"], objects_of(kind), "{report}");
        }
        app.clock.set(chrono::Utc::now().timestamp() + 60);
        assert_eq!(app.available("user_0").await, STARTER_CREDITS);

        let events = count(&app, "events").await;
        let again = import(&stripe, &app).await;
        assert_eq!(again["resumed"], false);
        for kind in again["kinds"].as_array().expect("kinds") {
            assert_eq!((&kind["objects"], &kind["changed"]), (&objects_of(kind).into(), &0.into()), "{again}");
        }
        assert_eq!(count(&app, "events").await, events);
        ledger(&app).await
    };
    let app = TestApp::start().await;
    import(&stripe, &app).await;
    let whole = ledger(&app).await;
    assert_eq!(killed.len(), whole.len());
    for (killed, whole) in killed.iter().zip(&whole) {
        assert_eq!(killed, whole);
    }
}

/// A service turns callers away who would have to wait for a connection. A command has nobody to send back to.
#[tokio::test]
async fn an_import_waits_for_the_database_rather_than_giving_up() {
    let stripe = Stripe::start(Clock::Running { ahead_s: 0 });
    for n in 0..40 {
        stripe.subscribe(None, &format!("{n}@example.com"));
    }
    let app = TestApp::start().await;
    let (slow, watching) = (app.database().await, app.database().await);
    slow.batch_execute("begin; lock table account_profiles in access exclusive mode").await.expect("locked");
    let mut program = stripe.program(Some(&app.database_url), &["--json", "import"]);
    let program = program.env("SUBLEDGER_POOL_SIZE", "2").spawn().expect("it runs");
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let waiting = async || watching.query_one(waiting, &[]).await.expect("a count").get::<_, i64>(0);
    eventually(waiting, |waiting| *waiting == 2).await;
    // Its connections are all taken, and thirty objects are waiting for one: longer than a service would have them wait.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    slow.batch_execute("commit").await.expect("unlocked");
    let output = program.wait_with_output().await.expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(count(&app, "billing_objects where kind = 'customer'").await, 40);
}
