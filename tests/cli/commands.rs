//! Commands, each as people see it and as machines do, beside a service at work on the same ledger.

use std::io::Write;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::program::{Program, free_address};
use crate::support::stripe::*;
use crate::support::*;

/// A service with an account that has a customer, a plan and credits.
async fn ledger() -> (TestApp, Program) {
    let app = TestApp::start().await;
    app.put_account("user_1", json!({"stripe_customer_id": "cus_1", "email": "ada@example.com"})).await.expect(201);
    app.deliver_all(&sign_up("cus_1", PRO, START)).await;
    app.put_account("user_2", json!({})).await.expect(201);
    app.grant("user_2", 40).await.expect(201);
    let program = Program::on(&app.database_url);
    (app, program)
}

/// The cells of a table's rows, its header first.
fn cells(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
}

#[tokio::test]
async fn accounts_are_shown_listed_and_linked() {
    let (app, program) = ledger().await;
    let shown = program.run(&["account", "get", "cus_1"]).expect(0);
    for fact in [["account", "user_1"], ["plan", "pro"], ["e-mail", "ada@example.com"], ["Stripe customers", "cus_1"]] {
        assert!(cells(&shown).iter().any(|row| row == &fact), "{fact:?}: {shown}");
    }
    let lots = program.run(&["account", "get", "user_2"]).expect(0);
    let rows = cells(&lots);
    assert!(rows.contains(&vec!["LEFT", "OF", "EXPIRES", "CAUSE"]), "{lots}");
    assert!(rows.iter().any(|row| row.starts_with(&["40", "40", "never"])), "{lots}");
    assert_eq!(program.run(&["account", "user_1"]).expect(0), program.run(&["account", "get", "user_1"]).expect(0));
    let account = program.json(&["account", "get", "user_1"], 0);
    assert_eq!((&account["id"], &account["plan"]), (&json!("user_1"), &json!("pro")));
    assert_eq!(account["stripe_customer_ids"], json!(["cus_1"]));
    assert!(program.run(&["account", "get", "user_9"]).complaint(1).contains("user_9"));
    assert_eq!(program.run(&["account", "get", "a b"]).code, Some(2));

    let listed = program.run(&["account", "list"]).expect(0);
    let rows = cells(&listed);
    assert_eq!(rows[0], ["ACCOUNT", "PLAN", "STATE", "CREDITS"]);
    assert_eq!(rows.iter().skip(1).map(|row| row[0]).collect::<Vec<_>>(), ["user_1", "user_2"]);
    let first = program.json(&["account", "list", "--limit", "1"], 0);
    assert_eq!((&first["data"][0]["id"], &first["next_after"]), (&json!("user_1"), &json!("user_1")));
    let second = program.json(&["account", "list", "--limit", "1", "--after", "user_1"], 0);
    assert_eq!((&second["data"][0]["id"], &second["next_after"]), (&json!("user_2"), &Value::Null));
    let of_ada = program.json(&["account", "list", "--email", "ADA@example.com"], 0);
    assert_eq!(of_ada["data"].as_array().expect("rows").len(), 1);

    let linked = program.run(&["account", "link", "user_3", "--customer", "cus_3"]).expect(0);
    assert_eq!(linked, "user_3 is created, linked to cus_3\n");
    let again = program.json(&["account", "link", "user_3", "--customer", "cus_3"], 0);
    assert_eq!((&again["created"], &again["stripe_customer_id"]), (&json!(false), &json!("cus_3")));
    assert!(program.run(&["account", "link", "user_2", "--customer", "cus_1"]).complaint(1).contains("cus_1"));
    for wrong in [&["pi_1"][..], &["user_4", "--customer", "sub_1"], &["user_4", "--email", "nobody"]] {
        assert_eq!(program.run(&[&["account", "link"], wrong].concat()).code, Some(2), "{wrong:?}");
    }
    assert_eq!(app.get("/v1/accounts/cus_3").await.expect(200)["id"], "user_3");
}

#[tokio::test]
async fn an_account_is_erased_when_that_is_meant() {
    let (app, program) = ledger().await;
    program.run(&["account", "erase", "user_1"]).complaint(2);
    assert_eq!(app.get("/v1/accounts/user_1").await.expect(200)["email"], "ada@example.com");
    let told = program.run(&["account", "erase", "user_1", "--yes"]).expect(0);
    assert!(told.starts_with("user_1: the profile and 4 bodies of StripeEvents are gone"), "{told}");
    assert_eq!(app.get("/v1/accounts/user_1").await.expect(200)["email"], Value::Null);
    let again = program.json(&["account", "erase", "cus_1", "--yes"], 0);
    assert_eq!((&again["account"], &again["profile_erased"]), (&json!("user_1"), &json!(false)));
    program.run(&["account", "erase", "user_9", "--yes"]).complaint(1);
}

#[tokio::test]
async fn plans_and_the_catalog_are_shown() {
    let (_app, program) = ledger().await;
    let listed = program.run(&["plan", "list"]).expect(0);
    let rows = cells(&listed);
    assert_eq!(rows[0], ["PLAN", "NAME", "RANK", "CREDITS", "PRICES"]);
    let pro = rows.iter().find(|row| row[0] == "pro").expect("a plan").join(" ");
    assert!(pro.contains("500 a month") && pro.contains("29.00 usd a month"), "{pro}");
    let plans = program.json(&["plan", "list"], 0);
    assert!(plans["data"].as_array().expect("plans").iter().any(|plan| plan["id"] == "pro"));
    let shown = program.run(&["plan", "get", "pro"]).expect(0);
    assert!(shown.contains("FEATURE") && shown.contains(PRO), "{shown}");
    assert_eq!(program.json(&["plan", "get", "pro"], 0)["id"], "pro");
    assert!(program.run(&["plan", "get", "gold"]).complaint(1).contains("plan list"));

    assert_eq!(
        program.json(&["catalog", "show"], 0)["plans"].as_array().map(Vec::len),
        plans["data"].as_array().map(Vec::len)
    );
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/catalog.toml");
    assert_eq!(program.json(&["catalog", "check", sample], 0)["valid"], true);
    assert_eq!(program.json(&["catalog", "apply", sample], 0)["is_new"], true);
    assert!(program.run(&["catalog", "apply", sample]).expect(0).contains("in force already"));
    assert_eq!(program.json(&["catalog", "simulate", sample], 0)["affected"], 0);
    let draft =
        std::fs::read_to_string(sample).expect("a catalog").replacen("\nmodels = [\"flux-schnell\"]\n", "\n", 1);
    let path = std::env::temp_dir().join(format!("subledger-draft-{}.toml", std::process::id()));
    std::fs::write(&path, draft).expect("a draft");
    let path = path.to_str().expect("a path");
    let simulated = program.json(&["catalog", "simulate", path], 0);
    assert_eq!(simulated["listed"][0]["entitlements"][0]["feature"], "models", "{simulated}");
    let told = program.run(&["catalog", "simulate", path]).expect(0);
    assert!(told.contains("models: flux-schnell -> no") && told.contains("would have other features"), "{told}");
    std::fs::remove_file(path).expect("removed");
    assert_eq!(program.run(&["catalog", "check", "/nowhere.toml"]).code, Some(78));
}

#[tokio::test]
async fn revenue_is_told_by_month() {
    let (_app, program) = ledger().await;
    let told = program.run(&["revenue", "--from", "2025-11", "--to", "2026-02"]).expect(0);
    assert!(told.contains("USD: MRR 29.00, ARR 348.00, 1 active subscriptions"), "{told}");
    let rows = cells(&told);
    assert!(rows.contains(&vec![
        "month",
        "MRR",
        "new",
        "expansion",
        "reactivation",
        "contraction",
        "churn",
        "churn %"
    ]));
    let january: Vec<&Vec<&str>> = rows.iter().filter(|row| row.first() == Some(&"2026-01")).collect();
    assert_eq!(january[0][..3], ["2026-01", "29.00", "29.00"], "{told}");
    assert_eq!(january[1][..2], ["2026-01", "1"], "{told}");
    assert!(!told.contains("2025-11") && told.contains("2026-02"), "what was before there was anything: {told}");
    assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
    let machine = program.json(&["revenue", "--currency", "usd"], 0);
    assert_eq!(
        (&machine["currencies"][0]["currency"], &machine["currencies"][0]["mrr"]),
        (&json!("usd"), &json!(2_900))
    );
    assert!(program.run(&["revenue", "--plan", "gold"]).complaint(2).contains("--plan"));
    assert_eq!(program.run(&["revenue", "--currency", "gold"]).code, Some(2));
}

#[tokio::test]
async fn events_are_listed_and_followed() {
    let (app, program) = ledger().await;
    let of_account = program.run(&["--json", "events", "--account", "cus_1"]).expect(0);
    let events: Vec<Value> = of_account.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(events.len() >= 3 && events.iter().all(|event| event["account"] == "user_1"), "{of_account}");
    let all = program.run(&["events", "list", "--limit", "1000"]).expect(0);
    for name in ["user_1", "user_2", "$system"] {
        assert!(all.contains(name), "{name} is not in the log of all partitions");
    }
    let two = program.run(&["events", "list", "--limit", "2"]).expect(0);
    assert_eq!(two.lines().count(), 2);
    let partition = events[0]["partition"].to_string();
    let of_partition = program.run(&["events", "--partition", &partition]).expect(0);
    assert!(of_partition.lines().all(|line| line.starts_with(&format!("{partition}/"))), "{of_partition}");

    let mut all = program.start(&["events", "tail", "-n", "1"]);
    let mut typed = program.start(&["--json", "events", "tail", "--account", "user_2", "--type", "credits_debited"]);
    assert_eq!(all.printed(" ").lines().count(), 1, "the last event to begin with");
    app.debit("user_1", "tail-1", json!({"amount": 3})).await.expect(201);
    assert!(all.printed("credits_debited").contains("user_1"));
    app.debit("user_2", "tail-2", json!({"amount": 4})).await.expect(201);
    all.printed("user_2");
    let event: Value = serde_json::from_str(&typed.printed("credits_debited")).expect("JSON");
    assert_eq!((&event["account"], &event["payload"]["amount"]), (&json!("user_2"), &json!(4)));
    for tail in [all, typed] {
        let ended = tail.stop(Signal::SIGINT);
        assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""), "nothing is printed twice: {}", ended.err);
    }
}

#[tokio::test]
async fn keys_and_parked_events_are_administered() {
    let (app, program) = ledger().await;
    assert_eq!(program.run(&["keys", "list"]).expect(0), "no keys\n");
    let made = program.json(&["keys", "create", "--scope", "spend", "--name", "farm"], 0);
    let (id, key) = (made["key_id"].as_str().expect("an id"), made["key"].as_str().expect("a key"));
    let listed = program.run(&["keys", "list"]).expect(0);
    assert_eq!(cells(&listed)[0], ["KEY", "SCOPE", "NAME", "CREATED", "REVOKED"]);
    assert!(cells(&listed)[1].starts_with(&[id, "spend", "farm"]) && !listed.contains(key), "{listed}");
    assert_eq!(program.json(&["keys", "list"], 0)["data"][0]["key_id"], id);
    program.run(&["keys", "revoke", id]).expect(0);
    assert_eq!(program.json(&["keys", "revoke", id], 1)["revoked"], false);
    assert_eq!(program.run(&["keys", "create", "--scope", "root"]).code, Some(2));

    assert_eq!(program.run(&["parked", "list"]).expect(0), "nothing is parked\n");
    app.deliver_body("not json").await.expect(200);
    let listed = program.run(&["parked", "list"]).expect(0);
    assert_eq!(cells(&listed)[0], ["STRIPE EVENT", "TYPE", "RECEIVED", "REASON"]);
    let parked = program.json(&["parked", "list"], 0)["data"][0].clone();
    let id = parked["stripe_event_id"].as_str().expect("an id");
    assert!(listed.contains(id) && parked["type"] == "unreadable", "{listed}");
    assert_eq!(program.json(&["parked", "retry", id], 1)["data"][0]["status"], "parked");
    program.run(&["parked", "retry", "evt_nobody"]).expect(1);
    assert_eq!(program.run(&["parked", "retry"]).code, Some(2));
}

#[tokio::test]
async fn the_ledger_is_verified_rebuilt_and_explained() {
    let (mut app, program) = ledger().await;
    let sound = program.run(&["verify"]).expect(0);
    assert!(sound.starts_with("sound: "), "{sound}");
    assert_eq!(program.json(&["verify"], 0)["differences"], 0);
    let rebuilt = program.run(&["rebuild"]);
    assert!(rebuilt.err.is_empty(), "no bar where there is no terminal: {}", rebuilt.err);
    assert!(rebuilt.expect(0).starts_with("rebuilt "));
    assert!(program.json(&["rebuild"], 0)["accounts"].as_u64() >= Some(2));
    let debit = app.debit("user_1", "explained", json!({"amount": 1})).await.expect(201);
    let receipt = debit["receipt"].as_str().expect("a receipt");
    assert!(program.run(&["explain", receipt]).expect(0).contains("decided again from the log: the same"));
    assert_eq!(program.json(&["explain", receipt], 0)["agrees"], true);
    assert!(program.run(&["explain", "99-99"]).complaint(1).contains("99-99"));

    app.skip_checks();
    let damage = "update balances set available = available + 5 where account_id = 'user_1'";
    app.database().await.batch_execute(damage).await.expect("damaged");
    assert_eq!(program.json(&["verify"], 1)["differences"], 1);
    assert!(program.run(&["verify"]).expect(1).contains("1 differences"));
}

#[test]
fn each_way_to_end_has_a_code_that_help_tells() {
    let nowhere = Program::on("postgres://nobody@127.0.0.1:1/nothing");
    let help = nowhere.run(&["--help"]).expect(0);
    for code in ["0 ", "1 ", "2 ", "69 ", "70 ", "78 "] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(code)), "{code}: {help}");
    }
    assert!(nowhere.run(&["verify"]).complaint(69).contains("DATABASE_URL"));
    assert!(nowhere.run(&["account", "get", "user_1"]).complaint(69).contains("DATABASE_URL"));
    let silent = free_address().to_string();
    nowhere.clone().with("SUBLEDGER_LISTEN", &silent).run(&["healthcheck"]).complaint(1);
    assert_eq!(nowhere.run(&["frobnicate"]).code, Some(2));
    assert_eq!(nowhere.run(&[]).code, Some(2));
    let wrong = nowhere.clone().with("SUBLEDGER_LANES", "many");
    assert!(wrong.run(&["verify"]).complaint(78).contains("SUBLEDGER_LANES"));
    assert_eq!(nowhere.run(&["--config", "/nowhere.toml", "verify"]).code, Some(78));
}

#[test]
fn completions_are_scripts_that_name_the_commands() {
    // Whatever the settings are.
    let program = Program::on("").with("SUBLEDGER_LANES", "many");
    for shell in ["bash", "zsh", "fish"] {
        let script = program.run(&["completions", shell]).expect(0);
        assert!(script.contains("settings") && script.contains("generate-master-key"), "{shell}");
        let mut check = Command::new(shell);
        let Ok(mut child) = check.arg("-n").stdin(Stdio::piped()).spawn() else {
            assert_ne!(shell, "bash", "bash is everywhere");
            continue;
        };
        child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("read");
        assert!(child.wait().expect("an end").success(), "{shell} does not take its script");
    }
    assert_eq!(program.run(&["completions", "cmd"]).code, Some(2));
}

/// Whoever reads only the beginning does not make the program panic.
#[tokio::test]
async fn a_reader_that_goes_away_is_no_fault() {
    let (app, program) = ledger().await;
    let mut tail = program.start(&["events", "tail"]);
    tail.printed(" ");
    tail.stop_reading();
    app.debit("user_1", "unseen", json!({"amount": 1})).await.expect(201);
    let ended = tail.end();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
}
