//! The code under test: one account, decided on and evolved as a lane does it, with nothing around it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use subledger::domain::account::{Account, Changes};
use subledger::domain::billing::Billing;
use subledger::domain::catalog::Catalog;
use subledger::domain::charge;
use subledger::domain::command::{Command, Grant, HoldAct, OfHold, Outcome, decide};
use subledger::domain::credit::LotSource;
use subledger::domain::draft::{Context, Draft};
use subledger::domain::event::{EVENT_VERSION, Event};
use subledger::domain::hold::{self, HoldStatus};
use subledger::domain::ids::{AccountId, lot_id_of};
use subledger::domain::rejection::Rejection;
use subledger::domain::settle::{credits_at, due_events};
use subledger::domain::standing::check;
use subledger::stripe::translate::{self, Settings};
use uuid::Uuid;

use super::reference::{Charge, Used, View};
use super::script::{Action, Play};

/// The catalog in force.
pub struct Offer {
    catalog: Catalog,
    digest: String,
}

impl Offer {
    pub fn new() -> Self {
        let catalog = Catalog::from_toml(include_str!("catalog.toml")).expect("a valid catalog");
        Self { digest: catalog.digest(), catalog }
    }

    fn context(&self, now: i64) -> Context<'_> {
        Context { catalog: &self.catalog, catalog_digest: &self.digest, now: at(now) }
    }
}

pub fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).expect("a time")
}

pub fn id_of(cause: &str) -> String {
    cause.strip_prefix("grant:").map_or_else(|| lot_id_of(cause).to_string(), str::to_owned)
}

pub fn cause_of_grant(nth: usize) -> String {
    format!("grant:{}", Uuid::from_u128(nth as u128))
}

pub struct Subject<'a> {
    offer: &'a Offer,
    account: Account,
    /// All that ever happened, with what an answer's reader would sum up.
    events: Vec<Event>,
    holds: Vec<Uuid>,
    ended: BTreeMap<Uuid, HoldStatus>,
    grants: u128,
}

impl<'a> Subject<'a> {
    pub fn open(offer: &'a Offer, now: i64) -> Self {
        let account = Account::new(AccountId::new("user_1").expect("a valid id"));
        let (events, holds, ended) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut subject = Self { offer, account, events, holds, ended, grants: 0 };
        let open = Command::Open { stripe_customer_id: Some("cus_1".to_owned()) };
        subject.decide(now, &open).expect("opened");
        subject
    }

    /// What an action comes to.
    pub fn play(&mut self, play: &Play) -> Result<Option<i64>, Rejection> {
        let now = play.at;
        match &play.action {
            Action::Grant { amount, priority, begins, ends } => {
                self.grants += 1;
                let grant = Grant {
                    grant: Uuid::from_u128(self.grants),
                    amount: *amount,
                    source: LotSource::Manual,
                    priority: *priority,
                    effective_at: Some(at(*begins)),
                    expires_at: ends.map(at),
                    reason: None,
                };
                self.decide(now, &Command::Grant(grant))
            }
            Action::Debit(charge) => {
                let debit = Uuid::from_u128(self.events.len() as u128 + 1_000);
                self.decide(now, &Command::Debit { debit, charge: charge_of(*charge) })
            }
            Action::Hold { charge, ends } => {
                let hold = Uuid::from_u128(self.events.len() as u128 + 1_000_000);
                let placed =
                    self.decide(now, &Command::Hold { hold, charge: charge_of(*charge), expires_at: at(*ends) });
                if placed.is_ok() {
                    self.holds.push(hold);
                }
                placed
            }
            Action::Capture { hold, used } => {
                let used = match *used {
                    Used::All => hold::Used::All,
                    Used::Amount(amount) => hold::Used::Amount(amount),
                    Used::Quantity(quantity) => hold::Used::Quantity(quantity),
                };
                self.of_hold(now, *hold, HoldAct::Capture(used))
            }
            Action::Release { hold } => self.of_hold(now, *hold, HoldAct::Release),
            Action::Extend { hold, ends } => self.of_hold(now, *hold, HoldAct::Extend { expires_at: at(*ends) }),
            Action::Settle => self.decide(now, &Command::Settle),
            Action::Stripe(events) => {
                for event in events {
                    let observations = observations(event);
                    self.decide(now, &Command::Observe { observations, link: None, reconciled: None })?;
                }
                Ok(None)
            }
        }
    }

    fn of_hold(&mut self, now: i64, nth: usize, act: HoldAct) -> Result<Option<i64>, Rejection> {
        let hold = self.holds[nth];
        let ended = self.ended.get(&hold).copied();
        self.decide(now, &Command::OfHold(OfHold { hold, ended, act }))
    }

    /// Decides as the service does: a command that needs no Stripe objects may find them in memory or not, and that must
    /// not matter.
    fn decide(&mut self, now: i64, command: &Command) -> Result<Option<i64>, Rejection> {
        let context = self.offer.context(now);
        let mut with_all = self.account.clone();
        let mut changes = Changes::default();
        let mut draft = Draft::new(&mut with_all, &mut changes);
        let decided = decide(&mut draft, command, context);
        let events = draft.events;
        if !command.needs_billing() {
            let mut hot = Account { billing: None, ..self.account.clone() };
            let mut closed = Changes::default();
            let mut draft = Draft::new(&mut hot, &mut closed);
            assert_eq!(decide(&mut draft, command, context), decided, "without Stripe's objects in memory");
            assert_eq!(draft.events, events, "without Stripe's objects in memory");
            assert_eq!(hot.credits, with_all.credits, "without Stripe's objects in memory");
            assert_eq!(closed.closed_lots, changes.closed_lots, "without Stripe's objects in memory");
        }
        for event in &events {
            let stored = event.payload().expect("a payload");
            assert_eq!(&Event::read(event.name(), EVENT_VERSION, &stored).expect("readable"), event);
        }
        let is_on_record = events.iter().filter(|event| matches!(event, Event::ChargeRejected(_))).count();
        let is_charge = match command {
            Command::Debit { .. } | Command::Hold { .. } => true,
            Command::OfHold(of_hold) => matches!(of_hold.act, HoldAct::Capture(_)),
            _ => false,
        };
        let lies_in_account = is_charge && decided.as_ref().is_err_and(Rejection::lies_in_account);
        assert_eq!(is_on_record, usize::from(lies_in_account), "refusals on record");
        for (hold, record) in changes.holds {
            let status = record.expect("not moved").status;
            if status != HoldStatus::Open {
                assert_eq!(self.ended.insert(hold, status), None, "a hold ends once");
            }
        }
        self.account = with_all;
        self.events.extend(events);
        decided.map(|outcome| match outcome {
            Outcome::Debited(debited) => Some(debited.available),
            Outcome::Held { available, .. } | Outcome::HoldEnded { available, .. } => Some(available),
            Outcome::Done
            | Outcome::Observed { .. }
            | Outcome::Granted(_)
            | Outcome::UsageRecorded(_)
            | Outcome::Stripe(_) => None,
        })
    }

    /// What is shown at a time, now or later.
    pub fn view(&self, now: i64) -> View {
        let context = self.offer.context(now);
        let credits = credits_at(&self.account.id, &self.account.credits, context);
        let due: i64 = due_events(&self.account.id, &self.account.credits, context).iter().map(entry).sum();
        assert_eq!(self.statement() + due, credits.balance(), "the statement's balance with what is pending");
        let mut lots: Vec<_> =
            credits.lots.iter().map(|lot| (lot.cause.to_string(), lot.remaining, lot.held)).collect();
        lots.sort();
        View {
            available: credits.available_at(context.now),
            held: credits.held(),
            debt: credits.debt,
            overage: credits.overage,
            lots,
        }
    }

    /// What a check answers.
    pub fn may(&self, now: i64, feature: &str, quantity: i64) -> bool {
        let context = self.offer.context(now);
        let credits = credits_at(&self.account.id, &self.account.credits, context);
        check(&credits, context.catalog, feature, quantity, context.now).allowed
    }

    /// What the entries of the statement come to.
    pub fn statement(&self) -> i64 {
        self.events.iter().map(entry).sum()
    }

    /// Σ granted = available + held + spent + expired + clawed back − debt: the events on one side, the state on the
    /// other. Lots that have not begun count as available here.
    pub fn assert_conserved(&self) {
        let (mut granted, mut spent, mut expired, mut clawed_back) = (0, 0, 0, 0);
        for event in &self.events {
            match event {
                Event::CreditsGranted(event) => granted += event.lot.granted,
                Event::CreditsDebited(event) if !event.unlimited => spent += event.amount - event.overage,
                Event::HoldCaptured(event) => spent += event.cover.taken(),
                Event::CreditsExpired(event) => expired += event.lots.iter().map(|draw| draw.amount).sum::<i64>(),
                Event::CreditsClawedBack(event) => {
                    clawed_back += event.clawed_back + event.from_expired + event.debt;
                    expired -= event.from_expired;
                }
                Event::CreditsReinstated(event) => clawed_back -= event.reinstated + event.debt,
                Event::LotAmended(event) => {
                    granted += event.added - event.from_expired;
                    expired -= event.from_expired;
                }
                _ => {}
            }
        }
        let credits = &self.account.credits;
        let held_debt: i64 = credits.holds.iter().map(|hold| hold.cover.debt).sum();
        let available: i64 = credits.lots.iter().map(|lot| lot.remaining - lot.held).sum::<i64>() - held_debt;
        let held = credits.held();
        assert_eq!(held, credits.lots.iter().map(|lot| lot.held).sum::<i64>() + held_debt, "what lots and holds say");
        assert_eq!(granted, available + held + spent + expired + clawed_back - credits.debt, "conservation");
        for lot in credits.lots.iter().chain(self.account.billing.iter().flat_map(|b| b.closed_lots.values())) {
            assert!(lot.remaining >= lot.held && lot.held >= 0, "{lot:?}");
            assert!((0..=lot.granted).contains(&lot.remaining) && lot.expired >= 0 && lot.clawed_back >= 0, "{lot:?}");
        }
        assert!(credits.debt >= 0 && credits.overage >= 0);
    }

    /// The events alone make the account again.
    pub fn assert_rebuilds(&self) {
        let mut again = Account::new(self.account.id.clone());
        let mut changes = Changes::default();
        self.events.iter().for_each(|event| again.evolve(event, &mut changes));
        assert_eq!(again.credits, self.account.credits);
        let billing = |account: &Account| account.billing.clone().unwrap_or_default();
        let (again, live): (Box<Billing>, Box<Billing>) = (billing(&again), billing(&self.account));
        assert_eq!(again, live);
    }
}

fn charge_of(charge: Charge) -> charge::Charge {
    match charge {
        Charge::Amount(amount) => charge::Charge::Amount(amount),
        Charge::Feature(feature, quantity) => charge::Charge::Feature { feature: feature.to_owned(), quantity },
    }
}

fn observations(event: &Value) -> Vec<subledger::domain::billing::Observation> {
    let body = event.to_string();
    let (event, value) = translate::parse(body.as_bytes()).expect("an envelope");
    let facts = translate::translate(&event, &value, Settings { account_metadata_keys: &[] });
    facts.expect("translatable").expect("a known type").observations
}

/// By how much an event changes the statement's balance.
fn entry(event: &Event) -> i64 {
    match event {
        Event::CreditsGranted(event) => event.lot.granted,
        Event::CreditsDebited(event) if event.unlimited => 0,
        Event::CreditsDebited(event) => event.overage - event.amount,
        Event::CreditsExpired(event) => -event.lots.iter().map(|draw| draw.amount).sum::<i64>(),
        Event::CreditsClawedBack(event) => -event.clawed_back - event.debt,
        Event::CreditsReinstated(event) => event.reinstated + event.debt,
        Event::LotAmended(event) => event.added,
        Event::HoldPlaced(event) => -event.hold.cover.taken(),
        Event::HoldCaptured(event) => event.released,
        Event::HoldReleased(event) => event.amount,
        Event::HoldExpired(event) => event.amount,
        _ => 0,
    }
}
