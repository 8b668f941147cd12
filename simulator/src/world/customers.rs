//! Customers (<https://docs.stripe.com/api/customers>).

use serde_json::{Value, json};

use super::World;
use super::list::Page;
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;

const FIELDS: [&str; 11] = [
    "address",
    "balance",
    "description",
    "email",
    "invoice_settings",
    "metadata",
    "name",
    "phone",
    "preferred_locales",
    "shipping",
    "tax_exempt",
];
/// Taken and not acted upon.
const TOLERATED: [&str; 4] = ["tax", "tax_id_data", "validate", "invoice_prefix"];

impl World {
    pub(crate) fn create_customer(&mut self, params: &Params<'_>) -> Result<Value> {
        let known: Vec<&str> =
            FIELDS.iter().chain(&TOLERATED).copied().chain(["payment_method", "promotion_code", "coupon"]).collect();
        params.only(&known)?;
        let id = self.new_customer();
        let made = self.fill_customer(&id, params, true);
        if let Err(error) = made {
            self.objects.remove(&id);
            return Err(error);
        }
        self.emit("customer.created", &id);
        if let Some(method) = params.text("payment_method")? {
            self.attach(method, &id, "payment_method")?;
        }
        Ok(self.answer(&id))
    }

    /// A customer of whom nothing is known yet; the event is left to whoever fills it.
    pub(crate) fn new_customer(&mut self) -> String {
        let id = self.ids.id("cus");
        let prefix = self.ids.text(8).to_uppercase();
        self.objects.insert(json!({
            "id": id, "object": "customer", "address": null, "balance": 0, "created": self.now, "currency": null,
            "customer_account": null, "default_source": null, "delinquent": false, "description": null,
            "discount": null, "email": null, "invoice_prefix": prefix,
            "invoice_settings": {
                "custom_fields": null, "default_payment_method": null, "footer": null, "rendering_options": null
            },
            "livemode": false, "metadata": {}, "name": null, "next_invoice_sequence": 1, "phone": null,
            "preferred_locales": [], "shipping": null, "tax_exempt": "none", "test_clock": null,
        }));
        id
    }

    fn fill_customer(&mut self, id: &str, params: &Params<'_>, is_new: bool) -> Result<()> {
        let mut customer = self.answer(id);
        for key in ["description", "email", "name", "phone"] {
            if params.has(key) {
                customer[key] = json!(params.text(key)?);
            }
        }
        if let Some(email) = customer.maybe_text("email")
            && !email.contains('@')
        {
            let message = format!("Invalid email address: {email}");
            return Err(StripeError { code: Some("email_invalid"), ..StripeError::malformed("email", message) });
        }
        if let Some(balance) = params.int("balance")? {
            customer["balance"] = json!(balance);
        }
        if let Some(exempt) = params.one_of("tax_exempt", &["none", "exempt", "reverse"])? {
            customer["tax_exempt"] = json!(exempt);
        }
        if params.has("address") {
            customer["address"] = address(&params.map("address")?)?;
        }
        if params.has("shipping") {
            let shipping = params.map("shipping")?;
            customer["shipping"] = json!({
                "address": address(&shipping.map("address")?)?,
                "name": shipping.text("name")?, "phone": shipping.text("phone")?,
            });
        }
        if params.has("preferred_locales") {
            customer["preferred_locales"] = json!(params.texts("preferred_locales")?);
        }
        let invoices = params.map("invoice_settings")?;
        invoices.only(&["default_payment_method", "custom_fields", "footer", "rendering_options"])?;
        if invoices.has("default_payment_method") {
            let method = invoices.text("default_payment_method")?;
            if let Some(method) = method {
                let param = invoices.name("default_payment_method");
                let known = self.objects.named("payment_method", method, param.clone())?;
                if is_new || known.text("customer") != id {
                    let message = format!("The payment method {method} is not attached to the customer.");
                    return Err(StripeError::unfit(param, message));
                }
            }
            customer["invoice_settings"]["default_payment_method"] = json!(method);
        }
        if invoices.has("footer") {
            customer["invoice_settings"]["footer"] = json!(invoices.text("footer")?);
        }
        params.merge_metadata("metadata", &mut customer["metadata"])?;
        self.objects.insert(customer);
        Ok(())
    }

    pub(crate) fn retrieve_customer(&self, id: &str) -> Result<Value> {
        self.objects.of("customer", id).map(|customer| Value::clone(customer))
    }

    pub(crate) fn update_customer(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        let known: Vec<&str> = FIELDS.iter().chain(&TOLERATED).copied().collect();
        params.only(&known)?;
        let before = self.live_customer(id)?;
        self.fill_customer(id, params, false)?;
        if let Some(previous) = super::read::changed(&before, &self.answer(id)) {
            self.emit_previous("customer.updated", id, Some(previous));
        }
        Ok(self.answer(id))
    }

    pub(crate) fn live_customer(&self, id: &str) -> Result<Value> {
        let customer = self.objects.of("customer", id)?;
        if customer.is("deleted") {
            return Err(StripeError::not_found("customer", id));
        }
        Ok(Value::clone(customer))
    }

    pub(crate) fn delete_customer(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&[])?;
        let customer = self.live_customer(id)?;
        self.end_everything_of(id);
        self.emit_object("customer.deleted", std::sync::Arc::new(customer), None);
        let gone = json!({ "id": id, "object": "customer", "deleted": true });
        self.objects.insert(gone.clone());
        Ok(gone)
    }

    pub(crate) fn list_customers(&self, params: &Params<'_>) -> Result<Value> {
        self.list(params, "customer", "/v1/customers", &["email"], |_| true)
    }

    /// `metadata['account_id']:'user_1' AND email:'a@b.c'`: of Stripe's language, what joins terms with one of AND and OR.
    pub(crate) fn search(&self, params: &Params<'_>, kind: &str) -> Result<Value> {
        params.only(&["query", "limit", "page"])?;
        let query = Query::parse(params.required("query")?)
            .ok_or_else(|| StripeError::malformed("query", "The simulator does not understand this query"))?;
        let found = self.objects.all(kind).rev().filter(|object| !object.is("deleted") && query.fits(object));
        let page = Page::read(params)?;
        let mut list =
            page.of(found, |object| object.text("id"), |object| Value::clone(object), &format!("/v1/{kind}s/search"))?;
        list["object"] = json!("search_result");
        list["next_page"] = Value::Null;
        Ok(list)
    }
}

fn address(params: &Params<'_>) -> Result<Value> {
    params.only(&["city", "country", "line1", "line2", "postal_code", "state"])?;
    Ok(json!({
        "city": params.text("city")?, "country": params.text("country")?, "line1": params.text("line1")?,
        "line2": params.text("line2")?, "postal_code": params.text("postal_code")?, "state": params.text("state")?,
    }))
}

#[derive(Debug)]
struct Query {
    terms: Vec<Term>,
    any: bool,
}

#[derive(Debug)]
struct Term {
    field: String,
    metadata_key: Option<String>,
    value: String,
    /// `~` asks for a part.
    partly: bool,
    negated: bool,
}

impl Query {
    fn parse(text: &str) -> Option<Self> {
        let any = text.contains(" OR ");
        let separator = if any { " OR " } else { " AND " };
        let terms: Option<Vec<Term>> = text.split(separator).map(|term| Term::parse(term.trim())).collect();
        terms.map(|terms| Self { terms, any })
    }

    fn fits(&self, object: &Value) -> bool {
        let mut each = self.terms.iter().map(|term| term.fits(object));
        if self.any { each.any(|fits| fits) } else { each.all(|fits| fits) }
    }
}

impl Term {
    fn parse(text: &str) -> Option<Self> {
        let (negated, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let at = text.find(']').map_or(0, |at| at + 1);
        let split = text[at..].find([':', '~'])? + at;
        let (field, rest) = text.split_at(split);
        let quoted = rest[1..].trim();
        let value = quoted.trim_matches(|c| c == '\'' || c == '"').replace("\\'", "'").replace("\\\"", "\"");
        let metadata_key = field
            .strip_prefix("metadata[")
            .and_then(|key| key.strip_suffix(']'))
            .map(|key| key.trim_matches(|c| c == '\'' || c == '"').to_owned());
        let field = if metadata_key.is_some() { "metadata" } else { field }.to_owned();
        Some(Self { field, metadata_key, value, partly: rest.starts_with('~'), negated })
    }

    fn fits(&self, object: &Value) -> bool {
        let found = match &self.metadata_key {
            Some(key) => &object["metadata"][key.as_str()],
            None => &object[self.field.as_str()],
        };
        let fits = match found {
            Value::String(text) if self.partly => text.to_lowercase().contains(&self.value.to_lowercase()),
            Value::String(text) => text.eq_ignore_ascii_case(&self.value),
            Value::Null => self.value == "null",
            Value::Bool(flag) => self.value == if *flag { "true" } else { "false" },
            Value::Number(number) => number.as_i64().is_some_and(|number| self.value.parse() == Ok(number)),
            _ => false,
        };
        fits != self.negated
    }
}
