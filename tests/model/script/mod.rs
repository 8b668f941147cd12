//! Scripts: what callers and Stripe do to one account, step by step, and what the reference expects of each step.

mod stripe;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

use super::prices::{PACKS, PRICES, Price};
use super::reference::{Charge, Dispute, Ledger, Refusal, Used};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// One step. Numbers of holds, purchases and the like are taken modulo how many there are; a step that makes no sense
/// where the script stands does nothing.
#[derive(Debug, Clone)]
pub enum Step {
    Wait {
        minutes: i64,
    },
    /// To the moment the clock next changes something, or the second before.
    WaitForChange {
        just_before: bool,
    },
    Grant {
        amount: i64,
        priority: i32,
        begins_in_days: i64,
        days: Option<i64>,
    },
    Debit(Charge),
    Hold {
        charge: Charge,
        minutes: i64,
    },
    Capture {
        hold: usize,
        used: Used,
    },
    Release {
        hold: usize,
    },
    Extend {
        hold: usize,
        minutes: i64,
    },
    /// The sweep comes by.
    Settle,
    Subscribe {
        price: usize,
        seats: i64,
    },
    /// At the end of the period, or as many days later (earlier if negative).
    Renew {
        price: Option<usize>,
        days_late: i64,
    },
    /// Within the period, with so many quarters of it left.
    Upgrade {
        quarters: i64,
    },
    Cancel,
    BuyPack {
        pack: usize,
    },
    Refund {
        purchase: usize,
        quarters: i64,
    },
    FailRefund {
        purchase: usize,
    },
    Dispute {
        purchase: usize,
    },
    CloseDispute {
        purchase: usize,
        won: bool,
    },
    /// Stripe sends something again.
    Redeliver {
        event: usize,
    },
}

pub fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..most)
}

fn charge() -> impl Strategy<Value = Charge> {
    prop_oneof![
        10 => (1i64..260).prop_map(Charge::Amount),
        10 => (select(vec!["call", "render", "work", "ping", "flat"]), 1i64..60).prop_map(|(feature, units)| Charge::Feature(feature, units)),
        1 => select(vec![Charge::Amount(0), Charge::Feature("call", 0), Charge::Feature("flying", 1)]),
    ]
}

fn used() -> impl Strategy<Value = Used> {
    prop_oneof![
        3 => Just(Used::All),
        4 => (0i64..200).prop_map(Used::Amount),
        4 => (0i64..120).prop_map(Used::Quantity),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let days = proptest::option::of(1i64..60);
    let begins = select(vec![0, 0, 0, 3, 20]);
    let priority = select(vec![1, 10, 50]);
    let hold_minutes =
        || prop_oneof![1i64..90, (1i64..30).prop_map(|days| days * 1_440), Just(0), Just(31 * 1_440 + 1)];
    let price = 0..PRICES.len();
    let late = prop_oneof![4 => Just(0i64), 1 => -3i64..0, 1 => 1i64..80];
    prop_oneof![
        4 => (1i64..180).prop_map(|minutes| Step::Wait { minutes }),
        4 => (1i64..45).prop_map(|days| Step::Wait { minutes: days * 1_440 }),
        6 => any::<bool>().prop_map(|just_before| Step::WaitForChange { just_before }),
        5 => (0i64..200, priority, begins, days).prop_map(|(amount, priority, begins_in_days, days)| Step::Grant {
            amount, priority, begins_in_days, days,
        }),
        14 => charge().prop_map(Step::Debit),
        9 => (charge(), hold_minutes()).prop_map(|(charge, minutes)| Step::Hold { charge, minutes }),
        7 => (any::<usize>(), used()).prop_map(|(hold, used)| Step::Capture { hold, used }),
        4 => any::<usize>().prop_map(|hold| Step::Release { hold }),
        2 => (any::<usize>(), hold_minutes()).prop_map(|(hold, minutes)| Step::Extend { hold, minutes }),
        1 => Just(Step::Settle),
        6 => (price.clone(), 1i64..3).prop_map(|(price, seats)| Step::Subscribe { price, seats }),
        6 => (proptest::option::of(price), late).prop_map(|(price, days_late)| Step::Renew { price, days_late }),
        3 => (1i64..4).prop_map(|quarters| Step::Upgrade { quarters }),
        1 => Just(Step::Cancel),
        3 => (0..PACKS.len()).prop_map(|pack| Step::BuyPack { pack }),
        4 => (any::<usize>(), 1i64..5).prop_map(|(purchase, quarters)| Step::Refund { purchase, quarters }),
        2 => any::<usize>().prop_map(|purchase| Step::FailRefund { purchase }),
        2 => any::<usize>().prop_map(|purchase| Step::Dispute { purchase }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(purchase, won)| Step::CloseDispute { purchase, won }),
        2 => any::<usize>().prop_map(|event| Step::Redeliver { event }),
    ]
}

/// What a step comes to at a moment.
#[derive(Debug, Clone)]
pub enum Action {
    Grant {
        amount: i64,
        priority: i32,
        begins: i64,
        ends: Option<i64>,
    },
    Debit(Charge),
    Hold {
        charge: Charge,
        ends: i64,
    },
    Capture {
        hold: usize,
        used: Used,
    },
    Release {
        hold: usize,
    },
    Extend {
        hold: usize,
        ends: i64,
    },
    Settle,
    /// StripeEvents, in order.
    Stripe(Vec<Value>),
}

/// An action, when it happens, and what it must come to: what may be spent afterwards, where the answer says so.
#[derive(Debug)]
pub struct Play {
    pub at: i64,
    pub action: Action,
    pub expected: Result<Option<i64>, Refusal>,
}

#[derive(Debug, Clone)]
struct Subscription {
    id: String,
    price: &'static Price,
    seats: i64,
    /// Periods are counted from here, in months.
    anchor: i64,
    first_month: u32,
    start: i64,
    end: i64,
    is_upgraded: bool,
}

/// What was paid for, as Stripe names it.
#[derive(Debug, Clone)]
struct Bought {
    intent: String,
    /// The subscription whose year was paid.
    year_of: Option<String>,
}

/// A script as far as it was played: the time, the reference, and what Stripe has said.
#[derive(Debug)]
pub struct Script {
    pub now: i64,
    pub ledger: Ledger,
    subscription: Option<Subscription>,
    bought: Vec<Bought>,
    holds: usize,
    grants: usize,
    told: Vec<Value>,
    /// Where what is granted by hand gets its cause.
    cause_of_grant: fn(usize) -> String,
}

impl Script {
    pub fn new(now: i64, id_of: fn(&str) -> String, cause_of_grant: fn(usize) -> String) -> Self {
        Self {
            now,
            ledger: Ledger::open(now, id_of),
            subscription: None,
            bought: Vec::new(),
            holds: 0,
            grants: 0,
            told: Vec::new(),
            cause_of_grant,
        }
    }

    /// Plays a step on the reference. Answers what is to be played on the code under test.
    pub fn play(&mut self, step: &Step) -> Vec<Play> {
        let now = self.now;
        match *step {
            Step::Wait { minutes } => self.now += minutes * MINUTE,
            Step::WaitForChange { just_before } => {
                let next = self.ledger.next_change(now).unwrap_or(now);
                self.now = if just_before { (next - 1).max(now) } else { next };
            }
            Step::Grant { amount, priority, begins_in_days, days } => {
                return self.grant(amount, priority, begins_in_days, days);
            }
            Step::Debit(charge) => {
                let expected = self.ledger.debit(now, charge);
                return self.one(Action::Debit(charge), expected);
            }
            Step::Hold { charge, minutes } => {
                let ends = now + minutes * MINUTE;
                let expected = self.ledger.hold(now, charge, ends);
                self.holds += usize::from(expected.is_ok());
                return self.one(Action::Hold { charge, ends }, expected);
            }
            Step::Capture { hold, used } if self.holds > 0 => {
                let hold = hold % self.holds;
                let expected = self.ledger.capture(now, hold, used);
                return self.one(Action::Capture { hold, used }, expected);
            }
            Step::Release { hold } if self.holds > 0 => {
                let hold = hold % self.holds;
                let expected = self.ledger.release(now, hold);
                return self.one(Action::Release { hold }, expected);
            }
            Step::Extend { hold, minutes } if self.holds > 0 => {
                let (hold, ends) = (hold % self.holds, now + minutes * MINUTE);
                let expected = self.ledger.extend(now, hold, ends);
                return self.one(Action::Extend { hold, ends }, expected);
            }
            Step::Settle => return vec![self.settle()],
            Step::Subscribe { price, seats } if self.subscription.is_none() => return self.subscribe(price, seats),
            Step::Renew { price, days_late } => return self.renew(price, days_late),
            Step::Upgrade { quarters } => return self.upgrade(quarters),
            Step::Cancel => return self.cancel(),
            Step::BuyPack { pack } => return self.buy_pack(pack),
            Step::Refund { purchase, quarters } => return self.refund(purchase, quarters),
            Step::FailRefund { purchase } => return self.fail_refund(purchase),
            Step::Dispute { purchase } => return self.dispute(purchase, Dispute::None, Dispute::Open),
            Step::CloseDispute { purchase, won } => {
                let end = if won { Dispute::Won } else { Dispute::Lost };
                return self.dispute(purchase, Dispute::Open, end);
            }
            Step::Redeliver { event } if !self.told.is_empty() => {
                let again = self.told[event % self.told.len()].clone();
                return self.stripe(vec![again], |_, _| {});
            }
            _ => {}
        }
        Vec::new()
    }

    fn one(&self, action: Action, expected: Result<i64, Refusal>) -> Vec<Play> {
        vec![Play { at: self.now, action, expected: expected.map(Some) }]
    }

    pub fn settle(&mut self) -> Play {
        self.ledger.settle_idle(self.now);
        Play { at: self.now, action: Action::Settle, expected: Ok(None) }
    }

    /// No two lots begin in the same second: which of them burns first is nobody's business.
    fn grant(&mut self, amount: i64, priority: i32, begins_in_days: i64, days: Option<i64>) -> Vec<Play> {
        self.now += 1;
        let begins = self.now + begins_in_days * DAY;
        let ends = days.map(|days| self.now + days * DAY);
        self.grants += 1;
        let cause = (self.cause_of_grant)(self.grants);
        let expected = self.ledger.grant(self.now, cause, amount, priority, begins, ends);
        let action = Action::Grant { amount, priority, begins, ends };
        vec![Play { at: self.now, action, expected: expected.map(|()| None) }]
    }
}
