//! How often an account may call the routes that call Stripe.

use chrono::{DateTime, Duration, DurationRound, Utc};

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::ids::AccountId;
use crate::store::payment_routes;

/// What is left of an account's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallBudget {
    /// Calls within a minute.
    pub limit: i64,
    pub remaining: i64,
    /// Seconds until the minute is over.
    pub reset_seconds: i64,
    pub is_exceeded: bool,
}

impl Service {
    /// Counts a call of an account. `None`: calls are not limited.
    pub async fn count_payment_call(&self, account: &AccountId) -> Result<Option<CallBudget>, AppError> {
        let limit = i64::from(self.stripe.payment_routes_per_minute);
        if limit == 0 {
            return Ok(None);
        }
        let now = self.clock.now();
        let client = self.connection().await?;
        let counted = payment_routes::count_call(&**client, account.as_str(), minute_of(now)).await?;
        Ok(Some(budget(limit, counted, now)))
    }
}

fn minute_of(now: DateTime<Utc>) -> DateTime<Utc> {
    now.duration_trunc(Duration::minutes(1)).unwrap_or(now)
}

fn budget(limit: i64, (calls, window): (i64, DateTime<Utc>), now: DateTime<Utc>) -> CallBudget {
    let ends = window + Duration::minutes(1);
    // Rounded up: whoever waits so long is let through.
    let reset_seconds = (ends - now + Duration::milliseconds(999)).num_seconds().max(1);
    CallBudget { limit, remaining: (limit - calls).max(0), reset_seconds, is_exceeded: calls > limit }
}
