//! The route table: every route there is, and the scope each one needs.

use std::rc::Rc;

use actix_web::guard::fn_guard;
use actix_web::http::Method;
use actix_web::http::header::{ALLOW, HeaderValue};
use actix_web::middleware::from_fn;
use actix_web::{HttpResponse, ResponseError, Route, web};

use super::auth::Scope;
use super::middleware::{Known, Local, at_route};
use super::problem::ApiError;
use super::{
    accounts, admin, billing, checkout, credits, debits, docs, entitlements, events, health, holds, overrides, plans,
    receipts, reconcile, refunds, revenue, statement, subscription_changes, usage, webhook_deliveries,
    webhook_endpoints, webhooks,
};

/// A route.
#[derive(Debug, Clone)]
pub struct RouteSpec {
    pub method: Method,
    pub path: &'static str,
    /// `None`: open to all. Stripe's route is, since it checks a signature of its own.
    pub scope: Option<Scope>,
    /// The query parameters it knows. Others are refused, but on routes that are open to all: whoever probes those may add
    /// what he likes.
    pub query: &'static [&'static str],
    handler: fn() -> Route,
}

/// All routes.
#[derive(Debug, Clone)]
pub struct RouteTable(Vec<RouteSpec>);

macro_rules! routes {
    (@query) => { &[] };
    (@query $query:expr) => { $query };
    ($($method:ident $path:literal $scope:expr => $handler:path $([$query:expr])?),* $(,)?) => {
        vec![$(RouteSpec {
            method: Method::$method,
            path: $path,
            scope: $scope,
            query: routes!(@query $($query)?),
            // Not `method`, which notes each method that was tried in the request, for an answer that we word ourselves.
            handler: || web::route().guard(fn_guard(|asked| asked.head().method == Method::$method)).to($handler),
        }),*]
    };
}

/// Query parameters of routes.
const NOW: &[&str] = &["min_position", "consistency"];
const READ: &[&str] = &["min_position", "consistency", "as_of"];
const CHECK: &[&str] = &["quantity", "min_position", "consistency", "as_of"];
const PAST: &[&str] = &["as_of", "min_position", "consistency"];
const PAGE: &[&str] = &["limit", "cursor", "min_position", "consistency"];
const PAGE_OF_PAST: &[&str] = &["limit", "cursor", "as_of", "min_position", "consistency"];
const USAGE: &[&str] = &["feature", "from", "to", "min_position", "consistency"];
const OF_CATALOG: &[&str] = &["min_position", "consistency"];
const FEED: &[&str] = &["after", "account", "type", "limit", "min_position", "consistency", "wait_seconds"];
const UPCOMING: &[&str] = &["subscription", "min_position", "consistency"];
const DELIVERIES: &[&str] = &["status", "account", "limit", "cursor"];
const REVENUE: &[&str] = &["from", "to", "currency", "plan", "max_age_seconds", "min_position", "consistency"];
const PARKED: &[&str] = &["limit", "cursor"];

impl RouteTable {
    pub fn new() -> Self {
        use Scope::{Admin, Bill, Read, Spend};
        Self(routes![
            // Tried in this order, so the routes that are called before every unit of work come first; the check before all.
            GET "/v1/accounts/{account}/entitlements/{feature}" Some(Read) => entitlements::get [CHECK],
            POST "/v1/accounts/{account}/credits/debits" Some(Spend) => debits::debit,
            POST "/webhooks/stripe" None => webhooks::receive,
            PUT "/v1/accounts/{account}" Some(Bill) => accounts::put,
            GET "/v1/accounts/{account}" Some(Read) => accounts::get [NOW],
            GET "/v1/accounts/{account}/subscriptions" Some(Read) => billing::list_subscriptions [PAGE_OF_PAST],
            GET "/v1/accounts/{account}/subscription" Some(Read) => billing::get_subscription [PAST],
            GET "/v1/accounts/{account}/invoices" Some(Read) => billing::list_invoices [PAGE],
            GET "/v1/accounts/{account}/payments" Some(Read) => billing::list_payments [PAGE],
            GET "/v1/accounts/{account}/credit-purchases" Some(Read) => billing::list_credit_purchases [PAGE],
            GET "/v1/accounts/{account}/payment-methods" Some(Read) => billing::list_payment_methods [PAGE],
            GET "/v1/accounts/{account}/upcoming-invoice" Some(Bill) => subscription_changes::upcoming_invoice [UPCOMING],
            POST "/v1/accounts/{account}/checkout-sessions" Some(Bill) => checkout::create_checkout_session,
            POST "/v1/accounts/{account}/portal-sessions" Some(Bill) => checkout::create_portal_session,
            POST "/v1/accounts/{account}/subscription/cancel" Some(Bill) => subscription_changes::cancel,
            POST "/v1/accounts/{account}/subscription/resume" Some(Bill) => subscription_changes::resume,
            POST "/v1/accounts/{account}/subscription/change" Some(Bill) => subscription_changes::change,
            POST "/v1/accounts/{account}/subscription/change-preview" Some(Bill) => subscription_changes::preview_change,
            POST "/v1/accounts/{account}/subscription/cancel-change" Some(Bill) => subscription_changes::cancel_change,
            POST "/v1/accounts/{account}/subscription/pause-collection" Some(Bill) => subscription_changes::pause_collection,
            POST "/v1/accounts/{account}/subscription/resume-collection" Some(Bill) => subscription_changes::resume_collection,
            POST "/v1/accounts/{account}/subscription/promotion-code" Some(Bill) => subscription_changes::apply_promotion_code,
            POST "/v1/payments/{payment}/refunds" Some(Bill) => refunds::create,
            GET "/v1/accounts/{account}/entitlements" Some(Read) => entitlements::list [READ],
            POST "/v1/entitlements/check" Some(Read) => entitlements::check_batch,
            GET "/v1/accounts/{account}/credits" Some(Read) => credits::get [READ],
            GET "/v1/accounts/{account}/credits/entries" Some(Read) => statement::list [PAGE],
            POST "/v1/accounts/{account}/credits/grants" Some(Bill) => credits::grant,
            POST "/v1/accounts/{account}/credits/holds" Some(Spend) => holds::place,
            GET "/v1/accounts/{account}/credits/holds" Some(Read) => holds::list [PAGE_OF_PAST],
            GET "/v1/holds/{hold}" Some(Read) => holds::get [READ],
            POST "/v1/holds/{hold}/capture" Some(Spend) => holds::capture,
            POST "/v1/holds/{hold}/release" Some(Spend) => holds::release,
            POST "/v1/holds/{hold}/extend" Some(Spend) => holds::extend,
            GET "/v1/receipts/{receipt}" Some(Read) => receipts::get [NOW],
            POST "/v1/accounts/{account}/usage" Some(Spend) => usage::record,
            GET "/v1/accounts/{account}/usage" Some(Read) => usage::statistics [USAGE],
            GET "/v1/accounts/{account}/overrides" Some(Read) => overrides::list [NOW],
            PUT "/v1/accounts/{account}/overrides/{feature}" Some(Bill) => overrides::put,
            DELETE "/v1/accounts/{account}/overrides/{feature}" Some(Bill) => overrides::remove,
            PUT "/v1/accounts/{account}/suspension" Some(Bill) => overrides::suspend,
            DELETE "/v1/accounts/{account}/suspension" Some(Bill) => overrides::reinstate,
            POST "/v1/debits/batch" Some(Spend) => debits::batch,
            GET "/v1/plans" Some(Read) => plans::list [OF_CATALOG],
            GET "/v1/plans/{plan}" Some(Read) => plans::get [OF_CATALOG],
            PUT "/v1/plans/{plan}" Some(Admin) => plans::put,
            GET "/v1/credit-packs" Some(Read) => plans::list_credit_packs [OF_CATALOG],
            GET "/v1/analytics/revenue" Some(Admin) => revenue::get [REVENUE],
            GET "/v1/events" Some(Admin) => events::list [FEED],
            POST "/v1/webhook-endpoints" Some(Admin) => webhook_endpoints::create,
            GET "/v1/webhook-endpoints" Some(Admin) => webhook_endpoints::list,
            GET "/v1/webhook-endpoints/{endpoint}" Some(Admin) => webhook_endpoints::get,
            PATCH "/v1/webhook-endpoints/{endpoint}" Some(Admin) => webhook_endpoints::update,
            DELETE "/v1/webhook-endpoints/{endpoint}" Some(Admin) => webhook_endpoints::delete,
            POST "/v1/webhook-endpoints/{endpoint}/rotate-secret" Some(Admin) => webhook_endpoints::rotate_secret,
            POST "/v1/webhook-endpoints/{endpoint}/replay" Some(Admin) => webhook_endpoints::replay,
            GET "/v1/webhook-endpoints/{endpoint}/deliveries" Some(Admin) => webhook_deliveries::list [DELIVERIES],
            GET "/v1/webhook-endpoints/{endpoint}/deliveries/{message}" Some(Admin) => webhook_deliveries::get,
            POST "/v1/webhook-endpoints/{endpoint}/deliveries/{message}/retry" Some(Admin) => webhook_deliveries::retry,
            GET "/v1/admin/parked" Some(Admin) => admin::list_parked [PARKED],
            POST "/v1/admin/parked/retry" Some(Admin) => admin::retry_all_parked,
            POST "/v1/admin/parked/{stripe_event}/retry" Some(Admin) => admin::retry_parked,
            POST "/v1/admin/verify" Some(Admin) => admin::start_verify,
            GET "/v1/admin/verify" Some(Admin) => admin::get_verify,
            POST "/v1/admin/rebuild" Some(Admin) => admin::start_rebuild,
            GET "/v1/admin/rebuild" Some(Admin) => admin::get_rebuild,
            DELETE "/v1/admin/accounts/{account}/personal-data" Some(Admin) => admin::erase_personal_data,
            POST "/v1/admin/reconcile" Some(Admin) => reconcile::start,
            GET "/v1/admin/reconcile" Some(Admin) => reconcile::get,
            POST "/v1/admin/keys" Some(Admin) => admin::create_key,
            GET "/v1/admin/keys" Some(Admin) => admin::list_keys,
            DELETE "/v1/admin/keys/{key}" Some(Admin) => admin::revoke_key,
            GET "/healthz" None => health::live,
            GET "/readyz" None => health::ready,
            GET "/metrics" None => health::metrics,
            GET "/openapi.yaml" None => docs::openapi,
            GET "/openapi.json" None => docs::openapi_json,
            GET "/docs" None => docs::page,
        ])
    }

    pub fn all(&self) -> &[RouteSpec] {
        &self.0
    }

    /// The first: the one that is asked before every unit of work.
    pub fn check(&self) -> &RouteSpec {
        &self.0[0]
    }

    /// Registers every route.
    pub fn configure(&self, app: &mut web::ServiceConfig) {
        let mut done: Vec<&str> = Vec::new();
        for route in &self.0 {
            let path = route.path;
            if done.contains(&path) {
                continue;
            }
            done.push(path);
            let methods: Vec<&RouteSpec> = self.0.iter().filter(|other| other.path == path).collect();
            let known: Vec<Known> = methods.iter().map(|route| Known::from(*route)).collect();
            let resource =
                methods.iter().fold(web::resource(path), |resource, route| resource.route((route.handler)()));
            let mut allowed: Vec<&str> = methods.iter().map(|route| route.method.as_str()).collect();
            allowed.sort_unstable();
            let allowed = allowed.join(", ");
            let other_methods = web::to(move || method_not_allowed(allowed.clone()));
            let local = Local::new(path, known);
            let guarded = from_fn(move |request, next| at_route(Rc::clone(&local), request, next));
            app.service(resource.default_service(other_methods).wrap(guarded));
        }
        let unmatched = web::to(|| async { ApiError::NoSuchRoute.error_response() });
        let local = Local::new("unmatched", Vec::new());
        let counted = from_fn(move |request, next| at_route(Rc::clone(&local), request, next));
        app.service(web::resource("/{path:.*}").default_service(unmatched).wrap(counted));
    }
}

impl From<&RouteSpec> for Known {
    fn from(route: &RouteSpec) -> Self {
        let query = route.scope.map(|_| route.query);
        Self { method: route.method.clone(), scope: route.scope, query }
    }
}

async fn method_not_allowed(allowed: String) -> HttpResponse {
    let mut response = ApiError::MethodNotAllowed.error_response();
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

impl Default for RouteTable {
    fn default() -> Self {
        Self::new()
    }
}
