//! Stripe's lists, a page at a time (<https://docs.stripe.com/api/pagination>).

use serde::Deserialize;

/// Most objects of one page.
pub const PAGE: i64 = 100;

/// One page of a list.
#[derive(Debug, Deserialize)]
pub struct List<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub has_more: bool,
}
