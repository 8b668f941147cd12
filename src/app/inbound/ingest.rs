//! Taking in a StripeEvent: once, in whatever order, into the account it belongs to.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use chrono::DateTime;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::app::error::AppError;
use crate::app::read_path::reads::Read;
use crate::app::service::Service;
use crate::app::write_path::work::{Answer, Key, Work};
use crate::domain::catalog::PriceKey;
use crate::domain::command::{Command, Outcome};
use crate::domain::ids::{AccountId, Ownership};
use crate::domain::reconciliation::Reconciled;
use crate::domain::stripe_object::{Price, StripeObject, subscription_goes_on};
use crate::store::append::{InboxRow, InboxStatus};
use crate::store::inbox;
use crate::store::load;
use crate::store::profiles;
use crate::stripe::client::StripeCallError;
use crate::stripe::translate::{self, Facts, Settings, StripeEvent, TranslateError};

/// How often an event is routed anew when its account moves or its links change under it.
const MAX_ROUTES: usize = 8;

/// What became of a StripeEvent; all of these are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Received {
    Applied,
    Duplicate,
    Superseded,
    Ignored,
    Parked,
}

impl Received {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Duplicate => "duplicate",
            Self::Superseded => "superseded",
            Self::Ignored => "ignored",
            Self::Parked => "parked",
        }
    }
}

impl Service {
    /// Takes in a body whose signature has been verified. Whatever it is, it is kept: only a store that cannot keep it
    /// is an error.
    pub async fn receive(&self, body: Bytes) -> Result<Received, AppError> {
        self.receive_because(body, None).await
    }

    /// The same of a body that Stripe was asked for; if it is news, the reason goes on record beside it.
    pub async fn receive_because(
        &self,
        body: Bytes,
        reconciled: Option<Box<Reconciled>>,
    ) -> Result<Received, AppError> {
        let settings = Settings { account_metadata_keys: &self.stripe.account_metadata_keys };
        let read = translate::parse(&body).map(|(event, value)| {
            let facts = translate::translate(&event, &value, settings);
            (event, facts)
        });
        let (event, facts) = match read {
            Ok(read) => read,
            Err(error) => {
                let received = self.park_unreadable(body, &error).await?;
                self.metrics.count_stripe_event("unreadable", received.as_str());
                return Ok(received);
            }
        };
        let facts = facts.map(|facts| facts.map(|facts| Facts { reconciled, ..facts }));
        let received = self.take_in(&event, facts, body).await;
        let status = received.as_ref().map_or("refused", |received| received.as_str());
        self.metrics.count_stripe_event(&event.event_type, status);
        tracing::debug!(stripe_event_id = event.id, event_type = event.event_type, status, "StripeEvent received");
        received
    }

    async fn take_in(
        &self,
        event: &StripeEvent,
        facts: Result<Option<Facts>, TranslateError>,
        body: Bytes,
    ) -> Result<Received, AppError> {
        let mut row = InboxRow {
            stripe_event_id: event.id.clone(),
            event_type: event.event_type.clone(),
            status: InboxStatus::Ignored,
            reason: None,
            account_id: None,
            api_version: event.api_version.clone(),
            created_at: DateTime::from_timestamp(event.created, 0),
            received_at: self.clock.now(),
            body,
        };
        if event.livemode != self.stripe.livemode {
            let (ours, theirs) = (mode(self.stripe.livemode), mode(event.livemode));
            row.reason = Some(format!("a {theirs}-mode event; this service takes {ours} mode (STRIPE_LIVEMODE)"));
            return self.keep(row).await;
        }
        match facts {
            Ok(Some(facts)) => match self.apply(event, facts, &mut row).await {
                // What a defect of ours cannot apply waits for the fix.
                Err(AppError::Poisoned(reason)) => self.park(row, reason).await,
                // Where Stripe is away for a while it delivers the event again. Else somebody has to do something first.
                Err(AppError::Stripe(error)) if !matches!(error, StripeCallError::Unavailable { .. }) => {
                    self.park(
                        row,
                        format!("the invoice has more lines than the event shows, and they cannot be read: {error}"),
                    )
                    .await
                }
                outcome => outcome,
            },
            Ok(None) => {
                row.reason = Some("no use is made of this type".to_owned());
                self.keep(row).await
            }
            Err(error) => self.park(row, error.to_string()).await,
        }
    }

    async fn apply(&self, event: &StripeEvent, facts: Facts, row: &mut InboxRow) -> Result<Received, AppError> {
        row.status = InboxStatus::Applied;
        let answer = self.observe(&facts, Some(Key::of_stripe_event(&event.id)), Some(row)).await?;
        Ok(match answer.result {
            _ if answer.replayed => Received::Duplicate,
            Ok(Outcome::Observed { applied: false }) => Received::Superseded,
            _ => {
                self.report_unmapped_prices(&facts);
                Received::Applied
            }
        })
    }

    /// Takes facts in to the account they belong to, whoever told of them.
    pub async fn observe(&self, facts: &Facts, key: Option<Key>, row: Option<&InboxRow>) -> Result<Answer, AppError> {
        let facts = &*self.with_all_lines(facts).await?;
        let mut thorough = false;
        for _ in 0..MAX_ROUTES {
            let (account, link) = match self.route(facts, thorough).await {
                Err(AppError::Moved(_) | AppError::LinkedElsewhere) => {
                    self.links.forget(&facts.references);
                    thorough = true;
                    continue;
                }
                route => route?,
            };
            let (reply, answer) = oneshot::channel();
            let work = Work {
                account: account.clone(),
                command: Some(Command::Observe {
                    observations: facts.observations.clone(),
                    link,
                    reconciled: facts.reconciled.clone(),
                }),
                key,
                links: facts.references.clone(),
                inbox: row.cloned(),
                reply,
                enqueued_at: Instant::now(),
            };
            match self.submit(work, answer).await {
                Err(AppError::Moved(_) | AppError::LinkedElsewhere) => {
                    self.links.forget(&facts.references);
                    thorough = true;
                }
                Err(error) => return Err(error),
                Ok(answer) => {
                    self.links.remember(facts.customer.iter().map(|id| (id.clone(), account.clone())));
                    // For a duplicate, too: the first delivery may have got no further than the log.
                    self.keep_email(facts, &account).await?;
                    self.report_second_subscription(facts, &account, &answer).await;
                    return Ok(answer);
                }
            }
        }
        Err(self.why_unroutable(facts).await?)
    }

    /// The ids of an event may lead to two accounts, and no number of tries changes that. Else it was bad luck.
    async fn why_unroutable(&self, facts: &Facts) -> Result<AppError, AppError> {
        let owners = self.links.owners(&facts.references).await?;
        let mut accounts = owners.iter().filter(|(_, owner)| owner.standing() == Ownership::Account);
        let Some((first, account)) = accounts.next() else { return Ok(AppError::Overloaded) };
        let Some((second, other)) = accounts.find(|(_, owner)| *owner != account) else {
            return Ok(AppError::Overloaded);
        };
        Ok(AppError::Poisoned(format!("{first} belongs to account {account}, {second} to account {other}")))
    }

    /// A subscription whose price no plan names entitles to nothing: somebody must be told.
    fn report_unmapped_prices(&self, facts: &Facts) {
        let active = self.catalog.current();
        for observation in &facts.observations {
            let StripeObject::Subscription(subscription) = &observation.object else { continue };
            let is_unmapped = |price: &&Price| {
                let key = PriceKey { stripe_price_id: &price.id, lookup_key: price.lookup_key.as_deref() };
                active.catalog.plan_of_price(key).is_none()
            };
            let prices = subscription.items.iter().map(|item| &item.price).filter(is_unmapped);
            let prices: Vec<&str> = prices.map(|price| price.id.as_str()).collect();
            if !prices.is_empty() && !subscription.has_ended() {
                self.metrics.unmapped_prices.inc();
                tracing::warn!(
                    stripe_subscription_id = subscription.id,
                    prices = prices.join(","),
                    "no plan of the catalog names a subscription's price; name it, and plan and credits follow"
                );
            }
        }
    }

    /// An account is sold one subscription at a time. Where it has two all the same, its customer pays twice, and somebody
    /// must be told.
    async fn report_second_subscription(&self, facts: &Facts, account: &AccountId, answer: &Answer) {
        let goes_on = |object: &StripeObject| matches!(object, StripeObject::Subscription(told) if subscription_goes_on(&told.status));
        let is_news = matches!(answer.result, Ok(Outcome::Observed { applied: true })) && !answer.replayed;
        if !is_news || !facts.observations.iter().any(|observation| goes_on(&observation.object)) {
            return;
        }
        let read = Read { min_position: answer.position, ..Read::default() };
        // What was told is on record, whether or not the account can be read just now.
        let Ok(now) = self.account(account, read).await else { return };
        let live = now.credits().access.iter().filter(|access| subscription_goes_on(&access.status));
        let live: Vec<&str> = live.map(|access| access.subscription.as_str()).collect();
        if live.len() > 1 {
            self.metrics.second_subscriptions.inc();
            tracing::warn!(
                account = %now.id,
                stripe_subscription_ids = live.join(","),
                "an account has more than one subscription; if it was bought twice, cancel one and give its payment back"
            );
        }
    }

    /// Finds the account of a StripeEvent, and brings together the streams that turn out to be one. Answers the
    /// customer too if it is linked by this very event.
    async fn route(&self, facts: &Facts, thorough: bool) -> Result<(AccountId, Option<String>), AppError> {
        // The customer says it all, unless an earlier event came without it: then the append will object, and all
        // references are looked up.
        let quick = &facts.references[..facts.references.len().min(1)];
        let owners = self.links.owners(if thorough { &facts.references } else { quick }).await?;
        let claim = match &facts.claim {
            Some(claim) => Some(claim.clone()),
            None => self.claim_by_email(facts, &owners).await?,
        };
        let target = self.target(facts, claim, &owners);
        for owner in owners.values().filter(|owner| **owner != target) {
            if owner.standing() == Ownership::Account {
                // Two accounts: the first link stands.
                continue;
            }
            self.move_stream(owner, &target).await?;
            self.links.forget(&facts.references);
        }
        let linked = facts.customer.as_ref().is_some_and(|customer| owners.get(customer) == Some(&target));
        let by_claim = target.standing() == Ownership::Account && target.as_str() != translate::SYSTEM_ACCOUNT;
        let link = facts.customer.clone().filter(|_| by_claim && !linked);
        Ok((target, link))
    }

    /// The account an event goes to: the one its ids lead to already; else the one it names; else the customer's own.
    fn target(&self, facts: &Facts, claim: Option<AccountId>, owners: &HashMap<String, AccountId>) -> AccountId {
        let owned = facts.references.iter().filter_map(|id| owners.get(id));
        let account = owned.clone().find(|owner| owner.standing() == Ownership::Account);
        if let (Some(account), Some(claim)) = (account, &claim)
            && account != claim
        {
            self.metrics.conflicting_claims.inc();
            tracing::warn!(%account, %claim, "an event names another account than the one its customer is linked to");
        }
        let best = owned.max_by_key(|owner| owner.standing());
        let own = facts.references.iter().filter_map(|id| AccountId::new(id).ok()).max_by_key(AccountId::standing);
        let strongest = best.cloned().into_iter().chain(own).max_by_key(AccountId::standing);
        account.cloned().or(claim).or(strongest).unwrap_or_else(system_account)
    }

    /// A completed Checkout of an unknown customer may be known by e-mail, if exactly one account carries it.
    async fn claim_by_email(
        &self,
        facts: &Facts,
        owners: &HashMap<String, AccountId>,
    ) -> Result<Option<AccountId>, AppError> {
        let linked = owners.values().any(|owner| owner.standing() == Ownership::Account);
        let Some(email) = facts.email.as_ref().filter(|_| facts.completes_checkout && !linked) else {
            return Ok(None);
        };
        let client = self.connection().await?;
        let mut accounts = load::accounts_by_email(&**client, email).await?;
        accounts.retain(|account| account.standing() == Ownership::Account);
        Ok(accounts.pop().filter(|_| accounts.is_empty()))
    }

    async fn keep_email(&self, facts: &Facts, account: &AccountId) -> Result<(), AppError> {
        let Some(email) = &facts.email else { return Ok(()) };
        let client = self.connection().await?;
        Ok(profiles::keep_email(&**client, account, email).await?)
    }

    /// Keeps an event that is not to be applied.
    async fn keep(&self, row: InboxRow) -> Result<Received, AppError> {
        let (reply, answer) = oneshot::channel();
        let key = Key::of_stripe_event(&row.stripe_event_id);
        let work = Work {
            account: system_account(),
            command: None,
            key: Some(key),
            links: Vec::new(),
            inbox: Some(row),
            reply,
            enqueued_at: Instant::now(),
        };
        let answer = self.submit(work, answer).await?;
        Ok(if answer.replayed { Received::Duplicate } else { Received::Ignored })
    }

    async fn park(&self, mut row: InboxRow, reason: String) -> Result<Received, AppError> {
        tracing::warn!(
            stripe_event_id = row.stripe_event_id,
            event_type = row.event_type,
            reason,
            "StripeEvent parked"
        );
        row.status = InboxStatus::Parked;
        row.reason = Some(reason);
        let client = self.connection().await?;
        inbox::park(&**client, &row).await?;
        self.metrics.parked.set(inbox::count_parked(&**client).await?);
        Ok(Received::Parked)
    }

    /// A body without a readable id is known by its digest.
    async fn park_unreadable(&self, body: Bytes, error: &TranslateError) -> Result<Received, AppError> {
        let digest = hex::encode(Sha256::digest(&body));
        let row = InboxRow {
            stripe_event_id: format!("unreadable_{}", &digest[..32]),
            event_type: "unreadable".to_owned(),
            status: InboxStatus::Parked,
            reason: None,
            account_id: None,
            api_version: None,
            created_at: None,
            received_at: self.clock.now(),
            body,
        };
        self.park(row, error.to_string()).await
    }

    /// Tries all parked StripeEvents again, oldest first. Answers what became of each.
    pub async fn retry_all_parked(&self) -> Result<Vec<(String, Received)>, AppError> {
        const PAGE: i64 = 100;
        let mut outcomes = Vec::new();
        let mut after = None;
        loop {
            let client = self.connection().await?;
            let page = inbox::list_parked(&**client, after.take(), PAGE).await?;
            drop(client);
            let Some(last) = page.last() else { return Ok(outcomes) };
            after = Some((last.received_at, last.stripe_event_id.clone()));
            for parked in page {
                if let Some(received) = self.retry_parked(&parked.stripe_event_id).await? {
                    outcomes.push((parked.stripe_event_id, received));
                }
            }
        }
    }

    /// Tries a parked StripeEvent again; `None` if there is none of that id.
    pub async fn retry_parked(&self, id: &str) -> Result<Option<Received>, AppError> {
        let client = self.connection().await?;
        let Some(body) = inbox::parked_body(&**client, id).await? else { return Ok(None) };
        drop(client);
        let received = self.receive(body).await?;
        let client = self.connection().await?;
        if received == Received::Duplicate {
            inbox::mark_applied(&**client, id).await?;
        }
        self.metrics.parked.set(inbox::count_parked(&**client).await?);
        Ok(Some(received))
    }
}

fn mode(livemode: bool) -> &'static str {
    if livemode { "live" } else { "test" }
}

fn system_account() -> AccountId {
    match AccountId::new(translate::SYSTEM_ACCOUNT) {
        Ok(account) => account,
        Err(_) => unreachable!("the system's account id is a valid one"),
    }
}
