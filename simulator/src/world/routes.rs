//! The one table of Stripe's calls.

use serde_json::Value;

use super::World;
use crate::error::{Result, StripeError};
use crate::params::Params;

impl World {
    pub(crate) fn route(&mut self, method: &str, path: &str, params: &Params<'_>) -> Result<Value> {
        let segments: Vec<&str> = path.split('/').collect();
        match (method, segments.as_slice()) {
            ("POST", ["customers"]) => self.create_customer(params),
            ("GET", ["customers"]) => self.list_customers(params),
            ("GET", ["customers", "search"]) => self.search(params, "customer"),
            ("GET", ["customers", id]) => self.retrieve_customer(id),
            ("POST", ["customers", id]) => self.update_customer(id, params),
            ("DELETE", ["customers", id]) => self.delete_customer(id, params),
            ("GET", ["customers", id, "payment_methods"]) => self.list_payment_methods(params, Some(id)),

            ("POST", ["products"]) => self.create_product(params),
            ("GET", ["products"]) => self.list_products(params),
            ("GET", ["products", "search"]) => self.search(params, "product"),
            ("GET", ["products", id]) => self.retrieve("product", id),
            ("POST", ["products", id]) => self.update_product(id, params),
            ("DELETE", ["products", id]) => self.delete_product(id, params),

            ("POST", ["prices"]) => self.create_price(params),
            ("GET", ["prices"]) => self.list_prices(params),
            ("GET", ["prices", "search"]) => self.search(params, "price"),
            ("GET", ["prices", id]) => self.retrieve("price", id),
            ("POST", ["prices", id]) => self.update_price(id, params),

            ("POST", ["payment_methods"]) => self.create_payment_method(params),
            ("GET", ["payment_methods"]) => self.list_payment_methods(params, None),
            ("GET", ["payment_methods", id]) => self.retrieve_payment_method(id),
            ("POST", ["payment_methods", id, "attach"]) => self.attach_payment_method(id, params),
            ("POST", ["payment_methods", id, "detach"]) => self.detach_payment_method(id, params),

            ("POST", ["coupons"]) => self.create_coupon(params),
            ("GET", ["coupons"]) => self.list(params, "coupon", "/v1/coupons", &[], |_| true),
            ("GET", ["coupons", id]) => self.retrieve("coupon", id),
            ("DELETE", ["coupons", id]) => self.delete_coupon(id, params),
            ("POST", ["promotion_codes"]) => self.create_promotion_code(params),
            ("GET", ["promotion_codes"]) => self.list_promotion_codes(params),
            ("GET", ["promotion_codes", id]) => self.retrieve("promotion_code", id),
            ("POST", ["promotion_codes", id]) => self.update_promotion_code(id, params),

            ("POST", ["checkout", "sessions"]) => self.create_session(params),
            ("GET", ["checkout", "sessions"]) => self.list_sessions(params),
            ("GET", ["checkout", "sessions", id]) => self.retrieve("checkout.session", id),
            ("POST", ["checkout", "sessions", id]) => self.update_session(id, params),
            ("GET", ["checkout", "sessions", id, "line_items"]) => self.list_line_items(id, params),
            ("POST", ["checkout", "sessions", id, "expire"]) => self.expire_session(id, params),

            ("POST", ["billing_portal", "sessions"]) => self.create_portal_session(params),
            ("GET", ["billing_portal", "configurations"]) => self.list_portal_configurations(params),

            ("POST", ["subscriptions"]) => self.create_subscription(params),
            ("GET", ["subscriptions"]) => self.list_subscriptions(params),
            ("GET", ["subscriptions", "search"]) => self.search(params, "subscription"),
            ("GET", ["subscriptions", id]) => self.retrieve("subscription", id),

            ("POST", ["subscriptions", id]) => self.update_subscription(id, params),
            ("DELETE", ["subscriptions", id]) => self.cancel_subscription(id, params),
            ("POST", ["subscriptions", id, "resume"]) => self.resume_subscription(id, params),

            ("POST", ["subscription_items"]) => self.create_item(&params.given()),
            ("GET", ["subscription_items"]) => self.list_items(params),
            ("GET", ["subscription_items", id]) => self.retrieve_item(id),
            ("POST", ["subscription_items", id]) => self.update_item(id, &params.given()),
            ("DELETE", ["subscription_items", id]) => self.delete_item(id, &params.given()),

            ("POST", ["subscription_schedules"]) => self.create_schedule(params),
            ("GET", ["subscription_schedules"]) => {
                self.list(params, "subscription_schedule", "/v1/subscription_schedules", &["customer"], |_| true)
            }
            ("GET", ["subscription_schedules", id]) => self.retrieve("subscription_schedule", id),
            ("POST", ["subscription_schedules", id]) => self.update_schedule(id, params),
            ("POST", ["subscription_schedules", id, "release"]) => self.release_schedule(id, params),
            ("POST", ["subscription_schedules", id, "cancel"]) => self.cancel_schedule(id, params),

            ("GET", ["invoices"]) => self.list_invoices(params),
            ("POST", ["invoices", "create_preview"]) => self.preview_invoice(params),
            ("GET", ["invoices", id]) => self.retrieve("invoice", id),
            ("GET", ["invoices", id, "lines"]) => self.list_lines(id, params),
            ("POST", ["invoices", id, "pay"]) => self.pay_invoice(id, params),
            ("POST", ["invoices", id, "void"]) => self.void_invoice(id, params),
            ("POST", ["invoices", id, "finalize"]) => self.finalize_invoice(id, params),
            ("POST", ["invoices", id, "mark_uncollectible"]) => self.give_up_invoice(id, params),
            ("GET", ["invoice_payments"]) => self.list_invoice_payments(params),
            ("GET", ["invoice_payments", id]) => self.retrieve("invoice_payment", id),

            ("POST", ["refunds"]) => self.create_refund(params),
            ("GET", ["refunds"]) => self.list(params, "refund", "/v1/refunds", &["charge", "payment_intent"], |_| true),
            ("GET", ["refunds", id]) => self.retrieve("refund", id),
            ("POST", ["refunds", id]) => self.update_refund(id, params),
            ("POST", ["credit_notes"]) => self.create_credit_note(params),
            ("GET", ["credit_notes"]) => {
                self.list(params, "credit_note", "/v1/credit_notes", &["customer", "invoice"], |_| true)
            }
            ("GET", ["credit_notes", id]) => self.retrieve("credit_note", id),
            ("GET", ["disputes"]) => {
                self.list(params, "dispute", "/v1/disputes", &["charge", "payment_intent"], |_| true)
            }
            ("GET", ["disputes", id]) => self.retrieve("dispute", id),

            ("GET", ["payment_intents"]) => self.list_intents(params),
            ("GET", ["payment_intents", id]) => self.retrieve("payment_intent", id),
            ("POST", ["payment_intents", id, "cancel"]) => self.cancel_intent(id, params),
            ("GET", ["setup_intents", id]) => self.retrieve("setup_intent", id),
            ("GET", ["charges"]) => self.list_charges(params),
            ("GET", ["charges", id]) => self.retrieve("charge", id),

            ("POST", ["billing", "meters"]) => self.create_meter(params),
            ("GET", ["billing", "meters"]) => {
                self.list(params, "billing.meter", "/v1/billing/meters", &["status"], |_| true)
            }
            ("GET", ["billing", "meters", id]) => self.retrieve("billing.meter", id),
            ("POST", ["billing", "meters", id]) => self.update_meter(id, params),
            ("POST", ["billing", "meters", id, "deactivate"]) => self.switch_meter(id, params, false),
            ("POST", ["billing", "meters", id, "reactivate"]) => self.switch_meter(id, params, true),
            ("GET", ["billing", "meters", id, "event_summaries"]) => self.list_usage(id, params),
            ("POST", ["billing", "meter_events"]) => self.create_meter_event(params),
            ("POST", ["billing", "meter_event_adjustments"]) => self.adjust_meter_event(params),

            ("POST", ["webhook_endpoints"]) => self.create_endpoint(params),
            ("GET", ["webhook_endpoints"]) => {
                self.list(params, "webhook_endpoint", "/v1/webhook_endpoints", &[], |_| true)
            }
            ("GET", ["webhook_endpoints", id]) => self.retrieve("webhook_endpoint", id),
            ("POST", ["webhook_endpoints", id]) => self.update_endpoint(id, params),
            ("DELETE", ["webhook_endpoints", id]) => self.delete_endpoint(id, params),

            ("GET", ["events"]) => self.list_events(params),
            ("GET", ["events", id]) => self.retrieve_event(id),

            _ => Err(StripeError::unrecognized_url(method, &format!("/v1/{path}"))),
        }
    }
}
