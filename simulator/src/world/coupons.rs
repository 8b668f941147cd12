//! Coupons, promotion codes, and the discounts that come of them (<https://docs.stripe.com/api/coupons>).

use serde_json::{Value, json};

use super::World;
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;

impl World {
    pub(crate) fn create_coupon(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&[
            "id",
            "amount_off",
            "currency",
            "duration",
            "duration_in_months",
            "max_redemptions",
            "metadata",
            "name",
            "percent_off",
            "redeem_by",
            "applies_to",
            "currency_options",
        ])?;
        let percent = params.decimal("percent_off")?;
        let amount = params.natural("amount_off")?;
        if percent.is_some() == amount.is_some() {
            let message = "You must pass exactly one of percent_off and amount_off.";
            return Err(StripeError::malformed("percent_off", message));
        }
        if percent.is_some_and(|percent| percent <= 0.0 || percent > 100.0) {
            return Err(StripeError::malformed("percent_off", "percent_off must be above 0 and at most 100"));
        }
        let currency = params.text("currency")?;
        if amount.is_some() && currency.is_none() {
            return Err(StripeError::missing("currency"));
        }
        let duration = params.one_of("duration", &["forever", "once", "repeating"])?.unwrap_or("once");
        let months = params.natural("duration_in_months")?;
        if (duration == "repeating") != months.is_some() {
            let message = "duration_in_months belongs to a duration of repeating.";
            return Err(StripeError::malformed("duration_in_months", message));
        }
        let id = match params.text("id")? {
            Some(id) if self.objects.get(id).is_some() => {
                return Err(StripeError::state("resource_already_exists", format!("Coupon already exists: {id}")));
            }
            Some(id) => id.to_owned(),
            None => self.ids.text(8),
        };
        self.objects.insert(json!({
            "id": id, "object": "coupon", "amount_off": amount, "created": self.now, "currency": currency,
            "duration": duration, "duration_in_months": months, "livemode": false,
            "max_redemptions": params.natural("max_redemptions")?, "metadata": params.metadata("metadata")?,
            "name": params.text("name")?, "percent_off": percent, "redeem_by": params.int("redeem_by")?,
            "times_redeemed": 0, "valid": true,
        }));
        self.emit("coupon.created", &id);
        Ok(self.answer(&id))
    }

    pub(crate) fn delete_coupon(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&[])?;
        let coupon = self.objects.of("coupon", id)?.clone();
        self.objects.remove(id);
        self.emit_object("coupon.deleted", coupon, None);
        Ok(json!({ "id": id, "object": "coupon", "deleted": true }))
    }

    pub(crate) fn create_promotion_code(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&[
            "promotion",
            "coupon",
            "code",
            "active",
            "customer",
            "expires_at",
            "max_redemptions",
            "metadata",
            "restrictions",
        ])?;
        let promotion = params.map("promotion")?;
        let (coupon, param) = match params.text("coupon")? {
            Some(coupon) => (coupon, "coupon".to_owned()),
            None => (promotion.required("coupon")?, promotion.name("coupon")),
        };
        let coupon = Value::clone(self.objects.named("coupon", coupon, param)?);
        let code = params.text("code")?.map_or_else(|| self.ids.text(8).to_uppercase(), str::to_owned);
        let taken = |code: &str| {
            self.objects
                .all("promotion_code")
                .any(|other| other.is("active") && other.text("code").eq_ignore_ascii_case(code))
        };
        if taken(&code) {
            let message = format!("An active promotion code with `code: {code}` already exists.");
            return Err(StripeError::unfit("code", message));
        }
        let id = self.ids.id("promo");
        let restrictions = params.map("restrictions")?;
        self.objects.insert(json!({
            "id": id, "object": "promotion_code", "active": params.bool("active")?.unwrap_or(true), "code": code,
            "created": self.now, "customer": params.text("customer")?, "customer_account": null,
            "expires_at": params.int("expires_at")?, "livemode": false,
            "max_redemptions": params.natural("max_redemptions")?, "metadata": params.metadata("metadata")?,
            "promotion": { "coupon": coupon["id"], "type": "coupon" },
            "restrictions": {
                "first_time_transaction": restrictions.bool("first_time_transaction")?.unwrap_or(false),
                "minimum_amount": restrictions.natural("minimum_amount")?,
                "minimum_amount_currency": restrictions.text("minimum_amount_currency")?,
            },
            "times_redeemed": 0, "_coupon": coupon,
        }));
        self.emit("promotion_code.created", &id);
        Ok(self.answer(&id))
    }

    pub(crate) fn update_promotion_code(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["active", "metadata"])?;
        let mut code = Value::clone(self.objects.of("promotion_code", id)?);
        if let Some(active) = params.bool("active")? {
            code["active"] = json!(active);
        }
        params.merge_metadata("metadata", &mut code["metadata"])?;
        self.change("promotion_code.updated", id, |object| *object = code);
        Ok(self.answer(id))
    }

    pub(crate) fn list_promotion_codes(&self, params: &Params<'_>) -> Result<Value> {
        let code = params.text("code")?;
        let coupon = params.text("coupon")?;
        let known = ["active", "customer", "code", "coupon"];
        self.list_where(params, "promotion_code", "/v1/promotion_codes", &known, &known[..2], |object| {
            code.is_none_or(|code| object.text("code").eq_ignore_ascii_case(code))
                && coupon.is_none_or(|coupon| object["promotion"].text("coupon") == coupon)
        })
    }

    /// Reads `discounts[]` of a request into discounts of a customer's, still off the record.
    pub(crate) fn read_discounts(&mut self, params: &Params<'_>, customer: Option<&str>) -> Result<Vec<Value>> {
        let mut discounts = Vec::new();
        for one in params.list("discounts")? {
            one.only(&["coupon", "promotion_code", "discount"])?;
            if let Some(kept) = one.text("discount")? {
                discounts.push(Value::clone(self.objects.named("discount", kept, one.name("discount"))?));
                continue;
            }
            let (coupon, code) = match one.text("promotion_code")? {
                Some(code) => {
                    let code = self.usable_code(code, customer, &one.name("promotion_code"))?;
                    (code["promotion"].text("coupon").to_owned(), Some(code.text("id").to_owned()))
                }
                None => (one.required("coupon")?.to_owned(), None),
            };
            let coupon = Value::clone(self.objects.named("coupon", &coupon, one.name("coupon"))?);
            if !self.is_redeemable(&coupon) {
                let message = format!("Coupon {} is used up, or expired.", coupon.text("id"));
                return Err(StripeError {
                    code: Some("coupon_expired"),
                    ..StripeError::unfit(one.name("coupon"), message)
                });
            }
            let end =
                coupon.maybe_int("duration_in_months").and_then(|months| crate::time::add_months(self.now, months));
            discounts.push(json!({
                "id": self.ids.id("di"), "object": "discount", "checkout_session": null, "customer": customer,
                "customer_account": null, "end": end, "invoice": null, "invoice_item": null,
                "promotion_code": code, "source": { "coupon": coupon["id"], "type": "coupon" }, "start": self.now,
                "subscription": null, "subscription_item": null, "_coupon": coupon,
            }));
        }
        Ok(discounts)
    }

    fn usable_code(&self, id: &str, customer: Option<&str>, param: &str) -> Result<Value> {
        let code = Value::clone(self.objects.named("promotion_code", id, param)?);
        let is_over = code.maybe_int("expires_at").is_some_and(|end| end <= self.now)
            || code.maybe_int("max_redemptions").is_some_and(|most| code.int("times_redeemed") >= most);
        let is_others = code.maybe_text("customer").is_some_and(|owner| Some(owner) != customer);
        if !code.is("active") || is_over || is_others {
            let message =
                format!("The promotion code {id} cannot be redeemed: inactive, expired, used up or another's.");
            return Err(StripeError::unfit(param, message));
        }
        Ok(code)
    }

    fn is_redeemable(&self, coupon: &Value) -> bool {
        coupon.maybe_int("redeem_by").is_none_or(|until| self.now <= until)
            && coupon.maybe_int("max_redemptions").is_none_or(|most| coupon.int("times_redeemed") < most)
    }

    /// Puts discounts on record as a subscription's, and counts what they were redeemed from.
    pub(crate) fn redeem(&mut self, discounts: Vec<Value>, subscription: &str) -> Vec<String> {
        let mut ids = Vec::new();
        let customer = self.answer(subscription)["customer"].clone();
        for mut discount in discounts {
            let id = discount.text("id").to_owned();
            let is_new = self.objects.get(&id).is_none();
            discount["subscription"] = json!(subscription);
            discount["customer"] = customer.clone();
            let (coupon, code) =
                (discount["source"].text("coupon").to_owned(), discount.text("promotion_code").to_owned());
            self.objects.insert(discount);
            if is_new {
                for counted in [coupon, code] {
                    self.alter(&counted, |object| object["times_redeemed"] = json!(object.int("times_redeemed") + 1));
                }
                self.emit("customer.discount.created", &id);
            }
            ids.push(id);
        }
        ids
    }
}

/// What a discount takes off an amount in a currency.
pub fn taken_off(discount: &Value, amount: i64, currency: &str) -> i64 {
    let coupon = &discount["_coupon"];
    if amount <= 0 {
        return 0;
    }
    match coupon["percent_off"].as_f64() {
        Some(percent) => (amount as f64 * percent / 100.0).round() as i64,
        None if coupon.text("currency") == currency => coupon.int("amount_off").min(amount),
        None => 0,
    }
}
