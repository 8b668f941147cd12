//! Any order, any duplication, any payload shape: every lifecycle ends in its facts (through the pure path).

#[path = "../support/mod.rs"]
mod support;

mod add_ons;
mod corpus;
mod crowd;
mod debts;
mod dunning;
mod fold;
mod hostile;
mod linked_holds;
mod linking;
mod mixed_shapes;
mod months;
mod oracle;
mod orders;
mod packs;
mod payments;
mod periods;
mod plan_changes;
mod reinstatement;
mod rollovers;
mod router;
mod rules;
mod subscription;
mod trials;
mod types;
