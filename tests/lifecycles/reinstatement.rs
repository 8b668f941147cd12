//! Credits that a refund or dispute took for a while, and that came back after their lot had expired.

use serde_json::{Value, json};
use subledger::domain::credit::LotSource;

use crate::fold::{End, Fold, account};
use crate::rules::{
    FEBRUARY, JANUARY, MARCH, ROLLING_OVER, available, debit, end_in_any_order, intent, invoice, play, refund,
    subscription, told,
};

const DAY: i64 = 86_400;

/// January's credits, and a dispute of half of its price that was won after it.
fn taken_for_a_while(more: &[Value]) -> Vec<Value> {
    let dispute = |status: &str, reason: &str| {
        json!({"object": "dispute", "id": "dp_1", "payment_intent": "pi_in_1", "currency": "usd", "amount": 1450,
            "status": status, "reason": reason, "created": JANUARY + 6 * DAY})
    };
    let mut events = vec![
        told("invoice.paid", JANUARY, invoice("in_1", "price_small", JANUARY, FEBRUARY)),
        told("payment_intent.succeeded", JANUARY, intent("pi_in_1", 2900)),
        told("charge.dispute.created", JANUARY + 6 * DAY, dispute("needs_response", "general")),
        told("charge.dispute.closed", MARCH, dispute("won", "general")),
        told("charge.dispute.updated", MARCH + 3 * DAY, dispute("won", "fraudulent")),
    ];
    events.extend_from_slice(more);
    events
}

fn fold() -> Fold {
    Fold::of_seller(&ROLLING_OVER.replace("rollover = { cap = 30 }\n", ""))
}

/// What was reinstated: credits, and when they began and end.
fn reinstated(end: &End) -> Vec<(i64, i64, i64)> {
    let lots = end.credits.lots.iter().chain(end.billing.closed_lots.values());
    let lots = lots.filter(|lot| lot.source == LotSource::Reinstatement);
    let mut lots: Vec<_> = lots
        .map(|lot| {
            (lot.granted, lot.effective_at.timestamp(), lot.expires_at.map_or(i64::MAX, |expires| expires.timestamp()))
        })
        .collect();
    lots.sort_unstable();
    lots
}

#[test]
fn what_comes_back_after_its_lot_expired_is_good_for_as_long_as_that_had_left() {
    let fold = fold();
    let now = MARCH + 4 * DAY;
    let end = end_in_any_order(&fold, now, &taken_for_a_while(&[]));
    assert_eq!(reinstated(&end), [(50, MARCH, MARCH + 25 * DAY)], "half of January's 100, taken on its seventh day");
    assert_eq!(available(&fold, &end, now), 50);
    assert_eq!(available(&fold, &end, MARCH + 25 * DAY), 0);

    // The subscription had ended before February; so its credits had less time left.
    let canceled = subscription(json!({"id": "price_small"}), JANUARY, JANUARY + 16 * DAY, "canceled");
    let canceled = told("customer.subscription.deleted", JANUARY + 16 * DAY, canceled);
    let end = end_in_any_order(&fold, now, &taken_for_a_while(&[canceled]));
    assert_eq!(reinstated(&end), [(50, MARCH, MARCH + 10 * DAY)]);

    // Or before they were taken; so nothing was.
    let canceled = subscription(json!({"id": "price_small"}), JANUARY, JANUARY + 5 * DAY, "canceled");
    let canceled = told("customer.subscription.deleted", JANUARY + 5 * DAY, canceled);
    let end = end_in_any_order(&fold, now, &taken_for_a_while(&[canceled]));
    assert_eq!(reinstated(&end), []);
}

#[test]
fn no_more_comes_back_than_expired_whatever_took_it() {
    let fold = fold();
    let now = MARCH + 4 * DAY;
    let refund = |id: &str, status: &str, amount: i64, at: i64| {
        let created = JANUARY + 9 * DAY;
        let more = json!({"payment_intent": "pi_in_1", "amount": amount, "status": status, "created": created});
        told("refund.updated", at, refund(id, more))
    };
    // Three quarters, which failed, and an eighth for good.
    let failed = refund("re_1", "failed", 2175, MARCH + DAY);
    let good = refund("re_2", "succeeded", 363, MARCH + 2 * DAY);
    let end = end_in_any_order(&fold, now, &taken_for_a_while(&[failed, good]));
    let expected = [(38, MARCH + DAY, MARCH + 23 * DAY), (50, MARCH, MARCH + 25 * DAY)];
    assert_eq!(reinstated(&end), expected, "of 100, 12 went for good and the dispute was first to take 50");

    // What was spent of it does not come back.
    let events = taken_for_a_while(&[]);
    let mut account = account("user_1");
    play(&fold, &mut account, JANUARY + 1, &events[..2]);
    debit(&fold, &mut account, 80, JANUARY + 2);
    play(&fold, &mut account, now, &events[2..]);
    assert_eq!(account.credits.available_at(fold.context_at(now).now), 20);
}

#[test]
fn what_was_spent_of_a_reinstated_lot_stays_spent_when_late_news_lessens_it() {
    let fold = fold();
    let now = MARCH + 4 * DAY;
    let mut account = account("user_1");
    play(&fold, &mut account, now, &taken_for_a_while(&[]));
    debit(&fold, &mut account, 30, now);
    let more = json!({"payment_intent": "pi_in_1", "amount": 2900, "created": MARCH});
    play(&fold, &mut account, now + 1, &[told("refund.created", MARCH + 4 * DAY, refund("re_1", more))]);
    assert_eq!((account.credits.available_at(fold.context_at(now + 1).now), account.credits.debt), (0, 0));
    let mut lots = account.billing.iter().flat_map(|billing| billing.closed_lots.values());
    let lot = lots.find(|lot| lot.source == LotSource::Reinstatement).expect("it was spent of");
    assert_eq!((lot.granted, lot.spent()), (30, 30));
}
