//! Checks, in front of the app: what the app does before and after a handler takes longer than to decide one.
//!
//! Only what can be answered out of memory at once is answered here. Everything else goes on to the app, whose own route
//! gives the same answers: what has to wait, and what is refused.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Instant;

use actix_http::Request;
use actix_service::{Service, ServiceFactory, forward_ready};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, Response, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::{Error, web};
use futures_util::future::{Either, LocalBoxFuture, MapOk, Ready, ready};
use futures_util::{FutureExt, TryFutureExt};

use super::entitlements::Question;
use super::middleware::{Known, Local, see_off};
use super::routes::RouteSpec;
use super::server::State;

/// An app with checks in front of it.
#[derive(Debug)]
pub struct CheckFirst<A> {
    pub app: A,
    pub state: web::Data<State>,
    /// The route of a check.
    pub route: RouteSpec,
}

/// The same in a thread that serves.
#[derive(Debug)]
pub struct CheckFirstService<A> {
    app: A,
    state: web::Data<State>,
    route: RouteSpec,
    local: Rc<Local>,
}

impl<A> ServiceFactory<Request> for CheckFirst<A>
where
    A: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<BoxBody>, Error = Error>,
    A::Future: 'static,
{
    type Response = Response<BoxBody>;
    type Error = Error;
    type Config = AppConfig;
    type Service = CheckFirstService<A::Service>;
    type InitError = A::InitError;
    type Future = LocalBoxFuture<'static, Result<Self::Service, Self::InitError>>;

    fn new_service(&self, config: AppConfig) -> Self::Future {
        let (state, route) = (self.state.clone(), self.route.clone());
        let local = Local::new(route.path, vec![Known::from(&route)]);
        let made = self.app.new_service(config);
        made.map_ok(|app| CheckFirstService { app, state, route, local }).boxed_local()
    }
}

type Answer = Response<BoxBody>;

impl<A> Service<Request> for CheckFirstService<A>
where
    A: Service<Request, Response = ServiceResponse<BoxBody>, Error = Error>,
{
    type Response = Answer;
    type Error = Error;
    type Future = Either<Ready<Result<Answer, Error>>, MapOk<A::Future, fn(A::Response) -> Answer>>;

    forward_ready!(app);

    fn call(&self, request: Request) -> Self::Future {
        // What panics here does so in the app as well, which has an answer for that.
        match catch_unwind(AssertUnwindSafe(|| self.answer(&request))) {
            Ok(Some(answer)) => Either::Left(ready(Ok(answer))),
            Ok(None) | Err(_) => Either::Right(self.app.call(request).map_ok(Response::from)),
        }
    }
}

impl<A> CheckFirstService<A> {
    fn answer(&self, request: &Request) -> Option<Answer> {
        let started = Instant::now();
        let head = request.head();
        let State { service, auth, .. } = &**self.state;
        if head.method != self.route.method {
            return None;
        }
        let question = Question::of(&head.uri)?;
        if self.route.scope.is_some_and(|scope| !auth.permits_at_once(head.headers(), scope)) {
            return None;
        }
        let body = question.answer_at_once(service)?;
        let mut response = Response::with_body(StatusCode::OK, BoxBody::new(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        see_off(&self.local, &service.metrics, head, &mut response, started);
        Some(response)
    }
}
