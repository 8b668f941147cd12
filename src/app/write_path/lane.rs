//! A lane: one task, one connection, and the batching that makes durable writes cheap.
//!
//! It takes one command and whatever else is waiting, decides all of them in memory, appends their events in one round
//! trip, and answers every caller once that is durable. Nothing lingers: a lone command goes at once, and batches grow
//! by themselves while an append is under way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use lru::LruCache;
use tokio::sync::mpsc;

use super::outcome::{replayed, stored_answer, stored_outcome};
use super::plan::Plan;
use super::work::{Answer, Key, Work};
use super::writer::Writer;
use crate::app::catalog::CatalogHolder;
use crate::app::error::AppError;
use crate::app::metrics::Metrics;
use crate::app::read_path::balance_cache::BalanceCache;
use crate::clock::Clock;
use crate::domain::account::Changes;
use crate::domain::command::{Command, OfHold, Outcome, decide};
use crate::domain::draft::{Context, Draft};
use crate::domain::ids::AccountId;
use crate::store::append::{Digest, InboxStatus, KeyRow, Refusal};
use crate::store::connect::Database;
use crate::store::error::StoreError;
use crate::store::follow::Stretch;
use crate::store::load;
use crate::stripe::translate::SYSTEM_ACCOUNT;
use memory::{CaughtUp, LaneMemory};

mod memory;

/// Commands in one append at most: past a few hundred, latency grows and the rate does not.
const MAX_BATCH: usize = 256;
/// Tries before a command that keeps being refused is given back.
const MAX_TRIES: u32 = 12;
/// Batches for which others are kept out, once they were met, and met no more.
const SHARING: u32 = 32;
/// Events of others that are caught up with; past so many, the accounts of their partitions are read anew. They are read
/// while all others wait.
const MAX_MISSED: usize = 2_000;
/// Keys whose outcome is kept in memory, for retries that come soon.
const RECENT_KEYS: NonZeroUsize = NonZeroUsize::new(50_000).expect("not zero");
/// Links kept in memory.
const LINKED: NonZeroUsize = NonZeroUsize::new(50_000).expect("not zero");

/// What a lane works with.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    pub database: Database,
    pub partitions: i16,
    pub catalog: CatalogHolder,
    pub clock: Arc<dyn Clock>,
    pub metrics: Metrics,
    /// Accounts kept in memory.
    pub cached_accounts: NonZeroUsize,
    /// All that this lane writes to, and no other lane of the process; ascending.
    pub own_partitions: Vec<i16>,
    /// What readers have in memory.
    pub balances: Arc<BalanceCache>,
    /// Name of the lane in metrics.
    pub name: String,
}

/// The lane's task.
#[derive(Debug)]
pub struct Lane {
    settings: LaneSettings,
    queue: mpsc::Receiver<Work>,
    writer: Writer,
    memory: LaneMemory,
    /// Batches for which others are still kept out, since they were met.
    sharing: u32,
    recent: LruCache<Digest, (Digest, Answer)>,
    /// Stripe ids that are known to lead to an account: most events name the same few.
    linked: LruCache<String, AccountId>,
}

/// A command that was decided and waits for its append.
struct Decided {
    work: Work,
    partition_id: i16,
    /// `None`: the answer is that of an earlier command of the batch with the same key.
    answer: Option<Answer>,
}

/// What a round of decisions came to.
struct Round {
    plan: Plan,
    decided: Vec<Decided>,
    /// Accounts that events happened to, by partition.
    changed: BTreeMap<i16, Vec<AccountId>>,
}

impl Lane {
    pub fn new(settings: LaneSettings, queue: mpsc::Receiver<Work>) -> Self {
        let memory = LaneMemory::new(settings.cached_accounts, settings.partitions);
        let recent = LruCache::new(RECENT_KEYS);
        let linked = LruCache::new(LINKED);
        let writer = Writer::new(settings.database.clone());
        Self { settings, queue, writer, memory, sharing: 0, recent, linked }
    }

    /// Works until every sender is gone, then finishes what was accepted.
    pub async fn run(mut self) {
        loop {
            let mut batch = Vec::new();
            if self.queue.recv_many(&mut batch, MAX_BATCH).await == 0 {
                return;
            }
            self.taken(&batch);
            if AssertUnwindSafe(self.work_off(batch, true)).catch_unwind().await.is_err() {
                // A defect. Whose command was in hand is told that its outcome is unknown; all others go on. What is in
                // memory may be half done, and ends with the connection.
                tracing::error!(lane = self.settings.name, "a lane panicked; it goes on from what is stored");
                self.writer.disconnect();
            }
        }
    }

    fn taken(&self, batch: &[Work]) {
        let metrics = &self.settings.metrics;
        metrics.lane_queue_depth.with_label_values(&[&self.settings.name]).set(self.queue.len() as i64);
        for work in batch {
            metrics.lane_queue_seconds.observe(work.enqueued_at.elapsed().as_secs_f64());
        }
    }

    /// Tries until every command of the batch is answered. It may take more on the way, if it `may_grow`.
    async fn work_off(&mut self, mut batch: Vec<Work>, may_grow: bool) {
        for attempt in 0..MAX_TRIES {
            batch = self.answer_recent(batch);
            // Nobody waits for these any more, and nothing was done for them yet.
            batch.retain(|work| !work.reply.is_closed());
            if batch.is_empty() {
                return;
            }
            if attempt > 2 {
                tokio::time::sleep(Duration::from_millis(5 << attempt.min(6))).await;
            }
            let attempted = self.attempt(&mut batch, may_grow && attempt == 0).await;
            self.writer.release().await;
            match attempted {
                Ok(refused) if refused.values().any(|refusal| *refusal == Refusal::Stale) => self.sharing = SHARING,
                Ok(_) => {}
                Err(error) if error.is_transient() => {
                    let reason = if matches!(error, StoreError::Conflict(_)) { "conflict" } else { "unavailable" };
                    self.settings.metrics.tx_retries.with_label_values(&[reason]).inc();
                    self.memory.forget(&batch);
                    if matches!(error, StoreError::OutcomeUnknown) {
                        return give_back(batch, || AppError::Store(StoreError::OutcomeUnknown));
                    }
                    if matches!(error, StoreError::Conflict(_)) {
                        batch = self.answer_stored(batch).await;
                    } else if attempt >= 3 {
                        let text = error.to_string();
                        return give_back(batch, || AppError::Store(StoreError::Unavailable(text.clone())));
                    }
                }
                Err(error) => return self.bisect(batch, error).await,
            }
        }
        give_back(batch, || AppError::Overloaded);
    }

    /// One poison command must not fail its neighbours: halves are tried apart, and none comes to them, until it stands
    /// alone.
    async fn bisect(&mut self, mut batch: Vec<Work>, error: StoreError) {
        self.memory.forget(&batch);
        if batch.len() == 1 {
            tracing::error!(%error, "a command could not be written");
            let text = error.to_string();
            return give_back(batch, || AppError::Poisoned(text.clone()));
        }
        let second = batch.split_off(batch.len() / 2);
        Box::pin(self.work_off(batch, false)).await;
        Box::pin(self.work_off(second, false)).await;
    }

    /// Loads, decides, appends, answers. What was refused stays in `batch`; so does everything on an error.
    async fn attempt(&mut self, batch: &mut Vec<Work>, may_grow: bool) -> Result<HashMap<i16, Refusal>, StoreError> {
        self.writer.connect().await?;
        if self.writer.is_new() {
            // It may lead to a server that took over, and knows less than the one before.
            self.memory.clear();
            self.recent.clear();
            self.linked.clear();
        }
        if self.sharing > 0 {
            self.sharing -= 1;
            self.keep_others_out().await?;
            if may_grow {
                // This may have taken a while.
                let more = self.take_more(batch.len());
                batch.extend(self.answer_recent(more));
            }
        }
        self.settings.metrics.append_batch_size.observe(batch.len() as f64);
        self.memory.load(&self.writer, batch).await?;
        let Round { plan, decided, changed } = self.decide(std::mem::take(batch)).map_err(|(works, error)| {
            *batch = works;
            error
        })?;
        let started = Instant::now();
        let appended = self.writer.append(&plan.batch).await;
        self.settings.metrics.append_seconds.observe(started.elapsed().as_secs_f64());
        let refused: HashMap<i16, Refusal> = match appended {
            Ok(refused) => {
                self.settings.metrics.appended_events.inc_by(plan.batch.events() as u64);
                refused.into_iter().collect()
            }
            Err(error) => {
                batch.extend(decided.into_iter().map(|decided| decided.work));
                return Err(error);
            }
        };
        self.memory.heads.extend(plan.heads_after().filter(|(partition_id, _)| !refused.contains_key(partition_id)));
        // Before anybody is answered: whoever wrote reads it here from now on.
        for stretch in plan.stretches().filter(|stretch| !refused.contains_key(&stretch.partition_id)) {
            self.publish(stretch, changed.get(&stretch.partition_id).into_iter().flatten());
        }
        for (partition_id, link, account) in plan.batch.links() {
            if !refused.contains_key(&partition_id)
                && let Ok(account) = AccountId::new(account)
            {
                self.linked.put(link.to_owned(), account);
            }
        }
        for refusal in refused.values() {
            let reason = match refusal {
                Refusal::Stale => "stale",
                Refusal::Key => "key",
                Refusal::Link => "link",
                Refusal::Catalog => "catalog",
            };
            self.settings.metrics.tx_retries.with_label_values(&[reason]).inc();
        }
        let blamed = self.linked_elsewhere(&decided, &refused).await;
        let mut again = Vec::new();
        for (decided, is_blamed) in decided.into_iter().zip(blamed) {
            match refused.get(&decided.partition_id) {
                None => again.extend(self.answer(decided)),
                Some(Refusal::Link) if is_blamed => {
                    self.memory.forget(std::slice::from_ref(&decided.work));
                    let _ = decided.work.reply.send(Err(AppError::LinkedElsewhere));
                }
                Some(_) => again.push(decided.work),
            }
        }
        self.memory.forget(&again);
        if refused.values().any(|refusal| *refusal == Refusal::Key) {
            again = self.answer_stored(again).await;
        }
        *batch = again;
        if refused.values().any(|refusal| *refusal == Refusal::Catalog) {
            self.settings.catalog.read_again(self.writer.client()?).await?;
        }
        Ok(refused)
    }

    /// Keeps other writers out of all partitions of this lane until the append is done, and catches up with what they
    /// wrote. Where several replicas write to the same partitions, appending at a venture would be refused nearly every
    /// time, and the slower of two could lose every time.
    async fn keep_others_out(&mut self) -> Result<(), StoreError> {
        let known = self.settings.own_partitions.iter().filter_map(|partition_id| {
            let head = self.memory.heads.get(partition_id)?;
            Some((*partition_id, head.position))
        });
        let known: Vec<(i16, i64)> = known.collect();
        let (heads, events) = self.writer.lock(&self.settings.own_partitions, &known, MAX_MISSED).await?;
        for CaughtUp { stretch, accounts } in self.memory.catch_up(&heads, &events) {
            self.sharing = SHARING;
            self.publish(stretch, accounts.iter());
        }
        Ok(())
    }

    /// Shows readers the accounts that a stretch of the log was about.
    fn publish<'a>(&self, stretch: Stretch, accounts: impl Iterator<Item = &'a AccountId>) {
        // A catalog comes into force by being read in the log.
        let accounts = accounts.map(|id| self.memory.accounts.peek(id).filter(|_| id.as_str() != SYSTEM_ACCOUNT));
        self.settings.balances.publish(stretch, accounts);
    }

    /// What else is waiting, beside so many commands in hand.
    fn take_more(&mut self, in_hand: usize) -> Vec<Work> {
        let mut more = Vec::new();
        while in_hand + more.len() < MAX_BATCH
            && let Ok(work) = self.queue.try_recv()
        {
            more.push(work);
        }
        self.taken(&more);
        more
    }

    /// Whose Stripe ids led elsewhere, when partitions were refused for that: not everybody in them is to blame. If it
    /// cannot be told, whoever names any id is.
    async fn linked_elsewhere(&self, decided: &[Decided], refused: &HashMap<i16, Refusal>) -> Vec<bool> {
        let is_involved = |decided: &Decided| {
            refused.get(&decided.partition_id) == Some(&Refusal::Link) && !decided.work.links.is_empty()
        };
        let mut blamed: Vec<bool> = decided.iter().map(is_involved).collect();
        let involved = decided.iter().filter(|decided| is_involved(decided));
        let links: Vec<String> = involved.flat_map(|decided| decided.work.links.iter().cloned()).collect();
        let Ok(client) = self.writer.client() else { return blamed };
        if links.is_empty() {
            return blamed;
        }
        let known = load::links(client, &links).await.unwrap_or_default();
        let leads_elsewhere = |decided: &Decided| {
            let links = &decided.work.links;
            links.iter().any(|link| known.get(link).is_some_and(|account| *account != decided.work.account))
        };
        if decided.iter().any(|decided| is_involved(decided) && leads_elsewhere(decided)) {
            blamed = decided.iter().map(|decided| is_involved(decided) && leads_elsewhere(decided)).collect();
        }
        blamed
    }

    /// Answers an appended command, and remembers the answer for whoever asks again. A repeat comes back if what it
    /// repeats, in another partition, has no answer yet.
    fn answer(&mut self, decided: Decided) -> Option<Work> {
        let Decided { work, answer, .. } = decided;
        let Some(answer) = answer else {
            return self.answer_recent(vec![work]).pop();
        };
        if let Some(key) = work.key {
            self.recent.put(key.key, (key.request, answer.clone()));
        }
        let _ = work.reply.send(Ok(answer));
        None
    }

    fn replay(&mut self, work: Work, key: Key) {
        if let Some((request, answer)) = self.recent.get(&key.key) {
            let _ = work.reply.send(replayed(*request, answer, key));
        }
    }

    /// Answers what was answered a moment ago.
    fn answer_recent(&mut self, batch: Vec<Work>) -> Vec<Work> {
        let (known, rest): (Vec<Work>, Vec<Work>) =
            batch.into_iter().partition(|work| work.key.is_some_and(|key| self.recent.contains(&key.key)));
        for work in known {
            if let Some(key) = work.key {
                self.replay(work, key);
            }
        }
        rest
    }

    /// Answers what was answered at any time, from the store.
    async fn answer_stored(&mut self, batch: Vec<Work>) -> Vec<Work> {
        let Ok(client) = self.writer.client() else { return batch };
        let digests: Vec<Digest> = batch.iter().filter_map(|work| work.key.map(|key| key.key)).collect();
        let stored = match load::keys(client, &digests).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::warn!(%error, "keys could not be looked up; trying again");
                return batch;
            }
        };
        let mut rest = Vec::new();
        for work in batch {
            let found = work.key.and_then(|key| stored.get(&key.key).map(|stored| (key, stored)));
            match found.map(|(key, stored)| stored_answer(stored).map(|answer| (key, stored.request, answer))) {
                None => rest.push(work),
                Some(Ok((key, request, answer))) => {
                    let _ = work.reply.send(replayed(request, &answer, key));
                    self.recent.put(key.key, (request, answer));
                }
                Some(Err(error)) => {
                    let _ = work.reply.send(Err(error.into()));
                }
            }
        }
        rest
    }

    /// Decides every command in memory. On an error, which only a defect can cause, all of them come back.
    fn decide(&mut self, mut works: Vec<Work>) -> Result<Round, (Vec<Work>, StoreError)> {
        // In the order of the log's index, and what it touches in that of the balances': rows that follow each other share
        // pages.
        works.sort_by_cached_key(|work| self.memory.partition(&work.account));
        let (catalog, catalog_position) = self.settings.catalog.current_at();
        let now = self.settings.clock.now();
        let context = catalog.context(now);
        let decided = Vec::with_capacity(works.len());
        let mut round = Round { plan: Plan::new(catalog_position), decided, changed: BTreeMap::new() };
        let mut touched: BTreeMap<AccountId, (i16, i64, Changes)> = BTreeMap::new();
        let mut claimed: HashSet<Digest> = HashSet::new();
        let mut undecided: Vec<AccountId> = Vec::new();
        let mut failure = None;
        for work in works {
            let partition_id = self.memory.partition(&work.account);
            if failure.is_some() {
                round.decided.push(Decided { work, partition_id, answer: None });
                continue;
            }
            if work.links.iter().any(|link| round.plan.batch.links_elsewhere(link, work.account.as_str())) {
                undecided.push(work.account);
                let _ = work.reply.send(Err(AppError::LinkedElsewhere));
                continue;
            }
            if let Some(into) =
                self.memory.accounts.peek(&work.account).and_then(|account| account.credits.merged_into.clone())
                && work.command.is_some()
            {
                undecided.push(work.account);
                let _ = work.reply.send(Err(AppError::Moved(into)));
                continue;
            }
            if let Some(Command::OfHold(OfHold { hold, ended: None, .. })) = &work.command
                && self.memory.accounts.peek(&work.account).is_none_or(|account| account.credits.hold(*hold).is_none())
            {
                undecided.push(work.account);
                let _ = work.reply.send(Err(AppError::HoldEnded));
                continue;
            }
            // After the ways out above: a repeat waits for the answer of the first.
            if work.key.is_some_and(|key| !claimed.insert(key.key)) {
                undecided.push(work.account.clone());
                round.decided.push(Decided { work, partition_id, answer: None });
                continue;
            }
            let decided = self.decide_one(&mut round.plan, &mut touched, &work, partition_id, context);
            let answer = match decided {
                Ok(answer) => Some(answer),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            };
            round.decided.push(Decided { work, partition_id, answer });
        }
        // The append checks the partitions that it enters. What is in memory of the others may be old, or newer in a part
        // that was just read: whoever comes next must not rest on it.
        for id in undecided {
            if !round.plan.has_entered(self.memory.partition(&id)) {
                self.memory.accounts.forget(&id);
            }
        }
        for (id, (partition_id, version, changes)) in touched {
            // Rows follow from events. Without any, they stay as they are: a refusal writes nothing.
            let Some(account) = self.memory.accounts.peek(&id).filter(|account| account.version > version) else {
                continue;
            };
            if let Err(error) = round.plan.add_rows(partition_id, account, &changes, now) {
                failure = Some(error);
            }
            round.changed.entry(partition_id).or_default().push(id);
        }
        round.plan.seal();
        match failure {
            None => Ok(round),
            Some(error) => Err((round.decided.into_iter().map(|decided| decided.work).collect(), error)),
        }
    }

    fn decide_one(
        &mut self,
        plan: &mut Plan,
        touched: &mut BTreeMap<AccountId, (i16, i64, Changes)>,
        work: &Work,
        partition_id: i16,
        context: Context<'_>,
    ) -> Result<Answer, StoreError> {
        let head = plan.enter(partition_id, &self.memory.heads)?;
        let mut inbox = work.inbox.clone();
        let (result, position, outcome) = match &work.command {
            None => (Ok(Outcome::Done), head.position, Some("null".to_owned())),
            Some(command) => {
                let not_loaded = || StoreError::Corrupt(format!("account {} was not loaded", work.account));
                let account = self.memory.accounts.get_mut(&work.account).ok_or_else(not_loaded)?;
                let version = account.version;
                let fresh = || (partition_id, version, Changes::default());
                let (_, _, changes) = touched.entry(work.account.clone()).or_insert_with(fresh);
                let mut draft = Draft::new(account, changes);
                // A defect in the rules must not take the lane with it.
                let decided = catch_unwind(AssertUnwindSafe(|| decide(&mut draft, command, context)));
                let panicked = |_| StoreError::Corrupt(format!("deciding on a command of {} panicked", work.account));
                let result = decided.map_err(panicked)?;
                let events = draft.events;
                let is_linked = |link: &str| self.linked.peek(link) == Some(&work.account);
                let position = plan.add_events(partition_id, account, &events, context.now, is_linked)?;
                if let (Some(inbox), Ok(Outcome::Observed { applied })) = (&mut inbox, &result) {
                    inbox.account_id = Some(work.account.as_str().to_owned());
                    inbox.status = if *applied { InboxStatus::Applied } else { InboxStatus::Superseded };
                }
                let outcome = stored_outcome(&result);
                (result, position, outcome)
            }
        };
        if let Some(inbox) = inbox {
            plan.batch.push_inbox(partition_id, inbox);
        }
        if let Some(key) = work.key {
            plan.batch.push_key(partition_id, KeyRow { key: key.key, request: key.request, position, outcome });
        }
        Ok(Answer { result, partition_id, position, replayed: false })
    }
}

fn give_back(batch: Vec<Work>, error: impl Fn() -> AppError) {
    for work in batch {
        let _ = work.reply.send(Err(error()));
    }
}
