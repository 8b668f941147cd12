//! Completing Checkout sessions, as a customer does on the hosted page.

use serde_json::{Value, json};

use super::World;
use super::cards::Card;
use super::payment_methods::blank_address;
use super::payments::{NewIntent, Tried};
use super::read::Read;
use super::subscriptions::{Beginning, NewItem, NewSubscription};
use crate::error::{Result, StripeError};
use crate::time::DAY_S;

/// What the customer's attempt on the hosted page came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Completed,
    /// The card was declined, or needs its holder; the session stays open.
    Declined {
        code: &'static str,
    },
}

/// What the customer enters.
#[derive(Debug, Clone)]
pub struct Entered {
    pub card: Card,
    pub email: Option<String>,
    pub name: Option<String>,
    pub promotion_code: Option<String>,
}

impl World {
    /// The customer fills in the hosted page and pays.
    pub fn pay_session(&mut self, id: &str, entered: &Entered) -> Result<Outcome> {
        let session = Value::clone(self.objects.of("checkout.session", id)?);
        if session.text("status") != "open" {
            let message = format!("The session {id} is {}: only an open one can be paid.", session.text("status"));
            return Err(StripeError::unfit("session", message));
        }
        if let Some(code) = &entered.promotion_code {
            self.enter_code(id, &session, code)?;
        }
        let outcome = if session.text("mode") == "subscription" {
            self.subscribe_by_session(id, entered)
        } else {
            self.pay_once(id, entered)
        };
        Ok(outcome)
    }

    /// What is paid at a bank is settled days later.
    pub fn settle_session(&mut self, id: &str, succeeds: bool) -> Result<()> {
        let session = Value::clone(self.objects.of("checkout.session", id)?);
        let intent = session.text("payment_intent").to_owned();
        let is_pending = session.text("status") == "complete" && session.text("payment_status") == "unpaid";
        if !is_pending || intent.is_empty() {
            return Err(StripeError::unfit("session", format!("The session {id} waits for no payment.")));
        }
        if self.settle_intent(&intent, succeeds).is_some() {
            self.alter(id, |session| session["payment_status"] = json!("paid"));
            self.emit("checkout.session.async_payment_succeeded", id);
        } else {
            self.emit("checkout.session.async_payment_failed", id);
        }
        Ok(())
    }

    fn enter_code(&mut self, id: &str, session: &Value, code: &str) -> Result<()> {
        if !session.is("allow_promotion_codes") {
            return Err(StripeError::unfit("promotion_code", "This session takes no promotion codes."));
        }
        let found =
            self.objects.all("promotion_code").rev().find(|other| other.text("code").eq_ignore_ascii_case(code));
        let Some(found) = found.map(|found| found.text("id").to_owned()) else {
            return Err(StripeError::unfit("promotion_code", format!("This code is invalid: {code}")));
        };
        let fields = json!({ "discounts": [{ "promotion_code": found }] });
        let Value::Object(fields) = fields else { return Ok(()) };
        let discounts = self.read_discounts(&crate::params::Params::new(&fields), session.maybe_text("customer"))?;
        let subtotal = session.int("amount_subtotal");
        let off = discounts
            .iter()
            .map(|discount| super::coupons::taken_off(discount, subtotal, session.text("currency")))
            .sum::<i64>();
        self.alter(id, |session| {
            session["discounts"] = json!([{ "coupon": discounts[0]["source"]["coupon"], "promotion_code": found }]);
            session["amount_total"] = json!(subtotal - off);
            session["total_details"]["amount_discount"] = json!(off);
            session["_discounts"] = json!(discounts);
        });
        Ok(())
    }

    /// The session's customer, made now if it is to be; answers its id.
    fn customer_of_session(&mut self, id: &str, entered: &Entered) -> Option<String> {
        let session = self.answer(id);
        let existing = session.maybe_text("customer").map(str::to_owned);
        let wants_one = session.text("mode") == "subscription"
            || session.text("customer_creation") == "always"
            || session["_data"]["setup_future_usage"].is_string();
        let email = entered.email.clone().or_else(|| session.maybe_text("customer_email").map(str::to_owned));
        let customer = existing.clone().or_else(|| {
            wants_one.then(|| {
                let customer = self.new_customer();
                self.alter(&customer, |customer| {
                    customer["email"] = json!(email);
                    customer["name"] = json!(entered.name);
                });
                self.emit("customer.created", &customer);
                customer
            })
        });
        let known = customer.as_deref().map(|customer| self.answer(customer)).unwrap_or_default();
        let shown = |key: &str, entered: Option<&String>| {
            if known[key].is_string() { known[key].clone() } else { json!(entered) }
        };
        let mut address = blank_address();
        address["country"] = json!("US");
        let details = json!({
            "address": address, "business_name": null, "email": shown("email", email.as_ref()),
            "individual_name": null, "name": shown("name", entered.name.as_ref()), "phone": null,
            "tax_exempt": "none", "tax_ids": [],
        });
        self.alter(id, |session| {
            session["customer"] = json!(customer);
            session["customer_details"] = details;
        });
        customer
    }

    fn pay_once(&mut self, id: &str, entered: &Entered) -> Outcome {
        let customer = self.customer_of_session(id, entered);
        let session = self.answer(id);
        let data = &session["_data"];
        let amount = session.int("amount_total");
        if amount == 0 {
            self.complete(id, "no_payment_required");
            return Outcome::Completed;
        }
        let method = self.new_payment_method(known_card(entered.card), None);
        let saved = data.maybe_text("setup_future_usage");
        if let (Some(customer), Some(_)) = (&customer, saved) {
            self.alter(&method, |method| method["customer"] = json!(customer));
            self.objects.give_to(customer, &method);
            self.emit("payment_method.attached", &method);
        }
        let intent = match session.maybe_text("payment_intent") {
            Some(intent) => intent.to_owned(),
            None => {
                let intent = self.new_intent(NewIntent {
                    customer,
                    amount,
                    currency: session.text("currency").to_owned(),
                    description: data.maybe_text("description").map(str::to_owned),
                    invoice: None,
                    metadata: data["metadata"].clone(),
                    setup_future_usage: match saved {
                        Some("on_session") => Some("on_session"),
                        Some(_) => Some("off_session"),
                        None => None,
                    },
                });
                self.emit("payment_intent.created", &intent);
                self.alter(id, |session| session["payment_intent"] = json!(intent));
                intent
            }
        };
        match self.try_intent(&intent, &method) {
            Tried::Succeeded { charge } => {
                self.complete(id, "paid");
                let transaction = self.ids.id("txn");
                self.change("charge.updated", &charge, |charge| charge["balance_transaction"] = json!(transaction));
                Outcome::Completed
            }
            Tried::Processing => {
                self.complete(id, "unpaid");
                Outcome::Completed
            }
            Tried::Failed(refusal) => Outcome::Declined { code: refusal.code },
        }
    }

    fn subscribe_by_session(&mut self, id: &str, entered: &Entered) -> Outcome {
        // Until the card is good, Checkout makes no subscription that would have to be taken back.
        if let Some(refusal) = entered.card.refusal() {
            return Outcome::Declined { code: refusal.code };
        }
        let Some(customer) = self.customer_of_session(id, entered) else {
            return Outcome::Declined { code: "customer_missing" };
        };
        let session = self.answer(id);
        let data = session["_data"].clone();
        let trial_days = data.maybe_int("trial_period_days").map(|days| self.now + days * DAY_S);
        let trial_end = data.maybe_int("trial_end").or(trial_days).filter(|end| *end > self.now);
        let needs_method = session.text("payment_method_collection") == "always" || session.int("amount_total") > 0;
        let method = needs_method.then(|| {
            let method = self.new_payment_method(known_card(entered.card), Some(&customer));
            self.emit("payment_method.attached", &method);
            method
        });
        if let Some(method) = method.as_ref().filter(|_| session.int("amount_total") == 0) {
            let intent = self.new_setup_intent(&customer, method);
            self.alter(id, |session| session["setup_intent"] = Value::Null);
            self.emit("setup_intent.created", &intent);
            self.emit("setup_intent.succeeded", &intent);
        }
        let lines = session.rows("_line_items");
        let items = lines
            .iter()
            .filter(|line| line["price"]["recurring"].is_object())
            .map(|line| NewItem {
                price: line["price"].clone(),
                quantity: line.maybe_int("quantity").unwrap_or(1),
                metadata: json!({}),
            })
            .collect();
        let once = lines.iter().filter(|line| !line["price"]["recurring"].is_object()).cloned().collect();
        let new = NewSubscription {
            customer,
            items,
            once,
            trial_end,
            billing_cycle_anchor: data.maybe_int("billing_cycle_anchor"),
            metadata: data["metadata"].clone(),
            default_payment_method: method,
            discounts: session.rows("_discounts").to_vec(),
            cancel_at_period_end: false,
            cancel_at: None,
            collection_method: "charge_automatically",
            days_until_due: None,
            description: data.maybe_text("description").map(str::to_owned),
            missing_payment_method: match data.text("missing_payment_method") {
                "pause" => "pause",
                "cancel" => "cancel",
                _ => "create_invoice",
            },
        };
        let subscription = self.begin_subscription(new, Beginning::Checkout);
        let invoice = self.answer(&subscription)["latest_invoice"].clone();
        self.alter(id, |session| {
            session["subscription"] = json!(subscription);
            session["invoice"] = invoice;
        });
        let status = if session.int("amount_total") == 0 { "no_payment_required" } else { "paid" };
        self.complete(id, status);
        Outcome::Completed
    }

    fn new_setup_intent(&mut self, customer: &str, method: &str) -> String {
        let id = self.ids.id("seti");
        let secret = format!("{id}_secret_{}", self.ids.text(25));
        self.objects.insert(json!({
            "id": id, "object": "setup_intent", "application": null, "automatic_payment_methods": null,
            "cancellation_reason": null, "client_secret": secret, "created": self.now, "customer": customer,
            "customer_account": null, "description": null, "excluded_payment_method_types": null,
            "flow_directions": null, "last_setup_error": null, "latest_attempt": null, "livemode": false,
            "mandate": null, "metadata": {}, "next_action": null, "on_behalf_of": null, "payment_method": method,
            "payment_method_configuration_details": null,
            "payment_method_options": {
                "card": { "mandate_options": null, "network": null, "request_three_d_secure": "automatic" },
            },
            "payment_method_types": ["card"], "single_use_mandate": null, "status": "succeeded",
            "usage": "off_session",
        }));
        id
    }

    fn complete(&mut self, id: &str, payment_status: &str) {
        self.alter(id, |session| {
            session["status"] = json!("complete");
            session["payment_status"] = json!(payment_status);
            session["url"] = Value::Null;
        });
        self.emit("checkout.session.completed", id);
    }
}

pub fn known_card(card: Card) -> (Card, &'static str, &'static str) {
    let name = match card {
        Card::Good => "pm_card_visa",
        Card::Declines => "pm_card_chargeCustomerFail",
        Card::DeclinesForFunds => "pm_card_visa_chargeDeclinedInsufficientFunds",
        Card::NeedsAuthentication => "pm_card_authenticationRequired",
        Card::Refused => "pm_card_chargeDeclined",
        Card::SettlesLater => "pm_usBankAccount_success",
    };
    Card::of_test(name).unwrap_or((card, "visa", "4242"))
}
