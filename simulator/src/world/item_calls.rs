//! Stripe's calls about the items of subscriptions (<https://docs.stripe.com/api/subscription_items>): each changes its
//! subscription.

use serde_json::{Map, Value, json};

use super::World;
use super::list::{PAGE_PARAMS, Page};
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;

/// What of a request about an item is about its subscription.
const OF_SUBSCRIPTION: [&str; 5] =
    ["payment_behavior", "proration_behavior", "proration_date", "off_session", "expand"];

impl World {
    fn item(&self, id: &str) -> Result<(String, Value)> {
        let found = self.objects.all("subscription").rev().find_map(|subscription| {
            let item = subscription.rows("items").iter().find(|item| item.text("id") == id)?;
            Some((subscription.text("id").to_owned(), item.clone()))
        });
        found.ok_or_else(|| StripeError::not_found("subscription_item", id))
    }

    pub(crate) fn retrieve_item(&self, id: &str) -> Result<Value> {
        self.item(id).map(|(_, item)| item)
    }

    pub(crate) fn list_items(&self, params: &Params<'_>) -> Result<Value> {
        let known: Vec<&str> = PAGE_PARAMS.iter().copied().chain(["subscription"]).collect();
        params.only(&known)?;
        let id = params.required("subscription")?;
        let subscription = self.objects.named("subscription", id, "subscription")?;
        let url = format!("/v1/subscription_items?subscription={id}");
        Page::read(params)?.of(subscription.rows("items").iter(), |item| item.text("id"), Value::clone, &url)
    }

    pub(crate) fn create_item(&mut self, fields: &Map<String, Value>) -> Result<Value> {
        let subscription = Params::new(fields).required("subscription")?.to_owned();
        let (mut of_item, mut update) = split(fields);
        of_item.remove("subscription");
        let before: Vec<Value> = self.retrieve("subscription", &subscription)?.rows("items").to_vec();
        update.insert("items".to_owned(), json!([of_item]));
        let after = self.update_subscription(&subscription, &Params::new(&update))?;
        let is_new = |item: &&Value| !before.iter().any(|old| old["id"] == item["id"]);
        after
            .rows("items")
            .iter()
            .find(is_new)
            .cloned()
            .ok_or_else(|| StripeError::not_found("subscription_item", "new"))
    }

    pub(crate) fn update_item(&mut self, id: &str, fields: &Map<String, Value>) -> Result<Value> {
        let (subscription, _) = self.item(id)?;
        let (mut of_item, mut update) = split(fields);
        of_item.insert("id".to_owned(), json!(id));
        update.insert("items".to_owned(), json!([of_item]));
        self.update_subscription(&subscription, &Params::new(&update))?;
        self.retrieve_item(id)
    }

    pub(crate) fn delete_item(&mut self, id: &str, fields: &Map<String, Value>) -> Result<Value> {
        let (subscription, _) = self.item(id)?;
        let (of_item, mut update) = split(fields);
        Params::new(&of_item).only(&["clear_usage"])?;
        update.insert("items".to_owned(), json!([{ "id": id, "deleted": "true" }]));
        self.update_subscription(&subscription, &Params::new(&update))?;
        Ok(json!({ "id": id, "object": "subscription_item", "deleted": true }))
    }
}

/// The fields of the item, and those of its subscription.
fn split(fields: &Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let is_of_item = |(key, _): &(&String, &Value)| !OF_SUBSCRIPTION.contains(&key.as_str());
    let copy = |(key, value): (&String, &Value)| (key.clone(), value.clone());
    let of_item = fields.iter().filter(is_of_item).map(copy).collect();
    let of_subscription = fields.iter().filter(|field| !is_of_item(field)).map(copy).collect();
    (of_item, of_subscription)
}
