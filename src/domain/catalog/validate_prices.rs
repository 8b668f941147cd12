//! The rules that prices must keep, those of plans and those of packs.

use super::errors::{path, quoted};
use super::validate::{MAX_ID_CHARS, Rules, is_id};
use super::{Interval, PackPrice, PlanPrice};
use crate::domain::money::Currency;

/// Stripe takes amounts of at most twelve digits, in minor units.
const MAX_UNIT_AMOUNT: i64 = 999_999_999_999;
const MAX_STRIPE_ID_CHARS: usize = 255;

/// What plan prices and pack prices have in common.
pub(super) struct Price<'c> {
    id: &'c str,
    stripe_price_id: Option<&'c str>,
    lookup_key: Option<&'c str>,
    former_stripe_price_ids: &'c [String],
    currency: Currency,
    unit_amount: i64,
}

impl<'c> From<&'c PlanPrice> for Price<'c> {
    fn from(price: &'c PlanPrice) -> Self {
        Price {
            id: &price.id,
            stripe_price_id: price.stripe_price_id.as_deref(),
            lookup_key: price.lookup_key.as_deref(),
            former_stripe_price_ids: &price.former_stripe_price_ids,
            currency: price.currency,
            unit_amount: price.unit_amount,
        }
    }
}

impl<'c> From<&'c PackPrice> for Price<'c> {
    fn from(price: &'c PackPrice) -> Self {
        Price {
            id: &price.id,
            stripe_price_id: price.stripe_price_id.as_deref(),
            lookup_key: price.lookup_key.as_deref(),
            former_stripe_price_ids: &price.former_stripe_price_ids,
            currency: price.currency,
            unit_amount: price.unit_amount,
        }
    }
}

impl Rules<'_> {
    /// The rules all prices keep. Gives the price's path.
    pub(super) fn price(&mut self, owner_path: &str, owner: &str, price: Price<'_>) -> String {
        let name = price.id.strip_prefix(owner).and_then(|rest| rest.strip_prefix('.'));
        let at = path(&path(owner_path, "prices"), name.unwrap_or(price.id));
        if !name.is_some_and(is_id) {
            self.problem(
                &at,
                format!("{} is no price id (use 1 to {MAX_ID_CHARS} of a-z, 0-9 and _ for its name)", quoted(price.id)),
            );
        }
        self.unique("price id", price.id, &at, "name one of the prices differently");
        let current = price.stripe_price_id.map(|id| ("stripe_price_id", id));
        let former = price.former_stripe_price_ids.iter().map(|id| ("former_stripe_price_ids", id.as_str()));
        for (name, id) in current.into_iter().chain(former) {
            let field = path(&at, name);
            self.stripe_text(&field, id);
            if id.starts_with("prod_") {
                self.problem(&field, format!("{} is a Stripe product (write the id of its price)", quoted(id)));
            }
            self.unique("Stripe price", id, &field, "a Stripe price can only pay for one thing");
        }
        if let Some(key) = price.lookup_key {
            let field = path(&at, "lookup_key");
            self.stripe_text(&field, key);
            self.unique("lookup key", key, &field, "Stripe gives a lookup key to one price only");
        }
        self.amount(&path(&at, "unit_amount"), price.unit_amount, price.currency, &path(&at, "currency"));
        at
    }

    fn amount(&mut self, field: &str, amount: i64, currency: Currency, currency_field: &str) {
        self.within(field, amount, 0, MAX_UNIT_AMOUNT);
        let step = currency.charge_step();
        if amount % step != 0 && !self.unreadable.contains(currency_field) {
            self.problem(field, format!("Stripe charges {currency} in steps of {step} only (round the amount)"));
        }
    }

    pub(super) fn interval(&mut self, field: &str, interval: Interval, count: u32) {
        // Stripe bills at least every three years.
        let most = match interval {
            Interval::Day => 1095,
            Interval::Week => 156,
            Interval::Month => 36,
            Interval::Year => 3,
        };
        self.within(field, count.into(), 1, most);
    }

    fn stripe_text(&mut self, field: &str, text: &str) {
        let printable = text.chars().all(|letter| letter.is_ascii_graphic());
        if text.is_empty() || text.len() > MAX_STRIPE_ID_CHARS || !printable {
            self.problem(field, format!("{} cannot be from Stripe (copy it anew, or leave it out)", quoted(text)));
        }
    }
}
