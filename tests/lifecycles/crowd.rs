//! Two hundred customers at once: every event finds its account, and every account ends in its facts.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use subledger::domain::ids::AccountId;

use crate::fold::{Fold, account, assert_facts, assert_same};
use crate::router::Router;
use crate::support::lifecycle::{self, Lifecycle};
use crate::support::shuffle::Random;

#[test]
fn two_hundred_interleaved_customers_each_end_in_their_facts() {
    let Some(crowd) = Crowd::read() else { return };
    crowd.assert_ends(&crowd.events.iter().collect::<Vec<_>>());
}

#[test]
fn two_hundred_customers_in_no_order_at_all_each_end_in_their_facts() {
    let Some(crowd) = Crowd::read() else { return };
    let mut deliveries: Vec<&Value> = crowd.events.iter().collect();
    Random(200).shuffle(&mut deliveries);
    crowd.assert_ends(&deliveries);
}

struct Crowd {
    fold: Fold,
    events: Vec<Value>,
    expectations: Vec<Value>,
    latest: i64,
}

impl Crowd {
    fn read() -> Option<Self> {
        let shared = lifecycle::shared_folder()?;
        let events = read_lines(&shared.join("mixed_200.jsonl.gz"));
        let expectations = read_lines(&shared.join("mixed_200.expect.jsonl.gz"));
        assert_eq!(expectations.len(), 200);
        let latest = events.iter().filter_map(|event| event["created"].as_i64()).max().expect("events");
        Some(Self { fold: Fold::new(), events, expectations, latest })
    }

    fn assert_ends(&self, deliveries: &[&Value]) {
        let context = self.fold.context_at(self.latest + 1);
        let mut router = Router::default();
        for event in deliveries {
            router.deliver(&self.fold, event, context);
        }
        assert!(router.merges > 0, "some streams were opened before their account was known");
        let mut events_of: BTreeMap<&AccountId, Vec<&Value>> = BTreeMap::new();
        for event in &self.events {
            let reference = self.fold.facts(event).and_then(|facts| facts.references.into_iter().next());
            if let Some(owner) = reference.and_then(|reference| router.owner(&reference)) {
                events_of.entry(owner).or_default().push(event);
            }
        }
        for expect in &self.expectations {
            let named = [&expect["customers"][0]["user_id"], &expect["credit_packs"][0]["client_reference_id"]];
            let user = named.into_iter().find_map(Value::as_str).expect("a user");
            let story = Lifecycle { name: user.to_owned(), events: Vec::new(), expect: expect.clone() };
            let id = AccountId::new(user).expect("a valid id");
            let streamed = self.fold.end_of(router.accounts[&id].clone(), context);
            assert_facts(&self.fold, &story, &streamed, &"delivered in a crowd");

            let mut alone = account(user);
            for event in &events_of[&id] {
                self.fold.apply(&mut alone, &self.fold.command(event), context);
            }
            assert_same(&story, &streamed, &self.fold.end_of(alone, context), &"linked from the start");
        }
    }
}

fn read_lines(path: &Path) -> Vec<Value> {
    let file = std::fs::File::open(path).expect("a readable collection");
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}
