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
    subledger::crypto::install_provider();
    cli::run(cli::Arguments::parse()).await
}
