//! What the clock will bring.

use super::World;

/// When, which of those at the same time, and what.
pub type Entry = (i64, u64, Task);

/// Something that is due at its time if it still is: whoever carries it out looks at the object first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    CancelSubscription(String),
    EndPeriod(String),
    EnterPhase(String),
    ExpireIncomplete(String),
    ExpireSession(String),
    ExpireUpdate(String),
    FinalizeInvoice(String),
    ResumeCollection(String),
    RetryInvoice(String),
    TellUpcoming(String),
    WarnOfTrialEnd(String),
}

impl World {
    pub(crate) fn schedule(&mut self, at: i64, task: Task) {
        self.agenda_entries += 1;
        self.agenda.insert((at, self.agenda_entries, task));
    }

    /// Lets time pass: what becomes due meanwhile happens at its own time. Time does not go back.
    pub fn advance_to(&mut self, moment: i64) {
        let cause = std::mem::replace(&mut self.cause, super::no_cause());
        while let Some(entry) = self.agenda.first().filter(|(at, ..)| *at <= moment).cloned() {
            self.agenda.remove(&entry);
            let (at, _, task) = entry;
            self.now = self.now.max(at);
            self.carry_out(task);
        }
        self.now = self.now.max(moment);
        self.cause = cause;
    }

    /// When the next thing becomes due.
    pub fn next_due(&self) -> Option<i64> {
        self.agenda.first().map(|(at, ..)| *at)
    }

    fn carry_out(&mut self, task: Task) {
        match task {
            Task::CancelSubscription(id) => self.cancel_when_due(&id),
            Task::EndPeriod(id) => self.end_period_when_due(&id),
            Task::EnterPhase(id) => self.enter_phase_when_due(&id),
            Task::ExpireIncomplete(id) => self.expire_incomplete(&id),
            Task::ExpireSession(id) => self.expire_session_when_due(&id),
            Task::ExpireUpdate(id) => self.expire_update_when_due(&id),
            Task::FinalizeInvoice(id) => self.finalize_when_due(&id),
            Task::ResumeCollection(id) => self.resume_collection_when_due(&id),
            Task::RetryInvoice(id) => self.retry_when_due(&id),
            Task::TellUpcoming(id) => self.tell_upcoming(&id),
            Task::WarnOfTrialEnd(id) => self.warn_of_trial_end(&id),
        }
    }
}
