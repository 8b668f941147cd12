//! Creating accounts, and linking them to their Stripe customers.

use std::time::Instant;

use tokio::sync::oneshot;

use super::error::AppError;
use super::service::Service;
use crate::app::write_path::work::Work;
use crate::domain::command::Command;
use crate::domain::ids::{AccountId, Ownership};
use crate::store::profiles::{self, Profile};
use crate::store::{load, read};

/// How often it is tried when what is linked changes meanwhile.
const MAX_TRIES: usize = 8;

/// What a caller says of an account.
#[derive(Debug, Clone, Default)]
pub struct AccountDetails {
    pub stripe_customer_id: Option<String>,
    pub profile: Profile,
    /// `Some(None)`: no threshold of its own any more. 0: never told.
    pub low_balance: Option<Option<i64>>,
}

impl Service {
    /// Creates an account if there is none, links its customer, and keeps its profile. Answers whether it is new, and
    /// its position.
    pub async fn put_account(&self, name: AccountId, details: AccountDetails) -> Result<(bool, i64), AppError> {
        let mut created = false;
        for _ in 0..MAX_TRIES {
            match self.try_put_account(&name, &details, &mut created).await {
                // Somebody else linked or moved something at the same moment: look where it all leads now.
                Err(AppError::Moved(_) | AppError::LinkedElsewhere) => {
                    self.links.forget(&[name.as_str().to_owned()]);
                    self.links.forget(details.stripe_customer_id.as_slice());
                }
                done => return Ok((created, done?)),
            }
        }
        Err(AppError::Overloaded)
    }

    async fn try_put_account(
        &self,
        name: &AccountId,
        details: &AccountDetails,
        created: &mut bool,
    ) -> Result<i64, AppError> {
        let account = self.resolve(name).await?;
        let client = self.connection().await?;
        let known = read::balance(&**client, account.as_str()).await?;
        drop(client);
        *created |= known.is_none();
        let customers = self.customers_to_link(&account, details).await?;
        for customer in &customers {
            self.adopt_customer(&account, customer).await?;
        }
        let mut position = known.as_ref().map_or(0, |balance| balance.position);
        let mut news: Vec<Option<String>> = customers.into_iter().map(Some).collect();
        if news.is_empty() && known.is_none() {
            news.push(None);
        }
        for customer in news {
            let (reply, answer) = oneshot::channel();
            let work = Work {
                account: account.clone(),
                links: customer.iter().cloned().collect(),
                command: Some(Command::Open { stripe_customer_id: customer }),
                key: None,
                inbox: None,
                reply,
                enqueued_at: Instant::now(),
            };
            position = self.submit(work, answer).await?.position;
        }
        if let Some(threshold) = details.low_balance {
            let answer = self.execute(account.clone(), Command::SetLowBalance { threshold }, None).await?;
            position = position.max(answer.position);
        }
        if details.profile != Profile::default() {
            let client = self.connection().await?;
            profiles::put_profile(&**client, &account, &details.profile).await?;
        }
        Ok(position)
    }

    /// The customer named, and any that Checkout left waiting under the same e-mail address; but for those that are the
    /// account's already.
    async fn customers_to_link(&self, account: &AccountId, details: &AccountDetails) -> Result<Vec<String>, AppError> {
        let mut customers: Vec<String> = details.stripe_customer_id.iter().cloned().collect();
        if let Some(email) = &details.profile.email {
            let client = self.connection().await?;
            let waiting = load::customers_waiting_for(&**client, email).await?;
            customers.extend(waiting);
        }
        customers.sort();
        customers.dedup();
        let owners = self.links.owners(&customers).await?;
        customers.retain(|customer| owners.get(customer) != Some(account));
        Ok(customers)
    }

    /// Brings what is known under a customer's own id to the account.
    async fn adopt_customer(&self, account: &AccountId, customer: &str) -> Result<(), AppError> {
        let ids = [customer.to_owned()];
        let owners = self.links.owners(&ids).await?;
        let Some(owner) = owners.get(customer).filter(|owner| *owner != account) else { return Ok(()) };
        if owner.standing() == Ownership::Account {
            return Err(AppError::CustomerLinkedElsewhere { customer: customer.to_owned() });
        }
        self.move_stream(owner, account).await?;
        self.links.forget(&ids);
        Ok(())
    }
}
