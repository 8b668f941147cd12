//! The world over HTTP: Stripe's calls, the pages a customer sees, the control routes, and the deliveries.

mod api;
mod control;
mod deliveries;
mod faults;
mod html;
mod overview;
mod pages;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use tokio::sync::Notify;

use crate::ids::Ids;
use crate::settings::Settings;
use crate::world::{Endpoint, World};

use deliveries::Deliveries;
use faults::Faults;

/// Simulated time: the machine's, moved ahead or back, or standing still.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// Goes on by itself, so many seconds away from the machine's.
    Running { ahead_s: i64 },
    /// Stands at a moment (Unix seconds) until it is moved.
    Standing(i64),
}

impl Clock {
    fn now(self) -> i64 {
        match self {
            Self::Running { ahead_s } => chrono::Utc::now().timestamp() + ahead_s,
            Self::Standing(moment) => moment,
        }
    }

    fn moved_to(self, moment: i64) -> Self {
        match self {
            Self::Running { .. } => Self::Running { ahead_s: moment - chrono::Utc::now().timestamp() },
            Self::Standing(_) => Self::Standing(moment),
        }
    }
}

/// What all handlers share.
#[derive(Debug)]
struct State {
    inner: Mutex<Inner>,
    /// Rung when there may be something to deliver.
    bell: Notify,
}

#[derive(Debug)]
struct Inner {
    world: World,
    clock: Clock,
    faults: Faults,
    deliveries: Deliveries,
    /// For what is left to chance; apart from the world's, so that faults do not change ids.
    chance: Ids,
}

impl State {
    /// The state, with everything done that the time has made due.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = inner.clock.now();
        inner.world.advance_to(now);
        inner
    }
}

/// How a simulator is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How browsers reach its pages, if not by that address.
    pub public_url: Option<String>,
    pub clock: Clock,
    pub settings: Settings,
    /// Where events go from the beginning.
    pub endpoints: Vec<Endpoint>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            public_url: None,
            clock: Clock::Running { ahead_s: 0 },
            settings: Settings::default(),
            endpoints: Vec::new(),
        }
    }
}

/// A simulator that serves until it is stopped or dropped.
#[derive(Debug)]
pub struct Simulator {
    address: SocketAddr,
    state: Arc<State>,
    server: ServerHandle,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Simulator {
    /// Starts serving.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened at.
    pub fn start(options: Options) -> std::io::Result<Self> {
        // Deliveries may go to https endpoints; a second installation is refused, and as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind(options.listen)?;
        let address = listener.local_addr()?;
        let mut settings = options.settings;
        settings.base_url = options.public_url.unwrap_or_else(|| format!("http://{address}"));
        let seed = settings.seed;
        let world = World::new(settings, options.clock.now());
        let inner = Inner {
            world,
            clock: options.clock,
            faults: Faults::default(),
            deliveries: Deliveries::default(),
            chance: Ids::new(seed ^ 0x5eed),
        };
        let state = Arc::new(State { inner: Mutex::new(inner), bell: Notify::new() });
        for endpoint in options.endpoints {
            state.lock().world.add_endpoint(endpoint);
        }
        let data = web::Data::from(state.clone());
        let app = move || App::new().app_data(data.clone()).configure(routes);
        let server = HttpServer::new(app).workers(1).shutdown_timeout(1).disable_signals().listen(listener)?.run();
        let handle = server.handle();
        // Ends when its handle stops it.
        tokio::spawn(server);
        let tasks = vec![tokio::spawn(deliveries::deliver(state.clone())), tokio::spawn(tick(state.clone()))];
        Ok(Self { address, state, server: handle, tasks })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `STRIPE_API_BASE` is set to.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Looks at the world, or acts upon it; deliveries of what it caused begin afterwards.
    pub fn with_world<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let result = act(&mut self.state.lock().world);
        self.state.bell.notify_one();
        result
    }

    pub fn add_endpoint(&self, endpoint: Endpoint) {
        self.state.lock().world.add_endpoint(endpoint);
    }

    pub async fn stop(mut self) {
        self.server.stop(true).await;
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // Tells it to stop; there is nobody to wait for it.
        drop(self.server.stop(false));
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Lets a running clock bring what is due also when nobody asks.
async fn tick(state: Arc<State>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(state.lock());
        state.bell.notify_one();
    }
}

fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::scope("/_simulator").configure(control::routes))
        .service(web::resource("/v1/{path:.*}").to(api::handle))
        .configure(pages::routes);
}
