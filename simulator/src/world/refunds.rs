//! Refunds, disputes and credit notes (<https://docs.stripe.com/api/refunds>).

use serde_json::{Value, json};

use super::World;
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;
use crate::time::DAY_S;

impl World {
    pub(crate) fn create_refund(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&["charge", "payment_intent", "amount", "reason", "metadata", "instructions_email", "origin"])?;
        let charge = match (params.text("charge")?, params.text("payment_intent")?) {
            (Some(charge), _) => charge.to_owned(),
            (None, Some(intent)) => {
                let intent = self.objects.named("payment_intent", intent, "payment_intent")?;
                let latest = intent.maybe_text("latest_charge").filter(|_| intent.text("status") == "succeeded");
                let Some(charge) = latest else {
                    let message = "This PaymentIntent does not have a successful charge to refund.";
                    return Err(StripeError::unfit("payment_intent", message));
                };
                charge.to_owned()
            }
            (None, None) => return Err(StripeError::missing("payment_intent")),
        };
        let of = Value::clone(self.objects.named("charge", &charge, "charge")?);
        let left = of.int("amount_captured") - of.int("amount_refunded");
        if !of.is("paid") {
            return Err(StripeError::unfit("charge", "This charge has not been paid."));
        }
        if of.is("disputed") {
            let message = "The charge has been charged back.";
            return Err(StripeError { code: Some("charge_disputed"), ..StripeError::unfit("charge", message) });
        }
        if left == 0 {
            let message = format!("Charge {charge} has already been refunded.");
            return Err(StripeError { code: Some("charge_already_refunded"), ..StripeError::unfit("charge", message) });
        }
        let amount = params.int("amount")?.unwrap_or(left);
        if amount < 1 {
            let message = "Invalid positive integer";
            return Err(StripeError {
                code: Some("parameter_invalid_integer"),
                ..StripeError::malformed("amount", message)
            });
        }
        if amount > left {
            let currency = of.text("currency");
            let message = format!(
                "Refund amount ({amount} {currency}) is greater than unrefunded amount on charge ({left} {currency})"
            );
            return Err(StripeError { code: Some("amount_too_large"), ..StripeError::unfit("amount", message) });
        }
        let reason = params.one_of("reason", &["duplicate", "fraudulent", "requested_by_customer"])?;
        let metadata = params.metadata("metadata")?;
        let id = self.refund(&of, amount, reason, metadata);
        Ok(self.answer(&id))
    }

    fn refund(&mut self, charge: &Value, amount: i64, reason: Option<&str>, metadata: Value) -> String {
        let id = self.ids.id("re");
        let transaction = self.ids.id("txn");
        self.objects.insert(json!({
            "id": id, "object": "refund", "amount": amount, "balance_transaction": transaction,
            "charge": charge["id"], "created": self.now, "currency": charge["currency"],
            "customer": charge["customer"], "customer_account": null,
            "destination_details": {
                "card": {
                    "reference_status": "pending", "reference_type": "acquirer_reference_number", "type": "refund",
                },
                "type": "card",
            },
            "metadata": metadata, "payment_intent": charge["payment_intent"], "payment_method": charge["payment_method"],
            "reason": reason, "receipt_number": null, "source_transfer_reversal": null, "status": "succeeded",
            "transfer_reversal": null,
        }));
        self.change("charge.refunded", charge.text("id"), |charge| {
            let refunded = charge.int("amount_refunded") + amount;
            charge["amount_refunded"] = json!(refunded);
            charge["refunded"] = json!(refunded == charge.int("amount_captured"));
        });
        self.emit("refund.created", &id);
        id
    }

    pub(crate) fn update_refund(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["metadata"])?;
        let mut metadata = self.objects.of("refund", id)?["metadata"].clone();
        params.merge_metadata("metadata", &mut metadata)?;
        self.change("refund.updated", id, |refund| refund["metadata"] = metadata);
        Ok(self.answer(id))
    }

    /// A refund does not reach its destination, days later: the money is back with the seller.
    pub fn fail_refund(&mut self, id: &str) -> Result<()> {
        let refund = Value::clone(self.objects.of("refund", id)?);
        if refund.text("status") != "succeeded" {
            return Err(StripeError::unfit("refund", "Only a refund that succeeded can fail yet."));
        }
        let amount = refund.int("amount");
        let transaction = self.ids.id("txn");
        let previous = self.alter(id, |refund| {
            refund["status"] = json!("failed");
            refund["failure_reason"] = json!("lost_or_stolen_card");
            refund["failure_balance_transaction"] = json!(transaction);
        });
        self.alter(refund.text("charge"), |charge| {
            charge["amount_refunded"] = json!(charge.int("amount_refunded") - amount);
            charge["refunded"] = json!(false);
        });
        self.emit_previous("refund.updated", id, previous.clone());
        self.emit_previous("charge.refund.updated", id, previous);
        self.emit("refund.failed", id);
        Ok(())
    }

    /// The holder of a card disputes a charge; answers the dispute's id.
    pub fn dispute(&mut self, charge: &str) -> Result<String> {
        let of = Value::clone(self.objects.of("charge", charge)?);
        if !of.is("paid") || of.is("disputed") {
            return Err(StripeError::unfit("charge", "Only a paid charge can be disputed, and once."));
        }
        let id = self.ids.id("du");
        self.objects.insert(json!({
            "id": id, "object": "dispute", "amount": of["amount"], "balance_transactions": [], "charge": charge,
            "created": self.now, "currency": of["currency"], "enhanced_eligibility_types": [],
            "evidence": evidence(),
            "evidence_details": {
                "due_by": self.now + 14 * DAY_S, "enhanced_eligibility": {}, "has_evidence": false, "past_due": false,
                "submission_count": 0,
            },
            "is_charge_refundable": false, "livemode": false, "metadata": {}, "payment_intent": of["payment_intent"],
            "payment_method_details": {
                "card": { "brand": "visa", "case_type": "chargeback", "network_reason_code": "10.4", "network": "visa" },
                "type": "card",
            },
            "reason": "fraudulent", "status": "needs_response",
        }));
        self.alter(charge, |charge| charge["disputed"] = json!(true));
        self.emit("charge.dispute.created", &id);
        self.emit("charge.dispute.funds_withdrawn", &id);
        Ok(id)
    }

    /// The bank decides a dispute.
    pub fn close_dispute(&mut self, id: &str, is_won: bool) -> Result<()> {
        let dispute = self.objects.of("dispute", id)?;
        if matches!(dispute.text("status"), "won" | "lost") {
            return Err(StripeError::unfit("dispute", "The dispute is closed already."));
        }
        let previous = self.alter(id, |dispute| dispute["status"] = json!(if is_won { "won" } else { "lost" }));
        self.emit_previous("charge.dispute.closed", id, previous);
        if is_won {
            self.emit("charge.dispute.funds_reinstated", id);
        }
        Ok(())
    }

    pub(crate) fn create_credit_note(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&[
            "invoice",
            "amount",
            "credit_amount",
            "refund_amount",
            "out_of_band_amount",
            "reason",
            "memo",
            "metadata",
            "effective_at",
            "email_type",
        ])?;
        let invoice_id = params.required("invoice")?;
        let invoice = Value::clone(self.objects.named("invoice", invoice_id, "invoice")?);
        let is_paid = match invoice.text("status") {
            "open" => false,
            "paid" => true,
            status => {
                let message = format!("An invoice that is {status} takes no credit notes.");
                return Err(StripeError::unfit("invoice", message));
            }
        };
        let credited = invoice.int("pre_payment_credit_notes_amount") + invoice.int("post_payment_credit_notes_amount");
        let left = if is_paid { invoice.int("amount_paid") - credited } else { invoice.int("amount_remaining") };
        let amount = params.natural("amount")?.ok_or_else(|| StripeError::missing("amount"))?;
        if amount == 0 || amount > left {
            let message = format!("The credit note's amount must be from 1 to {left}, what is left of the invoice.");
            return Err(StripeError::unfit("amount", message));
        }
        let (refund, credit, elsewhere) = (
            params.natural("refund_amount")?.unwrap_or_default(),
            params.natural("credit_amount")?.unwrap_or_default(),
            params.natural("out_of_band_amount")?.unwrap_or_default(),
        );
        if is_paid && refund + credit + elsewhere != amount {
            let message =
                "refund_amount, credit_amount and out_of_band_amount must add up to amount on a paid invoice.";
            return Err(StripeError::unfit("amount", message));
        }
        let reason = params.one_of("reason", &["duplicate", "fraudulent", "order_change", "product_unsatisfactory"])?;
        let refunded = if is_paid && refund > 0 {
            let charge = self.answer(invoice.text("_charge"));
            Some(self.refund(&charge, refund, None, json!({})))
        } else {
            None
        };
        let id = self.ids.id("cn");
        let count = self.objects.of_customer(invoice.text("customer"), "credit_note").count() + 1;
        let (pre, post) = if is_paid { (0, amount) } else { (amount, 0) };
        let refunds: Vec<Value> = refunded
            .iter()
            .map(|id| json!({ "amount_refunded": refund, "payment_record_refund": null, "refund": id, "type": "refund" }))
            .collect();
        self.objects.insert(json!({
            "id": id, "object": "credit_note", "amount": amount, "amount_shipping": 0, "created": self.now,
            "currency": invoice["currency"], "customer": invoice["customer"], "customer_account": null,
            "customer_balance_transaction": null, "discount_amount": 0, "discount_amounts": [],
            "effective_at": self.now, "invoice": invoice_id,
            "lines": {
                "object": "list", "has_more": false, "url": format!("/v1/credit_notes/{id}/lines"),
                "data": [{
                    "id": self.ids.id("cnli"), "object": "credit_note_line_item", "amount": amount,
                    "description": "Credit", "discount_amount": 0, "discount_amounts": [], "livemode": false,
                    "metadata": null, "pretax_credit_amounts": [], "quantity": 1, "tax_rates": [], "taxes": [],
                    "type": "custom_line_item", "unit_amount": amount, "unit_amount_decimal": amount.to_string(),
                }],
            },
            "livemode": false, "memo": params.text("memo")?, "metadata": params.metadata("metadata")?,
            "number": format!("{}-CN-{count:02}", invoice.text("number")),
            "out_of_band_amount": if elsewhere > 0 { json!(elsewhere) } else { Value::Null },
            "pdf": format!("{}/i/{invoice_id}/pdf", self.settings.base_url), "post_payment_amount": post,
            "pre_payment_amount": pre, "pretax_credit_amounts": [], "reason": reason, "refunds": refunds,
            "shipping_cost": null, "status": "issued", "subtotal": amount, "subtotal_excluding_tax": amount,
            "total": amount, "total_excluding_tax": amount, "total_taxes": [],
            "type": if is_paid { "post_payment" } else { "pre_payment" }, "voided_at": null,
        }));
        self.emit("credit_note.created", &id);
        if credit > 0 {
            self.change("customer.updated", invoice.text("customer"), |customer| {
                customer["balance"] = json!(customer.int("balance") - credit);
            });
        }
        let previous = self.alter(invoice_id, |invoice| {
            let key = if is_paid { "post_payment_credit_notes_amount" } else { "pre_payment_credit_notes_amount" };
            invoice[key] = json!(invoice.int(key) + amount);
            if !is_paid {
                invoice["amount_due"] = json!(invoice.int("amount_due") - amount);
                invoice["amount_remaining"] = json!(invoice.int("amount_remaining") - amount);
            }
        });
        self.emit_previous("invoice.updated", invoice_id, previous);
        if !is_paid {
            self.owe_less(invoice_id);
        }
        Ok(self.answer(&id))
    }

    /// An open invoice owes less: its payment is smaller, or there is nothing left to pay.
    fn owe_less(&mut self, invoice_id: &str) {
        let invoice = self.answer(invoice_id);
        let (due, intent) = (invoice.int("amount_remaining"), invoice.text("_payment_intent").to_owned());
        if due == 0 {
            self.cancel_payment(&intent, "void_invoice");
            self.mark_paid(invoice_id, None, false);
            return;
        }
        self.alter(&intent, |intent| intent["amount"] = json!(due));
        self.alter(invoice.text("_payment"), |payment| payment["amount_requested"] = json!(due));
    }
}

fn evidence() -> Value {
    const FIELDS: [&str; 27] = [
        "access_activity_log",
        "billing_address",
        "cancellation_policy",
        "cancellation_policy_disclosure",
        "cancellation_rebuttal",
        "customer_communication",
        "customer_email_address",
        "customer_name",
        "customer_purchase_ip",
        "customer_signature",
        "duplicate_charge_documentation",
        "duplicate_charge_explanation",
        "duplicate_charge_id",
        "product_description",
        "receipt",
        "refund_policy",
        "refund_policy_disclosure",
        "refund_refusal_explanation",
        "service_date",
        "service_documentation",
        "shipping_address",
        "shipping_carrier",
        "shipping_date",
        "shipping_documentation",
        "shipping_tracking_number",
        "uncategorized_file",
        "uncategorized_text",
    ];
    let mut evidence: serde_json::Map<String, Value> =
        FIELDS.iter().map(|field| ((*field).to_owned(), Value::Null)).collect();
    evidence.insert("enhanced_evidence".to_owned(), json!({}));
    Value::Object(evidence)
}
