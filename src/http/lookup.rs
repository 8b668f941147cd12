//! What was asked of the database a moment ago, and is asked again by one while all others go on.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::store::error::StoreError;

/// How long an answer is taken from memory: a change takes effect within this time.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// From this age on, one of those who need an answer asks again, and the others take the old one.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(4);
/// Answers remembered at most.
const MAX_KEPT: usize = 10_000;
/// Where those wait who need an answer that nobody has: one of them asks for all.
const GATES: usize = 64;

/// When an asking failed last, and how.
type Failure = Option<(Instant, StoreError)>;

/// Answers by what was asked.
#[derive(Debug)]
pub struct Lookup<K, T> {
    kept: Mutex<HashMap<K, Kept<T>>>,
    gates: Vec<tokio::sync::Mutex<Failure>>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Kept<T> {
    answer: T,
    asked_at: Instant,
    is_asked_again: bool,
}

impl<K: Hash + Eq + Copy, T: Copy> Lookup<K, T> {
    pub fn new() -> Self {
        let gates = (0..GATES).map(|_| tokio::sync::Mutex::default()).collect();
        Self { kept: Mutex::default(), gates, hasher: RandomState::new() }
    }

    /// Drops all answers.
    pub fn forget(&self) {
        self.kept().clear();
    }

    /// The answer for a key, no older than five seconds.
    pub async fn get(&self, key: K, ask: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some((answer, is_due)) = self.recall(&key) {
            if !is_due {
                return Ok(answer);
            }
            // If it cannot be asked again, the old answer is good still.
            return Ok(self.ask(key, &ask).await.unwrap_or(answer));
        }
        let arrived = Instant::now();
        let gate = self.hasher.hash_one(key) as usize % self.gates.len();
        let mut failure = self.gates[gate].lock().await;
        if let Some((answer, _)) = self.recall(&key) {
            return Ok(answer);
        }
        // Whoever waited for one that failed has failed, too: else each would try, one after the other.
        if let Some((_, error)) = failure.as_ref().filter(|(failed_at, _)| *failed_at >= arrived) {
            return Err(error.clone());
        }
        let asked = self.ask(key, &ask).await;
        *failure = asked.as_ref().err().map(|error| (Instant::now(), error.clone()));
        asked
    }

    /// The answer for a key, if it is remembered and nobody has to ask again yet.
    pub fn fresh(&self, key: &K) -> Option<T> {
        let kept = self.kept();
        kept.get(key).filter(|known| known.asked_at.elapsed() < ASKED_AGAIN_AFTER).map(|known| known.answer)
    }

    async fn ask(&self, key: K, ask: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let asked_at = Instant::now();
        let asked = ask().await;
        let mut kept = self.kept();
        match &asked {
            Ok(answer) => {
                if kept.len() >= MAX_KEPT {
                    kept.clear();
                }
                kept.insert(key, Kept { answer: *answer, asked_at, is_asked_again: false });
            }
            Err(_) => {
                if let Some(known) = kept.get_mut(&key) {
                    known.is_asked_again = false;
                }
            }
        }
        asked
    }

    /// What is remembered, and whether it falls to this caller to ask again.
    fn recall(&self, key: &K) -> Option<(T, bool)> {
        let mut kept = self.kept();
        let known = kept.get_mut(key)?;
        let age = known.asked_at.elapsed();
        let is_due = age >= ASKED_AGAIN_AFTER && !known.is_asked_again;
        known.is_asked_again |= is_due && age < KEPT_FOR;
        (age < KEPT_FOR).then_some((known.answer, is_due))
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<K, Kept<T>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq + Copy, T: Copy> Default for Lookup<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    async fn ask_all(lookup: &Lookup<u8, bool>, asked: &AtomicUsize, answer: Result<bool, StoreError>) -> Vec<bool> {
        let ask = async || {
            asked.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            answer.clone()
        };
        let answers = join_all((0..100).map(|_| lookup.get(1, &ask))).await;
        answers.into_iter().map(|answer| answer.is_ok_and(|answer| answer)).collect()
    }

    fn age(lookup: &Lookup<u8, bool>, by: Duration) {
        for known in lookup.kept().values_mut() {
            known.asked_at = known.asked_at.checked_sub(by).expect("the machine runs for a while");
        }
    }

    #[tokio::test]
    async fn of_many_who_need_an_answer_one_asks() {
        let (lookup, asked) = (Lookup::new(), AtomicUsize::new(0));
        assert_eq!(ask_all(&lookup, &asked, Ok(true)).await, [true; 100]);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        age(&lookup, ASKED_AGAIN_AFTER);
        assert_eq!(ask_all(&lookup, &asked, Ok(true)).await, [true; 100]);
        assert_eq!(asked.load(Ordering::Relaxed), 2, "asked again by one, while it was known still");
        age(&lookup, KEPT_FOR);
        assert_eq!(ask_all(&lookup, &asked, Ok(false)).await, [false; 100], "no older answer is given");
        assert_eq!(asked.load(Ordering::Relaxed), 3);
        lookup.forget();
        ask_all(&lookup, &asked, Ok(true)).await;
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn a_failure_is_shared_by_those_who_wait_for_it_and_not_remembered() {
        let (lookup, asked) = (Lookup::new(), AtomicUsize::new(0));
        let away = || Err(StoreError::Unavailable("away".to_owned()));
        assert_eq!(ask_all(&lookup, &asked, away()).await, [false; 100]);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert_eq!(ask_all(&lookup, &asked, Ok(true)).await, [true; 100]);
        age(&lookup, ASKED_AGAIN_AFTER);
        assert_eq!(ask_all(&lookup, &asked, away()).await, [true; 100], "the old answer is good still");
    }
}
