//! What a simulated account is set to.

use crate::shape::ApiVersion;

#[derive(Debug, Clone)]
pub struct Settings {
    /// The same seed and the same requests give the same ids.
    pub seed: u64,
    /// The account's API version: of events, and of answers to requests that name none.
    pub api_version: ApiVersion,
    /// Where the hosted pages are: `http://127.0.0.1:12111`.
    pub base_url: String,
    pub account_name: String,
    /// How long a renewal's invoice stays a draft.
    pub draft_s: i64,
    /// When `invoice.upcoming` comes before a renewal.
    pub upcoming_days: i64,
    pub dunning: Dunning,
}

/// What follows a payment that fails.
#[derive(Debug, Clone)]
pub struct Dunning {
    /// Days from each try to the next.
    pub retry_days: Vec<i64>,
    pub after_the_last: AfterTheLast,
}

/// What becomes of the subscription when no try succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterTheLast {
    Cancel,
    MarkUnpaid,
    LeavePastDue,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            api_version: ApiVersion::default(),
            base_url: "http://127.0.0.1:12111".to_owned(),
            account_name: "Simulated Seller".to_owned(),
            draft_s: 3_600,
            upcoming_days: 7,
            dunning: Dunning { retry_days: vec![3, 5, 7], after_the_last: AfterTheLast::Cancel },
        }
    }
}
