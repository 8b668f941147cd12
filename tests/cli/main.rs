//! The command line: the real program against a real ledger, in tables for people and JSON for machines.

mod commands;
mod program;
mod settings;
#[path = "../api/support/mod.rs"]
mod support;
mod webhook_endpoints;
