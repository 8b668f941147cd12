//! Time that stands until a test moves it, and breaks when a test wants to see something break.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use chrono::{DateTime, Duration, Utc};
use subledger::clock::{Clock, ManualClock};

/// 2026-01-15 12:00 UTC: when every story begins.
pub const START: i64 = 1_768_478_400;

/// A moment so many days after the start, in Unix seconds.
pub fn day(days: i64) -> i64 {
    START + days * 86_400
}

/// A Unix second as the API writes it.
pub fn rfc3339(seconds: i64) -> String {
    let at = DateTime::from_timestamp(seconds, 0).expect("a time");
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

#[derive(Debug)]
pub struct TestClock {
    time: ManualClock,
    is_broken: AtomicBool,
    /// So many are still told the time of a broken clock.
    spared: AtomicU32,
}

impl TestClock {
    pub fn new() -> Self {
        let start = DateTime::from_timestamp(START, 0).expect("a time");
        Self { time: ManualClock::new(start), is_broken: AtomicBool::new(false), spared: AtomicU32::new(0) }
    }

    /// Jumps to a Unix second, backwards too.
    pub fn set(&self, seconds: i64) {
        self.time.set(DateTime::from_timestamp(seconds, 0).expect("a time"));
    }

    pub fn advance(&self, by: Duration) {
        self.time.set(self.time.now() + by);
    }

    /// From now on whoever asks for the time panics: a stand-in for any defect.
    pub fn break_down(&self) {
        self.is_broken.store(true, Ordering::SeqCst);
    }

    /// The same, once so many more have asked.
    pub fn break_down_after(&self, spared: u32) {
        self.spared.store(spared, Ordering::SeqCst);
        self.break_down();
    }

    pub fn repair(&self) {
        self.is_broken.store(false, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        let is_spared = || {
            let one_less = |spared: u32| spared.checked_sub(1);
            self.spared.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
        };
        assert!(!self.is_broken.load(Ordering::SeqCst) || is_spared(), "the test's clock is broken");
        self.time.now()
    }
}
