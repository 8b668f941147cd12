//! Any order, any duplication, any payload shape: every lifecycle ends in its facts (through the pure path).

#[path = "../support/mod.rs"]
mod support;

use serde_json::Value;
use subledger::domain::account::{Account, Changes};
use subledger::domain::billing::Billing;
use subledger::domain::catalog::Catalog;
use subledger::domain::command::{Command, decide};
use subledger::domain::credit::Credits;
use subledger::domain::draft::{Context, Draft};
use subledger::domain::ids::AccountId;
use subledger::domain::settle::credits_at;
use subledger::stripe::translate::{self, Settings};
use support::lifecycle::{self, Lifecycle};
use support::shuffle::{delivery_order, each_permutation};

/// Folds StripeEvents into one account, as the service does, at a given moment.
struct Fold {
    catalog: Catalog,
    digest: String,
    keys: Vec<String>,
}

impl Fold {
    fn new() -> Self {
        let catalog = Catalog::from_toml(include_str!("../fixtures/seller.toml")).expect("a valid catalog");
        Self { digest: catalog.digest(), catalog, keys: vec!["user_id".to_owned()] }
    }

    fn context(&self, story: &Lifecycle) -> Context<'_> {
        let as_of = story.expect["as_of"].as_i64().expect("a time");
        let now = chrono::DateTime::from_timestamp(as_of + 1, 0).expect("a time");
        Context { catalog: &self.catalog, catalog_digest: &self.digest, now }
    }

    fn commands(&self, story: &Lifecycle) -> Vec<Command> {
        let settings = Settings { account_metadata_keys: &self.keys };
        let command = |body: &Value| {
            let (event, value) = translate::parse(body.to_string().as_bytes()).expect("an envelope");
            let facts = translate::translate(&event, &value, settings).expect("translatable");
            let observations = facts.map(|facts| facts.observations).unwrap_or_default();
            Command::Observe { observations, link: None }
        };
        story.events.iter().map(command).collect()
    }

    fn end(&self, story: &Lifecycle, commands: &[Command], order: &[usize]) -> (Billing, Credits) {
        let mut account = Account::new(AccountId::new("user_1").expect("valid"));
        let mut changes = Changes::default();
        for &at in order {
            let mut draft = Draft::new(&mut account, &mut changes);
            decide(&mut draft, &commands[at], self.context(story)).expect("observing is never refused");
        }
        let credits = credits_at(&account.id, &account.credits, self.context(story));
        (*account.billing.expect("loaded"), credits)
    }
}

fn assert_facts(story: &Lifecycle, billing: &Billing, order: &[usize]) {
    let (got, want) = (lifecycle::facts_of(billing), lifecycle::expected_facts(&story.expect));
    for section in want.as_object().expect("sections").keys() {
        assert_eq!(got[section], want[section], "{} in {} with order {order:?}", section, story.name);
    }
}

/// The first lines in which two ends differ.
fn difference(got: &(Billing, Credits), want: &(Billing, Credits)) -> String {
    let (got, want) = (format!("{got:#?}"), format!("{want:#?}"));
    let differing = got.lines().zip(want.lines()).filter(|(got, want)| got != want);
    differing.take(5).map(|(got, want)| format!("got {got} want {want}\n")).collect()
}

#[test]
fn in_order_every_lifecycle_ends_in_its_facts() {
    let fold = Fold::new();
    let stories = lifecycle::all();
    assert!(!stories.is_empty(), "there is always at least this repository's own story");
    for story in &stories {
        let order: Vec<usize> = (0..story.events.len()).collect();
        let (billing, _) = fold.end(story, &fold.commands(story), &order);
        assert_facts(story, &billing, &order);
    }
}

#[test]
fn every_permutation_of_short_lifecycles_ends_the_same() {
    let fold = Fold::new();
    for story in lifecycle::all().iter().filter(|story| story.events.len() <= 7) {
        let commands = fold.commands(story);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let end = fold.end(story, &commands, &straight);
        each_permutation(commands.len(), |order| {
            let got = fold.end(story, &commands, order);
            assert_facts(story, &got.0, order);
            assert!(got == end, "{} with order {order:?}:\n{}", story.name, difference(&got, &end));
        });
    }
}

#[test]
fn ten_thousand_random_orders_with_duplicates_end_the_same() {
    let fold = Fold::new();
    let stories: Vec<Lifecycle> = lifecycle::all().into_iter().filter(|story| story.events.len() > 7).collect();
    let per_story = 10_000usize.div_ceil(stories.len().max(1));
    for story in &stories {
        let commands = fold.commands(story);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let end = fold.end(story, &commands, &straight);
        for seed in 0..per_story as u64 {
            let order = delivery_order(commands.len(), seed);
            let got = fold.end(story, &commands, &order);
            assert_facts(story, &got.0, &order);
            assert!(got == end, "{} with seed {seed}: {order:?}\n{}", story.name, difference(&got, &end));
        }
    }
}
