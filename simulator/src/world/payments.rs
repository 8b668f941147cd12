//! Payments: intents, and the charges they make (<https://docs.stripe.com/api/payment_intents>).

use serde_json::{Value, json};

use super::World;
use super::cards::{Card, Refusal};
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;

#[derive(Debug)]
pub struct NewIntent {
    pub customer: Option<String>,
    /// In minor units.
    pub amount: i64,
    pub currency: String,
    pub description: Option<String>,
    pub invoice: Option<String>,
    pub metadata: Value,
    pub setup_future_usage: Option<&'static str>,
}

/// What came of a try to pay.
#[derive(Debug)]
pub enum Tried {
    Succeeded { charge: String },
    Processing,
    Failed(Refusal),
}

impl World {
    pub(crate) fn new_intent(&mut self, new: NewIntent) -> String {
        let id = self.ids.id("pi");
        let secret = format!("{id}_secret_{}", self.ids.text(25));
        let order = new.invoice.as_ref().map(|invoice| invoice.chars().take(25).collect::<String>());
        self.objects.insert(json!({
            "id": id, "object": "payment_intent", "amount": new.amount, "amount_capturable": 0,
            "amount_details": { "tip": {} }, "amount_received": 0, "application": null,
            "application_fee_amount": null, "automatic_payment_methods": null, "canceled_at": null,
            "cancellation_reason": null, "capture_method": "automatic", "client_secret": secret,
            "confirmation_method": "automatic", "created": self.now, "currency": new.currency,
            "customer": new.customer, "customer_account": null, "description": new.description,
            "excluded_payment_method_types": null, "last_payment_error": null, "latest_charge": null,
            "livemode": false, "managed_payments": { "enabled": false }, "metadata": new.metadata,
            "next_action": null, "on_behalf_of": null,
            "payment_details": { "customer_reference": null, "order_reference": order }, "payment_method": null,
            "payment_method_configuration_details": null,
            "payment_method_options": {
                "card": {
                    "installments": null, "mandate_options": null, "network": null,
                    "request_three_d_secure": "automatic",
                },
            },
            "payment_method_types": ["card"], "processing": null, "receipt_email": null, "review": null,
            "setup_future_usage": new.setup_future_usage, "shipping": null, "source": null,
            "statement_descriptor": null, "statement_descriptor_suffix": null, "status": "requires_payment_method",
            "transfer_data": null, "transfer_group": null, "_invoice": new.invoice,
        }));
        id
    }

    /// Charges a payment method, and tells what came of the payment itself.
    pub(crate) fn try_intent(&mut self, intent: &str, method: &str) -> Tried {
        let card = self.card_of(method);
        let is_authenticated = self.answer(intent).is("_authenticated");
        match card.refusal().filter(|refusal| !(refusal.needs_action && is_authenticated)) {
            Some(refusal) if refusal.needs_action => {
                let url = format!("{}/authenticate/{intent}", self.settings.base_url);
                self.alter(intent, |intent| {
                    intent["status"] = json!("requires_action");
                    intent["payment_method"] = json!(method);
                    intent["next_action"] = json!({
                        "redirect_to_url": { "return_url": null, "url": url }, "type": "redirect_to_url",
                    });
                });
                self.emit("payment_intent.requires_action", intent);
                Tried::Failed(refusal)
            }
            Some(refusal) => {
                let charge = self.new_charge(intent, method, Some(&refusal), false);
                let shown = self.answer(method);
                self.alter(intent, |intent| {
                    intent["status"] = json!("requires_payment_method");
                    intent["payment_method"] = Value::Null;
                    intent["latest_charge"] = json!(charge);
                    intent["last_payment_error"] = json!({
                        "advice_code": "try_again_later", "charge": charge, "code": refusal.code,
                        "decline_code": refusal.decline_code,
                        "doc_url": "https://stripe.com/docs/error-codes/card-declined",
                        "message": refusal.message, "payment_method": shown, "type": "card_error",
                    });
                });
                self.emit("charge.failed", &charge);
                self.emit("payment_intent.payment_failed", intent);
                Tried::Failed(refusal)
            }
            None if card == Card::SettlesLater => {
                let charge = self.new_charge(intent, method, None, true);
                self.alter(intent, |intent| {
                    intent["status"] = json!("processing");
                    intent["payment_method"] = json!(method);
                    intent["latest_charge"] = json!(charge);
                });
                self.emit("charge.pending", &charge);
                self.emit("payment_intent.processing", intent);
                Tried::Processing
            }
            None => {
                let charge = self.new_charge(intent, method, None, false);
                self.intent_succeeded(intent, method, &charge);
                Tried::Succeeded { charge }
            }
        }
    }

    fn intent_succeeded(&mut self, intent: &str, method: &str, charge: &str) {
        self.alter(intent, |intent| {
            intent["status"] = json!("succeeded");
            intent["amount_received"] = intent["amount"].clone();
            intent["payment_method"] = json!(method);
            intent["latest_charge"] = json!(charge);
            intent["next_action"] = Value::Null;
            intent["last_payment_error"] = Value::Null;
        });
        self.emit("charge.succeeded", charge);
        self.emit("payment_intent.succeeded", intent);
    }

    /// Ends a payment that was processing; answers its charge if it succeeded.
    pub(crate) fn settle_intent(&mut self, intent: &str, succeeds: bool) -> Option<String> {
        let before = self.answer(intent);
        let (charge, method) = (before.text("latest_charge").to_owned(), before.text("payment_method").to_owned());
        if succeeds {
            self.alter(&charge, |charge| {
                charge["status"] = json!("succeeded");
                charge["paid"] = json!(true);
            });
            self.intent_succeeded(intent, &method, &charge);
            return Some(charge);
        }
        self.alter(&charge, |charge| {
            charge["status"] = json!("failed");
            charge["failure_code"] = json!("insufficient_funds");
            charge["failure_message"] = json!("The account has insufficient funds.");
        });
        self.alter(intent, |intent| {
            intent["status"] = json!("requires_payment_method");
            intent["payment_method"] = Value::Null;
            intent["last_payment_error"] = json!({
                "charge": charge, "code": "insufficient_funds", "message": "The account has insufficient funds.",
                "type": "card_error",
            });
        });
        self.emit("charge.failed", &charge);
        self.emit("payment_intent.payment_failed", intent);
        None
    }

    /// The holder of a card authenticates a payment, or fails to.
    pub fn authenticate(&mut self, id: &str, succeeds: bool) -> Result<()> {
        let intent = Value::clone(self.objects.of("payment_intent", id)?);
        if intent.text("status") != "requires_action" {
            let message = format!("The payment {id} waits for no authentication.");
            return Err(StripeError::unfit("payment_intent", message));
        }
        let method = intent.text("payment_method").to_owned();
        let invoice = intent.text("_invoice").to_owned();
        if !succeeds {
            self.alter(id, |intent| {
                intent["status"] = json!("requires_payment_method");
                intent["next_action"] = Value::Null;
                intent["last_payment_error"] = json!({
                    "code": "payment_intent_authentication_failure", "message": "The authentication failed.",
                    "type": "invalid_request_error",
                });
            });
            self.emit("payment_intent.payment_failed", id);
            return Ok(());
        }
        self.alter(id, |intent| intent["_authenticated"] = json!(true));
        if invoice.is_empty() {
            self.try_intent(id, &method);
        } else {
            self.collect(&invoice, Some(&method));
        }
        Ok(())
    }

    fn new_charge(&mut self, intent: &str, method: &str, refusal: Option<&Refusal>, is_pending: bool) -> String {
        let id = self.ids.id("ch");
        let transaction = refusal.is_none().then(|| self.ids.id("txn"));
        let (of, method) = (self.answer(intent), self.answer(method));
        let (amount, card) = (of.int("amount"), &method["card"]);
        let paid = refusal.is_none() && !is_pending;
        let outcome = json!({
            "advice_code": null, "network_advice_code": null, "network_decline_code": null,
            "network_status": if refusal.is_some() { "declined_by_network" } else { "approved_by_network" },
            "reason": refusal.map(|refusal| refusal.decline_code), "risk_level": "normal", "risk_score": 12,
            "seller_message": refusal.map_or("Payment complete.", |_| "The bank declined the payment."),
            "type": if refusal.is_some() { "issuer_declined" } else { "authorized" },
        });
        let status = if refusal.is_some() {
            "failed"
        } else if is_pending {
            "pending"
        } else {
            "succeeded"
        };
        let receipt = paid.then(|| format!("{}/receipts/{id}", self.settings.base_url));
        self.objects.insert(json!({
            "id": id, "object": "charge", "amount": amount, "amount_captured": if refusal.is_some() { 0 } else { amount },
            "amount_refunded": 0, "application": null, "application_fee": null, "application_fee_amount": null,
            "balance_transaction": transaction, "billing_details": method["billing_details"],
            "calculated_statement_descriptor": "SIMULATED SELLER", "captured": refusal.is_none(), "created": self.now,
            "currency": of["currency"], "customer": of["customer"], "description": of["description"],
            "destination": null, "dispute": null, "disputed": false, "failure_balance_transaction": null,
            "failure_code": refusal.map(|refusal| refusal.code),
            "failure_message": refusal.map(|refusal| refusal.message), "fraud_details": {}, "livemode": false,
            "metadata": of["metadata"], "on_behalf_of": null, "order": null, "outcome": outcome, "paid": paid,
            "payment_intent": intent, "payment_method": method["id"],
            "payment_method_details": {
                "card": {
                    "amount_authorized": amount, "authorization_code": null, "brand": card["brand"],
                    "checks": card["checks"], "country": card["country"], "exp_month": card["exp_month"],
                    "exp_year": card["exp_year"], "extended_authorization": { "status": "disabled" },
                    "fingerprint": card["fingerprint"], "funding": card["funding"],
                    "incremental_authorization": { "status": "unavailable" }, "installments": null,
                    "last4": card["last4"], "mandate": null, "multicapture": { "status": "unavailable" },
                    "network": card["brand"], "network_token": { "used": false },
                    "network_transaction_id": null,
                    "overcapture": { "maximum_amount_capturable": amount, "status": "unavailable" },
                    "regulated_status": "unregulated", "three_d_secure": null, "transaction_link_id": null,
                    "wallet": null,
                },
                "type": "card",
            },
            "radar_options": {}, "receipt_email": null, "receipt_number": null, "receipt_url": receipt,
            "refunded": false, "review": null, "shipping": null, "source": null, "source_transfer": null,
            "statement_descriptor": null, "statement_descriptor_suffix": null, "status": status,
            "transfer_data": null, "transfer_group": null, "_invoice": of["_invoice"],
        }));
        id
    }

    pub(crate) fn retrieve(&self, kind: &str, id: &str) -> Result<Value> {
        self.objects.of(kind, id).map(|object| Value::clone(object))
    }

    pub(crate) fn list_intents(&self, params: &Params<'_>) -> Result<Value> {
        self.list(params, "payment_intent", "/v1/payment_intents", &["customer"], |_| true)
    }

    pub(crate) fn list_charges(&self, params: &Params<'_>) -> Result<Value> {
        self.list(params, "charge", "/v1/charges", &["customer", "payment_intent", "transfer_group"], |_| true)
    }

    pub(crate) fn cancel_intent(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["cancellation_reason"])?;
        let status = self.objects.of("payment_intent", id)?.text("status").to_owned();
        if matches!(status.as_str(), "succeeded" | "canceled" | "processing") {
            let message = format!("You cannot cancel this PaymentIntent because it has a status of {status}.");
            return Err(StripeError::state("payment_intent_unexpected_state", message));
        }
        self.cancel_payment(id, params.text("cancellation_reason")?.unwrap_or("requested_by_customer"));
        Ok(self.answer(id))
    }

    pub(crate) fn cancel_payment(&mut self, id: &str, reason: &str) {
        let now = self.now;
        self.alter(id, |intent| {
            intent["status"] = json!("canceled");
            intent["canceled_at"] = json!(now);
            intent["cancellation_reason"] = json!(reason);
        });
        self.emit("payment_intent.canceled", id);
    }
}
