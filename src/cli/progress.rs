//! How far long work is: a bar on a terminal, nothing elsewhere.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use subledger::app::upkeep::verify::Progress;

/// A bar that is gone when this is.
pub struct Bar(ProgressBar);

impl Bar {
    /// `verb` says what is being done to events.
    pub fn new(verb: &'static str) -> Self {
        // Drawn on standard error, and only if that is a terminal.
        let bar = ProgressBar::no_length();
        let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos} of {human_len} events, {eta} left");
        Self(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(verb))
    }

    pub fn progress(&self) -> Progress {
        let bar = self.0.clone();
        Arc::new(move |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Counts what has no end that is known; gone when this is.
pub struct Counter(ProgressBar);

impl Counter {
    /// `what` is counted.
    pub fn new(what: &'static str) -> Self {
        let bar = ProgressBar::new_spinner();
        let style = ProgressStyle::with_template("{spinner} {human_pos} {msg}, {elapsed}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner())).with_message(what);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    pub fn progress(&self) -> Progress {
        let bar = self.0.clone();
        Arc::new(move |done, _| bar.set_position(done))
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
