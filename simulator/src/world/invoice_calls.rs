//! Stripe's calls about invoices (<https://docs.stripe.com/api/invoices>).

use serde_json::{Value, json};

use super::World;
use super::collection::{Collected, subscription_of};
use super::list::{PAGE_PARAMS, Page};
use super::read::Read;
use super::renewal::as_upcoming;
use super::subscriptions::{Beginning, NewSubscription, period_of};
use crate::error::{Result, StripeError};
use crate::params::Params;

impl World {
    pub(crate) fn list_invoices(&self, params: &Params<'_>) -> Result<Value> {
        let subscription = params.text("subscription")?;
        let known = ["customer", "status", "collection_method", "subscription", "due_date"];
        self.list_where(params, "invoice", "/v1/invoices", &known, &known[..3], |invoice| {
            subscription.is_none_or(|id| subscription_of(invoice) == Some(id))
        })
    }

    pub(crate) fn list_lines(&self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&PAGE_PARAMS)?;
        let invoice = self.objects.of("invoice", id)?;
        let url = format!("/v1/invoices/{id}/lines");
        Page::read(params)?.of(invoice.rows("lines").iter(), |line| line.text("id"), Value::clone, &url)
    }

    fn invoice_that_is(&self, id: &str, allowed: &[&str], to: &str) -> Result<Value> {
        let invoice = Value::clone(self.objects.of("invoice", id)?);
        let status = invoice.text("status");
        if !allowed.contains(&status) {
            let (code, message) = match (to, status) {
                ("pay", "paid") => ("invoice_already_paid", "Invoice is already paid".to_owned()),
                _ => ("invoice_not_editable", format!("An invoice that is {status} cannot be asked to {to}.")),
            };
            return Err(StripeError { code: Some(code), ..StripeError::unfit("invoice", message) });
        }
        Ok(invoice)
    }

    pub(crate) fn pay_invoice(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["payment_method", "paid_out_of_band", "off_session", "forgive"])?;
        let invoice = self.invoice_that_is(id, &["open", "draft", "uncollectible"], "pay")?;
        let method = params.text("payment_method")?;
        if let Some(method) = method {
            self.check_owner(method, invoice.text("customer"), "payment_method")?;
        }
        if invoice.text("status") == "draft" {
            let intent = self.finalize(id);
            self.emit("invoice.finalized", id);
            let Some(intent) = intent else {
                self.tell_paid(id);
                self.subscription_paid(id);
                return Ok(self.answer(id));
            };
            self.emit("payment_intent.created", &intent);
        }
        if params.bool("paid_out_of_band")?.unwrap_or(false) {
            let intent = self.answer(id).text("_payment_intent").to_owned();
            self.cancel_payment(&intent, "void_invoice");
            self.mark_paid(id, None, false);
            return Ok(self.answer(id));
        }
        match self.collect(id, method) {
            Collected::Failed(error) => Err(error),
            Collected::Paid | Collected::Processing => Ok(self.answer(id)),
        }
    }

    pub(crate) fn void_invoice(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&[])?;
        self.invoice_that_is(id, &["open", "uncollectible"], "void")?;
        self.void(id);
        Ok(self.answer(id))
    }

    pub(crate) fn finalize_invoice(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["auto_advance"])?;
        self.invoice_that_is(id, &["draft"], "finalize")?;
        let collects = params.bool("auto_advance")?.unwrap_or(true);
        if collects {
            self.finalize_and_collect(id);
            return Ok(self.answer(id));
        }
        let intent = self.finalize(id);
        self.emit("invoice.finalized", id);
        match intent {
            Some(intent) => self.emit("payment_intent.created", &intent),
            None => self.tell_paid(id),
        }
        Ok(self.answer(id))
    }

    pub(crate) fn give_up_invoice(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&[])?;
        self.invoice_that_is(id, &["open"], "be marked uncollectible")?;
        self.mark_uncollectible(id);
        Ok(self.answer(id))
    }

    pub(crate) fn list_invoice_payments(&self, params: &Params<'_>) -> Result<Value> {
        let payment = params.map("payment")?;
        let intent = payment.text("payment_intent")?;
        let known = ["invoice", "status", "payment"];
        self.list_where(params, "invoice_payment", "/v1/invoice_payments", &known, &known[..2], |object| {
            intent.is_none_or(|intent| object["payment"].text("payment_intent") == intent)
        })
    }

    /// What an invoice would be: the change is carried out in a copy of the world, by what would carry it out here.
    pub(crate) fn preview_invoice(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&[
            "customer",
            "subscription",
            "schedule",
            "subscription_details",
            "discounts",
            "currency",
            "preview_mode",
            "automatic_tax",
            "customer_details",
        ])?;
        super::subscription_calls::refuse(params, &["schedule", "customer_details", "discounts"])?;
        let customer = match params.text("subscription")? {
            Some(id) => self.objects.named("subscription", id, "subscription")?.text("customer").to_owned(),
            None => params.required("customer")?.to_owned(),
        };
        let mut scratch = self.scratch(&customer);
        let details = params.map("subscription_details")?;
        let invoice = match params.text("subscription")? {
            Some(id) => scratch.preview_change(id, &details)?,
            None => scratch.preview_beginning(params, &details)?,
        };
        let mut shown = scratch.answer(&invoice);
        let (reason, next) = (shown["billing_reason"].clone(), scratch.now + self.settings.draft_s);
        as_upcoming(&mut shown, next);
        // What is invoiced at once says so.
        if reason != "subscription_cycle" {
            shown["billing_reason"] = reason;
        }
        shown["id"] = json!(format!("upcoming_in_{}", invoice.trim_start_matches("in_")));
        for (key, nothing) in
            [("number", Value::Null), ("hosted_invoice_url", Value::Null), ("invoice_pdf", Value::Null)]
        {
            shown[key] = nothing;
        }
        shown["_charge"] = Value::Null;
        shown["_payment_intent"] = Value::Null;
        Ok(shown)
    }

    /// In a copy: changes a subscription, and answers the invoice that comes next.
    fn preview_change(&mut self, id: &str, details: &Params<'_>) -> Result<String> {
        let before = Value::clone(self.objects.named("subscription", id, "subscription")?);
        if matches!(before.text("status"), "canceled" | "incomplete_expired") {
            let message = format!("No upcoming invoices: the subscription {id} is {}.", before.text("status"));
            return Err(StripeError::state("invoice_upcoming_none", message));
        }
        details.only(&[
            "billing_cycle_anchor",
            "cancel_at",
            "cancel_at_period_end",
            "cancel_now",
            "default_tax_rates",
            "items",
            "proration_behavior",
            "proration_date",
            "resume_at",
            "start_date",
            "trial_end",
        ])?;
        super::subscription_calls::refuse(details, &["default_tax_rates", "resume_at", "start_date"])?;
        let latest = before.text("latest_invoice").to_owned();
        if details.bool("cancel_now")?.unwrap_or(false) {
            self.credit_rest(id, &before, details.int("proration_date")?.unwrap_or(self.now));
            self.end_with_what_is_due(id);
        } else {
            self.apply_update(id, &before, details)?;
        }
        let after = self.answer(id);
        if after.text("latest_invoice") != latest {
            return Ok(after.text("latest_invoice").to_owned());
        }
        if after.text("status") == "canceled" || after["cancel_at"].as_i64().is_some_and(|at| at <= period_of(&after).1)
        {
            let message = format!("No upcoming invoices: the subscription {id} ends.");
            return Err(StripeError::state("invoice_upcoming_none", message));
        }
        self.now = period_of(&after).1;
        Ok(self.renew(id))
    }

    /// In a copy: begins a subscription, and answers its first invoice.
    fn preview_beginning(&mut self, params: &Params<'_>, details: &Params<'_>) -> Result<String> {
        let customer = params.required("customer")?.to_owned();
        self.objects.named("customer", &customer, "customer")?;
        if !details.has("items") {
            let of_customer = self.objects.of_customer(&customer, "subscription");
            let live =
                of_customer.rev().find(|object| matches!(object.text("status"), "active" | "trialing" | "past_due"));
            let Some(id) = live.map(|object| object.text("id").to_owned()) else {
                let message = format!("No upcoming invoices for customer: {customer}");
                return Err(StripeError::state("invoice_upcoming_none", message));
            };
            return self.preview_change(&id, details);
        }
        let items = self.read_items(details)?;
        let new = NewSubscription {
            trial_end: self.read_trial(details, &items)?,
            billing_cycle_anchor: details.int("billing_cycle_anchor")?,
            customer,
            items,
            once: Vec::new(),
            metadata: json!({}),
            default_payment_method: None,
            discounts: Vec::new(),
            cancel_at_period_end: false,
            cancel_at: None,
            collection_method: "charge_automatically",
            days_until_due: None,
            description: None,
            missing_payment_method: "create_invoice",
        };
        let id = self.begin_subscription(new, Beginning::Unpaid);
        Ok(self.answer(&id).text("latest_invoice").to_owned())
    }
}
