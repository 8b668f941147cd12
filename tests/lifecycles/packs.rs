//! Credit packs last from their purchase, however long before it the Checkout session was opened.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use subledger::domain::credit::Lot;

use crate::fold::{End, Fold};
use crate::rules::{available, end_in_any_order, told};

const DAY: i64 = 86_400;
const OPENED: i64 = 1_767_225_600;

const SELLER: &str = r#"
[features.a]
name = "A"
kind = "boolean"
[plans.free]
name = "Free"
default = true
rank = 0
credits = "none"
[credit_packs.small]
name = "Small"
credits = 500
expires_after_days = 5
prices.usd = { stripe_price_id = "price_small", currency = "usd", unit_amount = 1000 }
"#;

fn session(payment_status: &str) -> Value {
    json!({"object": "checkout.session", "id": "cs_1", "mode": "payment", "status": "complete", "created": OPENED,
        "payment_status": payment_status, "amount_total": 1000, "currency": "usd", "payment_intent": "pi_1",
        "metadata": {"credit_pack": "small"}})
}

fn lot(end: &End) -> &Lot {
    end.credits.lots.iter().chain(end.billing.closed_lots.values()).next().expect("a lot")
}

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).expect("a time")
}

#[test]
fn a_pack_that_is_paid_for_days_later_lasts_from_then_on() {
    let fold = Fold::of_seller(SELLER);
    let paid_at = OPENED + 6 * DAY;
    let events = [
        told("checkout.session.completed", OPENED + 60, session("unpaid")),
        told("checkout.session.async_payment_succeeded", paid_at, session("paid")),
    ];
    let end = end_in_any_order(&fold, paid_at + 60, &events);
    assert_eq!(available(&fold, &end, paid_at + 60), 500);
    let dates = (lot(&end).effective_at, lot(&end).expires_at);
    assert_eq!(dates, (at(paid_at), Some(at(paid_at + 5 * DAY))));
}

/// Several StripeEvents may show it paid, and any of them may come first.
#[test]
fn a_pack_lasts_from_the_first_second_in_which_it_was_shown_paid() {
    let fold = Fold::of_seller(SELLER);
    let paid_at = OPENED + DAY;
    let events = [
        told("checkout.session.completed", OPENED + 60, session("unpaid")),
        told("checkout.session.async_payment_succeeded", paid_at, session("paid")),
        told("checkout.session.async_payment_succeeded", paid_at + 2 * DAY, session("paid")),
    ];
    for now in [paid_at + 4 * DAY, paid_at + 5 * DAY, paid_at + 6 * DAY] {
        let end = end_in_any_order(&fold, now, &events);
        let dates = (lot(&end).effective_at, lot(&end).expires_at);
        assert_eq!(dates, (at(paid_at), Some(at(paid_at + 5 * DAY))));
        let left = if now < paid_at + 5 * DAY { 500 } else { 0 };
        assert_eq!((available(&fold, &end, now), lot(&end).expired), (left, 500 - left));
    }
}
