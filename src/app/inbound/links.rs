//! Where Stripe ids lead: kept in memory where it helps, read in batches where it does not.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use deadpool_postgres::Pool;
use lru::LruCache;
use tokio::sync::{mpsc, oneshot};

use crate::app::error::AppError;
use crate::domain::ids::AccountId;
use crate::store::error::StoreError;
use crate::store::load;

/// Stripe ids whose account is kept in memory.
const CACHED_LINKS: NonZeroUsize = NonZeroUsize::new(200_000).expect("not zero");
/// Questions waiting at once.
const QUEUE: usize = 8_192;
/// Questions answered by one query.
const MAX_BATCH: usize = 512;

type Links = HashMap<String, AccountId>;
type Reply = oneshot::Sender<Result<Links, StoreError>>;

/// Looks Stripe ids up. A thousand webhooks that ask at once cost a few queries, not a thousand.
#[derive(Debug)]
pub struct LinkReader {
    known: Mutex<LruCache<String, AccountId>>,
    questions: mpsc::Sender<(Vec<String>, Reply)>,
}

impl LinkReader {
    /// Starts the reader's task, which ends with the reader.
    pub fn start(pool: Pool) -> Self {
        let (questions, queue) = mpsc::channel(QUEUE);
        tokio::spawn(answer(pool, queue));
        Self { known: Mutex::new(LruCache::new(CACHED_LINKS)), questions }
    }

    /// Where these ids lead, as far as they lead anywhere.
    pub async fn owners(&self, stripe_ids: &[String]) -> Result<Links, AppError> {
        let mut owners = Links::new();
        let mut unknown = Vec::new();
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            for id in stripe_ids {
                match known.get(id) {
                    Some(account) => {
                        owners.insert(id.clone(), account.clone());
                    }
                    None => unknown.push(id.clone()),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(owners);
        }
        let (reply, answer) = oneshot::channel();
        self.questions.try_send((unknown, reply)).map_err(|_| AppError::Overloaded)?;
        let found = answer.await.map_err(|_| AppError::Stopping)??;
        self.remember(found.iter().map(|(id, account)| (id.clone(), account.clone())));
        owners.extend(found);
        Ok(owners)
    }

    /// Keeps in memory where Stripe ids lead. Only customers are worth it: other ids are rarely asked for twice.
    pub fn remember(&self, links: impl Iterator<Item = (String, AccountId)>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, account) in links.filter(|(id, _)| id.starts_with("cus_")) {
            known.put(id, account);
        }
    }

    /// Looks these ids up afresh next time.
    pub fn forget(&self, stripe_ids: &[String]) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        for id in stripe_ids {
            known.pop(id);
        }
    }
}

async fn answer(pool: Pool, mut queue: mpsc::Receiver<(Vec<String>, Reply)>) {
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, MAX_BATCH).await > 0 {
        let ids: Vec<String> = batch.iter().flat_map(|(ids, _)| ids.iter().cloned()).collect();
        let found = read(&pool, &ids).await;
        for (ids, reply) in batch.drain(..) {
            let answer = match &found {
                Ok(found) => Ok(ids.into_iter().filter_map(|id| found.get_key_value(&id)).map(own).collect()),
                Err(error) => Err(StoreError::Unavailable(error.to_string())),
            };
            // Whoever asked may have gone.
            let _ = reply.send(answer);
        }
    }
}

async fn read(pool: &Pool, ids: &[String]) -> Result<Links, StoreError> {
    let client = pool.get().await?;
    load::links(&**client, ids).await
}

fn own((id, account): (&String, &AccountId)) -> (String, AccountId) {
    (id.clone(), account.clone())
}
