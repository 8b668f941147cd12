//! Serving: the same for the program and for the tests.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_service::IntoServiceFactory;
use actix_web::{App, HttpServer, web};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::auth::Auth;
use super::check_first::CheckFirst;
use super::problem::ApiError;
use super::routes::RouteTable;
use crate::app::error::AppError;
use crate::app::service::Service;

/// Requests under way are given this long to finish when the service stops.
const DRAIN_SECONDS: u64 = 25;
/// An idle connection is closed after this long.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// Callers that may wait for events at a time, in streams or long polls.
const MAX_WAITING: usize = 256;

/// What handlers work with.
#[derive(Debug)]
pub struct State {
    pub service: Arc<Service>,
    pub auth: Auth,
    stopping: AtomicBool,
    waiting: Arc<Semaphore>,
}

impl State {
    pub fn new(service: Arc<Service>, auth: Auth) -> Self {
        let waiting = Arc::new(Semaphore::new(MAX_WAITING));
        Self { service, auth, stopping: AtomicBool::new(false), waiting }
    }

    /// A place among those who wait for events, as long as there are any.
    pub fn wait(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| ApiError::App(AppError::Overloaded))
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// Serves until `shutdown` ends; then stops accepting, finishes what is under way, and returns.
pub async fn run(
    listener: TcpListener,
    state: State,
    workers: usize,
    shutdown: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let state = web::Data::new(state);
    let routes = web::Data::new(RouteTable::new());
    let in_app = state.clone();
    let check = routes.check().clone();
    let server = HttpServer::new(move || {
        let routes = routes.clone();
        let app = App::new()
            .app_data(in_app.clone())
            .app_data(web::QueryConfig::default().error_handler(|error, _| {
                ApiError::InvalidParameter { field: "query".to_owned(), problem: error.to_string() }.into()
            }))
            .app_data(web::PathConfig::default().error_handler(|error, _| {
                ApiError::InvalidParameter { field: "path".to_owned(), problem: error.to_string() }.into()
            }))
            .configure(|app| routes.configure(app));
        CheckFirst { app: app.into_factory(), state: in_app.clone(), route: check.clone() }
    })
    .workers(workers)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(DRAIN_SECONDS)
    .disable_signals()
    .listen(listener)?
    .run();
    let handle = server.handle();
    let serving = tokio::spawn(server);
    shutdown.await;
    state.stopping.store(true, Ordering::Relaxed);
    handle.stop(true).await;
    match serving.await {
        Ok(result) => result,
        Err(error) => Err(std::io::Error::other(error)),
    }
}
