//! Which of Stripe's products and prices are the catalog's.

use std::collections::BTreeSet;

use super::{InStripe, Owner, PRICE_METADATA, StripePrice, StripeProduct, WantedPrice, WantedProduct};

/// Finds the catalog's products and prices in what Stripe has.
#[derive(Debug)]
pub struct Finder<'a> {
    stripe: &'a InStripe,
    wanted: &'a [WantedProduct<'a>],
    /// Prices that the catalog names by their id: no other of its prices is any of them.
    named: BTreeSet<&'a str>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(wanted: &'a [WantedProduct<'a>], stripe: &'a InStripe) -> Self {
        let prices = wanted.iter().flat_map(|product| &product.prices);
        let named = prices.filter_map(|price| price.stripe_price_id).collect();
        Self { stripe, wanted, named }
    }

    /// Everything in Stripe that is or was this price, the oldest first.
    pub(super) fn related(&self, wanted: &WantedPrice<'_>) -> Vec<&'a StripePrice> {
        let is_related = |price: &&StripePrice| {
            let is_named = Some(price.id.as_str()) == wanted.stripe_price_id;
            let has_key = price.lookup_key.as_deref() == Some(wanted.key());
            let is_marked = price.metadata.get(PRICE_METADATA).is_some_and(|name| name == wanted.id);
            is_named || ((has_key || is_marked) && !self.named.contains(price.id.as_str()))
        };
        let mut related: Vec<&StripePrice> = self.stripe.prices.iter().filter(is_related).collect();
        related.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        related
    }

    /// The one that asks what the catalog asks: the one it names, else the one with its lookup key, else the newest of
    /// those marked as it; an archived one only if the catalog names it.
    pub(super) fn current(&self, wanted: &WantedPrice<'_>) -> Option<&'a StripePrice> {
        let rank = |price: &StripePrice| {
            let is_named = Some(price.id.as_str()) == wanted.stripe_price_id;
            (price.active, is_named, price.lookup_key.as_deref() == Some(wanted.key()), price.created)
        };
        let related = self.related(wanted).into_iter();
        let fitting = related.filter(|price| {
            let is_named = Some(price.id.as_str()) == wanted.stripe_price_id;
            wanted.terms.are_those_of(price) && (price.active || is_named)
        });
        fitting.max_by_key(|price| rank(price))
    }

    /// The product that bears the owner's mark, else the one its prices are in, if it is nobody else's.
    pub(super) fn product(&self, wanted: &WantedProduct<'_>) -> Option<&'a StripeProduct> {
        let products = self.stripe.products.iter();
        let marked = products.filter(|product| Owner::of_metadata(&product.metadata).as_ref() == Some(&wanted.owner));
        let marked = marked.min_by_key(|product| (!product.active, product.created, &product.id));
        marked.or_else(|| self.product_of_prices(wanted))
    }

    fn product_of_prices(&self, wanted: &WantedProduct<'_>) -> Option<&'a StripeProduct> {
        let mut homes = wanted.prices.iter().flat_map(|price| self.related(price)).map(|price| price.product.as_str());
        homes.find_map(|home| {
            let product = self.stripe.products.iter().find(|product| product.id == home)?;
            let others = self.wanted.iter().filter(|other| other.owner != wanted.owner);
            let mut of_others = others.flat_map(|other| &other.prices).flat_map(|price| self.related(price));
            let is_free = Owner::of_metadata(&product.metadata).is_none();
            (is_free && !of_others.any(|price| price.product == home)).then_some(product)
        })
    }

    /// The product that offers a price unless asked for another. Stripe archives no such price.
    pub(super) fn default_of(&self, price: &StripePrice) -> Option<&'a str> {
        let product = self.stripe.products.iter().find(|product| product.id == price.product)?;
        (product.default_price.as_deref() == Some(price.id.as_str())).then_some(product.id.as_str())
    }
}
