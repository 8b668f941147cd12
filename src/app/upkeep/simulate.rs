//! What if: the log, from a time on, lived through again under a draft of a catalog.
//!
//! What the world did is taken from the log as it was: Stripe's facts, grants by hand, debits, holds, refusals. What the
//! catalog made of it is decided anew. Each account begins as it stood; what it had been granted by then stays granted. A
//! stream that was linked to an account since brings along what it would have come to under the draft.

mod entitlements;

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde::Serialize;

use tokio_postgres::Client;

pub use self::entitlements::{Entitled, EntitlementDifference, LimitOf};
use super::verify::{PROGRESS_EVERY, Progress};
use crate::app::catalog::ActiveCatalog;
use crate::app::fold::FoldError;
use crate::domain::account::{Account, Changes};
use crate::domain::command::{Command, decide};
use crate::domain::credit::LotSource;
use crate::domain::draft::{Context, Draft};
use crate::domain::event::Event;
use crate::domain::ids::AccountId;
use crate::domain::replay;
use crate::domain::settle::credits_at;
use crate::domain::standing::Standing;
use crate::store::connect::Database;
use crate::store::error::StoreError;
use crate::store::log;
use crate::store::scan::{Scan, Scanned};
use crate::store::snapshot::Snapshot;
use crate::stripe::translate::SYSTEM_ACCOUNT;

/// Events of a linked stream read at once.
const CHUNK: i64 = 2_000;

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Question {
    pub draft: ActiveCatalog,
    /// The one in force now.
    pub current: ActiveCatalog,
    pub since: DateTime<Utc>,
    pub now: DateTime<Utc>,
    /// Accounts to list; all are counted.
    pub listed: usize,
}

/// What would have come of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Simulation {
    pub since: DateTime<Utc>,
    /// Version of the draft.
    pub draft: String,
    /// Events since.
    pub events: u64,
    /// Accounts with events since.
    pub accounts: u64,
    /// Accounts for which something would have been different; also such as had no events since, but would have other features.
    pub affected: u64,
    /// Accounts among them that would have other features.
    pub other_entitlements: u64,
    /// Over all accounts.
    pub total: Tally,
    /// Those most affected.
    pub listed: Vec<Difference>,
}

/// What was, beside what would have been.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Credits that plans and packs granted.
    pub granted: i64,
    pub granted_by_draft: i64,
    /// Credits that debits and captures cost.
    pub charged: i64,
    pub charged_by_draft: i64,
    /// Debits, holds and captures that went through, and would have been refused; not the captures of holds that would have
    /// been.
    pub newly_refused: u64,
    /// That were refused, and would have gone through.
    pub newly_allowed: u64,
    /// That would have cost something else.
    pub charged_differently: u64,
}

impl Tally {
    fn is_affected(&self) -> bool {
        self.granted != self.granted_by_draft
            || self.charged != self.charged_by_draft
            || self.newly_refused + self.newly_allowed + self.charged_differently > 0
    }

    fn add(&mut self, other: &Self) {
        self.granted += other.granted;
        self.granted_by_draft += other.granted_by_draft;
        self.charged += other.charged;
        self.charged_by_draft += other.charged_by_draft;
        self.newly_refused += other.newly_refused;
        self.newly_allowed += other.newly_allowed;
        self.charged_differently += other.charged_differently;
    }

    fn weight(&self) -> (u64, u64) {
        let credits = self.granted.abs_diff(self.granted_by_draft) + self.charged.abs_diff(self.charged_by_draft);
        (self.newly_refused + self.newly_allowed, credits)
    }
}

/// An account for which something would have been different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub account: AccountId,
    pub plan: Option<String>,
    pub plan_by_draft: Option<String>,
    pub available: i64,
    pub available_by_draft: i64,
    #[serde(flatten)]
    pub tally: Tally,
    /// Features that the account would have otherwise now.
    pub entitlements: Vec<EntitlementDifference>,
}

impl Difference {
    /// How much it matters to the account: refusals and features first, then credits.
    fn weight(&self) -> (u64, u64) {
        let (refusals, credits) = self.tally.weight();
        (refusals + self.entitlements.len() as u64, credits)
    }
}

/// Lives through the log again.
pub async fn simulate(database: &Database, question: &Question, progress: Progress) -> Result<Simulation, StoreError> {
    let snapshot = Snapshot::take(database).await?;
    let positions = log::positions(snapshot.client()).await?;
    let (mut read, total) = (0, positions.iter().map(|(_, position)| position.unsigned_abs()).sum());
    let mut simulation = Simulation {
        since: question.since,
        draft: question.draft.digest.clone(),
        events: 0,
        accounts: 0,
        affected: 0,
        other_entitlements: 0,
        total: Tally::default(),
        listed: Vec::new(),
    };
    let client = snapshot.reader(database).await?;
    let features = entitlements::features(&question.current.catalog, &question.draft.catalog);
    for (partition_id, _) in positions {
        let mut lives: HashMap<String, Life> = HashMap::new();
        let mut scan = Scan::of_partitions(&client, partition_id, partition_id, false).await?;
        while let Some(scanned) = scan.next().await? {
            let life = match lives.get_mut(scanned.account_id) {
                Some(life) => life,
                None => {
                    let id = AccountId::new(scanned.account_id).map_err(|error| damaged(&scanned, &error.into()))?;
                    lives.entry(scanned.account_id.to_owned()).or_insert_with(|| Life::new(id))
                }
            };
            let event = Event::read(scanned.event_type, scanned.type_version, scanned.payload);
            let event = event.map_err(|error| damaged(&scanned, &error.into()))?;
            let at = scanned.at();
            let linked = linked(snapshot.client(), &event, at, question).await?;
            simulation.events += u64::from(life.take(&event, at, linked, question));
            read += 1;
            if read % PROGRESS_EVERY == 0 {
                progress(read, total);
            }
        }
        for life in lives.into_values() {
            life.end(question, &features, &mut simulation);
        }
        simulation.listed.sort_by(|a, b| b.weight().cmp(&a.weight()).then(a.account.cmp(&b.account)));
        simulation.listed.truncate(question.listed);
    }
    snapshot.release().await?;
    Ok(simulation)
}

/// The life of the stream that an event takes over, if that happened since; it may be of another partition, and not have
/// been met yet.
async fn linked(
    client: &Client,
    event: &Event,
    at: DateTime<Utc>,
    question: &Question,
) -> Result<Option<Life>, StoreError> {
    let Event::AccountAbsorbed(absorbed) = event else { return Ok(None) };
    if at < question.since {
        return Ok(None);
    }
    let mut life = Life::new(absorbed.from.clone());
    loop {
        let stored = log::of_account(client, absorbed.from.as_str(), life.real.version, &[], CHUNK).await?;
        let is_last = i64::try_from(stored.len()) != Ok(CHUNK);
        for stored in stored {
            let event = stored.event()?;
            if matches!(event, Event::AccountMerged(_)) {
                return Ok(Some(life));
            }
            // It may have taken over others before.
            let linked = Box::pin(linked(client, &event, stored.at, question)).await?;
            life.take(&event, stored.at, linked, question);
        }
        if is_last {
            return Ok(Some(life));
        }
    }
}

fn damaged(scanned: &Scanned<'_>, error: &FoldError) -> StoreError {
    StoreError::Corrupt(format!("position {} of partition {}: {error}", scanned.position, scanned.partition_id))
}

/// An account as it was, and as it would have been.
struct Life {
    real: Account,
    /// `None` before the time from which on the draft holds.
    drafted: Option<Account>,
    /// When Stripe's facts, or another stream, were taken in last: what follows at that very time came of them.
    observed_at: Option<DateTime<Utc>>,
    tally: Tally,
}

impl Life {
    fn new(id: AccountId) -> Self {
        Self { real: Account::new(id), drafted: None, observed_at: None, tally: Tally::default() }
    }

    /// Takes an event, with the stream that it takes over. Whether the draft was in force by then.
    fn take(&mut self, event: &Event, at: DateTime<Utc>, linked: Option<Life>, question: &Question) -> bool {
        let is_simulated = at >= question.since;
        if is_simulated {
            let mut drafted = self.drafted.take().unwrap_or_else(|| self.real.clone());
            self.live(&mut drafted, event, at, linked, question);
            self.drafted = Some(drafted);
            self.tally.granted += granted(event);
            self.tally.charged += charged(event);
        }
        self.real.evolve(event, &mut Changes::default());
        is_simulated
    }

    /// What the draft makes of what an event tells.
    fn live(
        &mut self,
        drafted: &mut Account,
        event: &Event,
        at: DateTime<Utc>,
        linked: Option<Life>,
        question: &Question,
    ) {
        let context = question.draft.context(at);
        let is_charge = match event {
            Event::HoldCaptured(captured) => drafted.credits.hold(captured.hold).is_some(),
            event => replay::charge_of(event).is_some(),
        };
        let (made, is_refused) = match (replay::command_of(event, at), event) {
            (Some(command), _) => act(drafted, &command, context),
            (None, Event::AccountAbsorbed(absorbed)) => {
                self.observed_at = Some(at);
                let linked = linked.unwrap_or_else(|| Life::new(absorbed.from.clone()));
                self.tally.add(&linked.tally);
                let theirs = linked.drafted.unwrap_or(linked.real);
                let absorb = Command::Absorb {
                    from: absorbed.from.clone(),
                    credits: Box::new(theirs.credits),
                    billing: theirs.billing.unwrap_or_default(),
                    links: absorbed.links.clone(),
                };
                act(drafted, &absorb, context)
            }
            (None, Event::StripeObserved(observation)) => {
                self.observed_at = Some(at);
                let observations = vec![(**observation).clone()];
                act(drafted, &Command::Observe { observations, link: None, reconciled: None }, context)
            }
            (None, event) if is_derived(event) => {
                // What Stripe's facts brought about, they do again. What the clock did, it does again.
                if self.observed_at == Some(at) {
                    return;
                }
                act(drafted, &Command::Settle, context)
            }
            (None, event) => {
                drafted.evolve(event, &mut Changes::default());
                return;
            }
        };
        let charged_by_draft: i64 = made.iter().map(charged).sum();
        self.tally.granted_by_draft += made.iter().map(granted).sum::<i64>();
        self.tally.charged_by_draft += charged_by_draft;
        if is_charge {
            let was_refused = matches!(event, Event::ChargeRejected(_));
            self.tally.newly_refused += u64::from(is_refused && !was_refused);
            self.tally.newly_allowed += u64::from(!is_refused && was_refused);
            let differs = charged_by_draft != charged(event) || held(event) != made.iter().map(held).sum::<i64>();
            self.tally.charged_differently += u64::from(!is_refused && !was_refused && differs);
        }
    }

    fn end(mut self, question: &Question, features: &BTreeSet<&str>, simulation: &mut Simulation) {
        let is_nobody = self.real.id.as_str() == SYSTEM_ACCOUNT || self.real.credits.merged_into.is_some();
        if is_nobody {
            return;
        }
        let (real, draft) = (question.current.context(question.now), question.draft.context(question.now));
        // To whom nothing happened since, only what it may use can be different.
        let is_simulated = self.drafted.is_some();
        let mut drafted = self.drafted.take().unwrap_or_else(|| self.real.clone());
        if is_simulated {
            simulation.accounts += 1;
            let (made, _) = act(&mut self.real, &Command::Settle, real);
            self.tally.granted += made.iter().map(granted).sum::<i64>();
            let (made, _) = act(&mut drafted, &Command::Settle, draft);
            self.tally.granted_by_draft += made.iter().map(granted).sum::<i64>();
            simulation.total.add(&self.tally);
        }
        let entitlements = entitlements::differences(features, (&self.real.credits, real), (&drafted.credits, draft));
        simulation.other_entitlements += u64::from(!entitlements.is_empty());
        let plan_of = |account: &Account, context: Context<'_>| {
            Standing::of(&account.credits, context.catalog, context.now).plan.map(|plan| plan.id.clone())
        };
        let difference = Difference {
            plan: plan_of(&self.real, real),
            plan_by_draft: plan_of(&drafted, draft),
            available: credits_at(&self.real.id, &self.real.credits, real).available_at(question.now),
            available_by_draft: credits_at(&drafted.id, &drafted.credits, draft).available_at(question.now),
            account: self.real.id,
            tally: self.tally,
            entitlements,
        };
        let is_affected = self.tally.is_affected()
            || is_simulated && difference.available != difference.available_by_draft
            || difference.plan != difference.plan_by_draft
            || !difference.entitlements.is_empty();
        if is_affected {
            simulation.affected += 1;
            simulation.listed.push(difference);
        }
    }
}

/// The events that a command makes, and whether it was refused.
fn act(account: &mut Account, command: &Command, context: Context<'_>) -> (Vec<Event>, bool) {
    let mut changes = Changes::default();
    let mut draft = Draft::new(account, &mut changes);
    let is_refused = decide(&mut draft, command, context).is_err();
    (draft.events, is_refused)
}

/// Whether the catalog made it of something else, so that another catalog would make something else of that.
fn is_derived(event: &Event) -> bool {
    match event {
        Event::CreditsGranted(granted) => !matches!(granted.lot.source, LotSource::Promotion | LotSource::Manual),
        Event::AllowanceArmed(_)
        | Event::AllowanceAdvanced(_)
        | Event::SubscriptionCreditsEnded(_)
        | Event::CreditsExpired(_)
        | Event::DebtRepaid(_)
        | Event::CreditsClawedBack(_)
        | Event::CreditsReinstated(_)
        | Event::LotAmended(_)
        | Event::HoldExpired(_) => true,
        Event::AccountOpened(_)
        | Event::CustomerLinked(_)
        | Event::AccountAbsorbed(_)
        | Event::AccountMerged(_)
        | Event::StripeObserved(_)
        | Event::Reconciled(_)
        | Event::CreditsDebited(_)
        | Event::HoldPlaced(_)
        | Event::HoldExtended(_)
        | Event::HoldCaptured(_)
        | Event::HoldReleased(_)
        | Event::ChargeRejected(_)
        | Event::UsageRecorded(_)
        | Event::OverrideSet(_)
        | Event::OverrideRemoved(_)
        | Event::AccountSuspended(_)
        | Event::AccountReinstated(_)
        | Event::LowBalanceSet(_)
        | Event::CatalogApplied(_) => false,
    }
}

/// Credits that a plan or a pack granted, but for what was taken back at once: of what a plan change gives, some may have been
/// given before.
fn granted(event: &Event) -> i64 {
    match event {
        Event::CreditsGranted(granted) if is_derived(event) => granted.lot.granted - granted.lot.clawed_back,
        _ => 0,
    }
}

/// Credits that a debit or a capture cost; on an unlimited plan, none.
fn charged(event: &Event) -> i64 {
    match event {
        Event::CreditsDebited(debited) if !debited.unlimited => debited.amount,
        Event::HoldCaptured(captured) if !captured.cover.unlimited => captured.amount,
        _ => 0,
    }
}

fn held(event: &Event) -> i64 {
    match event {
        Event::HoldPlaced(placed) if !placed.hold.cover.unlimited => placed.hold.amount,
        _ => 0,
    }
}
