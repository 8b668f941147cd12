//! Which types of StripeEvents are understood, and what each tells: the table that users may rely on.

use serde_json::{Value, json};
use subledger::domain::event::Event;
use subledger::domain::stripe_object::StripeObject;
use subledger::stripe::translate::{Facts, SYSTEM_ACCOUNT};

use crate::fold::Fold;

/// Types, the object they carry, and the name under which it is observed.
fn understood() -> Vec<(&'static [&'static str], Value, &'static [&'static str])> {
    vec![
        (
            &["customer.created", "customer.updated", "customer.deleted"],
            json!({"object": "customer", "id": "cus_1", "currency": "usd", "delinquent": false}),
            &["customer_observed"],
        ),
        (
            &[
                "customer.subscription.created",
                "customer.subscription.updated",
                "customer.subscription.deleted",
                "customer.subscription.paused",
                "customer.subscription.resumed",
                "customer.subscription.trial_will_end",
                "customer.subscription.pending_update_applied",
                "customer.subscription.pending_update_expired",
            ],
            json!({"object": "subscription", "id": "sub_1", "customer": "cus_1", "status": "active",
                "items": {"data": [{"id": "si_1", "price": {"id": "price_1"}, "quantity": 1}]}}),
            &["subscription_observed"],
        ),
        (
            &[
                "subscription_schedule.created",
                "subscription_schedule.updated",
                "subscription_schedule.released",
                "subscription_schedule.canceled",
                "subscription_schedule.completed",
                "subscription_schedule.aborted",
                "subscription_schedule.expiring",
            ],
            json!({"object": "subscription_schedule", "id": "sub_sched_1", "customer": "cus_1", "status": "active",
                "phases": [{"start_date": 1, "end_date": 2, "items": [{"price": "price_1", "quantity": 1}]}]}),
            &["subscription_schedule_observed"],
        ),
        (
            &[
                "invoice.created",
                "invoice.finalized",
                "invoice.updated",
                "invoice.paid",
                "invoice.payment_succeeded",
                "invoice.payment_failed",
                "invoice.payment_action_required",
                "invoice.voided",
                "invoice.marked_uncollectible",
                "invoice.finalization_failed",
                "invoice.deleted",
            ],
            json!({"object": "invoice", "id": "in_1", "customer": "cus_1", "currency": "usd", "status": "open",
                "payment_intent": "pi_1"}),
            &["invoice_observed", "invoice_payment_observed"],
        ),
        (
            &["invoice.upcoming"],
            json!({"object": "invoice", "customer": "cus_1", "currency": "usd", "subscription": "sub_1"}),
            &["upcoming_invoice_observed"],
        ),
        (
            &["invoice_payment.paid"],
            json!({"object": "invoice_payment", "id": "inpay_1", "invoice": "in_1", "customer": "cus_1",
                "payment": {"type": "payment_intent", "payment_intent": "pi_1"}}),
            &["invoice_payment_observed"],
        ),
        (
            &["payment_intent.succeeded", "payment_intent.payment_failed", "payment_intent.canceled"],
            json!({"object": "payment_intent", "id": "pi_1", "customer": "cus_1", "currency": "usd",
                "status": "processing", "amount": 100}),
            &["payment_intent_observed"],
        ),
        (
            &["charge.succeeded", "charge.failed", "charge.refunded", "charge.updated"],
            json!({"object": "charge", "id": "ch_1", "customer": "cus_1", "currency": "usd", "amount": 100,
                "status": "succeeded", "payment_intent": "pi_1", "invoice": "in_1"}),
            &["charge_observed", "invoice_payment_observed"],
        ),
        (
            &["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"],
            json!({"object": "refund", "id": "re_1", "currency": "usd", "amount": 100, "payment_intent": "pi_1"}),
            &["refund_observed"],
        ),
        (
            &[
                "charge.dispute.created",
                "charge.dispute.updated",
                "charge.dispute.closed",
                "charge.dispute.funds_withdrawn",
                "charge.dispute.funds_reinstated",
            ],
            json!({"object": "dispute", "id": "dp_1", "currency": "usd", "amount": 100, "charge": "ch_1",
                "status": "needs_response"}),
            &["dispute_observed"],
        ),
        (
            &["credit_note.created", "credit_note.updated", "credit_note.voided"],
            json!({"object": "credit_note", "id": "cn_1", "customer": "cus_1", "currency": "usd", "amount": 100,
                "invoice": "in_1", "status": "issued"}),
            &["credit_note_observed"],
        ),
        (
            &[
                "checkout.session.completed",
                "checkout.session.async_payment_succeeded",
                "checkout.session.async_payment_failed",
                "checkout.session.expired",
            ],
            json!({"object": "checkout.session", "id": "cs_1", "mode": "payment", "status": "complete",
                "payment_intent": "pi_1", "client_reference_id": "user_1"}),
            &["checkout_session_observed"],
        ),
        (
            &["payment_method.attached", "payment_method.detached", "payment_method.updated"],
            json!({"object": "payment_method", "id": "pm_1", "customer": "cus_1", "type": "card",
                "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034}}),
            &["payment_method_observed"],
        ),
        (
            &["product.created", "product.updated", "product.deleted"],
            json!({"object": "product", "id": "prod_1", "active": true}),
            &["catalog_object_observed"],
        ),
        (
            &["price.created", "price.updated", "price.deleted"],
            json!({"object": "price", "id": "price_1", "active": true, "unit_amount": 100, "currency": "usd"}),
            &["catalog_object_observed"],
        ),
        (
            &["entitlements.active_entitlement_summary.updated"],
            json!({"object": "entitlements.active_entitlement_summary", "customer": "cus_1",
                "entitlements": {"data": [{"lookup_key": "export"}, {"lookup_key": "audit"}]}}),
            &["active_entitlements_observed"],
        ),
    ]
}

/// Types that this ledger has no use for.
const OTHERS: &[&str] = &[
    "account.updated",
    "application_fee.created",
    "balance.available",
    "billing_portal.session.created",
    "capability.updated",
    "coupon.created",
    "customer.discount.created",
    "customer.source.created",
    "customer.tax_id.created",
    "invoiceitem.created",
    "payment_link.created",
    "payout.created",
    "plan.created",
    "quote.accepted",
    "setup_intent.succeeded",
    "some.type.that.stripe.has.not.thought.of.yet",
    "test_helpers.test_clock.ready",
    "transfer.created",
];

fn told(event_type: &str, object: &Value) -> Option<Facts> {
    let event = json!({"id": "evt_1", "object": "event", "type": event_type, "created": 100, "livemode": false,
        "data": {"object": object}});
    Fold::new().facts(&event)
}

fn observed(event_type: &str, object: &Value) -> StripeObject {
    let facts = told(event_type, object).unwrap_or_else(|| panic!("{event_type} is not understood"));
    facts.observations.into_iter().next().expect("an observation").object
}

#[test]
fn every_type_of_the_table_is_understood() {
    for (event_types, object, names) in understood() {
        for event_type in event_types {
            let facts = told(event_type, &object).unwrap_or_else(|| panic!("{event_type} is not understood"));
            let events = facts.observations.into_iter().map(|observation| Event::StripeObserved(Box::new(observation)));
            let observed: Vec<&str> = events.map(|event| event.name()).collect();
            assert_eq!(observed, names, "{event_type}");
        }
    }
}

#[test]
fn every_type_of_the_table_says_whose_it_is() {
    for (event_types, object, _) in understood() {
        for event_type in event_types {
            let facts = told(event_type, &object).expect("understood");
            let is_catalog = event_type.starts_with("product.") || event_type.starts_with("price.");
            if is_catalog {
                assert_eq!(facts.claim.map(|id| id.to_string()).as_deref(), Some(SYSTEM_ACCOUNT), "{event_type}");
                assert_eq!(facts.references, Vec::<String>::new(), "{event_type}");
            } else {
                assert!(!facts.references.is_empty(), "{event_type} names nobody");
                let customer = object["customer"].as_str().or((object["object"] == "customer").then_some("cus_1"));
                assert_eq!(facts.customer.as_deref(), customer, "{event_type}");
            }
        }
    }
}

#[test]
fn other_types_are_left_alone() {
    for event_type in OTHERS {
        assert_eq!(told(event_type, &json!({"id": "x_1", "object": "other"})), None, "{event_type}");
    }
}

#[test]
fn what_the_type_alone_tells_is_taken_from_it() {
    let customer = json!({"object": "customer", "id": "cus_1"});
    assert!(matches!(observed("customer.deleted", &customer), StripeObject::Customer(customer) if customer.deleted));
    assert!(matches!(observed("customer.updated", &customer), StripeObject::Customer(customer) if !customer.deleted));

    let draft = json!({"object": "invoice", "id": "in_1", "currency": "usd", "status": "draft"});
    assert!(matches!(observed("invoice.deleted", &draft), StripeObject::Invoice(draft) if draft.status == "deleted"));

    let unpaid = json!({"object": "checkout.session", "id": "cs_1", "mode": "payment", "status": "complete"});
    let failed = observed("checkout.session.async_payment_failed", &unpaid);
    assert!(matches!(failed, StripeObject::CheckoutSession(session) if session.async_payment_failed));
    let completed = observed("checkout.session.completed", &unpaid);
    assert!(matches!(completed, StripeObject::CheckoutSession(session) if !session.async_payment_failed));
}

#[test]
fn a_claim_cannot_name_a_stream_of_stripes_or_of_our_own() {
    for id in ["$system", "cus_1", "gcus_1", "pi_1", "in_1", "", "a/b", "two words"] {
        let session = json!({"object": "checkout.session", "id": "cs_1", "client_reference_id": id});
        let facts = told("checkout.session.completed", &session);
        assert_eq!(facts.and_then(|facts| facts.claim), None, "{id:?} claims an account");
    }
    let session = json!({"object": "checkout.session", "id": "cs_1", "client_reference_id": "user_1"});
    let claim = told("checkout.session.completed", &session).and_then(|facts| facts.claim);
    assert_eq!(claim.map(|id| id.to_string()).as_deref(), Some("user_1"));
}
