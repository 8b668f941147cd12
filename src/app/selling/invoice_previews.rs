//! Invoices that Stripe has not made yet: the next one, and what a change would cost.
//!
//! <https://docs.stripe.com/api/invoices/create_preview>

use serde::Deserialize;
use stripe_billing::invoice::{
    CreatePreviewInvoice, CreatePreviewInvoiceSubscriptionDetails, CreatePreviewInvoiceSubscriptionDetailsItems,
    CreatePreviewInvoiceSubscriptionDetailsProrationBehavior,
};

use super::changes::{ChangeRequest, Proration, When};
use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::ids::AccountId;
use crate::stripe::client::StripeCallError;

/// An invoice as it would be. Amounts in minor units of `currency`, times in Unix seconds.
#[derive(Debug, Clone, Deserialize)]
pub struct InvoicePreview {
    pub currency: String,
    pub subtotal: i64,
    pub total: i64,
    pub amount_due: i64,
    /// What the customer has to its credit (negative) or owes before.
    pub starting_balance: Option<i64>,
    pub next_payment_attempt: Option<i64>,
    pub period_end: Option<i64>,
    pub lines: PreviewLines,
}

/// Stripe's list object.
#[derive(Debug, Clone, Deserialize)]
pub struct PreviewLines {
    pub data: Vec<PreviewLine>,
    #[serde(default)]
    pub has_more: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub struct PreviewLine {
    pub amount: i64,
    pub description: Option<String>,
    pub quantity: Option<i64>,
    pub period: Option<Period>,
    parent: Option<LineParent>,
    pricing: Option<Pricing>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Period {
    pub start: i64,
    pub end: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct LineParent {
    subscription_item_details: Option<LineDetails>,
    invoice_item_details: Option<LineDetails>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct LineDetails {
    proration: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
struct Pricing {
    price_details: Option<PriceDetails>,
}

#[derive(Debug, Clone, Deserialize)]
struct PriceDetails {
    price: Option<String>,
}

impl PreviewLine {
    pub fn price(&self) -> Option<&str> {
        self.pricing.as_ref()?.price_details.as_ref()?.price.as_deref()
    }

    /// Part of a period, paid or given back since something was changed in it.
    pub fn is_proration(&self) -> bool {
        let parent = self.parent.iter();
        let details =
            parent.flat_map(|parent| parent.subscription_item_details.iter().chain(&parent.invoice_item_details));
        details.filter_map(|details| details.proration).any(|proration| proration)
    }
}

impl InvoicePreview {
    /// The second that prorations begin in: a change that says it costs exactly this.
    pub fn proration_date(&self) -> Option<i64> {
        let prorated = self.lines.data.iter().filter(|line| line.is_proration());
        prorated.filter_map(|line| line.period.map(|period| period.start)).max()
    }
}

impl Service {
    /// The next invoice of a subscription; `None` if there will be none.
    pub async fn upcoming_invoice(
        &self,
        account: &AccountId,
        named: Option<&str>,
    ) -> Result<Option<InvoicePreview>, AppError> {
        if !self.stripe_client.is_configured() {
            return Err(StripeCallError::NotConfigured.into());
        }
        let subscription = self.meant_subscription(account, named).await?;
        self.preview(&CreatePreviewInvoice::new().subscription(subscription.id)).await
    }

    /// What a change would cost: at once, or on the invoice it comes into force with.
    pub async fn preview_change(
        &self,
        account: &AccountId,
        named: Option<&str>,
        request: &ChangeRequest,
    ) -> Result<Option<InvoicePreview>, AppError> {
        if !self.stripe_client.is_configured() {
            return Err(StripeCallError::NotConfigured.into());
        }
        let change = self.item_change(account, named, &request.to).await?;
        let mut item = CreatePreviewInvoiceSubscriptionDetailsItems::new();
        item.id = Some(change.item.id);
        item.price = Some(change.price);
        item.quantity = Some(change.quantity);
        let mut details = CreatePreviewInvoiceSubscriptionDetails::new();
        details.items = Some(vec![item]);
        let proration = if request.when == When::PeriodEnd { Proration::None } else { request.proration };
        details.proration_behavior = Some(match proration {
            Proration::AlwaysInvoice => CreatePreviewInvoiceSubscriptionDetailsProrationBehavior::AlwaysInvoice,
            Proration::CreateProrations => CreatePreviewInvoiceSubscriptionDetailsProrationBehavior::CreateProrations,
            Proration::None => CreatePreviewInvoiceSubscriptionDetailsProrationBehavior::None,
        });
        details.proration_date = request.proration_date.filter(|_| proration != Proration::None);
        let preview = CreatePreviewInvoice::new().subscription(change.subscription.id).subscription_details(details);
        self.preview(&preview).await.map_err(|error| self.about_price(error))
    }

    async fn preview(&self, request: &CreatePreviewInvoice) -> Result<Option<InvoicePreview>, AppError> {
        match self.stripe_client.read("invoice.create_preview", request).await {
            Err(StripeCallError::Refused(refusal))
                if refusal.stripe_code.as_deref() == Some("invoice_upcoming_none") =>
            {
                Ok(None)
            }
            preview => Ok(Some(preview?)),
        }
    }
}
