//! Whatever a body holds: an answer or a named error, and never a panic.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use subledger::domain::account::Changes;
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, decide};
use subledger::domain::draft::Draft;
use subledger::domain::standing::check;
use subledger::stripe::translate::{self, Settings, TranslateError};
use uuid::Uuid;

use crate::fold::{Fold, account};
use crate::support::lifecycle::{self, Lifecycle};
use crate::support::shuffle::{Random, delivery_order};
use crate::support::vandal::spoil;

static FOLD: LazyLock<Fold> = LazyLock::new(Fold::new);
static STORIES: LazyLock<Vec<Lifecycle>> = LazyLock::new(|| {
    let mut stories = lifecycle::all();
    stories.retain(|story| story.name.starts_with("lifecycles/"));
    stories
});

/// What Stripe never changes in an object, so that two notifications cannot differ in it.
const IMMUTABLE: &[&str] = &["id", "created", "lines", "metadata", "mode", "amount", "billing_reason"];

/// A story of which some events were spoilt, as commands; what is refused tells the ledger nothing.
fn spoilt(story: &Lifecycle, random: &mut Random, reconciled: bool) -> Vec<Command> {
    let keys = vec!["user_id".to_owned()];
    let mut commands = Vec::new();
    for event in &story.events {
        let mut body = event.clone();
        if random.below(2) == 0 {
            spoil(&mut body, random);
            if reconciled {
                reconcile(&mut body, event);
            }
        }
        let body = body.to_string();
        let Ok((event, value)) = translate::parse(body.as_bytes()) else {
            continue;
        };
        if let Ok(Some(facts)) = translate::translate(&event, &value, Settings { account_metadata_keys: &keys }) {
            commands.push(Command::Observe { observations: facts.observations, link: None, reconciled: None });
        }
    }
    commands
}

/// What one API version may leave out, but no two may tell differently.
const REFERENCES: &[&str] = &["payment_intent", "charge", "latest_charge", "subscription", "parent", "invoice"];

/// Undoes what would make two notifications contradict each other about something that never changes.
fn reconcile(body: &mut Value, event: &Value) {
    restore(body, event, IMMUTABLE);
    let is_told = |key: &&&str| !body["data"]["object"][**key].is_null();
    let told: Vec<&str> = REFERENCES.iter().filter(is_told).copied().collect();
    restore(body, event, &told);
}

fn restore(body: &mut Value, event: &Value, keys: &[&str]) {
    let Some(Value::Object(object)) = body.pointer_mut("/data/object") else { return };
    for key in keys {
        match event["data"]["object"].get(*key) {
            Some(value) => drop(object.insert((*key).to_owned(), value.clone())),
            None => drop(object.remove(*key)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spoilt_bodies_are_read_or_refused_and_never_panic(seed in any::<u64>()) {
        let (fold, mut random) = (&*FOLD, Random(seed));
        let story = &STORIES[random.below(STORIES.len())];
        let mut account = account("user_1");
        for command in spoilt(story, &mut random, false) {
            fold.apply(&mut account, &command, fold.context(story));
        }
        let mut changes = Changes::default();
        for days in [0, 40, 400] {
            let context = fold.context_at(fold.context(story).now.timestamp() + days * 86_400);
            let mut draft = Draft::new(&mut account, &mut changes);
            decide(&mut draft, &Command::Settle, context).expect("never refused");
            let debit = Command::Debit { debit: Uuid::from_u128(u128::from(seed)), charge: Charge::Amount(7) };
            let _ = decide(&mut draft, &debit, context);
            check(&draft.account.credits, &fold.catalog, "generation", 1, context.now);
        }
    }

    #[test]
    fn spoilt_bodies_too_end_the_same_in_any_order(seed in any::<u64>()) {
        let (fold, mut random) = (&*FOLD, Random(seed));
        let story = &STORIES[random.below(STORIES.len())];
        let commands = spoilt(story, &mut random, true);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let end = fold.end(story, &commands, &straight);
        let order = delivery_order(commands.len(), seed);
        let got = fold.end(story, &commands, &order);
        prop_assert!(got == end, "{} with {order:?}:\n{}", story.name, crate::fold::difference(&got, &end));
    }
}

#[test]
fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(200_000), close.repeat(200_000));
        let bodies = [
            deep.clone(),
            format!(r#"{{"id":"evt_1","type":"customer.updated","created":1,"data":{{"object":{deep}}}}}"#),
            format!(
                r#"{{"id":"evt_1","type":"customer.updated","created":1,
                "data":{{"object":{{"id":"cus_1"}},"previous_attributes":{deep}}}}}"#
            ),
            open.repeat(200_000),
        ];
        for body in bodies {
            assert!(matches!(translate::parse(body.as_bytes()), Err(TranslateError::NotJson(_))));
        }
    }
}

#[test]
fn bodies_that_are_no_stripe_event_are_refused_with_the_field_that_is_wrong() {
    let refusals: &[(&[u8], &str)] = &[
        (b"", "the body is not JSON: EOF while parsing a value at line 1 column 0"),
        (b"\xff\xfe", "the body is not JSON: expected value at line 1 column 1"),
        (b"null", "event: must be an object"),
        (b"[]", "event: must be an object"),
        (b"{}", "event.id: is missing"),
        (br#"{"id":7}"#, "event.id: must be a string"),
        (br#"{"id":"evt_\u0000"}"#, "event.id: contains a control character"),
        (br#"{"id":"evt_1"}"#, "event.type: is missing"),
        (br#"{"id":"evt_1","type":"a"}"#, "event.created: is missing"),
        (br#"{"id":"evt_1","type":"a","created":1.5}"#, "event.created: must be a whole number of at most 15 digits"),
        (
            br#"{"id":"evt_1","type":"a","created":1000000000000000}"#,
            "event.created: must be a whole number of at most 15 digits",
        ),
        (br#"{"id":"evt_1","type":"a","created":1,"livemode":"no"}"#, "event.livemode: must be true or false"),
    ];
    for (body, problem) in refusals {
        let error = translate::parse(body).expect_err("refused").to_string();
        assert_eq!(&error, problem, "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn a_known_type_without_its_object_is_refused() {
    for data in [json!(null), json!({}), json!({"object": null}), json!({"object": []}), json!({"object": {}})] {
        let body = json!({"id": "evt_1", "type": "invoice.paid", "created": 1, "data": data});
        let body = body.to_string();
        let (event, value) = translate::parse(body.as_bytes()).expect("an envelope");
        let facts = translate::translate(&event, &value, Settings::default());
        assert!(matches!(facts, Err(TranslateError::Field(_))), "{}: {facts:?}", body);
    }
}

#[test]
fn amounts_that_no_sum_could_hold_are_refused() {
    for amount in [i64::MAX, i64::MIN, 1_000_000_000_000_000] {
        let refund = json!({"object": "refund", "id": "re_1", "currency": "usd", "amount": amount, "charge": "ch_1"});
        let error = refusal("refund.created", refund);
        assert_eq!(error, "data.object.amount: must be a whole number of at most 15 digits");
    }
}

#[test]
fn a_pack_of_more_credits_than_an_account_can_hold_is_refused() {
    for credits in ["0", "-5", "1.5", "many", "9223372036854775807", "1000000000001"] {
        let metadata = json!({"kind": "credit_pack", "credits": credits});
        let session = json!({"object": "checkout.session", "id": "cs_1", "mode": "payment", "metadata": metadata});
        let error = refusal("checkout.session.completed", session);
        assert_eq!(error, "data.object.metadata.credits: must be a whole number from 1 to 1000000000000");
    }
}

fn refusal(event_type: &str, object: Value) -> String {
    let body = json!({"id": "evt_1", "type": event_type, "created": 1, "data": {"object": object}});
    let body = body.to_string();
    let (event, value) = translate::parse(body.as_bytes()).expect("an envelope");
    translate::translate(&event, &value, Settings::default()).expect_err("refused").to_string()
}
