//! The program: `subledger --help` says what it can do.
#![forbid(unsafe_code)]

mod cli;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

// Commands and their JSON are many small allocations, made on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // Whoever makes an HTTP client needs one. Only the first of a process counts, and nobody came before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cli::run(cli::Arguments::parse()).await
}
