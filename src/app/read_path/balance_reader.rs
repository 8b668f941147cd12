//! Reading accounts from the database: whoever asks at the same time shares one query.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{Object, Pool};
use tokio::sync::{mpsc, oneshot};

use super::balance_cache::{Balance, BalanceCache};
use crate::app::error::AppError;
use crate::domain::ids::AccountId;
use crate::store::error::StoreError;
use crate::store::partition::partition_of;
use crate::store::read::{self, Seen};

/// Questions waiting at once.
const QUEUE: usize = 8_192;
/// Accounts read by one query.
const MAX_BATCH: usize = 512;
/// A database that is silent for so long is given up, so that whoever asks next has a chance.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// An account as the database had it, after it was asked for.
#[derive(Debug, Clone)]
pub struct Reading {
    /// `None`: nothing is known of the account.
    pub balance: Option<Arc<Balance>>,
    /// How far its partition was.
    pub position: i64,
    /// Where the catalog in force stood.
    pub catalog_position: i64,
    /// What it shows is no older than this.
    pub read_at: Instant,
}

type Answer = Result<Reading, StoreError>;
type Question = (AccountId, oneshot::Sender<Answer>);

/// Reads accounts, a batch at a time, and puts them into the cache.
#[derive(Debug)]
pub struct BalanceReader {
    questions: mpsc::Sender<Question>,
}

impl BalanceReader {
    /// Starts the reader's task, which ends with the reader.
    pub fn start(pool: Pool, cache: Arc<BalanceCache>, partitions: i16) -> Self {
        let (questions, queue) = mpsc::channel(QUEUE);
        tokio::spawn(answer(pool, cache, partitions, queue));
        Self { questions }
    }

    /// Reads an account as it is now: never what was read before the question.
    pub async fn read(&self, id: &AccountId) -> Result<Reading, AppError> {
        let (reply, answer) = oneshot::channel();
        self.questions.try_send((id.clone(), reply)).map_err(|_| AppError::Overloaded)?;
        Ok(answer.await.map_err(|_| AppError::Stopping)??)
    }
}

async fn answer(pool: Pool, cache: Arc<BalanceCache>, partitions: i16, mut queue: mpsc::Receiver<Question>) {
    let mut questions: Vec<Question> = Vec::new();
    while queue.recv_many(&mut questions, MAX_BATCH).await > 0 {
        let mut ids: Vec<AccountId> = questions.iter().map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        let answers = read(&pool, &cache, partitions, &ids).await;
        for (id, reply) in questions.drain(..) {
            let answer = match &answers {
                Ok(answers) => answers.get(&id).cloned().unwrap_or_else(|| Err(no_head(&id))),
                Err(error) => Err(error.clone()),
            };
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }
}

fn no_head(id: &AccountId) -> StoreError {
    StoreError::Corrupt(format!("the partition of {id} has no head"))
}

async fn read(
    pool: &Pool,
    cache: &BalanceCache,
    partitions: i16,
    ids: &[AccountId],
) -> Result<HashMap<AccountId, Answer>, StoreError> {
    let client = pool.get().await?;
    let names: Vec<&str> = ids.iter().map(AccountId::as_str).collect();
    let homes: Vec<i16> = names.iter().map(|name| partition_of(name, partitions)).collect();
    let load = cache.begin_load(ids);
    let read_at = Instant::now();
    let Ok(seen) = tokio::time::timeout(READ_TIMEOUT, read::balances(&**client, &names, &homes)).await else {
        // Not back into the pool: it may answer yet.
        drop(Object::take(client));
        return Err(StoreError::Unavailable(format!("no answer within {} s", READ_TIMEOUT.as_secs())));
    };
    let answers = seen?.into_iter().map(|Seen { id, partition_id, position, catalog_position, account }| {
        let reading = account.map(|account| {
            let balance = account
                .map(|account| Balance::new(&id, account.version, &account.credits, partition_id, position))
                .map(Arc::new)
                .inspect(|balance| load.keep(&id, balance));
            Reading { balance, position, catalog_position, read_at }
        });
        (id, reading)
    });
    Ok(answers.collect())
}
