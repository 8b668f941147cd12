//! A circuit breaker: after so many failures in a row, calls fail at once for a while, and then one tries.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Open after `failures` in a row, for `pause`.
#[derive(Debug)]
pub struct Breaker {
    failures: u32,
    pause: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed {
        failed: u32,
    },
    Open {
        since: Instant,
    },
    /// One call is under way that decides.
    HalfOpen,
}

/// The right to make one attempt. Dropped without a word, it says nothing about Stripe.
#[derive(Debug)]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    is_probe: bool,
    is_told: bool,
}

impl Breaker {
    pub fn new(failures: u32, pause: Duration) -> Self {
        Self { failures: failures.max(1), pause, state: Mutex::new(State::Closed { failed: 0 }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an attempt through, or says how long none will be.
    ///
    /// # Errors
    /// The time until the next attempt may be made.
    pub fn admit(&self, now: Instant) -> Result<Permit<'_>, Duration> {
        let mut state = self.state();
        let is_probe = match *state {
            State::Closed { .. } => false,
            State::Open { since } => {
                let open_for = now.saturating_duration_since(since);
                if open_for < self.pause {
                    return Err(self.pause - open_for);
                }
                *state = State::HalfOpen;
                true
            }
            State::HalfOpen => return Err(self.pause),
        };
        Ok(Permit { breaker: self, is_probe, is_told: false })
    }

    /// 0 closed, 1 half open, 2 open.
    pub fn level(&self) -> i64 {
        match *self.state() {
            State::Closed { .. } => 0,
            State::HalfOpen => 1,
            State::Open { .. } => 2,
        }
    }
}

impl Permit<'_> {
    /// Stripe answered.
    pub fn succeeded(mut self) {
        self.is_told = true;
        *self.breaker.state() = State::Closed { failed: 0 };
    }

    /// Stripe did not answer, or with an error of its own.
    pub fn failed(mut self, now: Instant) {
        self.is_told = true;
        let mut state = self.breaker.state();
        *state = match *state {
            State::Closed { failed } if failed + 1 < self.breaker.failures => State::Closed { failed: failed + 1 },
            State::Closed { .. } | State::HalfOpen => State::Open { since: now },
            // An attempt of before that took its time.
            State::Open { since } => State::Open { since },
        };
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        // An attempt that was given up must not leave the breaker waiting for its outcome for ever.
        if self.is_probe && !self.is_told {
            let long_ago = Instant::now().checked_sub(self.breaker.pause).unwrap_or_else(Instant::now);
            *self.breaker.state() = State::Open { since: long_ago };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn fail(breaker: &Breaker, now: Instant) {
        breaker.admit(now).expect("let through").failed(now);
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_success_closes_it() {
        let (breaker, start) = (Breaker::new(3, PAUSE), Instant::now());
        fail(&breaker, start);
        fail(&breaker, start);
        breaker.admit(start).expect("let through").succeeded();
        fail(&breaker, start);
        fail(&breaker, start);
        assert_eq!(breaker.level(), 0, "the success between began the count anew");
        fail(&breaker, start);
        assert_eq!(breaker.level(), 2);
        assert_eq!(breaker.admit(start + PAUSE / 2).expect_err("none is let through"), PAUSE / 2);
        let probe = breaker.admit(start + PAUSE).expect("one may try");
        assert!(breaker.admit(start + PAUSE).is_err(), "and only one");
        probe.succeeded();
        assert_eq!(breaker.level(), 0);
    }

    #[test]
    fn a_probe_that_fails_opens_it_for_as_long_again_and_one_given_up_lets_the_next_try() {
        let (breaker, start) = (Breaker::new(1, Duration::ZERO), Instant::now());
        fail(&breaker, start);
        drop(breaker.admit(start).expect("one may try"));
        fail(&breaker, start);
        assert_eq!(breaker.level(), 2);
        let breaker = Breaker::new(1, PAUSE);
        fail(&breaker, start);
        fail(&breaker, start + PAUSE);
        assert!(breaker.admit(start + PAUSE + PAUSE / 2).is_err());
        breaker.admit(start + PAUSE + PAUSE).expect("one may try").succeeded();
    }
}
