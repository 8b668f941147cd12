//! All objects, by id and by kind. Copies share what does not change.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::read::Read;
use crate::error::{Result, StripeError};

#[derive(Debug, Clone, Default)]
pub struct Objects {
    by_id: HashMap<String, Arc<Value>>,
    /// In the order in which they came to be.
    by_kind: HashMap<String, Vec<String>>,
    /// Those that are, or were, a customer's.
    by_customer: HashMap<String, Vec<String>>,
}

impl Objects {
    pub fn insert(&mut self, object: Value) {
        self.put(Arc::new(object));
    }

    fn put(&mut self, object: Arc<Value>) {
        let id = object.text("id").to_owned();
        let kind = object.text("object").to_owned();
        let customer = object.text("customer").to_owned();
        if self.by_id.insert(id.clone(), object).is_none() {
            self.by_kind.entry(kind).or_default().push(id.clone());
            if !customer.is_empty() {
                self.by_customer.entry(customer).or_default().push(id);
            }
        }
    }

    /// A customer's objects alone, and what is for sale.
    pub fn around(&self, customer: &str) -> Self {
        let for_sale = ["billing.meter", "coupon", "price", "product", "promotion_code"];
        let kinds = for_sale.iter().filter_map(|kind| self.by_kind.get(*kind)).flatten();
        let own = self.by_customer.get(customer).into_iter().flatten();
        let mut around = Self::default();
        for object in kinds.chain(own).map(String::as_str).chain([customer]).filter_map(|id| self.by_id.get(id)) {
            around.put(object.clone());
        }
        around
    }

    /// Counts an object among a customer's that was not from its beginning.
    pub fn give_to(&mut self, customer: &str, id: &str) {
        let ids = self.by_customer.entry(customer.to_owned()).or_default();
        if !ids.iter().any(|other| other == id) {
            ids.push(id.to_owned());
        }
    }

    /// The objects of a kind that are, or were, a customer's, the oldest first.
    pub fn of_customer(&self, customer: &str, kind: &'static str) -> impl DoubleEndedIterator<Item = &Arc<Value>> {
        let ids = self.by_customer.get(customer).into_iter().flatten();
        ids.filter_map(|id| self.by_id.get(id)).filter(move |object| object.text("object") == kind)
    }

    pub fn get(&self, id: &str) -> Option<&Arc<Value>> {
        self.by_id.get(id)
    }

    /// The object that the path names.
    pub fn of(&self, kind: &str, id: &str) -> Result<&Arc<Value>> {
        self.get(id).filter(|object| object.text("object") == kind).ok_or_else(|| StripeError::not_found(kind, id))
    }

    /// The object that a parameter names.
    pub fn named(&self, kind: &str, id: &str, param: impl Into<String>) -> Result<&Arc<Value>> {
        self.get(id)
            .filter(|object| object.text("object") == kind && !object.is("deleted"))
            .ok_or_else(|| StripeError::no_such(kind, id, param))
    }

    pub fn edit(&mut self, id: &str) -> Option<&mut Value> {
        self.by_id.get_mut(id).map(Arc::make_mut)
    }

    pub fn remove(&mut self, id: &str) {
        if let Some(object) = self.by_id.remove(id)
            && let Some(ids) = self.by_kind.get_mut(object.text("object"))
        {
            ids.retain(|other| other != id);
        }
    }

    /// All of a kind, the oldest first.
    pub fn all(&self, kind: &str) -> impl DoubleEndedIterator<Item = &Arc<Value>> {
        self.by_kind.get(kind).into_iter().flatten().filter_map(|id| self.by_id.get(id))
    }
}
