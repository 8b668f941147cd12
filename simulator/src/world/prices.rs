//! Prices (<https://docs.stripe.com/api/prices>): what they cost never changes.

use serde_json::{Value, json};

use super::World;
use super::read::{Read, changed};
use crate::error::{Result, StripeError};
use crate::params::Params;

const INTERVALS: [&str; 4] = ["day", "week", "month", "year"];
const CREATION: [&str; 16] = [
    "active",
    "billing_scheme",
    "currency",
    "lookup_key",
    "metadata",
    "nickname",
    "product",
    "product_data",
    "recurring",
    "tax_behavior",
    "tiers",
    "tiers_mode",
    "transfer_lookup_key",
    "transform_quantity",
    "unit_amount",
    "unit_amount_decimal",
];

impl World {
    pub(crate) fn create_price(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&CREATION)?;
        let product = match params.text("product")? {
            Some(product) => {
                self.objects.named("product", product, "product")?;
                product.to_owned()
            }
            None if params.has("product_data") => {
                let data = params.map("product_data")?;
                data.only(&["name", "active", "id", "metadata", "statement_descriptor", "tax_code", "unit_label"])?;
                let created = self.product_from_data(&data)?;
                created.text("id").to_owned()
            }
            None => return Err(StripeError::missing("product")),
        };
        let mut price = self.price_from_data(params, Some(&product))?;
        let id = price.text("id").to_owned();
        if let Some(key) = params.text("lookup_key")? {
            self.take_lookup_key(key, params.bool("transfer_lookup_key")?.unwrap_or(false))?;
            price["lookup_key"] = json!(key);
        }
        self.objects.insert(price);
        self.emit("price.created", &id);
        Ok(self.answer(&id))
    }

    fn product_from_data(&mut self, data: &Params<'_>) -> Result<Value> {
        let id = data.text("id")?.map_or_else(|| self.ids.id("prod"), str::to_owned);
        let mut product = self.blank_product(&id);
        product["name"] = json!(data.required("name")?);
        data.merge_metadata("metadata", &mut product["metadata"])?;
        self.objects.insert(product);
        self.emit("product.created", &id);
        Ok(self.answer(&id))
    }

    /// A price out of its parameters, also of `price_data` within other calls.
    pub(crate) fn price_from_data(&mut self, params: &Params<'_>, product: Option<&str>) -> Result<Value> {
        let currency = params.required("currency")?.to_lowercase();
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
            let message = format!("Invalid currency: {currency}");
            return Err(StripeError::malformed(params.name("currency"), message));
        }
        let tiers = self.tiers(params)?;
        let (unit_amount, decimal) = unit_amount(params, tiers.is_some())?;
        let mut price = json!({
            "id": self.ids.id("price"), "object": "price", "active": params.bool("active")?.unwrap_or(true),
            "billing_scheme": if tiers.is_some() { "tiered" } else { "per_unit" }, "created": self.now,
            "currency": currency, "custom_unit_amount": null, "livemode": false, "lookup_key": null,
            "metadata": params.metadata("metadata")?, "nickname": params.text("nickname")?, "product": product,
            "recurring": self.recurring(params)?,
            "tax_behavior": params.text("tax_behavior")?.unwrap_or("unspecified"),
            "tiers_mode": null, "transform_quantity": null, "type": "one_time", "unit_amount": unit_amount,
            "unit_amount_decimal": decimal,
        });
        if price["recurring"].is_object() {
            price["type"] = json!("recurring");
        }
        if let Some(tiers) = tiers {
            let mode = params.one_of("tiers_mode", &["graduated", "volume"])?;
            price["tiers_mode"] = json!(mode.ok_or_else(|| StripeError::missing(params.name("tiers_mode")))?);
            price["_tiers"] = tiers;
        }
        let transform = params.map("transform_quantity")?;
        if let Some(divide_by) = transform.natural("divide_by")? {
            let round = transform.one_of("round", &["up", "down"])?.unwrap_or("down");
            price["transform_quantity"] = json!({ "divide_by": divide_by.max(1), "round": round });
        }
        Ok(price)
    }

    fn recurring(&self, params: &Params<'_>) -> Result<Value> {
        if !params.has("recurring") {
            return Ok(Value::Null);
        }
        let recurring = params.map("recurring")?;
        recurring.only(&["interval", "interval_count", "usage_type", "meter", "trial_period_days"])?;
        let interval = recurring
            .one_of("interval", &INTERVALS)?
            .ok_or_else(|| StripeError::missing(recurring.name("interval")))?;
        let usage = recurring.one_of("usage_type", &["licensed", "metered"])?.unwrap_or("licensed");
        let meter = recurring.text("meter")?;
        match (usage, meter) {
            ("metered", None) => {
                let message = "Metered prices need a meter (legacy usage records are not simulated).";
                return Err(StripeError::malformed(recurring.name("meter"), message));
            }
            (_, Some(meter)) => {
                self.objects.named("billing.meter", meter, recurring.name("meter"))?;
            }
            _ => {}
        }
        Ok(json!({
            "interval": interval, "interval_count": recurring.natural("interval_count")?.unwrap_or(1).max(1),
            "meter": meter, "trial_period_days": recurring.natural("trial_period_days")?, "usage_type": usage,
        }))
    }

    fn tiers(&self, params: &Params<'_>) -> Result<Option<Value>> {
        let given = params.list("tiers")?;
        if given.is_empty() {
            return Ok(None);
        }
        let mut tiers = Vec::new();
        for tier in &given {
            tier.only(&["up_to", "unit_amount", "unit_amount_decimal", "flat_amount", "flat_amount_decimal"])?;
            let up_to = match tier.required("up_to")? {
                "inf" => None,
                _ => tier.natural("up_to")?,
            };
            let decimal = |key: &str| tier.decimal(key).map(|number| number.map(|number| number.to_string()));
            let unit = tier.int("unit_amount")?;
            let flat = tier.int("flat_amount")?;
            tiers.push(json!({
                "up_to": up_to, "unit_amount": unit, "flat_amount": flat,
                "unit_amount_decimal": unit.map(|unit| unit.to_string()).or(decimal("unit_amount_decimal")?),
                "flat_amount_decimal": flat.map(|flat| flat.to_string()).or(decimal("flat_amount_decimal")?),
            }));
        }
        Ok(Some(json!(tiers)))
    }

    fn take_lookup_key(&mut self, key: &str, may_transfer: bool) -> Result<()> {
        let holder = self.objects.all("price").find(|price| price.text("lookup_key") == key);
        let Some(holder) = holder.map(|price| price.text("id").to_owned()) else { return Ok(()) };
        if !may_transfer {
            let message =
                format!("A price ({holder}) already uses that lookup key; transfer_lookup_key would move it.");
            return Err(StripeError::unfit("lookup_key", message));
        }
        self.change("price.updated", &holder, |price| price["lookup_key"] = Value::Null);
        Ok(())
    }

    pub(crate) fn update_price(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["active", "lookup_key", "metadata", "nickname", "tax_behavior", "transfer_lookup_key"])?;
        let before = Value::clone(self.objects.of("price", id)?);
        let mut price = before.clone();
        if let Some(active) = params.bool("active")? {
            price["active"] = json!(active);
        }
        if params.has("nickname") {
            price["nickname"] = json!(params.text("nickname")?);
        }
        if let Some(behavior) = params.text("tax_behavior")? {
            price["tax_behavior"] = json!(behavior);
        }
        params.merge_metadata("metadata", &mut price["metadata"])?;
        if params.has("lookup_key") {
            let key = params.text("lookup_key")?;
            if let Some(key) = key.filter(|key| before.text("lookup_key") != *key) {
                self.take_lookup_key(key, params.bool("transfer_lookup_key")?.unwrap_or(false))?;
            }
            price["lookup_key"] = json!(key);
        }
        if let Some(previous) = changed(&before, &price) {
            self.objects.insert(price);
            self.emit_previous("price.updated", id, Some(previous));
        }
        Ok(self.answer(id))
    }

    pub(crate) fn list_prices(&self, params: &Params<'_>) -> Result<Value> {
        let keys = params.texts("lookup_keys")?;
        let recurring = params.map("recurring")?;
        let (interval, usage, meter) =
            (recurring.text("interval")?, recurring.text("usage_type")?, recurring.text("meter")?);
        let also = |price: &Value| {
            let of = &price["recurring"];
            (keys.is_empty() || keys.contains(&price.text("lookup_key")))
                && interval.is_none_or(|interval| of.text("interval") == interval)
                && usage.is_none_or(|usage| of.text("usage_type") == usage)
                && meter.is_none_or(|meter| of.text("meter") == meter)
        };
        let known = ["active", "product", "currency", "type", "lookup_keys", "recurring"];
        self.list_where(params, "price", "/v1/prices", &known, &known[..4], also)
    }

    /// Puts a product on record that a catalog names.
    pub fn seed_product(&mut self, id: &str, name: &str, metadata: Value) {
        let mut product = self.blank_product(id);
        product["name"] = json!(name);
        product["metadata"] = metadata;
        self.objects.insert(product);
        self.emit("product.created", id);
    }

    /// Puts a price on record under an id of the caller's choice, which Stripe itself would not let anybody choose.
    pub fn seed_price(&mut self, price: &SeedPrice) {
        let recurring = price.interval.as_ref().map(|interval| {
            json!({
                "interval": interval, "interval_count": price.interval_count.max(1), "meter": null,
                "trial_period_days": null, "usage_type": "licensed",
            })
        });
        let id = price.id.clone().unwrap_or_else(|| self.ids.id("price"));
        self.objects.insert(json!({
            "id": id, "object": "price", "active": true, "billing_scheme": "per_unit", "created": self.now,
            "currency": price.currency, "custom_unit_amount": null, "livemode": false,
            "lookup_key": price.lookup_key, "metadata": {}, "nickname": null, "product": price.product,
            "type": if recurring.is_some() { "recurring" } else { "one_time" }, "recurring": recurring,
            "tax_behavior": "unspecified", "tiers_mode": null, "transform_quantity": null,
            "unit_amount": price.unit_amount, "unit_amount_decimal": price.unit_amount.to_string(),
        }));
        self.emit("price.created", &id);
    }
}

/// A price that a catalog names.
#[derive(Debug, Clone, Default)]
pub struct SeedPrice {
    pub id: Option<String>,
    pub product: String,
    pub lookup_key: Option<String>,
    pub currency: String,
    /// In minor units.
    pub unit_amount: i64,
    /// `None` for what is paid once.
    pub interval: Option<String>,
    pub interval_count: i64,
}

fn unit_amount(params: &Params<'_>, has_tiers: bool) -> Result<(Value, Value)> {
    match (params.natural("unit_amount")?, params.decimal("unit_amount_decimal")?) {
        (Some(amount), _) => Ok((json!(amount), json!(amount.to_string()))),
        (None, Some(decimal)) if decimal >= 0.0 => {
            let whole = (decimal.fract() == 0.0).then_some(decimal as i64);
            Ok((json!(whole), json!(decimal.to_string())))
        }
        (None, Some(_)) => {
            Err(StripeError::malformed(params.name("unit_amount_decimal"), "Invalid decimal: below zero"))
        }
        (None, None) if has_tiers => Ok((Value::Null, Value::Null)),
        (None, None) => Err(StripeError::missing(params.name("unit_amount"))),
    }
}

/// The legacy plan that Stripe shows beside each recurring price.
pub fn plan(price: &Value) -> Value {
    let recurring = &price["recurring"];
    json!({
        "id": price["id"], "object": "plan", "active": price["active"], "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"], "billing_scheme": price["billing_scheme"],
        "created": price["created"], "currency": price["currency"], "interval": recurring["interval"],
        "interval_count": recurring["interval_count"], "livemode": false, "metadata": price["metadata"],
        "meter": recurring["meter"], "nickname": price["nickname"], "product": price["product"],
        "tiers_mode": price["tiers_mode"], "transform_usage": price["transform_quantity"],
        "trial_period_days": recurring["trial_period_days"], "usage_type": recurring["usage_type"],
    })
}

/// What a quantity of a price costs, in minor units, rounded half away from zero.
pub fn cost(price: &Value, quantity: f64) -> i64 {
    let quantity = match price["transform_quantity"].maybe_int("divide_by") {
        None => quantity,
        Some(by) => {
            let packages = quantity / by as f64;
            if price["transform_quantity"].text("round") == "up" { packages.ceil() } else { packages.floor() }
        }
    };
    let decimal = |value: &Value| value.as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    if price.text("billing_scheme") != "tiered" {
        return (decimal(&price["unit_amount_decimal"]) * quantity).round() as i64;
    }
    let is_volume = price.text("tiers_mode") == "volume";
    let (mut total, mut from) = (0.0, 0.0);
    for tier in price.rows("_tiers") {
        let up_to = tier["up_to"].as_f64().unwrap_or(f64::INFINITY);
        let (unit, flat) = (decimal(&tier["unit_amount_decimal"]), decimal(&tier["flat_amount_decimal"]));
        if is_volume {
            if quantity <= up_to {
                total = unit * quantity + flat;
                break;
            }
        } else if quantity > from || (from == 0.0 && quantity == 0.0) {
            total += unit * (quantity.min(up_to) - from) + flat;
            from = up_to;
        }
    }
    total.round() as i64
}
