//! `subledger catalog push|diff|import`: the real program on a simulated Stripe account.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use subledger::domain::catalog::Catalog;
use subledger::sealing::MasterKeys;
use subledger_simulator::Clock;

use crate::support::house::{janitor, new_folder};
use crate::support::stripe_account::Stripe;
use crate::support::*;

const SAMPLE: &str = include_str!("../../deploy/catalog.toml");

/// A catalog's file in a folder of its own.
struct File(PathBuf);

impl File {
    fn new(text: &str) -> Self {
        let folder = new_folder();
        std::fs::create_dir(&folder).expect("a folder");
        let file = Self(folder.join("catalog.toml"));
        file.write(text);
        file
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("written");
    }

    fn read(&self) -> String {
        std::fs::read_to_string(&self.0).expect("read")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Some(folder) = self.0.parent() {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

/// Prices for sale, by the catalog's name for them.
fn for_sale(stripe: &Stripe) -> BTreeMap<String, (String, i64)> {
    let mut found = BTreeMap::new();
    for price in stripe.all("prices").iter().filter(|price| price["active"] == true) {
        let Some(name) = price["metadata"]["subledger_price"].as_str() else { continue };
        let price =
            (price["id"].as_str().expect("an id").to_owned(), price["unit_amount"].as_i64().expect("an amount"));
        assert_eq!(found.insert(name.to_owned(), price), None, "{name} is for sale twice");
    }
    found
}

fn wanted(text: &str) -> BTreeMap<String, (String, i64)> {
    let catalog = Catalog::from_toml(text).expect("a catalog");
    let plans = catalog.plans.iter().flat_map(|plan| &plan.prices);
    let plans =
        plans.map(|price| (price.id.clone(), (price.stripe_price_id.clone().expect("an id"), price.unit_amount)));
    let packs = catalog.credit_packs.iter().flat_map(|pack| &pack.prices);
    let packs =
        packs.map(|price| (price.id.clone(), (price.stripe_price_id.clone().expect("an id"), price.unit_amount)));
    plans.chain(packs).collect()
}

#[tokio::test]
async fn a_push_makes_what_the_catalog_says_and_a_second_one_nothing() {
    let stripe = Stripe::start(Clock::Running { ahead_s: 0 });
    let file = File::new(SAMPLE);
    let (code, output, _) = stripe.run(None, &["catalog", "diff", file.path()]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("create the product \"Basic\" for plan basic"), "{output}");

    let before = stripe.all("events").len();
    let (code, output, _) = stripe.run(None, &["catalog", "push", file.path(), "--dry-run"]).await;
    assert_eq!((code, stripe.all("events").len(), file.read().as_str()), (Some(0), before, SAMPLE), "{output}");

    // Answers are lost, and requests refused.
    for (kind, path) in [("rate_limited", "products"), ("cut_after", "prices")] {
        stripe.control("faults", json!({"kind": kind, "method": "POST", "path": path, "count": 2})).await;
    }
    let (code, output, errors) = stripe.run(None, &["catalog", "push", file.path()]).await;
    assert_eq!(code, Some(0), "{output}{errors}");
    let text = file.read();
    assert_eq!(for_sale(&stripe), wanted(&text));
    assert_eq!(stripe.all("products").len(), 1 + 5 + 4, "one for each plan and pack, and the one that was there");
    let without_ids = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with("stripe_price_id") && !line.starts_with("former_"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(without_ids(&text), without_ids(SAMPLE), "comments and layout stay");

    let events = stripe.all("events").len();
    let (code, output, _) = stripe.run(None, &["catalog", "push", file.path()]).await;
    assert_eq!((code, output.trim()), (Some(0), "Stripe and the catalog agree"));
    assert_eq!((stripe.all("events").len(), file.read()), (events, text.clone()));

    // Another amount is another price; the old one is archived, and known as a former one.
    let old = for_sale(&stripe)["basic.monthly"].0.clone();
    file.write(&text.replace("unit_amount = 999\n", "unit_amount = 1299\n"));
    let (code, output, errors) = stripe.run(None, &["--json", "catalog", "push", file.path()]).await;
    assert_eq!(code, Some(0), "{output}{errors}");
    let report: Value = serde_json::from_str(&output).expect("JSON");
    let steps: Vec<&str> =
        report["steps"].as_array().expect("steps").iter().filter_map(|step| step["step"].as_str()).collect();
    assert_eq!(steps, ["create_price", "archive_price"]);
    assert_eq!(for_sale(&stripe)["basic.monthly"].1, 1299);
    let catalog = Catalog::from_toml(&file.read()).expect("a catalog");
    let basic =
        catalog.plan("basic").expect("basic").prices.iter().find(|price| price.id == "basic.monthly").expect("it");
    assert_eq!(basic.former_stripe_price_ids, [old]);

    // What an account sells makes a catalog that agrees with it.
    let imported = File::new("");
    let (code, _, errors) = stripe.run(None, &["catalog", "import", "--output", imported.path()]).await;
    assert_eq!(code, Some(0), "{errors}");
    let (code, output, _) = stripe.run(None, &["catalog", "diff", imported.path()]).await;
    let left: Vec<&str> =
        output.lines().filter(|line| !line.contains("starter_2") && !line.contains("prod_1")).collect();
    assert_eq!((code, left), (Some(1), Vec::new()), "only the product that was never pushed lacks our marks: {output}");
}

#[tokio::test]
async fn a_push_that_is_killed_makes_nothing_twice() {
    let stripe = Stripe::start(Clock::Running { ahead_s: 0 });
    let file = File::new(SAMPLE);
    stripe.control("faults", json!({"kind": "slow", "method": "POST", "probability": 1.0, "delay_ms": 40})).await;
    for products in [2, 6] {
        let mut program = stripe.spawn(None, &["catalog", "push", file.path()]);
        while stripe.all("products").len() < products {
            assert!(program.try_wait().expect("a child").is_none(), "it ended before it was killed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        program.kill().await.expect("killed");
    }
    let (code, output, errors) = stripe.run(None, &["catalog", "push", file.path()]).await;
    assert_eq!(code, Some(0), "{output}{errors}");
    assert_eq!(for_sale(&stripe), wanted(&file.read()));
    assert_eq!(stripe.all("products").len(), 1 + 5 + 4);
    assert_eq!(stripe.all("prices").len(), 1 + wanted(&file.read()).len(), "not even an archived one");
}

#[tokio::test]
async fn the_catalog_in_force_is_given_stripes_ids() {
    let stripe = Stripe::start(Clock::Running { ahead_s: 0 });
    let app = TestApp::with(Setup { catalog: SAMPLE.to_owned(), ..Setup::default() }).await;
    let (code, output, errors) = stripe.run(Some(&app.database_url), &["catalog", "push"]).await;
    assert_eq!(code, Some(0), "{output}{errors}");
    let (code, output, _) = stripe.run(Some(&app.database_url), &["catalog", "diff"]).await;
    assert_eq!((code, output.trim()), (Some(0), "Stripe and the catalog agree"));
    let ids: Vec<String> = for_sale(&stripe).into_values().map(|(id, _)| id).collect();
    let (_, output, _) = stripe.run(Some(&app.database_url), &["catalog", "show"]).await;
    assert!(ids.iter().all(|id| output.contains(id.as_str())), "{output}");
}

/// Runs the program without the key to Stripe in its environment.
async fn run_without_key(
    stripe: &Stripe,
    database: (&str, &str),
    master_key: &str,
    arguments: &[&str],
) -> (Option<i32>, String) {
    let mut program = stripe.program(None, arguments);
    program.env_remove("STRIPE_SECRET_KEY").env("SUBLEDGER_MASTER_KEYS", master_key).env(database.0, database.1);
    let output = program.output().await.expect("it runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

#[tokio::test]
async fn a_files_catalog_is_pushed_with_the_key_of_the_settings_table() {
    let stripe = Stripe::start(Clock::Running { ahead_s: 0 });
    let (file, imported) = (File::new(SAMPLE), File::new(""));
    let app = TestApp::start().await;
    let embedded = new_folder();
    let _janitor = janitor(&embedded);
    let key = MasterKeys::generate();
    let commands = [
        (&["catalog", "diff", file.path()][..], Some(1)),
        (&["catalog", "push", file.path()], Some(0)),
        (&["catalog", "import", "--output", imported.path()], Some(0)),
    ];
    // Without a database the answer names both cures, and no database is made to look there.
    let nowhere = new_folder();
    for (arguments, _) in commands {
        let folder = ("SUBLEDGER_DATA_DIR", nowhere.to_str().expect("text"));
        let (code, said) = run_without_key(&stripe, folder, &key, arguments).await;
        assert_eq!(code, Some(78), "{said}");
        for cure in ["STRIPE_SECRET_KEY_FILE", "DATABASE_URL", "SUBLEDGER_DATA_DIR"] {
            assert!(said.contains(cure), "{said}");
        }
        assert!(!nowhere.exists());
    }
    let databases =
        [("DATABASE_URL", app.database_url.as_str()), ("SUBLEDGER_DATA_DIR", embedded.to_str().expect("text"))];
    for database in databases {
        let set = ["settings", "set", "STRIPE_SECRET_KEY", STRIPE_KEY, "--encrypted"];
        let (code, said) = run_without_key(&stripe, database, &key, &set).await;
        assert_eq!(code, Some(0), "{said}");
        file.write(SAMPLE);
        for (arguments, expected) in commands {
            let (code, said) = run_without_key(&stripe, database, &key, arguments).await;
            assert_eq!(code, expected, "{said}");
        }
        assert_eq!(for_sale(&stripe), wanted(&file.read()));
        assert!(Catalog::from_toml(&imported.read()).is_ok());
    }
}
