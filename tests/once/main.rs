//! Exactly once, in any order: over HTTP and a real Postgres, with everything that can go wrong on the way.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod crash;
mod cursors;
mod cuts;
mod drain;
mod edges;
mod errands;
mod feed;
mod ground;
mod lanes;
mod load;
mod orders;
mod program;
mod proxy;
mod replicas;
mod sharing;
mod story;
mod twins;
mod webhooks;
