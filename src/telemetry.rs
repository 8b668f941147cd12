//! Logs: structured, one line each, never a secret or a personal datum.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// What a service logs when nobody says otherwise.
const DEFAULT_FILTER: &str = "info,refinery_core=warn,actix_server=warn";
/// What a command does, whose output is what it was called for.
const COMMAND_FILTER: &str = "warn";
/// At `debug` the driver prints the parameters of every statement: e-mail addresses, webhook bodies, digests of keys.
const NEVER_LOGGED: &str = "tokio_postgres=warn";

/// The filter for `RUST_LOG`'s value. Whatever it says, personal data stay out.
pub fn filter(rust_log: Option<&str>) -> EnvFilter {
    filter_or(rust_log, DEFAULT_FILTER)
}

fn filter_or(rust_log: Option<&str>, default: &str) -> EnvFilter {
    let parsed = rust_log.and_then(|text| EnvFilter::try_new(text).ok());
    let filter = parsed.unwrap_or_else(|| EnvFilter::new(default));
    match NEVER_LOGGED.parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

/// Starts logging to standard error, filtered by `RUST_LOG`. A service says more of its own accord than a command.
pub fn init(format: LogFormat, is_service: bool) {
    let default = if is_service { DEFAULT_FILTER } else { COMMAND_FILTER };
    let filter = filter_or(std::env::var(EnvFilter::DEFAULT_ENV).ok().as_deref(), default);
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start within one process, as in tests, keeps the first subscriber.
    let _ = if json { builder.json().flatten_event(true).try_init() } else { builder.compact().try_init() };
}
