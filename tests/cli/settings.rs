//! `subledger settings`, and what the service makes of what is kept there.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use subledger::config::{Config, SECRETS};
use subledger::sealing::MasterKeys;
use subledger::startup::Running;
use subledger::store::connect::Database;
use subledger::stripe::signature;

use crate::program::{Program, free_address};
use crate::support::house::{TestDatabase, owner};

const WEBHOOK_SECRET: &str = "whsec_kept_in_the_settings_table";
const ADMIN_KEY: &str = "an-admin-key-kept-in-the-settings-table";

fn id_of(master_key: &str) -> &str {
    master_key.split_once(':').expect("a pair").0
}

#[tokio::test]
async fn a_setting_is_kept_shown_and_taken_away() {
    let database = TestDatabase::new(4).await;
    let program = Program::on(&database.url);
    assert_eq!(program.run(&["settings", "list"]).expect(0), "the settings table is empty\n");
    assert_eq!(program.json(&["settings", "list"], 0), json!({"data": []}));

    let kept = program.run(&["settings", "set", "SUBLEDGER_LANES", "3"]).expect(0);
    assert_eq!(kept, "SUBLEDGER_LANES is kept; services take it over when they start again\n");
    let shown = program.run(&["settings", "get", "SUBLEDGER_LANES"]).expect(0);
    assert!(shown.starts_with("value   3\nset at  20"), "{shown}");
    let listed = program.run(&["settings", "list"]).expect(0);
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("NAME") && lines[1].starts_with("SUBLEDGER_LANES  3"), "{listed}");

    let here = program.clone().with("SUBLEDGER_LANES", "5");
    let shown = here.json(&["settings", "get", "SUBLEDGER_LANES"], 0);
    assert_eq!((&shown["value"], &shown["overridden_by"]), (&json!("3"), &json!("environment")));
    let told = here.json(&["settings", "set", "SUBLEDGER_LANES", "4"], 0);
    let expected =
        json!({"name": "SUBLEDGER_LANES", "encrypted": false, "master_key": null, "overridden_by": "environment"});
    assert_eq!(told, expected);

    assert_eq!(program.json(&["settings", "unset", "SUBLEDGER_LANES"], 0)["removed"], true);
    assert_eq!(program.json(&["settings", "unset", "SUBLEDGER_LANES"], 1)["removed"], false);
    program.run(&["settings", "get", "SUBLEDGER_LANES"]).complaint(1);
    database.remove().await;
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_with_the_cure() {
    let database = TestDatabase::new(4).await;
    let program = Program::on(&database.url);
    let keyed = program.clone().with("SUBLEDGER_MASTER_KEYS", &MasterKeys::generate());
    for (arguments, cure) in [
        (&["SUBLEDGER_LANSE", "3"][..], "subledger serve --help"),
        (&["SUBLEDGER_LANES", "three"], "whole number from 1 to 64"),
        (&["DATABASE_URL", "postgres://localhost/x", "--encrypted"], "set it in the environment"),
        (&["SUBLEDGER_MASTER_KEYS", "k:x", "--encrypted"], "set it in the environment"),
        (&["SUBLEDGER_LISTEN", "127.0.0.1:1"], "set it in the environment"),
        (&["STRIPE_WEBHOOK_SECRETS", WEBHOOK_SECRET], "add --encrypted"),
        (&["STRIPE_WEBHOOK_SECRETS", "sk_test_1", "--encrypted"], "start with whsec_"),
        (&["SUBLEDGER_ADMIN_KEY", "short", "--encrypted"], "at least 16 characters"),
        (&["SUBLEDGER_LANES", " "], "settings unset"),
    ] {
        let complaint = keyed.run(&[&["settings", "set"], arguments].concat()).complaint(78);
        assert!(complaint.contains(cure), "{complaint}");
        assert!(!complaint.contains("sk_test_1") && !complaint.contains(WEBHOOK_SECRET), "{complaint}");
    }
    let complaint = program.run(&["settings", "set", "STRIPE_SECRET_KEY", "sk_test_1", "--encrypted"]).complaint(78);
    assert!(complaint.contains("generate-master-key"), "{complaint}");
    let broken = program.clone().with("SUBLEDGER_MASTER_KEYS", "k1:c2hvcnQ=");
    let complaint = broken.run(&["settings", "list"]).complaint(78);
    assert!(complaint.contains("SUBLEDGER_MASTER_KEYS") && !complaint.contains("c2hvcnQ"), "{complaint}");
    program.run(&["settings", "set"]).expect(2);
    assert_eq!(program.json(&["settings", "list"], 0), json!({"data": []}));
    database.remove().await;
}

#[tokio::test]
async fn a_secret_is_never_shown_stored_or_logged_and_works() {
    let database = TestDatabase::new(4).await;
    let key = Program::on(&database.url).run(&["settings", "generate-master-key"]).expect(0);
    let address = free_address();
    let program = Program::on(&database.url).with("SUBLEDGER_MASTER_KEYS", key.trim());
    let mut seen = String::new();
    let set = ["settings", "set", "STRIPE_WEBHOOK_SECRETS", "--encrypted"];
    seen += &program.run_with(&set, &format!("{WEBHOOK_SECRET}\n")).expect(0);
    let set = ["settings", "set", "SUBLEDGER_ADMIN_KEY", "--encrypted"];
    seen += &program.clone().with("RUST_LOG", "trace").run_with(&set, ADMIN_KEY).expect(0);
    for arguments in [&["settings", "list"][..], &["settings", "get", "SUBLEDGER_ADMIN_KEY"], &["settings", "rotate"]] {
        let (table, json) = (program.run(arguments), program.run(&[&["--json"], arguments].concat()));
        seen += &[table.expect(0), json.expect(0)].concat();
    }
    let shown = program.json(&["settings", "get", "SUBLEDGER_ADMIN_KEY"], 0);
    let expected = (&Value::Null, &json!(true), &json!(id_of(&key)));
    assert_eq!((&shown["value"], &shown["encrypted"], &shown["master_key"]), expected);

    let talkative = program.with("RUST_LOG", "trace").with("SUBLEDGER_LISTEN", &address.to_string());
    let mut service = talkative.start(&["serve"]);
    service.ready(address).await;
    let body = json!({"id": "evt_1", "type": "ping", "created": 1, "livemode": false}).to_string();
    let signed = signature::sign(body.as_bytes(), WEBHOOK_SECRET, chrono::Utc::now().timestamp());
    let http = reqwest::Client::new();
    let webhook = http.post(format!("http://{address}/webhooks/stripe")).header("Stripe-Signature", signed);
    assert_eq!(webhook.body(body).send().await.expect("an answer").status(), 200);
    let plans = format!("http://{address}/v1/plans");
    assert_eq!(http.get(&plans).send().await.expect("an answer").status(), 401);
    assert_eq!(http.get(&plans).bearer_auth(ADMIN_KEY).send().await.expect("an answer").status(), 200);
    seen += &http.get(format!("http://{address}/metrics")).send().await.expect("an answer").text().await.expect("text");
    let ended = service.stop(Signal::SIGTERM);
    assert_eq!(ended.code, Some(0));
    assert!(ended.err.contains("STRIPE_WEBHOOK_SECRETS"), "it says which settings it took: {}", ended.err);
    seen += &[ended.out, ended.err, everything_stored(&database.url).await].concat();
    for secret in [WEBHOOK_SECRET, ADMIN_KEY, key.trim().split_once(':').expect("a pair").1] {
        assert!(!seen.contains(secret), "{secret} is in what was shown, logged or stored");
    }
    database.remove().await;
}

/// All rows of all tables, as text.
async fn everything_stored(url: &str) -> String {
    let client = owner(url).await;
    let tables =
        "select relname::text from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace";
    let mut stored = String::new();
    for table in client.query(tables, &[]).await.expect("tables") {
        let rows = client.query(&format!("select t::text from {} t", table.get::<_, &str>(0)), &[]).await;
        stored.extend(rows.expect("rows").iter().map(|row| row.get::<_, String>(0)));
    }
    assert!(stored.contains("sealed.v1:"));
    stored
}

#[tokio::test]
async fn what_is_put_together_says_nothing_of_its_secrets() {
    let database = TestDatabase::new(4).await;
    let key = MasterKeys::generate();
    let program = Program::on(&database.url).with("SUBLEDGER_MASTER_KEYS", &key);
    program.run(&["settings", "set", "SUBLEDGER_LANES", "3"]).expect(0);
    let secrets = ["whsec_in_the_table", "sk_test_in_the_table", "an-admin-key-in-the-table"];
    for (name, secret) in ["STRIPE_WEBHOOK_SECRETS", "STRIPE_SECRET_KEY", "SUBLEDGER_ADMIN_KEY"].iter().zip(secrets) {
        assert!(SECRETS.contains(name));
        program.run(&["settings", "set", name, secret, "--encrypted"]).expect(0);
    }
    let config = Config::load(None).expect("settings").with_default("SUBLEDGER_MASTER_KEYS", &key).expect("valid");
    let running = Running::start(&config, &Database::parse(&database.url).expect("a URL")).await.expect("running");
    let (lanes, admin_key) = (running.config.lanes, running.config.admin_key.as_deref());
    assert_eq!((lanes, admin_key), (3, Some(secrets[2])), "the table is read");
    assert_eq!(running.service.stripe.webhook_secrets, [secrets[0]]);
    let shown = format!("{config:?} {:?} {running:?}", running.config);
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret} is in {shown}");
    }
    running.stop().await;
    database.remove().await;
}

#[tokio::test]
async fn master_keys_are_rotated() {
    let database = TestDatabase::new(4).await;
    let (old, new) = (MasterKeys::generate(), MasterKeys::generate());
    let program = Program::on(&database.url);
    let before = program.clone().with("SUBLEDGER_MASTER_KEYS", &old);
    let during = program.clone().with("SUBLEDGER_MASTER_KEYS", &format!("{new},{old}"));
    let after = program.clone().with("SUBLEDGER_MASTER_KEYS", &new);
    before.run(&["settings", "set", "STRIPE_WEBHOOK_SECRETS", WEBHOOK_SECRET, "--encrypted"]).expect(0);

    let complaint = after.run(&["account", "user_1"]).complaint(78);
    assert!(complaint.contains("STRIPE_WEBHOOK_SECRETS") && complaint.contains(id_of(&old)), "{complaint}");
    program.run(&["account", "user_1"]).complaint(78);
    // Nothing of the table is needed where the environment says it.
    let given = program.clone().with("STRIPE_WEBHOOK_SECRETS", "whsec_given");
    assert!(given.run(&["account", "user_1"]).complaint(1).contains("user_1"));

    assert!(after.run(&["settings", "rotate"]).complaint(78).contains(id_of(&old)));
    let rotated = during.json(&["settings", "rotate"], 0);
    assert_eq!(rotated, json!({"master_key": id_of(&new), "rotated": ["STRIPE_WEBHOOK_SECRETS"]}));
    assert_eq!(during.json(&["settings", "rotate"], 0)["rotated"], json!([]));
    assert!(after.run(&["account", "user_1"]).complaint(1).contains("user_1"));
    before.run(&["account", "user_1"]).complaint(78);
    program.run(&["settings", "rotate"]).complaint(78);
    database.remove().await;
}

#[tokio::test]
async fn values_that_change_places_do_not_open() {
    let database = TestDatabase::new(4).await;
    let program = Program::on(&database.url).with("SUBLEDGER_MASTER_KEYS", &MasterKeys::generate());
    program.run(&["settings", "set", "SUBLEDGER_ADMIN_KEY", ADMIN_KEY, "--encrypted"]).expect(0);
    program.run(&["settings", "set", "STRIPE_SECRET_KEY", "sk_test_1234567890", "--encrypted"]).expect(0);
    assert!(program.run(&["account", "user_1"]).complaint(1).contains("user_1"));
    let client = owner(&database.url).await;
    let swap = "update settings set sealed = (select sealed from settings other where other.name <> settings.name)";
    client.batch_execute(swap).await.expect("swapped");
    assert!(program.run(&["account", "user_1"]).complaint(78).contains("does not open"));
    // The old value beside the number of a new one.
    client.batch_execute(swap).await.expect("swapped back");
    client.batch_execute("update settings set version = nextval('setting_versions')").await.expect("renumbered");
    assert!(program.run(&["account", "user_1"]).complaint(78).contains("does not open"));
    database.remove().await;
}

#[tokio::test]
async fn the_services_role_cannot_see_the_table() {
    let database = TestDatabase::new(4).await;
    let client = owner(&database.url).await;
    client.batch_execute("set role subledger_service").await.expect("the role");
    for statement in ["select * from settings", "insert into settings (name, value) values ('RUST_LOG', 'x')"] {
        let refused = client.batch_execute(statement).await.expect_err("no grant");
        assert_eq!(refused.code(), Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE));
    }
    database.remove().await;
}

#[test]
fn a_configuration_file_that_cannot_be_read_is_not_shown() {
    let file = std::env::temp_dir().join(format!("subledger-{}.toml", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, "SUBLEDGER_LANES = 2\nSTRIPE_SECRET_KEY = sk_test_unquoted\n").expect("written");
    let path = file.to_str().expect("a path");
    let complaint = Program::on("postgres://nobody@127.0.0.1:1/x").run(&["--config", path, "migrate"]).complaint(78);
    assert!(complaint.contains("line 2") && !complaint.contains("sk_test_unquoted"), "{complaint}");
    std::fs::remove_file(&file).expect("removed");
}

#[tokio::test]
async fn a_setting_is_read_from_the_file_that_is_mounted_for_it() {
    let database = TestDatabase::new(4).await;
    let folder = std::env::temp_dir();
    let file = folder.join(format!("subledger-{}.secret", uuid::Uuid::new_v4().simple()));
    std::fs::write(&file, format!("{}\n", database.url)).expect("written");
    let path = file.to_str().expect("a path");
    let mounted = Program::on("").with("DATABASE_URL_FILE", path);
    assert_eq!(mounted.run(&["settings", "list"]).expect(0), "the settings table is empty\n");
    // The environment goes before it.
    let elsewhere = Program::on("postgres://nobody@127.0.0.1:1/x").with("DATABASE_URL_FILE", path);
    elsewhere.run(&["settings", "list"]).complaint(69);
    std::fs::remove_file(&file).expect("removed");
    assert!(mounted.run(&["settings", "list"]).complaint(78).contains("DATABASE_URL_FILE"));

    // A secret out of a file is what the service works with, and is shown nowhere.
    let key = folder.join(format!("subledger-{}.key", uuid::Uuid::new_v4().simple()));
    std::fs::write(&key, format!("{ADMIN_KEY}\n")).expect("written");
    let address = free_address();
    let mut service = Program::on(&database.url)
        .with("SUBLEDGER_LISTEN", &address.to_string())
        .with("SUBLEDGER_ADMIN_KEY_FILE", key.to_str().expect("a path"))
        .start(&["serve"]);
    service.ready(address).await;
    let status = async |key: &str| {
        let request = reqwest::Client::new().get(format!("http://{address}/v1/plans")).bearer_auth(key);
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!((status(ADMIN_KEY).await, status("another key").await), (200, 401));
    let ended = service.stop(Signal::SIGTERM);
    assert!(!ended.out.contains(ADMIN_KEY) && !ended.err.contains(ADMIN_KEY));
    std::fs::remove_file(&key).expect("removed");
    database.remove().await;
}

#[test]
fn a_stripe_key_of_the_other_mode_is_refused() {
    let nowhere = Program::on("postgres://nobody@127.0.0.1:1/x").with("STRIPE_LIVEMODE", "false");
    let complaint = nowhere.with("STRIPE_SECRET_KEY", "sk_live_of_the_other_mode").run(&["serve"]).complaint(78);
    assert!(complaint.contains("STRIPE_LIVEMODE") && !complaint.contains("of_the_other_mode"), "{complaint}");
}
