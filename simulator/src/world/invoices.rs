//! Invoices (<https://docs.stripe.com/api/invoices>): from draft to open to paid.

use serde_json::{Value, json};

use super::World;
use super::lines::{Period, discount};
use super::payments::NewIntent;
use super::read::Read;

/// What an invoice is made of.
#[derive(Debug)]
pub struct Draft {
    pub customer: String,
    pub subscription: Option<String>,
    /// `billing_reason`.
    pub reason: &'static str,
    pub currency: String,
    pub lines: Vec<Value>,
    /// Discounts on record.
    pub discounts: Vec<Value>,
    pub period: Period,
}

impl World {
    /// Makes a draft, and tells nobody yet.
    pub(crate) fn draft_invoice(&mut self, draft: Draft) -> String {
        let id = self.ids.id("in");
        let customer = self.answer(&draft.customer);
        let subscription = draft.subscription.as_deref().map(|id| self.answer(id)).unwrap_or_default();
        let parent = if draft.subscription.is_some() {
            json!({
                "quote_details": null,
                "subscription_details": { "metadata": subscription["metadata"], "subscription": subscription["id"] },
                "type": "subscription_details",
            })
        } else {
            Value::Null
        };
        let collection = subscription.maybe_text("collection_method").unwrap_or("charge_automatically");
        let due = subscription.maybe_int("days_until_due").map(|days| self.now + days * crate::time::DAY_S);
        let discount_ids: Vec<&Value> = draft.discounts.iter().map(|discount| &discount["id"]).collect();
        let invoice = json!({
            "id": id, "object": "invoice", "account_country": "US", "account_name": self.settings.account_name,
            "account_tax_ids": null, "amount_due": 0, "amount_overpaid": 0, "amount_paid": 0, "amount_remaining": 0,
            "amount_shipping": 0, "application": null, "attempt_count": 0, "attempted": false, "auto_advance": false,
            "automatic_tax": {
                "disabled_reason": null, "enabled": false, "liability": null, "provider": null, "status": null,
            },
            "automatically_finalizes_at": null, "billing_reason": draft.reason, "collection_method": collection,
            "created": self.now, "currency": draft.currency, "custom_fields": null, "customer": draft.customer,
            "customer_account": null, "customer_address": customer["address"], "customer_email": customer["email"],
            "customer_name": customer["name"], "customer_phone": customer["phone"],
            "customer_shipping": customer["shipping"], "customer_tax_exempt": customer["tax_exempt"],
            "customer_tax_ids": [], "default_payment_method": null, "default_source": null, "default_tax_rates": [],
            "description": null, "discounts": discount_ids, "due_date": due, "effective_at": null,
            "ending_balance": null, "footer": null, "from_invoice": null, "hosted_invoice_url": null,
            "invoice_pdf": null, "issuer": { "type": "self" }, "last_finalization_error": null,
            "latest_revision": null,
            "lines": {
                "object": "list", "data": [], "has_more": false, "total_count": 0,
                "url": format!("/v1/invoices/{id}/lines"),
            },
            "livemode": false, "metadata": {}, "next_payment_attempt": null, "number": null, "on_behalf_of": null,
            "parent": parent,
            "payment_settings": {
                "default_mandate": null, "payment_method_options": null, "payment_method_types": null,
            },
            "period_end": draft.period.1, "period_start": draft.period.0, "post_payment_credit_notes_amount": 0,
            "pre_payment_credit_notes_amount": 0, "receipt_number": null,
            "rendering": {
                "amount_tax_display": null, "pdf": { "page_size": "letter" }, "template": null,
                "template_version": null,
            },
            "shipping_cost": null, "shipping_details": null, "starting_balance": customer["balance"],
            "statement_descriptor": null, "status": "draft",
            "status_transitions": {
                "finalized_at": null, "marked_uncollectible_at": null, "paid_at": null, "voided_at": null,
            },
            "subtotal": 0, "subtotal_excluding_tax": 0, "test_clock": null,
            "total": 0, "total_discount_amounts": [], "total_excluding_tax": 0, "total_pretax_credit_amounts": [],
            "total_taxes": [], "webhooks_delivered_at": self.now, "_discount": draft.discounts.first(),
            "_discounts": draft.discounts, "_charge": null, "_payment_intent": null,
        });
        self.objects.insert(invoice);
        self.set_lines(&id, draft.lines);
        id
    }

    /// Puts lines on a draft, and adds it up.
    pub(crate) fn set_lines(&mut self, id: &str, mut lines: Vec<Value>) {
        let invoice = self.answer(id);
        let discounts = invoice.rows("_discounts").to_vec();
        let taken = discount(&mut lines, &discounts, invoice.text("currency"));
        for line in &mut lines {
            line["invoice"] = json!(id);
        }
        let subtotal: i64 = lines.iter().map(|line| line.int("amount")).sum();
        let total = subtotal - taken.iter().map(|(_, amount)| amount).sum::<i64>();
        let balance = invoice.int("starting_balance");
        // A credit balance pays what it can; a debit balance is collected along.
        let due = (total + balance).max(0);
        let amounts: Vec<Value> =
            taken.iter().map(|(discount, amount)| json!({ "amount": amount, "discount": discount })).collect();
        self.alter(id, |invoice| {
            invoice["lines"]["total_count"] = json!(lines.len());
            invoice["lines"]["data"] = json!(lines);
            invoice["subtotal"] = json!(subtotal);
            invoice["subtotal_excluding_tax"] = json!(subtotal);
            invoice["total"] = json!(total);
            invoice["total_excluding_tax"] = json!(total);
            invoice["total_discount_amounts"] = json!(amounts);
            invoice["amount_due"] = json!(due);
            invoice["amount_remaining"] = json!(due);
        });
    }

    /// Makes a draft final: it has a number, is owed, and is paid at once if nothing is. Tells nobody; answers the payment
    /// that is to be made.
    pub(crate) fn finalize(&mut self, id: &str) -> Option<String> {
        let invoice = self.answer(id);
        let customer_id = invoice.text("customer").to_owned();
        let customer = self.answer(&customer_id);
        let number = format!("{}-{:04}", customer.text("invoice_prefix"), customer.int("next_invoice_sequence"));
        let (total, due) = (invoice.int("total"), invoice.int("amount_due"));
        let ending_balance = customer.int("balance") + total - due;
        let previous = self.alter(&customer_id, |customer| {
            customer["next_invoice_sequence"] = json!(customer.int("next_invoice_sequence") + 1);
            customer["balance"] = json!(ending_balance);
        });
        if customer.int("balance") != ending_balance {
            self.emit_previous("customer.updated", &customer_id, previous);
        }
        let url = self.settings.base_url.clone();
        let now = self.now;
        self.alter(id, |invoice| {
            invoice["number"] = json!(number);
            invoice["status"] = json!("open");
            invoice["status_transitions"]["finalized_at"] = json!(now);
            invoice["effective_at"] = json!(now);
            invoice["ending_balance"] = json!(ending_balance);
            invoice["automatically_finalizes_at"] = Value::Null;
            invoice["hosted_invoice_url"] = json!(format!("{url}/i/{id}"));
            invoice["invoice_pdf"] = json!(format!("{url}/i/{id}/pdf"));
        });
        if due == 0 {
            self.alter(id, |invoice| {
                invoice["status"] = json!("paid");
                invoice["attempted"] = json!(true);
                invoice["auto_advance"] = json!(false);
                invoice["status_transitions"]["paid_at"] = json!(now);
            });
            return None;
        }
        let description = match invoice.text("billing_reason") {
            "subscription_create" => "Subscription creation",
            reason if reason.starts_with("subscription") => "Subscription update",
            _ => "Payment for Invoice",
        };
        let intent = self.new_intent(NewIntent {
            customer: Some(customer_id),
            amount: due,
            currency: invoice.text("currency").to_owned(),
            description: Some(description.to_owned()),
            invoice: Some(id.to_owned()),
            metadata: json!({}),
            setup_future_usage: (invoice.text("billing_reason") == "subscription_create").then_some("off_session"),
        });
        let payment = self.ids.id("inpay");
        self.objects.insert(json!({
            "id": payment, "object": "invoice_payment", "amount_paid": null, "amount_requested": due,
            "created": self.now, "currency": invoice["currency"], "invoice": id, "is_default": true,
            "livemode": false, "payment": { "payment_intent": intent, "type": "payment_intent" }, "status": "open",
            "status_transitions": { "canceled_at": null, "paid_at": null },
        }));
        self.alter(id, |invoice| {
            invoice["_payment_intent"] = json!(intent);
            invoice["_payment"] = json!(payment);
        });
        Some(intent)
    }

    /// Puts on record that an open invoice is paid, and what follows; `quietly` leaves the telling to the caller.
    pub(crate) fn mark_paid(&mut self, id: &str, charge: Option<&str>, quietly: bool) {
        let now = self.now;
        let payment = self.answer(id).text("_payment").to_owned();
        let previous = self.alter(id, |invoice| {
            let due = invoice["amount_due"].clone();
            invoice["status"] = json!("paid");
            invoice["attempted"] = json!(true);
            invoice["auto_advance"] = json!(false);
            invoice["amount_paid"] = due;
            invoice["amount_remaining"] = json!(0);
            invoice["next_payment_attempt"] = Value::Null;
            invoice["status_transitions"]["paid_at"] = json!(now);
            if let Some(charge) = charge {
                invoice["attempt_count"] = json!(invoice.int("attempt_count") + 1);
                invoice["_charge"] = json!(charge);
            } else {
                invoice["_paid_out_of_band"] = json!(true);
            }
        });
        if charge.is_some() {
            self.alter(&payment, |payment| {
                payment["status"] = json!("paid");
                payment["amount_paid"] = payment["amount_requested"].clone();
                payment["status_transitions"]["paid_at"] = json!(now);
            });
        }
        if !quietly {
            self.emit_previous("invoice.updated", id, previous);
            self.tell_paid(id);
            self.subscription_paid(id);
        }
    }

    pub(crate) fn tell_paid(&mut self, id: &str) {
        let invoice = self.answer(id);
        self.emit("invoice.paid", id);
        if invoice["_charge"].is_string() {
            self.emit("invoice_payment.paid", invoice.text("_payment"));
        }
        self.emit("invoice.payment_succeeded", id);
    }
}
