//! Stripe's errors (<https://docs.stripe.com/api/errors>).

use serde_json::{Value, json};

/// A refusal as Stripe words it.
#[derive(Debug, Clone, PartialEq)]
pub struct StripeError {
    /// HTTP status.
    pub status: u16,
    /// Stripe's `type`.
    pub kind: &'static str,
    pub code: Option<&'static str>,
    pub message: String,
    pub param: Option<String>,
    pub decline_code: Option<&'static str>,
    /// The payment that failed, for card errors.
    pub payment_intent: Option<Box<Value>>,
    /// Whether the request had begun to take effect, so that its idempotency key keeps this answer.
    pub begun: bool,
}

pub type Result<T> = std::result::Result<T, StripeError>;

impl StripeError {
    fn invalid_request(status: u16, code: Option<&'static str>, message: String) -> Self {
        Self {
            status,
            kind: "invalid_request_error",
            code,
            message,
            param: None,
            decline_code: None,
            payment_intent: None,
            begun: true,
        }
    }

    fn of_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    fn before_begin(mut self) -> Self {
        self.begun = false;
        self
    }

    /// A parameter that must be there is not.
    pub fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        Self::invalid_request(400, Some("parameter_missing"), format!("Missing required param: {param}."))
            .of_param(param)
            .before_begin()
    }

    /// A parameter that this call does not have, here at the least.
    pub fn unknown(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("Received unknown parameter: {param}. If Stripe has it, the simulator does not know it.");
        Self::invalid_request(400, Some("parameter_unknown"), message).of_param(param).before_begin()
    }

    /// A parameter of the wrong form.
    pub fn malformed(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid_request(400, None, message.into()).of_param(param).before_begin()
    }

    /// A parameter that is well-formed and does not fit the state.
    pub fn unfit(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::invalid_request(400, None, message.into()).of_param(param)
    }

    /// The state does not allow the request.
    pub fn state(code: &'static str, message: impl Into<String>) -> Self {
        Self::invalid_request(400, Some(code), message.into())
    }

    /// The object that the path names does not exist.
    pub fn not_found(kind: &str, id: &str) -> Self {
        Self::invalid_request(404, Some("resource_missing"), format!("No such {}: '{id}'", spoken(kind))).of_param("id")
    }

    /// An object that a parameter names does not exist.
    pub fn no_such(kind: &str, id: &str, param: impl Into<String>) -> Self {
        Self::invalid_request(400, Some("resource_missing"), format!("No such {}: '{id}'", spoken(kind)))
            .of_param(param)
    }

    /// No call has this method and path.
    pub fn unrecognized_url(method: &str, path: &str) -> Self {
        let message = format!("Unrecognized request URL ({method}: {path}). If Stripe has it, the simulator does not.");
        Self::invalid_request(404, None, message).before_begin()
    }

    pub fn unauthorized(message: &str) -> Self {
        Self::invalid_request(401, None, message.to_owned()).before_begin()
    }

    /// The key was used with other parameters, or for another call.
    pub fn idempotency_mismatch(key: &str, what: &str) -> Self {
        let message = format!("The idempotency key '{key}' was first used with {what}; a key belongs to one request.");
        Self { kind: "idempotency_error", ..Self::invalid_request(400, None, message).before_begin() }
    }

    /// Another request with the key is still under way.
    pub fn idempotency_in_use(key: &str) -> Self {
        let message = format!("There is currently another in-progress request using the idempotency key '{key}'.");
        Self {
            kind: "idempotency_error",
            ..Self::invalid_request(409, Some("idempotency_key_in_use"), message).before_begin()
        }
    }

    pub fn rate_limited() -> Self {
        let message = "Too many requests in too short a time.".to_owned();
        Self::invalid_request(429, Some("rate_limit"), message).before_begin()
    }

    pub fn server_error() -> Self {
        let message = "The simulator was told to fail here.".to_owned();
        Self { kind: "api_error", ..Self::invalid_request(500, None, message).before_begin() }
    }

    /// The card was refused (402).
    pub fn card(code: &'static str, decline_code: Option<&'static str>, message: &str) -> Self {
        Self { kind: "card_error", decline_code, ..Self::invalid_request(402, Some(code), message.to_owned()) }
    }

    /// The body of the answer.
    pub fn body(&self, request_id: &str) -> Value {
        let mut error = json!({
            "message": self.message,
            "request_log_url": format!("https://dashboard.stripe.com/test/logs/{request_id}?t=0"),
            "type": self.kind,
        });
        if let Some(code) = self.code {
            error["code"] = json!(code);
            error["doc_url"] = json!(format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-")));
        }
        if let Some(param) = &self.param {
            error["param"] = json!(param);
        }
        if let Some(decline_code) = self.decline_code {
            error["decline_code"] = json!(decline_code);
        }
        if let Some(intent) = &self.payment_intent {
            error["payment_intent"] = (**intent).clone();
        }
        json!({ "error": error })
    }
}

/// How Stripe's messages call a kind of object.
fn spoken(kind: &str) -> &str {
    match kind {
        "payment_method" => "PaymentMethod",
        "payment_intent" => "payment_intent",
        "checkout.session" => "checkout.session",
        "promotion_code" => "promotion code",
        "billing.meter" => "billing meter",
        other => other,
    }
}
