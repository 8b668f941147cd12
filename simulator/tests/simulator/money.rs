//! Refunds, credit notes and disputes.

use subledger_simulator::World;

use crate::support::{ask, get, id, kinds, post, recorded, refusal, subscribe, world};

fn paid(world: &mut World) -> (String, String, String) {
    let session = subscribe(world, "price_pro", "");
    let invoice = session["invoice"].as_str().expect("an invoice").to_owned();
    let payments = ask(world, "GET", "invoice_payments", &format!("invoice={invoice}")).body;
    let intent = payments["data"][0]["payment"]["payment_intent"].as_str().expect("an intent").to_owned();
    let charge =
        get(world, &format!("payment_intents/{intent}"))["latest_charge"].as_str().expect("a charge").to_owned();
    (invoice, intent, charge)
}

#[test]
fn refunds_go_up_to_what_was_paid() {
    let mut world = world();
    let (invoice, intent, charge) = paid(&mut world);
    let from = recorded(&world);
    let refund =
        post(&mut world, "refunds", &format!("payment_intent={intent}&amount=1000&reason=requested_by_customer"));
    assert_eq!((refund["amount"].as_i64(), refund["charge"].as_str()), (Some(1_000), Some(charge.as_str())));
    assert_eq!(kinds(&world, from), ["charge.refunded", "refund.created"]);
    let (status, error) = refusal(&mut world, "POST", "refunds", &format!("charge={charge}&amount=2000"));
    assert_eq!((status, error["param"].as_str()), (400, Some("amount")), "{error}");
    post(&mut world, "refunds", &format!("charge={charge}"));
    let refunded = ask(&mut world, "GET", &format!("charges/{charge}"), "expand[]=refunds").body;
    assert_eq!((refunded["amount_refunded"].as_i64(), refunded["refunded"].as_bool()), (Some(2_999), Some(true)));
    assert_eq!(refunded["refunds"]["data"].as_array().map(Vec::len), Some(2));
    let (_, error) = refusal(&mut world, "POST", "refunds", &format!("charge={charge}"));
    assert_eq!(error["code"], "charge_already_refunded");
    assert_eq!(get(&mut world, &format!("invoices/{invoice}"))["status"], "paid");
}

#[test]
fn a_refund_that_fails_gives_the_money_back() {
    let mut world = world();
    let (_, _, charge) = paid(&mut world);
    let refund = id(&post(&mut world, "refunds", &format!("charge={charge}&amount=500")));
    world.fail_refund(&refund).expect("it can fail");
    assert_eq!(get(&mut world, &format!("refunds/{refund}"))["status"], "failed");
    assert_eq!(get(&mut world, &format!("charges/{charge}"))["amount_refunded"], 0);
}

#[test]
fn credit_notes_lower_what_an_invoice_is_worth() {
    let mut world = world();
    let (invoice, _, charge) = paid(&mut world);
    let note =
        post(&mut world, "credit_notes", &format!("invoice={invoice}&amount=700&refund_amount=400&credit_amount=300"));
    assert_eq!(
        (note["type"].as_str(), note["refunds"][0]["amount_refunded"].as_i64()),
        (Some("post_payment"), Some(400))
    );
    let after = get(&mut world, &format!("invoices/{invoice}"));
    assert_eq!(after["post_payment_credit_notes_amount"], 700);
    assert_eq!(get(&mut world, &format!("charges/{charge}"))["amount_refunded"], 400);
    let customer = after["customer"].as_str().expect("one").to_owned();
    assert_eq!(get(&mut world, &format!("customers/{customer}"))["balance"], -300);
    assert_eq!(
        refusal(&mut world, "POST", "credit_notes", &format!("invoice={invoice}&amount=2300&refund_amount=2300")).0,
        400
    );
}

#[test]
fn a_dispute_is_won_or_lost() {
    let mut world = world();
    let (_, _, charge) = paid(&mut world);
    let from = recorded(&world);
    let dispute = world.dispute(&charge).expect("disputable");
    assert_eq!(refusal(&mut world, "POST", "refunds", &format!("charge={charge}")).1["code"], "charge_disputed");
    world.close_dispute(&dispute, true).expect("open");
    let expected = [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ];
    assert_eq!(kinds(&world, from), expected);
    assert!(world.close_dispute(&dispute, false).is_err());
}
