//! Makes Stripe sell what the catalog says: reads what Stripe has, and carries out the steps of a plan.

use std::collections::BTreeMap;
use std::collections::HashMap;

use serde::Deserialize;
use stripe_product::price::{
    CreatePrice, CreatePriceRecurring, CreatePriceRecurringInterval, CreatePriceRecurringUsageType, ListPrice,
    UpdatePrice,
};
use stripe_product::product::{CreateProduct, ListProduct, UpdateProduct};

use crate::domain::catalog::Interval;
use crate::domain::catalog_sync::{
    Assignment, InStripe, NewPrice, NewProduct, Owner, PriceArchival, PriceChange, ProductChange, Step, SyncPlan,
};
use crate::stripe::client::{IdempotencyKey, StripeCallError, StripeClient};
use crate::stripe::listing::{List, PAGE};

/// Reads all products and prices, archived ones too.
///
/// # Errors
/// See [`StripeCallError`].
pub async fn read_stripe(client: &StripeClient) -> Result<InStripe, StripeCallError> {
    let mut found = InStripe::default();
    loop {
        let mut request = ListProduct::new().limit(PAGE);
        if let Some(last) = found.products.last() {
            request = request.starting_after(last.id.clone());
        }
        let page: List<_> = client.read("product.list", &request).await?;
        let is_last = !page.has_more || page.data.is_empty();
        found.products.extend(page.data);
        if is_last {
            break;
        }
    }
    loop {
        let mut request = ListPrice::new().limit(PAGE);
        if let Some(last) = found.prices.last() {
            request = request.starting_after(last.id.clone());
        }
        let page: List<_> = client.read("price.list", &request).await?;
        let is_last = !page.has_more || page.data.is_empty();
        found.prices.extend(page.data);
        if is_last {
            return Ok(found);
        }
    }
}

#[derive(Debug, Deserialize)]
struct Made {
    id: String,
}

/// Carries the steps out, in order, and answers what the catalog is to be given: `done` hears of each step once Stripe has
/// taken it. What is done when it fails stays done; a new plan goes on from there.
///
/// # Errors
/// See [`StripeCallError`].
pub async fn carry_out(
    client: &StripeClient,
    plan: SyncPlan,
    mut done: impl FnMut(&Step),
) -> Result<Vec<Assignment>, StripeCallError> {
    let mut products: HashMap<Owner, String> = HashMap::new();
    let mut prices: HashMap<String, String> = HashMap::new();
    for step in &plan.steps {
        match step {
            Step::CreateProduct(new) => drop(products.insert(new.owner.clone(), create_product(client, new).await?)),
            Step::UpdateProduct(change) => update_product(client, change).await?,
            Step::CreatePrice(new) => {
                let product = new.product.as_ref().or_else(|| products.get(&new.owner)).cloned().unwrap_or_default();
                prices.insert(new.price.clone(), create_price(client, new, &product).await?);
            }
            Step::UpdatePrice(change) => update_price(client, change).await?,
            Step::ArchivePrice(archival) => archive_price(client, archival, prices.get(&archival.price)).await?,
            Step::ArchiveProduct { product, .. } => {
                let request = UpdateProduct::new(product.as_str()).active(false);
                client.write("product.update", &request, &key("archive-product", &[product])).await?;
            }
        }
        done(step);
    }
    let mut assignments = plan.assignments;
    for assignment in &mut assignments {
        let made = prices.get(&assignment.price).cloned();
        assignment.stripe_price_id = assignment.stripe_price_id.take().or(made);
    }
    Ok(assignments)
}

/// Names the step by everything that it is about, so that the same step of a run that was cut is the same write.
fn key(purpose: &str, cause: &[&str]) -> IdempotencyKey {
    let cause: Vec<&[u8]> = cause.iter().map(|part| part.as_bytes()).collect();
    IdempotencyKey::derived(purpose, &cause)
}

fn written<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn metadata(metadata: &BTreeMap<String, String>) -> HashMap<String, String> {
    metadata.clone().into_iter().collect()
}

async fn create_product(client: &StripeClient, new: &NewProduct) -> Result<String, StripeCallError> {
    let mut request = CreateProduct::new(&new.name).metadata(metadata(&new.metadata));
    if let Some(description) = &new.description {
        request = request.description(description);
    }
    let answer = client.write("product.create", &request, &key("product", &[&written(new)])).await?;
    Ok(answer.parse::<Made>()?.id)
}

async fn update_product(client: &StripeClient, change: &ProductChange) -> Result<(), StripeCallError> {
    let mut request = UpdateProduct::new(change.product.as_str());
    if let Some(name) = &change.name {
        request = request.name(name);
    }
    if let Some(description) = &change.description {
        request = request.description(description);
    }
    if let Some(active) = change.active {
        request = request.active(active);
    }
    if let Some(wanted) = &change.metadata {
        request = request.metadata(metadata(wanted));
    }
    client.write("product.update", &request, &key("update-product", &[&written(change)])).await?;
    Ok(())
}

async fn create_price(client: &StripeClient, new: &NewPrice, product: &str) -> Result<String, StripeCallError> {
    let currency: stripe_types::Currency = match new.terms.currency.parse() {
        Ok(currency) => currency,
        Err(never) => match never {},
    };
    let mut request = CreatePrice::new(currency)
        .unit_amount(new.terms.unit_amount)
        .product(product)
        .nickname(&new.price)
        .lookup_key(&new.lookup_key)
        .transfer_lookup_key(true)
        .metadata(metadata(&new.metadata()));
    if let Some((count, interval)) = new.terms.every {
        request = request.recurring(CreatePriceRecurring {
            interval_count: Some(count.into()),
            usage_type: Some(CreatePriceRecurringUsageType::Licensed),
            ..CreatePriceRecurring::new(match interval {
                Interval::Day => CreatePriceRecurringInterval::Day,
                Interval::Week => CreatePriceRecurringInterval::Week,
                Interval::Month => CreatePriceRecurringInterval::Month,
                Interval::Year => CreatePriceRecurringInterval::Year,
            })
        });
    }
    // The same price of the same product, whether or not this run made the product: a request of a run that was killed
    // may still be under way.
    let same = written(&NewPrice { product: Some(product.to_owned()), ..new.clone() });
    let answer = client.write("price.create", &request, &key("price", &[&same])).await?;
    Ok(answer.parse::<Made>()?.id)
}

async fn update_price(client: &StripeClient, change: &PriceChange) -> Result<(), StripeCallError> {
    let mut request = UpdatePrice::new(change.stripe_price_id.as_str());
    if let Some(active) = change.active {
        request = request.active(active);
    }
    if let Some(lookup_key) = &change.lookup_key {
        request = request.lookup_key(lookup_key).transfer_lookup_key(true);
    }
    if let Some(wanted) = &change.metadata {
        request = request.metadata(metadata(wanted));
    }
    client.write("price.update", &request, &key("update-price", &[&written(change)])).await?;
    Ok(())
}

/// Stripe archives no default price, so the product is given the new one first.
async fn archive_price(
    client: &StripeClient,
    archival: &PriceArchival,
    successor: Option<&String>,
) -> Result<(), StripeCallError> {
    let id = archival.stripe_price_id.as_str();
    if let Some(product) = &archival.default_of {
        let successor = successor.map_or("", String::as_str);
        let request = UpdateProduct::new(product.as_str()).default_price(successor);
        client.write("product.update", &request, &key("default-price", &[product, id, successor])).await?;
    }
    client.write("price.update", &UpdatePrice::new(id).active(false), &key("archive-price", &[id])).await?;
    Ok(())
}
