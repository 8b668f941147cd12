//! Computed by hand.

use serde_json::json;
use subledger::domain::charge::Charge;
use subledger::domain::command::Command;
use subledger::domain::revenue::PlanOf;
use subledger::domain::revenue::answer::Asked;
use subledger::domain::revenue::recognition::InvoiceMoney;
use uuid::Uuid;

use crate::ledger::*;

const CREATED: &str = "customer.subscription.created";
const UPDATED: &str = "customer.subscription.updated";
const DELETED: &str = "customer.subscription.deleted";

#[test]
fn each_interval_is_brought_to_a_month() {
    let mut ledger = Ledger::new();
    let at = second("2026-01-10");
    for (account, price, quantity) in [
        ("a", "price_small", 3),
        ("b", "price_small_year", 1),
        ("c", "price_small_week", 1),
        ("d", "price_small_eur", 2),
    ] {
        ledger.tell(account, CREATED, at, subscription(&format!("sub_{account}"), price, quantity, "active", at));
    }
    let report = ledger.report(second("2026-01-20"));
    assert_conserved(&report);
    // 3 × 10.00, 100.00 ÷ 12, 3.00 × 52 ÷ 12; and 2 × 9.00 in euros.
    assert_eq!(book(&report, "usd", None).expect("a book").now.mrr, 3_000 + 833 + 1_300);
    assert_eq!(book(&report, "eur", None).expect("a book").now.mrr, 1_800);
    let asked = Asked { from: m("2026-01"), to: m("2026-03"), currency: Some("usd".to_owned()), plan: None };
    let answer = report.answer(&asked);
    assert_eq!((answer.currencies.len(), answer.currencies[0].arr, answer.to), (1, 12 * 5_133, m("2026-01")));
}

fn m(month: &str) -> subledger::domain::revenue::month::Month {
    month.parse().expect("a month")
}

#[test]
fn a_customers_year_moves_as_it_is_called() {
    let mut ledger = Ledger::new();
    let begun = second("2026-01-10");
    let state = |price: &str, quantity: i64, status: &str| subscription("sub_1", price, quantity, status, begun);
    ledger.tell("a", CREATED, begun, state("price_small", 1, "incomplete"));
    ledger.tell("a", UPDATED, begun + 20, state("price_small", 1, "active"));
    ledger.tell("a", UPDATED, second("2026-02-03"), state("price_small", 4, "active"));
    ledger.tell("a", UPDATED, second("2026-03-03"), state("price_small", 2, "active"));
    // Up and down again within one day: nothing has moved.
    ledger.tell("a", UPDATED, second("2026-03-20"), state("price_small", 9, "active"));
    ledger.tell("a", UPDATED, second("2026-03-20") + 60, state("price_small", 2, "active"));
    ledger.tell("a", UPDATED, second("2026-04-01"), state("price_big", 1, "active"));
    let ended = json!({"ended_at": second("2026-05-05"), "canceled_at": second("2026-04-20")});
    ledger.tell("a", DELETED, second("2026-05-05"), with(state("price_big", 1, "canceled"), ended));
    let again = second("2026-07-01");
    ledger.tell("a", CREATED, again, subscription("sub_2", "price_small", 1, "active", again));

    let report = ledger.report(second("2026-08-15"));
    assert_conserved(&report);
    let moved = |month_name: &str| {
        let f = month(&report, "usd", None, month_name);
        [f.new, f.expansion, f.contraction, f.churn, f.reactivation, f.mrr_end]
    };
    assert_eq!(moved("2026-01"), [1_000, 0, 0, 0, 0, 1_000]);
    assert_eq!(moved("2026-02"), [0, 3_000, 0, 0, 0, 4_000]);
    assert_eq!(moved("2026-03"), [0, 0, 2_000, 0, 0, 2_000]);
    assert_eq!(moved("2026-04"), [0, 3_000, 0, 0, 0, 5_000]);
    assert_eq!(moved("2026-05"), [0, 0, 0, 5_000, 0, 0]);
    assert_eq!(moved("2026-06"), [0; 6]);
    assert_eq!(moved("2026-07"), [0, 0, 0, 0, 1_000, 1_000]);
    assert_eq!(moved("2026-08"), [0, 0, 0, 0, 0, 1_000]);
    // Of one plan alone, going to another is leaving.
    let small = month(&report, "usd", Some("small"), "2026-04");
    assert_eq!((small.churn, small.churned_accounts, small.mrr_end), (2_000, 1, 0));
    let big = month(&report, "usd", Some("big"), "2026-04");
    assert_eq!((big.new, big.new_accounts, big.mrr_end), (5_000, 1, 5_000));
    let asked = Asked { from: m("2026-03"), to: m("2026-05"), currency: None, plan: None };
    let months = report.answer(&asked).currencies.remove(0).months;
    let rates: Vec<_> = months.iter().map(|row| (row.account_churn_percent, row.revenue_churn_percent)).collect();
    assert_eq!(rates, [(Some(0.0), Some(50.0)), (Some(0.0), Some(0.0)), (Some(100.0), Some(100.0))]);
}

#[test]
fn trials_pauses_unpaid_ones_and_meters_bring_nothing_and_overdue_ones_are_at_risk() {
    let mut ledger = Ledger::new();
    let (begun, trial_end) = (second("2026-01-10"), second("2026-01-24"));
    let trial = json!({"trial_start": begun, "trial_end": trial_end});
    let state = |id: &str, status: &str| subscription(id, "price_small", 1, status, begun);
    for (account, id) in [("a", "sub_converts"), ("b", "sub_leaves"), ("c", "sub_tries")] {
        ledger.tell(account, CREATED, begun, with(state(id, "trialing"), trial.clone()));
    }
    ledger.tell("a", UPDATED, trial_end, with(state("sub_converts", "active"), trial.clone()));
    let left = with(trial.clone(), json!({"ended_at": second("2026-02-02")}));
    ledger.tell("b", DELETED, second("2026-02-02"), with(state("sub_leaves", "canceled"), left));
    ledger.tell("d", CREATED, begun, state("sub_paused", "active"));
    let pause = json!({"pause_collection": {"behavior": "void"}});
    ledger.tell("d", UPDATED, second("2026-02-10"), with(state("sub_paused", "active"), pause));
    ledger.tell("e", CREATED, begun, state("sub_unpaid", "active"));
    ledger.tell("e", UPDATED, second("2026-02-11"), state("sub_unpaid", "unpaid"));
    ledger.tell("f", CREATED, begun, state("sub_late", "active"));
    let due = json!({"status": "open", "amount_paid": 0, "amount_remaining": 1_000});
    let bill = invoice("in_late", "sub_late", "price_small", 1_000, (second("2026-02-10"), second("2026-03-10")));
    ledger.tell("f", "invoice.payment_failed", second("2026-02-10"), with(bill, due));
    ledger.tell("f", UPDATED, second("2026-02-10"), state("sub_late", "past_due"));
    let mut metered = state("sub_metered", "active");
    metered["items"]["data"][0]["price"]["recurring"]["usage_type"] = json!("metered");
    ledger.tell("g", CREATED, begun, metered);
    let mut tiered = state("sub_tiered", "active");
    tiered["items"]["data"][0]["price"]["unit_amount"] = json!(null);
    ledger.tell("g", CREATED, begun, tiered);
    ledger.tell("h", CREATED, begun, subscription("sub_other", "price_other", 1, "active", begun));

    let report = ledger.report(second("2026-02-20"));
    assert_conserved(&report);
    let now = book(&report, "usd", None).expect("a book").now;
    // Those that count: the converted, the late, the one of no plan; and two that bring nothing that can be told.
    assert_eq!((now.mrr, now.active_subscriptions, now.trialing_subscriptions), (2_700, 5, 1));
    assert_eq!((now.past_due_subscriptions, now.past_due_mrr, now.past_due_amount), (1, 1_000, 1_000));
    let excluded = report.excluded;
    assert_eq!((excluded.metered_items, excluded.unpriced_items, excluded.unmapped_subscriptions), (1, 1, 1));
    let january = month(&report, "usd", None, "2026-01");
    assert_eq!((january.trials_started, january.trials_converted, january.trials_lost), (3, 1, 0));
    assert_eq!((january.new, january.new_accounts), (4_700, 5));
    let february = month(&report, "usd", None, "2026-02");
    assert_eq!((february.trials_converted, february.trials_lost), (0, 1));
    assert_eq!((february.churn, february.churned_accounts, february.mrr_end), (2_000, 2, 2_700));
    assert_eq!(report.books.iter().find(|report| report.book.plan == PlanOf::Unmapped).expect("one").now.mrr, 700);
}

#[test]
fn a_discount_lowers_what_its_invoice_is_for() {
    let mut ledger = Ledger::new();
    let (begun, renewed) = (second("2026-01-10"), second("2026-02-10"));
    ledger.tell("a", CREATED, begun, subscription("sub_1", "price_small", 1, "active", begun));
    let bill = invoice("in_1", "sub_1", "price_small", 1_000, (begun, renewed));
    let half = json!({"total": 500, "amount_due": 500, "amount_paid": 500,
        "total_discount_amounts": [{"amount": 300, "discount": "di_1"}, {"amount": 200, "discount": "di_2"}]});
    ledger.tell("a", "invoice.paid", begun, with(bill, half));
    let next = invoice("in_2", "sub_1", "price_small", 1_000, (renewed, second("2026-03-10")));
    ledger.tell("a", "invoice.paid", renewed, next);
    let report = ledger.report(second("2026-02-28"));
    assert_conserved(&report);
    assert_eq!(month(&report, "usd", None, "2026-01").mrr_end, 500);
    assert_eq!(month(&report, "usd", None, "2026-02").expansion, 500);
    // January's 31 days from the 10th hold 22 of 5.00; February's 9 the rest, and 19 of 28 of 10.00.
    assert_eq!(month(&report, "usd", None, "2026-01").recognised, 355);
    assert_eq!(month(&report, "usd", None, "2026-02").recognised, 145 + 679);
}

#[test]
fn a_year_paid_at_once_is_earned_by_day_less_what_went_back() {
    let mut ledger = Ledger::new();
    let (begun, end) = (second("2026-01-01"), second("2027-01-01"));
    ledger.tell("a", CREATED, begun, subscription("sub_1", "price_small_year", 1, "active", begun));
    // 100.00 and 20 % tax.
    let taxed = json!({"total": 12_000, "amount_due": 12_000, "amount_paid": 12_000, "tax": 2_000});
    let bill = invoice("in_1", "sub_1", "price_small_year", 10_000, (begun, end));
    ledger.tell("a", "invoice.paid", begun, with(bill, taxed));
    let report = ledger.report(second("2026-03-10"));
    assert_conserved(&report);
    let earned = |report: &_, name: &str| month(report, "usd", None, name).recognised;
    // 31, 28 and 10 days of 365: 849.3, 767.1 (so far 1,616.4) and 274 (so far 1,890.4).
    assert_eq!(["2026-01", "2026-02", "2026-03"].map(|name| earned(&report, name)), [849, 767, 274]);
    let money =
        InvoiceMoney { paid: 12_000, from_balance: 0, returned: 0, tax: 2_000, recognised: 1_890, deferred: 8_110 };
    assert_eq!(report.money["usd"], money);
    // Half of it goes back on 1 July: 181 days are earned, 5,041 remain, and 5,000 without tax come off them.
    ledger.tell("a", "refund.created", second("2026-07-01"), refund("in_1", "re_1", 6_000, second("2026-07-01")));
    let report = ledger.report(second("2026-08-01"));
    assert_conserved(&report);
    assert_eq!(["2026-01", "2026-02"].map(|name| earned(&report, name)), [849, 767], "what is over stays");
    let money = report.money["usd"];
    assert_eq!((money.returned, money.tax, money.recognised + money.deferred), (6_000, 1_000, 5_000));
    assert_eq!((earned(&report, "2026-07"), money.deferred), (7, 34));
    // The rest, when hardly anything is left to be earned: it comes off the day itself.
    ledger.tell("a", "refund.created", second("2026-09-01"), refund("in_1", "re_2", 6_000, second("2026-09-01")));
    let report = ledger.report(second("2026-10-01"));
    assert_conserved(&report);
    assert_eq!(report.money["usd"].recognised + report.money["usd"].deferred, 0);
    assert!(earned(&report, "2026-09") < -4_900);
}

#[test]
fn an_upgrades_prorations_and_credit_balances_and_credit_notes_are_told_apart() {
    let mut ledger = Ledger::new();
    let (begun, changed, end) = (second("2026-01-01"), second("2026-01-16"), second("2026-02-01"));
    ledger.tell("a", CREATED, begun, subscription("sub_1", "price_big", 1, "active", begun));
    let bill = invoice("in_1", "sub_1", "price_big", 5_000, (begun, end));
    ledger.tell("a", "invoice.paid", begun, bill);
    // Down to the small plan for the last 16 of 31 days: the difference goes to the credit balance.
    let line = |id: &str, price: &str, amount: i64| {
        json!({"id": id, "amount": amount, "subscription": "sub_1", "quantity": 1, "price": {"id": price},
            "proration": true, "period": {"start": changed, "end": end}})
    };
    let prorated = json!({"lines": {"data": [line("il_2", "price_big", -2_581), line("il_3", "price_small", 516)]},
        "subtotal": -2_065, "total": -2_065, "amount_due": 0, "amount_paid": 0});
    ledger.tell(
        "a",
        "invoice.paid",
        changed,
        with(invoice("in_2", "sub_1", "price_small", 0, (changed, end)), prorated),
    );
    let report = ledger.report(end);
    assert_conserved(&report);
    let money = report.money["usd"];
    assert_eq!((money.paid, money.from_balance, money.recognised), (5_000, -2_065, 2_935));
    assert_eq!(month(&report, "usd", Some("big"), "2026-01").recognised, 5_000 - 2_581);
    assert_eq!(month(&report, "usd", Some("small"), "2026-01").recognised, 516);
    // The next month is settled out of the balance; a credit note takes 1.00 off it before, another 2.00 after.
    let paid = json!({"pre_payment_credit_notes_amount": 100, "post_payment_credit_notes_amount": 200,
        "amount_due": 0, "amount_paid": 0});
    let next = invoice("in_3", "sub_1", "price_small", 1_000, (end, second("2026-03-01")));
    ledger.tell("a", "invoice.paid", end, with(next, paid));
    let report = ledger.report(second("2026-03-01"));
    assert_conserved(&report);
    let money = report.money["usd"];
    assert_eq!((money.paid, money.from_balance, money.returned), (5_000, -2_065 + 900, 200));
    assert_eq!(money.recognised, 2_935 + 900 - 200);
}

#[test]
fn packs_are_earned_as_their_credits_are_used_and_owed_until_then() {
    let mut ledger = Ledger::new();
    let bought = second("2026-01-10");
    let session = json!({"object": "checkout.session", "id": "cs_1", "customer": "cus_1", "mode": "payment",
        "status": "complete", "payment_status": "paid", "currency": "usd", "amount_total": 1_000, "payment_intent": "pi_in_1",
        "metadata": {"kind": "credit_pack", "credit_pack": "hundred"}, "created": bought});
    ledger.tell("a", "checkout.session.completed", bought, session);
    let spend = |n| Command::Debit { debit: Uuid::from_u128(n), charge: Charge::Amount(30) };
    ledger.act("a", &spend(1), second("2026-02-10"));
    let report = ledger.report(second("2026-02-20"));
    assert_conserved(&report);
    let packs = report.packs["usd"];
    assert_eq!((packs.paid, packs.outstanding, packs.recognised), (1_000, 700, 300));
    // Half goes back, and with it half of the credits: 20 are left, worth 2.00.
    ledger.tell("a", "refund.created", second("2026-03-01"), refund("in_1", "re_1", 500, second("2026-03-01")));
    let report = ledger.report(second("2026-03-02"));
    assert_conserved(&report);
    let (packs, credits) = (report.packs["usd"], report.credits["pack"]);
    assert_eq!((packs.returned, packs.outstanding, packs.recognised), (500, 200, 300));
    assert_eq!((credits.spent, credits.clawed_back, credits.outstanding), (30, 50, 20));
    let months: Vec<_> = report.pack_months["usd"]
        .iter()
        .map(|(month, of_month)| (month.to_string(), of_month.paid, of_month.returned, of_month.recognised))
        .collect();
    let expected = [("2026-01", 1_000, 0, 0), ("2026-02", 0, 0, 300), ("2026-03", 0, 500, 0)];
    assert_eq!(months, expected.map(|(month, paid, returned, earned)| (month.to_owned(), paid, returned, earned)));
    let flows: Vec<_> =
        report.credit_flows.values().map(|flows| (flows.sold, flows.spent, flows.clawed_back)).collect();
    assert_eq!(flows, [(100, 0, 0), (0, 30, 0), (0, 0, 50)]);
}

#[test]
fn what_is_known_only_by_its_last_state_counts_from_its_beginning() {
    let mut ledger = Ledger::new();
    let begun = second("2026-01-10");
    ledger.tell("a", UPDATED, second("2026-03-05"), subscription("sub_1", "price_small", 1, "active", begun));
    let ended = json!({"ended_at": second("2026-03-20")});
    ledger.tell(
        "b",
        DELETED,
        second("2026-03-20"),
        with(subscription("sub_2", "price_big", 1, "canceled", begun), ended),
    );
    let report = ledger.report(second("2026-04-01"));
    assert_conserved(&report);
    let ends = ["2026-01", "2026-02", "2026-03"].map(|name| month(&report, "usd", None, name).mrr_end);
    assert_eq!(ends, [6_000, 6_000, 1_000]);
}
