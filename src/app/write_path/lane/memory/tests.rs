use chrono::DateTime;
use serde_json::json;
use uuid::Uuid;

use super::*;

const PARTITIONS: i16 = 1;
const SUSPENDED: &str = "account_suspended";
const DEBITED: &str = "credits_debited";

fn id(name: &str) -> AccountId {
    AccountId::new(name).expect("a plain name")
}

fn head(position: i64) -> Head {
    Head { position, hash: [u8::try_from(position).expect("few events"); 32] }
}

/// A debit that left the account in debt, which needs no lots; or something that is not of the hot path.
fn event(account: &str, position: i64, version: i64, event_type: &str) -> StoredEvent {
    let payload = match event_type {
        SUSPENDED => json!({"since": "2026-01-01T00:00:00Z", "reason": null}),
        _ => json!({"debit": Uuid::nil(), "amount": 3, "lots": [], "debt": 3, "available": 0}),
    };
    StoredEvent {
        partition_id: 0,
        position,
        account_id: account.to_owned(),
        version,
        previous_position: 0,
        event_type: event_type.to_owned(),
        type_version: 2,
        at: DateTime::UNIX_EPOCH,
        payload: payload.to_string(),
    }
}

/// A memory that saw the partition up to position 4, with two accounts of two events each.
fn memory() -> LaneMemory {
    let mut memory = LaneMemory::new(NonZeroUsize::new(10).expect("not zero"), PARTITIONS);
    memory.heads.insert(0, head(4));
    for name in ["a", "b"] {
        memory.accounts.put(Account { version: 2, position: 4, billing: None, ..Account::new(id(name)) });
    }
    memory
}

fn catch_up(memory: &mut LaneMemory, to: i64, events: &[StoredEvent]) -> Vec<CaughtUp> {
    memory.catch_up(&HashMap::from([(0, head(to))]), events)
}

fn seen(memory: &LaneMemory, name: &str) -> Option<(i64, i64, i64)> {
    memory.accounts.peek(&id(name)).map(|account| (account.version, account.position, account.credits.debt))
}

#[test]
fn what_others_wrote_is_taken_in_and_told() {
    let mut memory = memory();
    let events = [event("a", 5, 3, DEBITED), event("stranger", 6, 1, DEBITED), event("a", 7, 4, DEBITED)];
    let caught_up = catch_up(&mut memory, 7, &events);
    assert_eq!(seen(&memory, "a"), Some((4, 7, 6)));
    assert_eq!(seen(&memory, "b"), Some((2, 4, 0)), "nothing happened to it");
    assert_eq!(seen(&memory, "stranger"), None, "it was not in memory, and is not brought in");
    assert_eq!(memory.heads[&0], head(7));
    let [CaughtUp { stretch, accounts }] = &caught_up[..] else { panic!("{caught_up:?}") };
    assert_eq!(*stretch, Stretch { partition_id: 0, after: 4, to: 7 });
    assert_eq!(accounts[..], [id("a"), id("stranger")]);
    assert!(catch_up(&mut memory, 7, &[]).is_empty(), "nobody wrote since");
    assert_eq!(seen(&memory, "a"), Some((4, 7, 6)));
}

#[test]
fn an_account_whose_event_cannot_be_taken_in_is_dropped_alone() {
    let mut needs_more = memory();
    catch_up(&mut needs_more, 5, &[event("a", 5, 3, SUSPENDED)]);
    assert_eq!(seen(&needs_more, "a"), None, "without its billing, the hot part may not be all that changes");
    assert_eq!(seen(&needs_more, "b"), Some((2, 4, 0)));

    let mut has_billing = memory();
    has_billing.accounts.get_mut(&id("a")).expect("in memory").billing = Some(Box::default());
    catch_up(&mut has_billing, 5, &[event("a", 5, 3, DEBITED)]);
    assert_eq!(seen(&has_billing, "a"), Some((3, 5, 3)));
    let billing = has_billing.accounts.peek(&id("a")).map(|account| account.billing.is_some());
    assert_eq!(billing, Some(false), "it may have been read after the event");
    catch_up(&mut has_billing, 6, &[event("a", 6, 4, SUSPENDED)]);
    assert_eq!(seen(&has_billing, "a"), None);

    let mut gap = memory();
    catch_up(&mut gap, 5, &[event("a", 5, 4, DEBITED)]);
    assert_eq!(seen(&gap, "a"), None, "its third event is missing");

    let mut unreadable = memory();
    catch_up(&mut unreadable, 5, &[event("a", 5, 3, "of_a_newer_version")]);
    assert_eq!(seen(&unreadable, "a"), None);
    assert_eq!(seen(&unreadable, "b"), Some((2, 4, 0)));
}

#[test]
fn a_partition_whose_events_are_not_all_there_is_forgotten() {
    let incomplete: [&[StoredEvent]; 4] = [
        &[],
        &[event("a", 5, 3, DEBITED)],
        &[event("a", 5, 3, DEBITED), event("a", 7, 4, DEBITED)],
        &[event("b", 6, 3, DEBITED), event("b", 7, 4, DEBITED)],
    ];
    for events in incomplete {
        let mut memory = memory();
        assert!(catch_up(&mut memory, 7, events).is_empty());
        assert_eq!((seen(&memory, "a"), seen(&memory, "b")), (None, None), "{events:?}");
        assert_eq!(memory.heads[&0], head(7));
    }
    let mut unknown = memory();
    unknown.heads.clear();
    assert!(catch_up(&mut unknown, 4, &[]).is_empty());
    assert_eq!(seen(&unknown, "a"), None, "what is known of it may be as old as can be");
}
