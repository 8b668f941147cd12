//! What callers are told of through webhooks: types, filters, and when a delivery is tried again.

use chrono::TimeDelta;

/// Types of the log's own events, as the feed names them, and of notifications.
pub const MESSAGE_TYPES: &[&str] = &[
    "account_absorbed",
    "account_merged",
    "account_opened",
    "account_reinstated",
    "account_suspended",
    "active_entitlements_observed",
    "allowance_advanced",
    "allowance_armed",
    "catalog_applied",
    "catalog_object_observed",
    "charge_observed",
    "charge_rejected",
    "checkout_session_observed",
    "credit_note_observed",
    "credits_clawed_back",
    "credits_debited",
    "credits_expired",
    "credits_granted",
    "credits_reinstated",
    "customer_linked",
    "customer_observed",
    "debt_repaid",
    "dispute_observed",
    "hold_captured",
    "hold_expired",
    "hold_extended",
    "hold_placed",
    "hold_released",
    "invoice_observed",
    "invoice_payment_observed",
    "lot_amended",
    "low_balance_set",
    "notification.action_required",
    "notification.low_balance",
    "notification.payment_failed",
    "notification.refunded",
    "notification.subscription_ended",
    "notification.trial_ending",
    "notification.webhook_endpoint_disabled",
    "override_removed",
    "override_set",
    "payment_intent_observed",
    "payment_method_observed",
    "reconciled",
    "refund_observed",
    "subscription_credits_ended",
    "subscription_observed",
    "subscription_schedule_observed",
    "upcoming_invoice_observed",
    "usage_recorded",
];

/// Whether a filter stands for a type at all: it names one, or the beginning of some, as `notification.*` does.
pub fn is_known_filter(filter: &str) -> bool {
    MESSAGE_TYPES.iter().any(|known| fits(filter, known))
}

/// Whether filters let a type through. None of them: all types.
pub fn wants(filters: &[String], message_type: &str) -> bool {
    filters.is_empty() || filters.iter().any(|filter| fits(filter, message_type))
}

fn fits(filter: &str, message_type: &str) -> bool {
    match filter.strip_suffix('*') {
        Some(beginning) => message_type.starts_with(beginning),
        None => filter == message_type,
    }
}

/// Waiting times after the first failed attempt, the second, and so on, in seconds: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h,
/// 20 h, 24 h. So there are ten attempts within a little more than three days, as Standard Webhooks recommends
/// (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md#deliverability-and-reliability>).
pub const RETRY_AFTER_S: [i64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];

/// How long to wait after so many failed attempts; `None`: that was the last. `jitter`, from 0 to 1, spreads those who failed
/// together over a fifth of the time more.
pub fn retry_after(attempts: u32, jitter: f64) -> Option<TimeDelta> {
    let seconds = RETRY_AFTER_S.get(usize::try_from(attempts).ok()?.checked_sub(1)?)?;
    let spread = (*seconds as f64 * 0.2 * jitter.clamp(0.0, 1.0) * 1_000.0) as i64;
    Some(TimeDelta::milliseconds(seconds * 1_000 + spread))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_name_types_or_beginnings_of_them() {
        let filters = ["credits_debited".to_owned(), "notification.*".to_owned()];
        assert!(wants(&filters, "credits_debited") && wants(&filters, "notification.refunded"));
        assert!(!wants(&filters, "credits_granted") && wants(&[], "credits_granted"));
        assert!(is_known_filter("*") && is_known_filter("credits_*") && is_known_filter("hold_placed"));
        assert!(!is_known_filter("credit") && !is_known_filter("invoice.paid*") && !is_known_filter(""));
    }

    #[test]
    fn ten_attempts_take_three_days() {
        let waits: Vec<TimeDelta> = (1..).map_while(|attempts| retry_after(attempts, 0.0)).collect();
        assert_eq!(waits.len(), 9);
        let total = waits.iter().sum::<TimeDelta>();
        assert!(total > TimeDelta::days(3) && total < TimeDelta::days(4), "{total}");
        assert_eq!(retry_after(1, 1.0), Some(TimeDelta::seconds(6)));
        assert_eq!((retry_after(0, 0.0), retry_after(10, 0.0)), (None, None));
    }

    /// A type that is added to the log is to be added here.
    #[test]
    fn every_event_of_the_log_is_a_message_type() {
        assert!(MESSAGE_TYPES.is_sorted());
        let source = include_str!("event.rs");
        let names = source.lines().filter_map(|line| line.trim().split_once("=> \"")?.1.strip_suffix("\","));
        let names: Vec<&str> = names.collect();
        assert!(names.len() > 35, "only {names:?} were found");
        for name in names {
            assert!(MESSAGE_TYPES.contains(&name), "{name} is no message type");
        }
    }
}
