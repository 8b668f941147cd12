//! Finds each StripeEvent's account by what the translation says of it, and merges streams that turn out to be one:
//! the least that a service must do, without a database.

use std::collections::BTreeMap;

use serde_json::Value;
use subledger::domain::account::Account;
use subledger::domain::command::Command;
use subledger::domain::draft::Context;
use subledger::domain::ids::{AccountId, Ownership};

use crate::fold::Fold;

/// All streams, and which Stripe ids lead to them.
#[derive(Debug, Default)]
pub struct Router {
    pub accounts: BTreeMap<AccountId, Account>,
    owners: BTreeMap<String, AccountId>,
    pub merges: usize,
}

impl Router {
    /// Delivers one event; gives the account it went to.
    pub fn deliver(&mut self, fold: &Fold, body: &Value, context: Context<'_>) -> Option<AccountId> {
        let facts = fold.facts(body)?;
        let named = facts.references.iter().filter_map(|reference| AccountId::new(reference).ok());
        let mut candidates: Vec<AccountId> = facts.claim.iter().cloned().chain(named).collect();
        candidates.extend(facts.references.iter().filter_map(|reference| self.owners.get(reference).cloned()));
        let owner = candidates.iter().max_by_key(|id| id.standing()).cloned()?;
        for reference in &facts.references {
            self.link(fold, reference, &owner, context);
        }
        let account = self.accounts.entry(owner.clone()).or_insert_with(|| Account::new(owner.clone()));
        fold.apply(
            account,
            &Command::Observe { observations: facts.observations, link: None, reconciled: None },
            context,
        );
        Some(owner)
    }

    /// From now on `reference` leads to `owner`, as does all that led to its former owner.
    fn link(&mut self, fold: &Fold, reference: &str, owner: &AccountId, context: Context<'_>) {
        let former = self.owners.insert(reference.to_owned(), owner.clone());
        let Some(former) = former.filter(|former| former != owner) else {
            return;
        };
        assert!(former.standing() < Ownership::Account, "{reference} belongs to {former} and to {owner}");
        for known in self.owners.values_mut().filter(|known| **known == former) {
            *known = owner.clone();
        }
        merge(fold, &mut self.accounts, &former, owner, context);
        self.merges += 1;
    }

    /// The account that a Stripe id leads to.
    pub fn owner(&self, reference: &str) -> Option<&AccountId> {
        self.owners.get(reference)
    }
}

/// Moves all that one stream holds to another, with the two commands that a link gives.
pub fn merge(
    fold: &Fold,
    accounts: &mut BTreeMap<AccountId, Account>,
    from: &AccountId,
    into: &AccountId,
    context: Context<'_>,
) {
    let Some(old) = accounts.get_mut(from) else { return };
    let billing = old.billing.clone().expect("loaded");
    let absorb =
        Command::Absorb { from: from.clone(), credits: Box::new(old.credits.clone()), billing, links: Vec::new() };
    fold.apply(old, &Command::MergeInto { into: into.clone() }, context);
    let account = accounts.entry(into.clone()).or_insert_with(|| Account::new(into.clone()));
    fold.apply(account, &absorb, context);
}
