//! What is held in two streams that become one: it stays held out of what the one account has, or is owed once it is spent.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use subledger::domain::account::{Account, Changes};
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, Grant, HoldAct, OfHold, Outcome, decide};
use subledger::domain::credit::{Lot, LotSource};
use subledger::domain::draft::Draft;
use subledger::domain::hold::Used;
use subledger::domain::ids::{AccountId, LotId};
use subledger::domain::rejection::Rejection;
use uuid::Uuid;

use crate::fold::Fold;
use crate::router::merge;
use crate::support::shuffle::Random;

/// What the free plan of the sample seller gives a month.
const FREE: i64 = 10;
/// 1 January 2026.
const JANUARY: i64 = 1_767_225_600;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// A customer's stream and an account, of which nobody knows yet that they are one.
struct Two {
    fold: Fold,
    accounts: BTreeMap<AccountId, Account>,
    now: i64,
    spent: i64,
    ids: u128,
}

fn id(name: &str) -> AccountId {
    AccountId::new(name).expect("valid")
}

impl Two {
    fn open() -> Self {
        let mut two = Self { fold: Fold::new(), accounts: BTreeMap::new(), now: JANUARY, spent: 0, ids: 0 };
        two.begin("cus_9");
        two.begin("user_1");
        two
    }

    fn begin(&mut self, name: &str) {
        self.accounts.entry(id(name)).or_insert_with(|| Account::new(id(name)));
        self.decide(name, &Command::Open { stripe_customer_id: None }).expect("opened");
    }

    fn decide(&mut self, name: &str, command: &Command) -> Result<Outcome, Rejection> {
        let account = self.accounts.get_mut(&id(name)).expect("there");
        let decided =
            decide(&mut Draft::new(account, &mut Changes::default()), command, self.fold.context_at(self.now));
        self.assert_backed();
        decided
    }

    fn debit(&mut self, name: &str, amount: i64) -> bool {
        self.ids += 1;
        let debit = Command::Debit { debit: Uuid::from_u128(self.ids), charge: Charge::Amount(amount) };
        let is_done = self.decide(name, &debit).is_ok();
        self.spent += if is_done { amount } else { 0 };
        is_done
    }

    fn hold(&mut self, name: &str, amount: i64, seconds: i64) -> Option<Uuid> {
        self.ids += 1;
        let hold = Uuid::from_u128(self.ids);
        let expires_at = self.at() + TimeDelta::seconds(seconds);
        let place = Command::Hold { hold, charge: Charge::Amount(amount), expires_at };
        self.decide(name, &place).ok().map(|_| hold)
    }

    fn capture(&mut self, name: &str, hold: Uuid, used: Used) -> bool {
        let capture = Command::OfHold(OfHold { hold, ended: None, act: HoldAct::Capture(used) });
        match self.decide(name, &capture) {
            Ok(Outcome::HoldEnded { record, .. }) => {
                self.spent += record.captured;
                true
            }
            _ => false,
        }
    }

    fn release(&mut self, name: &str, hold: Uuid) -> bool {
        let release = Command::OfHold(OfHold { hold, ended: None, act: HoldAct::Release });
        self.decide(name, &release).is_ok()
    }

    fn grant(&mut self, name: &str, grant: u128, amount: i64) {
        let grant = Uuid::from_u128(grant);
        let (source, priority) = (LotSource::Manual, 50);
        let grant = Grant { grant, amount, source, priority, effective_at: None, expires_at: None, reason: None };
        self.decide(name, &Command::Grant(grant)).expect("granted");
    }

    fn link(&mut self) {
        let context = self.fold.context_at(self.now);
        merge(&self.fold, &mut self.accounts, &id("cus_9"), &id("user_1"), context);
        self.assert_backed();
    }

    fn at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(self.now, 0).expect("a time")
    }

    fn user(&self) -> &Account {
        &self.accounts[&id("user_1")]
    }

    /// Available, held in lots, owed.
    fn credits(&self) -> (i64, i64, i64) {
        let credits = &self.user().credits;
        let in_lots = credits.lots.iter().map(|lot| lot.held).sum();
        (credits.available_at(self.at()), in_lots, credits.debt)
    }

    /// Every credit that a hold has out of a lot is in that lot, and no other is held.
    fn assert_backed(&self) {
        for account in self.accounts.values() {
            let mut held: BTreeMap<LotId, i64> = BTreeMap::new();
            for hold in &account.credits.holds {
                assert_eq!(hold.cover.taken() + hold.cover.overage, hold.amount, "{hold:?}");
                for draw in &hold.cover.lots {
                    *held.entry(draw.lot).or_default() += draw.amount;
                }
            }
            for lot in lots_of(account) {
                assert!((0..=lot.remaining).contains(&lot.held), "{lot:?}");
                assert_eq!(held.remove(&lot.id).unwrap_or(0), lot.held, "{lot:?}");
            }
            assert!(held.is_empty(), "held of lots that are not there: {held:?}");
        }
    }

    /// What was granted, less remaining (held or not), spent, expired, and more debt: nothing, as long as no credit comes
    /// from nowhere or vanishes. Two streams may have spent more of one month than it gives before anybody knew.
    fn unaccounted(&self) -> i64 {
        let of_lots = lots_of(self.user()).map(|lot| lot.granted - lot.remaining - lot.expired).sum::<i64>();
        of_lots + self.user().credits.debt - self.spent
    }
}

fn lots_of(account: &Account) -> impl Iterator<Item = &Lot> {
    let closed = account.billing.iter().flat_map(|billing| billing.closed_lots.values());
    account.credits.lots.iter().chain(closed)
}

#[test]
fn a_hold_on_the_other_streams_free_month_is_a_hold_on_the_accounts_own() {
    let mut two = Two::open();
    assert!(two.debit("user_1", 1));
    let hold = two.hold("cus_9", FREE, HOUR).expect("held");
    two.link();
    assert_eq!(two.credits(), (-1, 9, 0), "nine of ten are there to be held, and one will be owed");
    assert!(!two.debit("user_1", 1));
    assert!(two.capture("user_1", hold, Used::All));
    assert_eq!((two.credits(), two.spent, two.unaccounted()), ((-1, 0, 1), 11, 0));
}

#[test]
fn a_hold_of_the_accounts_own_is_not_spent_by_what_the_other_stream_spent() {
    let mut two = Two::open();
    let hold = two.hold("user_1", 8, HOUR).expect("held");
    assert!(two.debit("cus_9", 7));
    two.link();
    assert_eq!(two.credits(), (-5, 3, 0));
    assert!(two.capture("user_1", hold, Used::Amount(4)));
    assert_eq!((two.credits(), two.unaccounted()), ((-1, 0, 1), 0));
}

#[test]
fn the_hold_that_was_placed_last_is_the_one_that_will_be_owed() {
    let mut two = Two::open();
    let theirs = two.hold("cus_9", 6, HOUR).expect("held");
    two.now += 1;
    let ours = two.hold("user_1", 6, HOUR).expect("held");
    two.link();
    assert_eq!(two.credits(), (-2, 10, 0));
    assert!(two.capture("user_1", theirs, Used::All));
    assert_eq!(two.credits(), (-2, 4, 0));
    assert!(two.capture("user_1", ours, Used::All));
    assert_eq!((two.credits(), two.unaccounted()), ((-2, 0, 2), 0));
}

#[test]
fn what_a_hold_gives_back_after_the_link_is_the_accounts() {
    for is_released in [true, false] {
        let mut two = Two::open();
        assert!(two.debit("user_1", 4));
        let hold = two.hold("cus_9", 9, HOUR).expect("held");
        two.link();
        assert_eq!(two.credits(), (-3, 6, 0));
        if is_released {
            assert!(two.release("user_1", hold));
        } else {
            two.now += HOUR;
            assert!(!two.debit("user_1", 7), "and the hold is expired");
        }
        assert_eq!((two.credits(), two.unaccounted()), ((6, 0, 0), 0));
        assert!(two.debit("user_1", 6));
    }
}

#[test]
fn what_is_owed_of_a_hold_comes_out_of_other_credits() {
    let mut two = Two::open();
    two.grant("user_1", 1, 50);
    assert!(two.debit("user_1", FREE));
    let hold = two.hold("cus_9", FREE, HOUR).expect("held");
    two.link();
    assert_eq!(two.credits(), (40, 0, 0), "as if it had been placed after the link");
    assert!(two.capture("user_1", hold, Used::All));
    assert_eq!((two.credits(), two.unaccounted()), ((40, 0, 0), 0));
}

#[test]
fn a_hold_keeps_what_it_has_of_a_month_that_expired_in_the_other_stream() {
    let mut two = Two::open();
    two.now += 20 * DAY;
    two.accounts.remove(&id("cus_9"));
    two.begin("cus_9");
    assert!(two.debit("user_1", 1));
    two.now += 12 * DAY;
    two.decide("user_1", &Command::Settle).expect("settled");
    let hold = two.hold("cus_9", 5, HOUR).expect("held");
    two.link();
    assert_eq!((two.credits(), two.unaccounted()), ((0, 5, 0), 0));
    assert!(two.release("user_1", hold));
    let february = FREE;
    assert_eq!((two.credits(), two.unaccounted()), ((february, 0, 0), 0), "and expires when it returns");
}

#[test]
fn two_holds_on_one_lot_that_both_streams_were_granted_share_it() {
    let mut two = Two::open();
    two.grant("user_1", 1, 20);
    two.grant("cus_9", 1, 20);
    for name in ["user_1", "cus_9"] {
        assert!(two.debit(name, FREE));
    }
    two.now += 1;
    let ours = two.hold("user_1", 15, HOUR).expect("held");
    let theirs = two.hold("cus_9", 15, HOUR).expect("held");
    two.link();
    assert_eq!(two.credits(), (-10, 20, 0));
    let before = two.unaccounted();
    assert!(two.capture("user_1", ours, Used::All) && two.capture("user_1", theirs, Used::All));
    assert_eq!((two.credits(), two.unaccounted()), ((-10, 0, 10), before));
}

/// One random step of one stream, or of the account that both have become.
fn step(two: &mut Two, random: &mut Random, name: &str, holds: &mut Vec<Uuid>) {
    let amount = 1 + random.below(7) as i64;
    let any = |random: &mut Random, holds: &mut Vec<Uuid>| {
        (!holds.is_empty()).then(|| holds.remove(random.below(holds.len())))
    };
    match random.below(10) {
        0 | 1 => {
            two.debit(name, amount);
        }
        2..=4 => holds.extend(two.hold(name, amount, (1 + random.below(30 * 24)) as i64 * HOUR)),
        kind @ 5..=7 => {
            let Some(hold) = any(random, holds) else { return };
            match kind {
                5 => two.capture(name, hold, Used::All),
                6 => two.capture(name, hold, Used::Amount(1)),
                _ => two.release(name, hold),
            };
        }
        8 => {
            two.ids += 1;
            two.grant(name, 1_000_000 + two.ids, 12);
        }
        _ => two.now += random.below(9 * 24) as i64 * HOUR,
    }
}

#[test]
fn no_credit_comes_from_nowhere_whatever_was_held_when_two_streams_became_one() {
    for seed in 0..3_000 {
        let mut random = Random(seed);
        let mut two = Two::open();
        let mut holds: [Vec<Uuid>; 2] = Default::default();
        // The same grant reaches a stream once.
        let mut granted = Vec::new();
        for _ in 0..random.below(14) {
            let side = random.below(2);
            let name = ["cus_9", "user_1"][side];
            if random.below(12) == 0 {
                let grant = random.below(3) as u128;
                if !granted.contains(&(name, grant)) {
                    granted.push((name, grant));
                    two.grant(name, 500 + grant, 12);
                }
                continue;
            }
            step(&mut two, &mut random, name, &mut holds[side]);
        }
        two.link();
        let unaccounted = two.unaccounted();
        let mut holds = holds.concat();
        for _ in 0..random.below(14) {
            step(&mut two, &mut random, "user_1", &mut holds);
            assert_eq!(two.unaccounted(), unaccounted, "seed {seed}");
        }
    }
}
