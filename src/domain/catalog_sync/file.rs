//! Writing Stripe's ids into a catalog file, which stays as its author laid it out.

use toml_edit::{Array, DocumentMut, Item, TableLike, Value};

use super::Assignment;

/// Why a file cannot be written to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("it is no TOML: {0}")]
    NotToml(String),
    #[error("it has no price {0}; it was changed while Stripe was")]
    NoPrice(String),
}

/// The text of a catalog with the ids in it. Comments, order and layout stay.
///
/// # Errors
/// When the text is not that of the catalog which the assignments are for.
pub fn write_assignments(text: &str, assignments: &[Assignment]) -> Result<String, FileError> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        let message = error.message().to_owned();
        FileError::NotToml(message)
    })?;
    for assignment in assignments {
        let price = find_price(&mut document, &assignment.price);
        let price = price.ok_or_else(|| FileError::NoPrice(assignment.price.clone()))?;
        match &assignment.stripe_price_id {
            Some(id) => put(price, "stripe_price_id", id.as_str().into()),
            None => drop(price.remove("stripe_price_id")),
        }
        match assignment.former_stripe_price_ids.as_slice() {
            [] => drop(price.remove("former_stripe_price_ids")),
            former => put(price, "former_stripe_price_ids", former.iter().collect::<Array>().into()),
        }
    }
    Ok(document.to_string())
}

fn find_price<'d>(document: &'d mut DocumentMut, id: &str) -> Option<&'d mut dyn TableLike> {
    let (owner, name) = id.split_once('.')?;
    let has = |family: &str| {
        let owner = document.get(family).and_then(|family| family.get(owner));
        owner.and_then(|owner| owner.get("prices")).and_then(|prices| prices.get(name)).is_some()
    };
    let family = if has("plans") { "plans" } else { "credit_packs" };
    let owner = document.get_mut(family)?.as_table_like_mut()?.get_mut(owner)?;
    let prices = owner.as_table_like_mut()?.get_mut("prices")?;
    prices.as_table_like_mut()?.get_mut(name)?.as_table_like_mut()
}

/// What stands beside a value, such as a comment, stays beside the new one.
fn put(table: &mut dyn TableLike, key: &str, value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(known) => {
            let decor = known.decor().clone();
            *known = value;
            *known.decor_mut() = decor;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}
