//! `subledger account`: one account, or all of them.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use console::Term;
use serde_json::{Value, json};
use subledger::app::accounts::AccountDetails;
use subledger::app::service::Service;
use subledger::config::Config;
use subledger::domain::credit::Lot;
use subledger::domain::ids::AccountId;
use subledger::domain::settle::credits_at;
use subledger::domain::standing::Standing;
use subledger::http::accounts::{check_customer, check_email, check_own_id};
use subledger::startup::StartError;
use subledger::store::profiles::{self, Profile};
use subledger::store::{load, read};
use subledger::stripe::translate::SYSTEM_ACCOUNT;

use super::exit::Exit;
use super::output::{facts, or_dash, print, table, time};
use super::{close, open};

/// Read at once.
const PAGE: i64 = 1_000;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct AccountArguments {
    /// The same as `account get`
    #[arg(value_parser = parse_account)]
    account: Option<AccountId>,
    #[command(subcommand)]
    command: Option<AccountCommand>,
}

#[derive(Debug, Subcommand)]
enum AccountCommand {
    /// Show an account: plan, credits, lots
    Get {
        /// The account's id, or a Stripe customer id linked to it
        #[arg(value_parser = parse_account)]
        account: AccountId,
    },
    /// List accounts, by id
    List(ListArguments),
    /// Create an account, or link it to its Stripe customer
    Link(LinkArguments),
    /// Erase what names a person: e-mail address, metadata, bodies of StripeEvents; the log has nothing of the kind
    Erase {
        /// The account's id, or a Stripe customer id linked to it
        #[arg(value_parser = parse_account)]
        account: AccountId,
        /// Do not ask whether that is meant
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Those that are known by this e-mail address
    #[arg(long)]
    email: Option<String>,
    /// Those after this id
    #[arg(long, default_value = "", hide_default_value = true)]
    after: String,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

#[derive(Debug, Args)]
struct LinkArguments {
    /// Your own id of the account
    #[arg(value_parser = parse_own_account)]
    account: AccountId,
    /// Id of its Stripe customer, cus_…
    #[arg(long, value_parser = parse_customer)]
    customer: Option<String>,
    /// Its e-mail address; customers that Checkout left waiting under it are linked, too
    #[arg(long, value_parser = parse_email)]
    email: Option<String>,
}

fn parse_account(text: &str) -> Result<AccountId, String> {
    AccountId::new(text).map_err(|error| error.to_string())
}

fn parse_own_account(text: &str) -> Result<AccountId, String> {
    let id = parse_account(text)?;
    check_own_id(&id).map_err(|error| error.to_string())?;
    Ok(id)
}

fn parse_customer(text: &str) -> Result<String, String> {
    check_customer(Some(text)).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn parse_email(text: &str) -> Result<String, String> {
    check_email(Some(text)).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Runs one of them.
pub async fn run(arguments: AccountArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    if let Some(AccountCommand::Erase { account, yes }) = &arguments.command
        && !yes
        && !is_meant(account)
    {
        eprintln!("subledger: nothing was erased; --yes says that it is meant");
        return Ok(Exit::Usage.into());
    }
    let (ground, running) = open(config).await?;
    let service = &running.service;
    let done = match (arguments.command, arguments.account) {
        (Some(AccountCommand::Get { account }), _) | (None, Some(account)) => get(service, &account, json).await,
        (Some(AccountCommand::List(arguments)), _) => list(service, arguments, json).await,
        (Some(AccountCommand::Link(arguments)), _) => link(service, arguments, json).await,
        (Some(AccountCommand::Erase { account, .. }), _) => erase(service, &account, json).await,
        // Help was shown instead.
        (None, None) => Ok(Exit::Usage),
    };
    close(ground, running).await?;
    Ok(done?.into())
}

async fn get(service: &Service, name: &AccountId, json: bool) -> Result<Exit, StartError> {
    let account = service.account_now(name, 0).await?;
    let standing = account.standing();
    let plan = standing.plan.map(|plan| plan.id.as_str());
    let state = standing.state(account.credits());
    let available = account.credits().available_at(account.at);
    let client = service.connection().await?;
    let profile = profiles::get_profile(&**client, &account.id).await?;
    let mut customers = load::links_to(&**client, &account.id).await?;
    customers.retain(|id| id.starts_with("cus_"));
    let lots = &account.credits().lots;
    let told = json!({
        "id": account.id, "plan": plan, "state": state, "available": available, "lots": lots, "email": profile.email,
        "metadata": profile.metadata, "stripe_customer_ids": customers, "opened_at": account.credits().opened_at,
        "suspension": account.credits().suspension, "low_balance": account.credits().low_balance,
        "position": account.position,
    });
    let about = facts([
        ("account", account.id.to_string()),
        ("plan", or_dash(plan)),
        ("state", word(&json!(state))),
        ("credits", available.to_string()),
        ("e-mail", or_dash(profile.email.as_deref())),
        ("Stripe customers", or_dash(Some(customers.join(", ")).filter(|ids| !ids.is_empty()).as_deref())),
    ]);
    let row = |lot: &Lot| {
        let expires_at = lot.expires_at.map_or_else(|| "never".to_owned(), time);
        vec![lot.remaining.to_string(), lot.granted.to_string(), expires_at, lot.cause.to_string()]
    };
    let lots = table(&["LEFT", "OF", "EXPIRES", "CAUSE"], lots.iter().map(row), "no credits");
    print(json, &told, &format!("{about}\n\n{lots}"));
    Ok(Exit::Success)
}

fn word(value: &Value) -> String {
    or_dash(value.as_str())
}

async fn list(service: &Service, arguments: ListArguments, json: bool) -> Result<Exit, StartError> {
    let ListArguments { email, mut after, limit } = arguments;
    let client = service.connection().await?;
    let of_email = match &email {
        Some(email) => Some(load::accounts_by_email(&**client, email).await?),
        None => None,
    };
    let active = service.catalog.current();
    let now = service.clock.now();
    let (mut data, mut rows) = (Vec::new(), Vec::new());
    let mut has_more = true;
    while has_more && data.len() < limit as usize {
        let page = read::balances_after(&**client, &after, PAGE).await?;
        has_more = page.len() as i64 == PAGE;
        for account in page {
            if data.len() == limit as usize {
                has_more = true;
                break;
            }
            after = account.id.to_string();
            let is_asked_for = of_email.as_ref().is_none_or(|ids| ids.contains(&account.id));
            // What was taken over is listed under the account that it is part of.
            if account.id.as_str() == SYSTEM_ACCOUNT || account.credits.merged_into.is_some() || !is_asked_for {
                continue;
            }
            let credits = credits_at(&account.id, &account.credits, active.context(now));
            let standing = Standing::of(&credits, &active.catalog, now);
            let plan = standing.plan.map(|plan| plan.id.as_str());
            let (state, available) = (json!(standing.state(&credits)), credits.available_at(now));
            rows.push(vec![account.id.to_string(), or_dash(plan), word(&state), available.to_string()]);
            data.push(json!({"id": account.id, "plan": plan, "state": state, "available": available}));
        }
    }
    let mut text = table(&["ACCOUNT", "PLAN", "STATE", "CREDITS"], rows, "no accounts");
    if has_more {
        text.push_str(&format!("\nMore: subledger account list --after {after}"));
    }
    print(json, &json!({"data": data, "has_more": has_more, "next_after": has_more.then_some(after)}), &text);
    Ok(Exit::Success)
}

/// Asks on a terminal; elsewhere there is nobody to ask.
fn is_meant(account: &AccountId) -> bool {
    let terminal = Term::stderr();
    if !std::io::stdin().is_terminal() || !terminal.is_term() {
        return false;
    }
    let asked = terminal.write_str(&format!("Erase the personal data of {account} for ever? Type its id: "));
    asked.and_then(|()| terminal.read_line()).is_ok_and(|answer| answer.trim() == account.as_str())
}

async fn erase(service: &Service, account: &AccountId, json: bool) -> Result<Exit, StartError> {
    let erasure = service.erase_personal_data(account).await?;
    let profile = if erasure.profile_erased { "the profile" } else { "no profile" };
    let text = format!(
        "{}: {profile} and {} bodies of StripeEvents are gone, {} parked ones are kept without what names a person",
        erasure.account, erasure.inbox_erased, erasure.parked_redacted
    );
    print(json, &json!(erasure), &text);
    Ok(Exit::Success)
}

async fn link(service: &Service, arguments: LinkArguments, json: bool) -> Result<Exit, StartError> {
    let LinkArguments { account, customer, email } = arguments;
    let details = AccountDetails {
        stripe_customer_id: customer.clone(),
        profile: Profile { email, metadata: None },
        low_balance: None,
    };
    let (created, position) = service.put_account(account.clone(), details).await?;
    let done = if created { "created" } else { "there already" };
    let linked = customer.as_ref().map_or_else(String::new, |customer| format!(", linked to {customer}"));
    let told = json!({"id": account, "created": created, "stripe_customer_id": customer, "position": position});
    print(json, &told, &format!("{account} is {done}{linked}"));
    Ok(Exit::Success)
}
