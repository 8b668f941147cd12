//! Products (<https://docs.stripe.com/api/products>).

use serde_json::{Value, json};

use super::World;
use super::read::{Read, changed};
use crate::error::{Result, StripeError};
use crate::params::Params;

const FIELDS: [&str; 14] = [
    "active",
    "default_price",
    "description",
    "images",
    "marketing_features",
    "metadata",
    "name",
    "package_dimensions",
    "shippable",
    "statement_descriptor",
    "tax_code",
    "type",
    "unit_label",
    "url",
];

impl World {
    pub(crate) fn create_product(&mut self, params: &Params<'_>) -> Result<Value> {
        let known: Vec<&str> = FIELDS.iter().copied().chain(["id", "default_price_data"]).collect();
        params.only(&known)?;
        params.required("name")?;
        let id = params.text("id")?.map_or_else(|| self.ids.id("prod"), str::to_owned);
        if self.objects.get(&id).is_some() {
            let message = format!("Product already exists: {id}");
            return Err(StripeError::state("resource_already_exists", message));
        }
        let mut product = self.blank_product(&id);
        fill(&mut product, params)?;
        self.objects.insert(product);
        self.emit("product.created", &id);
        let price = params.map("default_price_data")?;
        if params.has("default_price_data") {
            let price = self.price_from_data(&price, Some(&id))?;
            let price_id = price.text("id").to_owned();
            self.objects.insert(price);
            self.emit("price.created", &price_id);
            self.change("product.updated", &id, |product| product["default_price"] = json!(price_id));
        }
        Ok(self.answer(&id))
    }

    pub(crate) fn blank_product(&self, id: &str) -> Value {
        json!({
            "id": id, "object": "product", "active": true, "created": self.now, "default_price": null,
            "description": null, "images": [], "livemode": false, "marketing_features": [], "metadata": {},
            "name": "", "package_dimensions": null, "shippable": null, "statement_descriptor": null,
            "tax_code": null, "type": "service", "unit_label": null, "updated": self.now, "url": null,
        })
    }

    pub(crate) fn update_product(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&FIELDS)?;
        let before = Value::clone(self.objects.of("product", id)?);
        let mut product = before.clone();
        fill(&mut product, params)?;
        if params.has("default_price") {
            let price = params.text("default_price")?;
            if let Some(price) = price {
                self.objects.named("price", price, "default_price")?;
            }
            product["default_price"] = json!(price);
        }
        if let Some(previous) = changed(&before, &product) {
            product["updated"] = json!(self.now);
            self.objects.insert(product);
            self.emit_previous("product.updated", id, Some(previous));
        }
        Ok(self.answer(id))
    }

    pub(crate) fn delete_product(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&[])?;
        let product = self.objects.of("product", id)?.clone();
        if self.objects.all("price").any(|price| price.text("product") == id) {
            let message = "This product cannot be deleted because it has one or more user-created prices.";
            return Err(StripeError::unfit("id", message));
        }
        self.objects.remove(id);
        self.emit_object("product.deleted", product, None);
        Ok(json!({ "id": id, "object": "product", "deleted": true }))
    }

    pub(crate) fn list_products(&self, params: &Params<'_>) -> Result<Value> {
        let ids = params.texts("ids")?;
        let also = |product: &Value| ids.is_empty() || ids.contains(&product.text("id"));
        let known = ["active", "ids", "shippable", "url", "type"];
        self.list_where(params, "product", "/v1/products", &known, &["active", "shippable", "url", "type"], also)
    }
}

fn fill(product: &mut Value, params: &Params<'_>) -> Result<()> {
    if let Some(name) = params.text("name")? {
        product["name"] = json!(name);
    }
    for key in ["description", "statement_descriptor", "tax_code", "unit_label", "url"] {
        if params.has(key) {
            product[key] = json!(params.text(key)?);
        }
    }
    for key in ["active", "shippable"] {
        if let Some(flag) = params.bool(key)? {
            product[key] = json!(flag);
        }
    }
    if let Some(kind) = params.one_of("type", &["service", "good"])? {
        product["type"] = json!(kind);
    }
    if params.has("images") {
        product["images"] = json!(params.texts("images")?);
    }
    if params.has("marketing_features") {
        let features: Result<Vec<Value>> =
            params.list("marketing_features")?.iter().map(|one| Ok(json!({ "name": one.required("name")? }))).collect();
        product["marketing_features"] = json!(features?);
    }
    params.merge_metadata("metadata", &mut product["metadata"])
}
