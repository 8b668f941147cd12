//! What can go wrong between us and Postgres.

use tokio_postgres::error::SqlState;

/// A failed use of the store.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it broke, or the server is going away: try again later.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// The connection broke while the transaction committed, and its fate could not be found out.
    #[error("the outcome is unknown; retry with the same key")]
    OutcomeUnknown,
    /// Two writers claimed the same key at the same time.
    #[error("a key was claimed meanwhile: {0}")]
    Conflict(String),
    /// The server refused a statement.
    #[error("the database refused: {0}")]
    Refused(String),
    /// A stored row cannot be read.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
}

impl StoreError {
    /// Whether the same may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::OutcomeUnknown | Self::Conflict(_))
    }
}

/// The server's own words, which the driver's `Display` leaves out.
fn explain(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            text
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = explain(&error);
        let Some(code) = error.code() else { return Self::Unavailable(text) };
        // Classes: 08 connection, 25 transaction state (a server that is read-only as yet), 40 rollback, 53 resources,
        // 55 object state, 57 operator intervention, 58 system. None of them is the fault of what was asked.
        let class = &code.code()[..2];
        if *code == SqlState::UNIQUE_VIOLATION {
            Self::Conflict(text)
        } else if matches!(class, "08" | "25" | "40" | "53" | "55" | "57" | "58") {
            Self::Unavailable(text)
        } else {
            Self::Refused(text)
        }
    }
}

impl From<deadpool_postgres::PoolError> for StoreError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Corrupt(error.to_string())
    }
}
