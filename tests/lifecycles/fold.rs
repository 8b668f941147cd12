//! Folds StripeEvents into one account, as the service does, at a given moment.

use serde_json::Value;
use subledger::domain::account::{Account, Changes};
use subledger::domain::billing::Billing;
use subledger::domain::catalog::Catalog;
use subledger::domain::command::{Command, decide};
use subledger::domain::credit::Credits;
use subledger::domain::draft::{Context, Draft};
use subledger::domain::event::Event;
use subledger::domain::ids::AccountId;
use subledger::domain::settle::credits_at;
use subledger::stripe::translate::{self, Facts, Settings};

use crate::support::lifecycle::{self, Lifecycle};

/// The seller whose catalog every story is played with.
pub struct Fold {
    pub catalog: Catalog,
    digest: String,
    keys: Vec<String>,
}

/// How a story ended.
#[derive(Debug, PartialEq)]
pub struct End {
    pub billing: Billing,
    pub credits: Credits,
}

impl Fold {
    pub fn new() -> Self {
        Self::of_seller(include_str!("../fixtures/seller.toml"))
    }

    pub fn of_seller(catalog: &str) -> Self {
        let catalog = Catalog::from_toml(catalog).expect("a valid catalog");
        Self { digest: catalog.digest(), catalog, keys: vec!["user_id".to_owned()] }
    }

    /// One second after the last event.
    pub fn context(&self, story: &Lifecycle) -> Context<'_> {
        self.context_at(story.expect["as_of"].as_i64().expect("a time") + 1)
    }

    pub fn context_at(&self, second: i64) -> Context<'_> {
        let now = chrono::DateTime::from_timestamp(second, 0).expect("a time");
        Context { catalog: &self.catalog, catalog_digest: &self.digest, now }
    }

    /// What a body means; `None` for a type that the ledger does not know.
    pub fn facts(&self, body: &Value) -> Option<Facts> {
        let settings = Settings { account_metadata_keys: &self.keys };
        let body = body.to_string();
        let (event, value) = translate::parse(body.as_bytes()).expect("an envelope");
        translate::translate(&event, &value, settings).expect("translatable")
    }

    pub fn command(&self, body: &Value) -> Command {
        let observations = self.facts(body).map(|facts| facts.observations).unwrap_or_default();
        Command::Observe { observations, link: None, reconciled: None }
    }

    pub fn commands(&self, story: &Lifecycle) -> Vec<Command> {
        story.events.iter().map(|body| self.command(body)).collect()
    }

    /// Plays the commands in an order.
    pub fn end(&self, story: &Lifecycle, commands: &[Command], order: &[usize]) -> End {
        self.end_at(self.context(story), commands, order)
    }

    pub fn end_at(&self, context: Context<'_>, commands: &[Command], order: &[usize]) -> End {
        let mut account = account("user_1");
        for &at in order {
            self.apply(&mut account, &commands[at], context);
        }
        self.end_of(account, context)
    }

    /// Decides one command, which must not be refused, and gives the events.
    pub fn apply(&self, account: &mut Account, command: &Command, context: Context<'_>) -> Vec<Event> {
        let mut changes = Changes::default();
        let mut draft = Draft::new(account, &mut changes);
        decide(&mut draft, command, context).expect("never refused");
        draft.events
    }

    /// The account as a reader would see it.
    pub fn end_of(&self, account: Account, context: Context<'_>) -> End {
        let credits = credits_at(&account.id, &account.credits, context);
        End { billing: *account.billing.expect("loaded"), credits }
    }
}

pub fn account(id: &str) -> Account {
    Account::new(AccountId::new(id).expect("a valid id"))
}

/// The end shows what the story's expectation states.
pub fn assert_facts(fold: &Fold, story: &Lifecycle, end: &End, hint: &dyn std::fmt::Debug) {
    let (got, want) = (lifecycle::facts_of(&end.billing), lifecycle::expected_facts(&story.expect));
    for section in want.as_object().expect("sections").keys() {
        assert_eq!(got[section], want[section], "{} in {} with {hint:?}", section, story.name);
    }
    if let Some(want) = lifecycle::expected_credits(&story.expect) {
        let got = lifecycle::credits_of(&end.billing, &end.credits, fold.context(story).now);
        assert_eq!(got, want, "credits in {} with {hint:?}", story.name);
    }
}

/// The two ends are the same in everything.
pub fn assert_same(story: &Lifecycle, got: &End, want: &End, hint: &dyn std::fmt::Debug) {
    assert!(got == want, "{} with {hint:?}:\n{}", story.name, difference(got, want));
}

/// The first lines in which two ends differ.
pub fn difference(got: &End, want: &End) -> String {
    let (got, want) = (format!("{got:#?}"), format!("{want:#?}"));
    let differing = got.lines().zip(want.lines()).filter(|(got, want)| got != want);
    differing.take(5).map(|(got, want)| format!("got {got} want {want}\n")).collect()
}
