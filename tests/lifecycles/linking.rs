//! The link between a customer and an account may become known before, amid or after the customer's events, and the
//! end is as if it had come first.

use std::collections::BTreeMap;

use serde_json::json;
use subledger::domain::account::{Account, Changes};
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, decide};
use subledger::domain::draft::Draft;
use subledger::domain::event::Event;
use subledger::domain::ids::AccountId;
use uuid::Uuid;

use crate::fold::{End, Fold, assert_facts, assert_same};
use crate::router::merge;
use crate::support::lifecycle::{self, Lifecycle};
use crate::support::shuffle::{Random, delivery_order};

const ACCOUNT: &str = "user_1";

/// Delivers to the customer's own stream until the link, and to the account from then on.
fn linked_after(fold: &Fold, story: &Lifecycle, commands: &[Command], order: &[usize], link_at: usize) -> End {
    linked_in_steps(fold, story, commands, order, &[(link_at, "cus_1", ACCOUNT)])
}

/// Plays an order with links at given places; an event goes to the account that the last link made.
fn linked_in_steps(
    fold: &Fold,
    story: &Lifecycle,
    commands: &[Command],
    order: &[usize],
    links: &[(usize, &str, &str)],
) -> End {
    let context = fold.context(story);
    let id = |id: &str| AccountId::new(id).expect("valid");
    let mut accounts: BTreeMap<AccountId, Account> = BTreeMap::new();
    let mut stream = id(links.first().map_or(ACCOUNT, |(_, from, _)| from));
    let mut links = links.iter().peekable();
    for place in 0..=order.len() {
        while let Some((_, from, into)) = links.next_if(|(at, ..)| *at == place) {
            merge(fold, &mut accounts, &id(from), &id(into), context);
            stream = id(into);
        }
        let Some(&event) = order.get(place) else { break };
        let account = accounts.entry(stream.clone()).or_insert_with(|| Account::new(stream.clone()));
        fold.apply(account, &commands[event], context);
    }
    let account = accounts.remove(&id(ACCOUNT)).unwrap_or_else(|| Account::new(id(ACCOUNT)));
    fold.end_of(account, context)
}

#[test]
fn in_order_the_link_may_come_at_any_place() {
    let fold = Fold::new();
    for story in &lifecycle::all() {
        let commands = fold.commands(story);
        let order: Vec<usize> = (0..commands.len()).collect();
        let first = fold.end(story, &commands, &order);
        for link_at in 0..=order.len() {
            let end = linked_after(&fold, story, &commands, &order, link_at);
            assert_facts(&fold, story, &end, &link_at);
            assert_same(story, &end, &first, &("link before", link_at));
        }
    }
}

#[test]
fn in_any_order_the_link_may_come_at_any_place() {
    let fold = Fold::new();
    for story in &lifecycle::all() {
        let commands = fold.commands(story);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let first = fold.end(story, &commands, &straight);
        for seed in 0..40 {
            let order = delivery_order(commands.len(), seed);
            let link_at = Random(seed).below(order.len() + 1);
            let end = linked_after(&fold, story, &commands, &order, link_at);
            assert_same(story, &end, &first, &("link before", link_at, order));
        }
    }
}

#[test]
fn a_payment_may_find_its_customer_and_the_customer_its_account() {
    let fold = Fold::new();
    for story in &lifecycle::all() {
        let commands = fold.commands(story);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let first = fold.end(story, &commands, &straight);
        for seed in 0..20 {
            let order = delivery_order(commands.len(), seed);
            let mut random = Random(seed);
            let mut places = [random.below(order.len() + 1), random.below(order.len() + 1)];
            places.sort_unstable();
            let links = [(places[0], "pi_1", "cus_1"), (places[1], "cus_1", ACCOUNT)];
            let end = linked_in_steps(&fold, story, &commands, &order, &links);
            assert_same(story, &end, &first, &(links, order));
        }
    }
}

/// Events of the same story may reach two streams in turn: until the link nothing says that they are one.
#[test]
fn what_two_streams_held_of_one_story_becomes_one() {
    let fold = Fold::new();
    for story in &lifecycle::all() {
        let commands = fold.commands(story);
        let straight: Vec<usize> = (0..commands.len()).collect();
        let first = fold.end(story, &commands, &straight);
        let context = fold.context(story);
        let (from, into) = (AccountId::new("cus_1").expect("valid"), AccountId::new(ACCOUNT).expect("valid"));
        for seed in 0..40 {
            let mut random = Random(seed);
            let mut accounts: BTreeMap<AccountId, Account> = BTreeMap::new();
            for event in delivery_order(commands.len(), seed) {
                let id = if random.below(2) == 0 { &from } else { &into };
                let account = accounts.entry(id.clone()).or_insert_with(|| Account::new(id.clone()));
                fold.apply(account, &commands[event], context);
            }
            merge(&fold, &mut accounts, &from, &into, context);
            let account = accounts.remove(&into).unwrap_or_else(|| Account::new(into.clone()));
            assert_same(story, &fold.end_of(account, context), &first, &seed);
        }
    }
}

#[test]
fn what_was_spent_before_the_link_stays_spent() {
    let fold = Fold::new();
    let (from, into) = (AccountId::new("cus_1").expect("valid"), AccountId::new(ACCOUNT).expect("valid"));
    for story in &lifecycle::all() {
        let context = fold.context(story);
        let mut commands = fold.commands(story);
        commands.push(Command::Debit { debit: Uuid::from_u128(1), charge: Charge::Amount(7) });
        let left = |linked_before: usize| {
            let mut accounts = BTreeMap::from([(from.clone(), Account::new(from.clone()))]);
            let mut stream = &from;
            for (place, command) in commands.iter().enumerate() {
                if place == linked_before {
                    merge(&fold, &mut accounts, &from, &into, context);
                    stream = &into;
                }
                let account = accounts.get_mut(stream).expect("there");
                let mut changes = Changes::default();
                // Too little is an answer too, and must be the same one.
                let _ = decide(&mut Draft::new(account, &mut changes), command, context);
            }
            if stream == &from {
                merge(&fold, &mut accounts, &from, &into, context);
            }
            let end = fold.end_of(accounts.remove(&into).expect("there"), context);
            end.credits.available_at(context.now)
        };
        let events = story.events.len();
        for linked_before in 1..=events + 1 {
            assert_eq!(left(linked_before), left(0), "{} linked before {linked_before}", story.name);
        }
    }
}

#[test]
fn a_merged_stream_keeps_nothing() {
    let fold = Fold::new();
    for story in &lifecycle::all() {
        let context = fold.context(story);
        let (from, into) = (AccountId::new("cus_1").expect("valid"), AccountId::new(ACCOUNT).expect("valid"));
        let mut accounts = BTreeMap::from([(from.clone(), Account::new(from.clone()))]);
        for command in fold.commands(story) {
            fold.apply(accounts.get_mut(&from).expect("there"), &command, context);
        }
        merge(&fold, &mut accounts, &from, &into, context);
        let merged = fold.end_of(accounts.remove(&from).expect("there"), context);
        assert_eq!(merged.credits.merged_into, Some(into));
        assert_eq!(merged.credits.available_at(context.now), 0, "{}", story.name);
        assert_eq!(merged.billing, Default::default(), "{}", story.name);
    }
}

/// Whichever of the two is the older one, and whichever has spent.
#[test]
fn no_free_month_begins_before_the_last_one_is_over() {
    const DAY: i64 = 86_400;
    /// 4 June 2026.
    const JUNE: i64 = 1_780_531_200;
    let fold = Fold::new();
    let (from, into) = (AccountId::new("cus_1").expect("valid"), AccountId::new(ACCOUNT).expect("valid"));
    let spent_at = |account: &mut Account, amount: i64, at: i64| {
        let debit = Command::Debit { debit: Uuid::from_u128(at as u128), charge: Charge::Amount(amount) };
        let mut changes = Changes::default();
        decide(&mut Draft::new(account, &mut changes), &debit, fold.context_at(at)).is_ok()
    };
    for (older, younger) in [(&from, &into), (&into, &from)] {
        let mut accounts: BTreeMap<AccountId, Account> = BTreeMap::new();
        for (id, at) in [(older, JUNE - 16 * DAY), (younger, JUNE)] {
            let mut account = Account::new(id.clone());
            fold.apply(&mut account, &Command::Open { stripe_customer_id: None }, fold.context_at(at));
            accounts.insert(id.clone(), account);
        }
        assert!(spent_at(accounts.get_mut(younger).expect("there"), 10, JUNE + DAY));
        merge(&fold, &mut accounts, &from, &into, fold.context_at(JUNE + 2 * DAY));
        let account = accounts.get_mut(&into).expect("there");
        // Days since 4 June, and whether there is a month to be spent: from 4 July, and from 4 August on.
        for (day, is_there) in [
            (2, false),
            (15, false),
            (29, false),
            (30, true),
            (31, false),
            (45, false),
            (60, false),
            (61, true),
            (76, false),
        ] {
            assert_eq!(spent_at(account, 10, JUNE + day * DAY + 1), is_there, "day {day}, {older} is older");
        }
    }
}

/// The younger month is spent out of the older one, and ends with it.
#[test]
fn two_free_months_that_become_one_leave_no_day_without() {
    const DAY: i64 = 86_400;
    /// 19 May 2026.
    const MAY: i64 = 1_779_148_800;
    let fold = Fold::new();
    let (from, into) = (AccountId::new("cus_1").expect("valid"), AccountId::new(ACCOUNT).expect("valid"));
    let mut accounts: BTreeMap<AccountId, Account> = BTreeMap::new();
    for (id, opened) in [(&into, MAY), (&from, MAY + 16 * DAY)] {
        let mut account = Account::new(id.clone());
        fold.apply(&mut account, &Command::Open { stripe_customer_id: None }, fold.context_at(opened));
        fold.apply(&mut account, &debit(1), fold.context_at(opened));
        accounts.insert(id.clone(), account);
    }
    merge(&fold, &mut accounts, &from, &into, fold.context_at(MAY + 18 * DAY));
    let mut account = accounts.remove(&into).expect("there");
    for (day, left) in [(18, 8), (31, 10), (60, 10), (61, 10)] {
        let end = fold.end_of(account.clone(), fold.context_at(MAY + day * DAY));
        assert_eq!(end.credits.available_at(fold.context_at(MAY + day * DAY).now), left, "day {day}");
    }
    fold.apply(&mut account, &debit(10), fold.context_at(MAY + 31 * DAY));
    let july = fold.context_at(MAY + 61 * DAY - 1);
    assert_eq!(fold.end_of(account, july).credits.available_at(july.now), 0, "and none has two");
}

fn debit(amount: i64) -> Command {
    Command::Debit { debit: Uuid::from_u128(amount as u128), charge: Charge::Amount(amount) }
}

/// A customer's pack that is spent and then refunded, of which free months repay what they can, until the refund fails.
struct Repaid {
    fold: Fold,
    accounts: BTreeMap<AccountId, Account>,
}

impl Repaid {
    const DAY: i64 = 86_400;
    /// 1 January 2026.
    const JANUARY: i64 = 1_767_225_600;
    const FEBRUARY: i64 = Self::JANUARY + 31 * Self::DAY;
    const SELLER: &str = r#"
[features.a]
name = "A"
kind = "boolean"
[plans.free]
name = "Free"
default = true
rank = 0
credits = 10
clawback = "debt"
"#;

    fn new() -> Self {
        let mut new = Self { fold: Fold::of_seller(Self::SELLER), accounts: BTreeMap::new() };
        for name in ["cus_1", ACCOUNT] {
            new.act(name, &Command::Open { stripe_customer_id: None }, Self::JANUARY);
        }
        new
    }

    fn act(&mut self, name: &str, command: &Command, at: i64) -> Vec<Event> {
        let id = AccountId::new(name).expect("valid");
        let account = self.accounts.entry(id.clone()).or_insert_with(|| Account::new(id));
        self.fold.apply(account, command, self.fold.context_at(at))
    }

    fn told(&mut self, name: &str, at: i64, event_type: &str, object: serde_json::Value) -> Vec<Event> {
        let id = format!("evt_{event_type}");
        let body = json!({"id": id, "type": event_type, "created": at, "data": {"object": object}});
        let command = self.fold.command(&body);
        self.act(name, &command, at)
    }

    fn refund(&mut self, name: &str, status: &str, at: i64) -> Vec<Event> {
        let refund = json!({"object": "refund", "id": "re_1", "currency": "usd", "amount": 1000, "status": status,
            "payment_intent": "pi_1"});
        self.told(name, at, if status == "failed" { "refund.failed" } else { "refund.created" }, refund)
    }

    /// Nobody can spend so much; but whoever is refused has been granted February's month, too.
    fn look(&mut self, name: &str) {
        let account = self.accounts.get_mut(&AccountId::new(name).expect("valid")).expect("there");
        let context = self.fold.context_at(Self::FEBRUARY + 1);
        decide(&mut Draft::new(account, &mut Changes::default()), &debit(50), context).expect_err("too much");
    }

    fn link(&mut self, at: i64) {
        let (from, into) = (AccountId::new("cus_1").expect("valid"), AccountId::new(ACCOUNT).expect("valid"));
        merge(&self.fold, &mut self.accounts, &from, &into, self.fold.context_at(at));
    }

    fn user(&self) -> &Account {
        &self.accounts[&AccountId::new(ACCOUNT).expect("valid")]
    }

    /// Available, and owed.
    fn seen(&self, at: i64) -> (i64, i64) {
        let context = self.fold.context_at(at);
        let end = self.fold.end_of(self.user().clone(), context);
        (end.credits.available_at(context.now), end.credits.debt)
    }

    /// Plays all of it but the refund's failure; the link comes before the step of the given number.
    fn owing(link_before: usize, spends_of_its_own: bool) -> Self {
        let mut story = Self::new();
        let mut name = "cus_1";
        for step in 0..5 {
            if step == link_before {
                story.link(Self::FEBRUARY + 3);
                name = ACCOUNT;
            }
            match step {
                0 => {
                    let pack = json!({"object": "checkout.session", "id": "cs_1", "mode": "payment",
                        "status": "complete", "created": Self::JANUARY, "payment_status": "paid", "currency": "usd",
                        "amount_total": 1000, "payment_intent": "pi_1",
                        "metadata": {"kind": "credit_pack", "credits": "100"}});
                    story.told(name, Self::JANUARY, "checkout.session.completed", pack);
                }
                1 => drop(story.act(name, &debit(110), Self::JANUARY + 1)),
                2 => drop(story.refund(name, "succeeded", Self::JANUARY + 2)),
                3 => story.look(name),
                _ if spends_of_its_own => drop(story.act(ACCOUNT, &debit(1), Self::FEBRUARY + 2)),
                _ => story.look(ACCOUNT),
            }
        }
        if link_before == 5 {
            story.link(Self::FEBRUARY + 3);
        }
        story
    }

    /// The refund fails: what changes is what the event says.
    fn fail(&mut self) {
        let before = self.user().credits.balance();
        let events = self.refund(ACCOUNT, "failed", Self::FEBRUARY + 4);
        let told = events.iter().filter_map(|event| match event {
            Event::CreditsReinstated(reinstated) => Some(reinstated.reinstated + reinstated.debt),
            _ => None,
        });
        assert_eq!(self.user().credits.balance() - before, told.sum::<i64>());
    }
}

#[test]
fn what_a_free_month_has_repaid_before_a_link_comes_back_if_nothing_was_owed() {
    for link_before in 0..=5 {
        let mut story = Repaid::owing(link_before, false);
        assert_eq!(story.seen(Repaid::FEBRUARY + 4), (-90, 90), "linked before step {link_before}");
        story.fail();
        assert_eq!(story.seen(Repaid::FEBRUARY + 5), (10, 0), "linked before step {link_before}");
    }
}

#[test]
fn a_free_month_of_which_the_account_has_spent_repays_as_much_less() {
    let mut story = Repaid::owing(5, true);
    assert_eq!(story.seen(Repaid::FEBRUARY + 4), (-91, 91), "nine of February's ten were there to repay with");
    story.fail();
    assert_eq!(story.seen(Repaid::FEBRUARY + 5), (9, 0));
}
