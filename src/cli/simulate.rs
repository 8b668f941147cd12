//! `subledger simulate`: a Stripe to try flows on, without an account at Stripe.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use subledger::config::ConfigError;
use subledger::domain::catalog::{Catalog, Interval};
use subledger::startup::{self, StartError};
use subledger_simulator::{ApiVersion, Clock, Endpoint, Options, SeedPrice, Settings, Simulator, World};

use super::print;

#[derive(Debug, clap::Args)]
pub struct SimulateArguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:12111")]
    listen: SocketAddr,
    /// How customers' browsers reach it, if not by the address it listens at
    #[arg(long)]
    public_url: Option<String>,
    /// Where events go: the service's webhook endpoint
    #[arg(long, default_value = "http://127.0.0.1:8080/webhooks/stripe")]
    webhook: String,
    /// What they are signed with
    #[arg(long, default_value = "whsec_simulator")]
    secret: String,
    /// Catalog whose plans and packs become products and prices (the SUBLEDGER_CATALOG of the service)
    #[arg(long)]
    catalog: Option<PathBuf>,
    /// Shape of events, and of answers to requests that name no version: such as 2024-06-20 or 2025-08-27.basil
    #[arg(long)]
    api_version: Option<String>,
    /// Where the clock starts (RFC 3339), if not now: in the past, it can be advanced up to now
    #[arg(long)]
    start: Option<String>,
    /// The same seed and the same requests give the same ids
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub async fn run(arguments: SimulateArguments, json: bool) -> Result<ExitCode, StartError> {
    let wrong = |argument, problem: &str| StartError::Argument { argument, problem: problem.to_owned() };
    let mut settings = Settings { seed: arguments.seed, ..Settings::default() };
    if let Some(version) = &arguments.api_version {
        settings.api_version = ApiVersion::parse(version)
            .ok_or_else(|| wrong("--api-version", "must begin with a date, like 2024-06-20 or 2025-08-27.basil"))?;
    }
    let ahead_s = match &arguments.start {
        None => 0,
        Some(start) => {
            let start = chrono::DateTime::parse_from_rfc3339(start)
                .map_err(|_| wrong("--start", "must be a time of RFC 3339, like 2026-01-01T00:00:00Z"))?;
            start.timestamp() - chrono::Utc::now().timestamp()
        }
    };
    let catalog = arguments.catalog.as_deref().map(startup::read_catalog).transpose()?;
    let simulator = Simulator::start(Options {
        listen: arguments.listen,
        public_url: arguments.public_url.clone(),
        clock: Clock::Running { ahead_s },
        settings,
        endpoints: vec![Endpoint::new(&arguments.webhook, &arguments.secret)],
    })
    .map_err(|error| ConfigError {
        setting: "--listen".to_owned(),
        problem: format!("{}: {error}", arguments.listen),
    })?;
    if let Some(catalog) = &catalog {
        simulator.with_world(|world| seed(world, catalog));
    }
    let base = simulator.base_url();
    let set = json!({
        "STRIPE_API_BASE": base, "STRIPE_SECRET_KEY": "sk_test_simulator", "STRIPE_WEBHOOK_SECRETS": arguments.secret,
    });
    let text = format!(
        "A simulated Stripe is at {base} (open it in a browser). For the service, set:\n\n  \
         STRIPE_API_BASE={base}\n  STRIPE_SECRET_KEY=sk_test_simulator\n  STRIPE_WEBHOOK_SECRETS={}\n\n\
         Events go to {}. Try:\n\n  \
         curl {base}/_simulator/clock -d '{{\"by\": {{\"months\": 1}}}}'\n  \
         curl {base}/_simulator/checkout/sessions/cs_…/complete -d '{{\"card\": \"good\"}}'\n  \
         curl {base}/_simulator/customers/cus_…/card -d '{{\"card\": \"declines\"}}'\n  \
         curl {base}/_simulator/faults -d '{{\"kind\": \"rate_limited\", \"path\": \"checkout\"}}'\n  \
         curl {base}/_simulator/deliveries\n\nsimulator/README.md lists them all. Ctrl-C stops it, and all it holds is gone.",
        arguments.secret, arguments.webhook
    );
    print(json, &json!({"url": base, "settings": set}), &text);
    startup::stop_signal().await;
    simulator.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// The catalog's plans and packs, as products and prices.
pub fn seed(world: &mut World, catalog: &Catalog) {
    for plan in &catalog.plans {
        let product = format!("prod_{}", plan.id);
        if plan.prices.is_empty() {
            continue;
        }
        world.seed_product(&product, &plan.name, json!({ "subledger_plan": plan.id }));
        for price in &plan.prices {
            let interval = match price.interval {
                Interval::Day => "day",
                Interval::Week => "week",
                Interval::Month => "month",
                Interval::Year => "year",
            };
            world.seed_price(&SeedPrice {
                id: price.stripe_price_id.clone(),
                product: product.clone(),
                lookup_key: price.lookup_key.clone(),
                currency: price.currency.to_string(),
                unit_amount: price.unit_amount,
                interval: Some(interval.to_owned()),
                interval_count: i64::from(price.interval_count),
            });
        }
    }
    for pack in &catalog.credit_packs {
        let product = format!("prod_{}", pack.id);
        world.seed_product(&product, &pack.name, json!({ "subledger_pack": pack.id }));
        for price in &pack.prices {
            world.seed_price(&SeedPrice {
                id: price.stripe_price_id.clone(),
                product: product.clone(),
                lookup_key: price.lookup_key.clone(),
                currency: price.currency.to_string(),
                unit_amount: price.unit_amount,
                interval: None,
                interval_count: 1,
            });
        }
    }
}
