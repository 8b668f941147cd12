//! How the program ends, for scripts.

use std::process::ExitCode;

use subledger::app::error::AppError;
use subledger::app::settings::SettingsError;
use subledger::startup::StartError;
use subledger::store::error::StoreError;
use subledger::stripe::client::StripeCallError;

/// An exit code. Those from 64 on are of `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Success = 0,
    Negative = 1,
    Usage = 2,
    Unavailable = 69,
    Internal = 70,
    Config = 78,
}

impl Exit {
    const ALL: [Exit; 6] =
        [Self::Success, Self::Negative, Self::Usage, Self::Unavailable, Self::Internal, Self::Config];

    fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done",
            Self::Negative => "the answer is no: a difference was found, something does not exist, or it was refused",
            Self::Usage => "the command line is wrong",
            Self::Unavailable => {
                "the database, Stripe, or the service that was asked, cannot be reached; try again later"
            }
            Self::Internal => "something that must not happen; the message says what",
            Self::Config => "a setting or a file is wrong; the message names it",
        }
    }

    /// The answer is no, or it is done.
    pub fn unless(is_negative: bool) -> ExitCode {
        if is_negative { Self::Negative } else { Self::Success }.into()
    }

    /// All of them, for `--help`.
    pub fn help() -> String {
        let lines = Self::ALL.map(|exit| format!("  {:<6}{}\n", exit as u8, exit.meaning()));
        format!("Exit codes:\n{}", lines.concat())
    }

    /// How to end after an error.
    pub fn of(error: &StartError) -> Self {
        match error {
            StartError::Argument { .. } => Self::Usage,
            StartError::Config(_)
            | StartError::OpenToAll(_)
            | StartError::Catalog { .. }
            | StartError::CatalogFile { .. } => Self::Config,
            StartError::Settings(SettingsError::Sealing { .. }) => Self::Config,
            StartError::Embedded(_) | StartError::Listen { .. } => Self::Unavailable,
            StartError::Store(error)
            | StartError::Settings(SettingsError::Store(error))
            | StartError::App(AppError::Store(error)) => Self::of_store(error),
            StartError::Stripe(error) | StartError::App(AppError::Stripe(error)) => Self::of_stripe(error),
            StartError::App(AppError::Poisoned(_)) => Self::Internal,
            StartError::App(AppError::Overloaded | AppError::Stopping) => Self::Unavailable,
            StartError::App(_) => Self::Negative,
        }
    }

    fn of_stripe(error: &StripeCallError) -> Self {
        match error {
            StripeCallError::NotConfigured => Self::Config,
            StripeCallError::Refused(refusal) if refusal.is_our_key() => Self::Config,
            StripeCallError::Refused(_) => Self::Negative,
            StripeCallError::Unavailable { .. } => Self::Unavailable,
            StripeCallError::Unreadable(_) => Self::Internal,
        }
    }

    fn of_store(error: &StoreError) -> Self {
        match error {
            StoreError::Refused(_) | StoreError::Corrupt(_) => Self::Internal,
            StoreError::Unavailable(_) | StoreError::Conflict(_) | StoreError::OutcomeUnknown => Self::Unavailable,
        }
    }
}

/// What helps against an error whose own words do not say.
pub fn cure(error: &StartError) -> &'static str {
    match error {
        StartError::Store(StoreError::Unavailable(_))
        | StartError::Settings(SettingsError::Store(StoreError::Unavailable(_)))
        | StartError::App(AppError::Store(StoreError::Unavailable(_))) => {
            "; see that DATABASE_URL is right and its server runs"
        }
        _ => "",
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
