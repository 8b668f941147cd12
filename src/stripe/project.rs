//! Reading each of Stripe's objects into what we keep of it, from any API version.

use serde_json_borrow::Value;

use super::fields::{FieldError, Fields};
use crate::domain::command::MAX_AMOUNT;
use crate::domain::stripe_object::{
    ActiveEntitlements, CatalogObject, Charge, CheckoutSession, CreditNote, Customer, Dispute, Invoice, InvoiceLine,
    InvoicePayment, InvoicePaymentStatus, PackOrder, PauseCollection, PaymentIntent, PaymentMethod, Price, Refund,
    SchedulePhase, StripeObject, Subscription, SubscriptionItem, SubscriptionSchedule, UpcomingInvoice,
};

type Result<T> = std::result::Result<T, FieldError>;

pub fn customer(object: &Fields<'_>, deleted: bool) -> Result<Customer> {
    Ok(Customer {
        id: object.required_string("id")?,
        deleted: deleted || object.flag("deleted")?,
        delinquent: object.flag("delinquent")?,
        currency: object.currency("currency")?,
    })
}

pub fn subscription(object: &Fields<'_>) -> Result<Subscription> {
    let mut items: Vec<SubscriptionItem> =
        object.list("items")?.iter().map(subscription_item).collect::<Result<_>>()?;
    // Before 2015 a subscription had one plan and no items.
    if items.is_empty() && object.get("plan").is_some() {
        items.push(subscription_item(object)?);
        items[0].id = String::new();
    }
    // Since 2025-03-31 the period is the items' own.
    let longest = items.iter().max_by_key(|item| item.current_period_end);
    let period_start = longest.and_then(|item| item.current_period_start);
    let period_end = longest.and_then(|item| item.current_period_end);
    let pause = object.object("pause_collection")?.map(|pause| {
        let behavior = pause.string("behavior")?.unwrap_or_default();
        Ok(PauseCollection { behavior, resumes_at: pause.integer("resumes_at")? })
    });
    let pending = object
        .object("pending_update")?
        .map(|update| update.list("subscription_items")?.iter().map(subscription_item).collect::<Result<Vec<_>>>());
    let first_price = items.first().and_then(|item| item.price.currency.clone());
    Ok(Subscription {
        id: object.required_string("id")?,
        customer: object.id_of("customer")?,
        status: object.required_string("status")?,
        currency: object.currency("currency")?.or(first_price),
        current_period_start: period_start.or(object.integer("current_period_start")?),
        current_period_end: period_end.or(object.integer("current_period_end")?),
        cancel_at_period_end: object.flag("cancel_at_period_end")?,
        cancel_at: object.integer("cancel_at")?,
        canceled_at: object.integer("canceled_at")?,
        ended_at: object.integer("ended_at")?,
        trial_start: object.integer("trial_start")?,
        trial_end: object.integer("trial_end")?,
        pause_collection: pause.transpose()?,
        schedule: object.id_of("schedule")?,
        pending_items: pending.transpose()?.filter(|items| !items.is_empty()),
        latest_invoice: object.id_of("latest_invoice")?,
        default_payment_method: object.id_of("default_payment_method")?,
        created: object.integer("created")?,
        items: items_with_period(items),
    })
}

/// Keeps the periods only where items differ in them, so that both payload shapes give the same snapshot.
fn items_with_period(mut items: Vec<SubscriptionItem>) -> Vec<SubscriptionItem> {
    let period = |item: &SubscriptionItem| (item.current_period_start, item.current_period_end);
    let same = items.windows(2).all(|pair| period(&pair[0]) == period(&pair[1]));
    if same {
        for item in &mut items {
            (item.current_period_start, item.current_period_end) = (None, None);
        }
    }
    items
}

fn subscription_item(item: &Fields<'_>) -> Result<SubscriptionItem> {
    let price = match item.object("price")?.or(item.object("plan")?) {
        Some(price) => self::price(&price)?,
        None => Price { id: item.required_string("price")?, ..no_price() },
    };
    Ok(SubscriptionItem {
        id: item.string("id")?.unwrap_or_default(),
        price,
        quantity: item.integer("quantity")?.unwrap_or(1),
        current_period_start: item.integer("current_period_start")?,
        current_period_end: item.integer("current_period_end")?,
    })
}

fn no_price() -> Price {
    Price {
        id: String::new(),
        lookup_key: None,
        product: None,
        unit_amount: None,
        currency: None,
        interval: None,
        interval_count: None,
        metered: false,
    }
}

/// Reads a price, or the plan that came before prices.
fn price(object: &Fields<'_>) -> Result<Price> {
    let recurring = object.object("recurring")?;
    let recurring = recurring.as_ref().unwrap_or(object);
    Ok(Price {
        id: object.required_string("id")?,
        lookup_key: object.string("lookup_key")?,
        product: object.id_of("product")?,
        unit_amount: object.integer("unit_amount")?.or(object.integer("amount")?),
        currency: object.currency("currency")?,
        interval: recurring.string("interval")?,
        interval_count: recurring.integer("interval_count")?,
        metered: recurring.string("usage_type")?.as_deref() == Some("metered"),
    })
}

pub fn schedule(object: &Fields<'_>) -> Result<SubscriptionSchedule> {
    let phase = |phase: &Fields<'_>| -> Result<SchedulePhase> {
        let items = match phase.list("items")? {
            items if items.is_empty() => phase.list("plans")?,
            items => items,
        };
        let item = |item: &Fields<'_>| -> Result<(String, i64)> {
            let price = item.id_of("price")?.or(item.id_of("plan")?).unwrap_or_default();
            Ok((price, item.integer("quantity")?.unwrap_or(1)))
        };
        Ok(SchedulePhase {
            start_date: phase.integer("start_date")?,
            end_date: phase.integer("end_date")?,
            items: items.iter().map(item).collect::<Result<_>>()?,
        })
    };
    let current = object.object("current_phase")?;
    Ok(SubscriptionSchedule {
        id: object.required_string("id")?,
        customer: object.id_of("customer")?,
        subscription: object.id_of("subscription")?.or(object.id_of("released_subscription")?),
        status: object.required_string("status")?,
        phases: object.list("phases")?.iter().map(phase).collect::<Result<_>>()?,
        current_phase_start: current.map(|phase| phase.integer("start_date")).transpose()?.flatten(),
        created: object.integer("created")?,
    })
}

pub fn invoice(object: &Fields<'_>, deleted: bool) -> Result<Invoice> {
    let status = if deleted { Some("deleted".to_owned()) } else { object.string("status")? };
    let paid = object.flag("paid")?;
    let lines: Vec<InvoiceLine> = object.list("lines")?.iter().map(invoice_line).collect::<Result<_>>()?;
    let transitions = object.object("status_transitions")?;
    Ok(Invoice {
        id: object.required_string("id")?,
        customer: object.id_of("customer")?,
        subscription: invoice_subscription(object)?,
        billing_reason: object.string("billing_reason")?,
        // Before 2018 an invoice had no status, only flags.
        status: status.unwrap_or_else(|| if paid { "paid" } else { "open" }.to_owned()),
        currency: object.required_currency("currency")?,
        subtotal: object.integer_or_zero("subtotal")?,
        total: object.integer_or_zero("total")?,
        tax: invoice_tax(object)?,
        discount: sum_of(&object.list("total_discount_amounts")?)?,
        amount_due: object.integer_or_zero("amount_due")?,
        amount_paid: object.integer_or_zero("amount_paid")?,
        amount_remaining: object.integer_or_zero("amount_remaining")?,
        pre_payment_credit_notes_amount: object.integer_or_zero("pre_payment_credit_notes_amount")?,
        post_payment_credit_notes_amount: object.integer_or_zero("post_payment_credit_notes_amount")?,
        attempt_count: object.integer_or_zero("attempt_count")?,
        number: object.string("number")?,
        hosted_invoice_url: object.string("hosted_invoice_url")?,
        invoice_pdf: object.string("invoice_pdf")?,
        next_payment_attempt: object.integer("next_payment_attempt")?,
        due_date: object.integer("due_date")?,
        paid_at: transitions.map(|transitions| transitions.integer("paid_at")).transpose()?.flatten(),
        created: object.integer("created")?,
        lines,
        has_more_lines: object.object("lines")?.map(|lines| lines.flag("has_more")).transpose()?.unwrap_or(false),
    })
}

/// `parent.subscription_details.subscription` since 2025-03-31, `subscription` before.
fn invoice_subscription(object: &Fields<'_>) -> Result<Option<String>> {
    if let Some(parent) = object.object("parent")?
        && let Some(details) = parent.object("subscription_details")?
        && let Some(subscription) = details.id_of("subscription")?
    {
        return Ok(Some(subscription));
    }
    object.id_of("subscription")
}

fn invoice_tax(object: &Fields<'_>) -> Result<i64> {
    if let Some(tax) = object.integer("tax")? {
        return Ok(tax);
    }
    let taxes = match object.list("total_taxes")? {
        taxes if taxes.is_empty() => object.list("total_tax_amounts")?,
        taxes => taxes,
    };
    sum_of(&taxes)
}

fn sum_of(amounts: &[Fields<'_>]) -> Result<i64> {
    amounts.iter().try_fold(0i64, |sum, amount| Ok(sum.saturating_add(amount.integer_or_zero("amount")?)))
}

pub fn invoice_line(line: &Fields<'_>) -> Result<InvoiceLine> {
    let parent = line.object("parent")?;
    let details = match &parent {
        Some(parent) => parent.object("subscription_item_details")?.or(parent.object("invoice_item_details")?),
        None => None,
    };
    let detail_id = |key: &str| details.as_ref().map(|details| details.id_of(key)).transpose().map(Option::flatten);
    let subscription = detail_id("subscription")?.or(line.id_of("subscription")?);
    let priced = line.object("pricing")?.map(|pricing| pricing.object("price_details")).transpose()?.flatten();
    let price = match priced {
        Some(details) => details.id_of("price")?,
        None => line.id_of("price")?.or(line.id_of("plan")?),
    };
    let period = line.object("period")?;
    let bound = |key: &str| period.as_ref().map(|period| period.integer_or_zero(key)).transpose();
    Ok(InvoiceLine {
        id: line.string("id")?.unwrap_or_default(),
        amount: line.integer_or_zero("amount")?,
        price,
        quantity: line.integer("quantity")?,
        period_start: bound("start")?.unwrap_or(0),
        period_end: bound("end")?.unwrap_or(0),
        proration: match &details {
            Some(details) => details.flag("proration")?,
            None => line.flag("proration")?,
        },
        // The oldest versions give a subscription line the subscription's own id.
        subscription: subscription.or(line.string("id")?.filter(|id| id.starts_with("sub_"))),
        subscription_item: detail_id("subscription_item")?.or(line.id_of("subscription_item")?),
    })
}

/// A preview without a subscription says nothing that we keep.
pub fn upcoming_invoice(object: &Fields<'_>) -> Result<Option<UpcomingInvoice>> {
    let Some(subscription) = invoice_subscription(object)? else {
        return Ok(None);
    };
    Ok(Some(UpcomingInvoice {
        subscription,
        customer: object.id_of("customer")?,
        currency: object.required_currency("currency")?,
        total: object.integer_or_zero("total")?,
        amount_due: object.integer_or_zero("amount_due")?,
        next_payment_attempt: object.integer("next_payment_attempt")?,
        period_end: object.integer("period_end")?,
    }))
}

/// Only payments by PaymentIntent are followed.
pub fn invoice_payment(object: &Fields<'_>) -> Result<Option<InvoicePayment>> {
    let invoice = object.id_of("invoice")?;
    let payment = object.object("payment")?;
    let intent = payment.map(|payment| payment.id_of("payment_intent")).transpose()?.flatten();
    let status = match object.string("status")?.as_deref() {
        Some("paid") => InvoicePaymentStatus::Paid,
        Some("canceled") => InvoicePaymentStatus::Canceled,
        _ => InvoicePaymentStatus::Open,
    };
    Ok(invoice.zip(intent).map(|(invoice, payment_intent)| InvoicePayment { invoice, payment_intent, status }))
}

/// The links between invoice and payment that other objects carry in passing.
pub fn invoice_payments(object: &Fields<'_>, projected: &StripeObject) -> Result<Vec<InvoicePayment>> {
    let link = |invoice: &str, intent: Option<String>| {
        intent.map(|payment_intent| InvoicePayment {
            invoice: invoice.to_owned(),
            payment_intent,
            status: InvoicePaymentStatus::Open,
        })
    };
    Ok(match projected {
        StripeObject::Invoice(invoice) => {
            let mut links: Vec<InvoicePayment> =
                link(&invoice.id, object.id_of("payment_intent")?).into_iter().collect();
            for payment in object.list("payments")? {
                links.extend(invoice_payment(&payment)?);
            }
            links.dedup();
            links
        }
        StripeObject::PaymentIntent(intent) => {
            let invoice = object.id_of("invoice")?;
            invoice.and_then(|invoice| link(&invoice, Some(intent.id.clone()))).into_iter().collect()
        }
        StripeObject::Charge(charge) => {
            let invoice = object.id_of("invoice")?;
            invoice.and_then(|invoice| link(&invoice, charge.payment_intent.clone())).into_iter().collect()
        }
        _ => Vec::new(),
    })
}

pub fn payment_intent(object: &Fields<'_>) -> Result<PaymentIntent> {
    let error = object.object("last_payment_error")?;
    let error_code = match error {
        Some(error) => Some(error.string("code")?.or(error.string("type")?).unwrap_or_else(|| "unknown".to_owned())),
        None => None,
    };
    let embedded = object.list("charges")?;
    let last_embedded = embedded.first().map(|charge| charge.string("id")).transpose()?.flatten();
    let details = object.object("payment_details")?;
    // Before 2019-02-11 payment methods were sources.
    let status = match object.required_string("status")?.as_str() {
        "requires_source" => "requires_payment_method".to_owned(),
        "requires_source_action" => "requires_action".to_owned(),
        status => status.to_owned(),
    };
    let order_reference = details.map(|details| details.string("order_reference")).transpose()?.flatten();
    Ok(PaymentIntent {
        order_reference: order_reference.filter(|reference| reference.starts_with("in_")),
        id: object.required_string("id")?,
        customer: object.id_of("customer")?,
        status,
        currency: object.required_currency("currency")?,
        amount: object.integer_or_zero("amount")?,
        amount_received: object.integer_or_zero("amount_received")?,
        // Before 2022-11-15 the charges were embedded instead, the newest first.
        latest_charge: object.id_of("latest_charge")?.or(last_embedded),
        last_payment_error: error_code,
        created: object.integer("created")?,
    })
}

pub fn charge(object: &Fields<'_>) -> Result<Charge> {
    let amount = object.integer_or_zero("amount")?;
    let status = object.string("status")?;
    let paid = object.flag("paid")?;
    let captured = object.flag("captured")?;
    Ok(Charge {
        id: object.required_string("id")?,
        payment_intent: object.id_of("payment_intent")?,
        customer: object.id_of("customer")?,
        // Early versions called a charge that succeeded paid, or gave it no status but only the flag.
        status: status
            .filter(|status| status != "paid")
            .unwrap_or_else(|| if paid { "succeeded" } else { "failed" }.to_owned()),
        currency: object.required_currency("currency")?,
        amount,
        amount_captured: object.integer("amount_captured")?.unwrap_or(if captured { amount } else { 0 }),
        amount_refunded: object.integer_or_zero("amount_refunded")?,
        disputed: object.flag("disputed")? || object.get("dispute").is_some(),
        failure_code: object.string("failure_code")?,
        created: object.integer("created")?,
    })
}

pub fn refund(object: &Fields<'_>) -> Result<Refund> {
    Ok(Refund {
        id: object.required_string("id")?,
        charge: object.id_of("charge")?,
        payment_intent: object.id_of("payment_intent")?,
        status: object.string("status")?.unwrap_or_else(|| "succeeded".to_owned()),
        currency: object.required_currency("currency")?,
        amount: object.integer_or_zero("amount")?,
        created: object.integer("created")?,
    })
}

pub fn dispute(object: &Fields<'_>) -> Result<Dispute> {
    Ok(Dispute {
        // The oldest disputes have no id of their own.
        id: object.string("id")?.or(object.id_of("charge")?).unwrap_or_default(),
        charge: object.id_of("charge")?,
        payment_intent: object.id_of("payment_intent")?,
        status: object.required_string("status")?,
        currency: object.required_currency("currency")?,
        amount: object.integer_or_zero("amount")?,
        reason: object.string("reason")?,
        created: object.integer("created")?,
    })
}

pub fn credit_note(object: &Fields<'_>) -> Result<CreditNote> {
    Ok(CreditNote {
        id: object.required_string("id")?,
        invoice: object.id_of("invoice")?,
        customer: object.id_of("customer")?,
        status: object.required_string("status")?,
        currency: object.required_currency("currency")?,
        amount: object.integer("amount")?.or(object.integer("total")?).unwrap_or(0),
        kind: object.string("type")?,
        created: object.integer("created")?,
    })
}

pub fn checkout_session(object: &Fields<'_>, event_type: &str) -> Result<CheckoutSession> {
    let mode = object.string("mode")?.unwrap_or_default();
    Ok(CheckoutSession {
        id: object.required_string("id")?,
        customer: object.id_of("customer")?,
        order: if mode == "payment" { pack_order(object)? } else { None },
        mode,
        status: object.string("status")?,
        payment_status: object.string("payment_status")?.unwrap_or_else(|| "unpaid".to_owned()),
        async_payment_failed: event_type == "checkout.session.async_payment_failed",
        currency: object.currency("currency")?,
        amount_total: object.integer("amount_total")?,
        payment_intent: object.id_of("payment_intent")?,
        subscription: object.id_of("subscription")?,
        invoice: object.id_of("invoice")?,
        created: object.integer("created")?,
        expires_at: object.integer("expires_at")?,
    })
}

/// What the session's creator wrote into its metadata about the credit pack it sells.
fn pack_order(object: &Fields<'_>) -> Result<Option<PackOrder>> {
    let Some(metadata) = object.object("metadata")? else {
        return Ok(None);
    };
    let pack = metadata.string("credit_pack")?;
    if metadata.string("kind")?.as_deref() != Some("credit_pack") && pack.is_none() {
        return Ok(None);
    }
    let credits = metadata.string("credits")?.map(|credits| {
        let number = credits.trim().parse::<i64>().ok().filter(|credits| (1..=MAX_AMOUNT).contains(credits));
        number.ok_or_else(|| FieldError {
            field: "data.object.metadata.credits".to_owned(),
            problem: format!("must be a whole number from 1 to {MAX_AMOUNT}"),
        })
    });
    Ok(Some(PackOrder { credits: credits.transpose()?, pack, price: metadata.string("price")? }))
}

pub fn payment_method(object: &Fields<'_>) -> Result<PaymentMethod> {
    let card = object.object("card")?;
    let card_text = |key: &str| card.as_ref().map(|card| card.string(key)).transpose().map(Option::flatten);
    let card_number = |key: &str| card.as_ref().map(|card| card.integer(key)).transpose().map(Option::flatten);
    Ok(PaymentMethod {
        id: object.required_string("id")?,
        customer: object.id_of("customer")?,
        kind: object.string("type")?.unwrap_or_else(|| "unknown".to_owned()),
        brand: card_text("brand")?,
        last4: card_text("last4")?,
        exp_month: card_number("exp_month")?,
        exp_year: card_number("exp_year")?,
        created: object.integer("created")?,
    })
}

pub fn active_entitlements(object: &Fields<'_>) -> Result<ActiveEntitlements> {
    let entitlements = object.list("entitlements")?;
    let keys = entitlements.iter().map(|entitlement| entitlement.string("lookup_key"));
    let mut lookup_keys: Vec<String> = keys.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    lookup_keys.sort();
    lookup_keys.dedup();
    Ok(ActiveEntitlements { customer: object.required_string("customer")?, lookup_keys })
}

pub fn catalog_object(object: &Fields<'_>, deleted: bool) -> Result<CatalogObject> {
    let kind = object.string("object")?.unwrap_or_default();
    Ok(CatalogObject {
        id: object.required_string("id")?,
        active: object.flag("active")?,
        deleted,
        price: if kind == "price" { Some(price(object)?) } else { None },
        object: kind,
    })
}

/// Stripe ids by which objects that do not name their customer can find the account, the most telling first.
pub fn references(object: &Fields<'_>, projected: &StripeObject, previous: Option<&Value>) -> Result<Vec<String>> {
    let mut references: Vec<Option<String>> = Vec::new();
    match projected {
        StripeObject::Customer(customer) => references.push(Some(customer.id.clone())),
        StripeObject::CatalogObject(_) => {}
        _ => references.push(object.id_of("customer")?),
    }
    match projected {
        StripeObject::Invoice(invoice) => references.push(Some(invoice.id.clone())),
        StripeObject::InvoicePayment(link) => {
            references.extend([Some(link.payment_intent.clone()), Some(link.invoice.clone())]);
        }
        StripeObject::PaymentIntent(intent) => references.push(Some(intent.id.clone())),
        StripeObject::Charge(charge) => {
            references.push(charge.payment_intent.clone().or(Some(charge.id.clone())));
        }
        StripeObject::Refund(refund) => references.push(refund.payment_intent.clone().or(refund.charge.clone())),
        StripeObject::Dispute(dispute) => references.push(dispute.payment_intent.clone().or(dispute.charge.clone())),
        StripeObject::CreditNote(note) => references.push(note.invoice.clone()),
        StripeObject::CheckoutSession(session) => references.push(session.payment_intent.clone()),
        StripeObject::PaymentMethod(method) => {
            let former = previous.and_then(|previous| previous.as_object()?.get("customer")?.as_str());
            references.extend([former.map(str::to_owned), Some(method.id.clone())]);
        }
        _ => {}
    }
    for link in invoice_payments(object, projected)? {
        references.extend([Some(link.payment_intent), Some(link.invoice)]);
    }
    let mut named: Vec<String> = references.into_iter().flatten().collect();
    let mut seen = std::collections::BTreeSet::new();
    named.retain(|reference| seen.insert(reference.clone()));
    Ok(named)
}
