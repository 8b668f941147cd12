//! An invoice's lines beyond the ten that Stripe shows with it: they have to be asked for. Among them may be the one that
//! a plan's credits come from, since what is pending (each change of seats, say) stands before what renews.

use std::borrow::Cow;

use serde_json::value::RawValue;
use stripe_billing::invoice_line_item::ListInvoiceInvoiceLineItem;

use crate::app::error::AppError;
use crate::app::service::Service;
use crate::domain::billing::Observation;
use crate::domain::stripe_object::{InvoiceLine, StripeObject};
use crate::stripe::client::StripeCallError;
use crate::stripe::listing::{List, PAGE};
use crate::stripe::translate::{self, Facts};

impl Service {
    /// The facts, with all lines of their invoices.
    ///
    /// # Errors
    /// [`AppError::Stripe`] if there are more, and they cannot be read.
    pub(super) async fn with_all_lines<'a>(&self, facts: &'a Facts) -> Result<Cow<'a, Facts>, AppError> {
        if !facts.observations.iter().any(is_cut) {
            return Ok(Cow::Borrowed(facts));
        }
        let mut whole = facts.clone();
        for observation in whole.observations.iter_mut().filter(|observation| is_cut(observation)) {
            let StripeObject::Invoice(invoice) = &mut observation.object else { continue };
            invoice.lines = self.lines_of_invoice(&invoice.id).await?;
            invoice.has_more_lines = false;
        }
        Ok(Cow::Owned(whole))
    }

    async fn lines_of_invoice(&self, invoice: &str) -> Result<Vec<InvoiceLine>, AppError> {
        let mut lines: Vec<InvoiceLine> = Vec::new();
        loop {
            let mut request = ListInvoiceInvoiceLineItem::new(invoice).limit(PAGE);
            if let Some(last) = lines.last() {
                request = request.starting_after(last.id.as_str());
            }
            let page: List<Box<RawValue>> = self.stripe_client.read("invoice.list_lines", &request).await?;
            for line in &page.data {
                let line = translate::invoice_line(line.get().as_bytes());
                lines.push(line.map_err(|error| StripeCallError::Unreadable(error.to_string()))?);
            }
            if !page.has_more || page.data.is_empty() {
                return Ok(lines);
            }
        }
    }
}

/// Whether it shows an invoice without all of its lines. A deleted one has none that could be asked for.
fn is_cut(observation: &Observation) -> bool {
    matches!(&observation.object, StripeObject::Invoice(invoice) if invoice.has_more_lines && invoice.status != "deleted")
}
