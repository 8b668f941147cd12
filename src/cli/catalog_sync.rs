//! The catalog and Stripe: push, diff, import.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use prometheus::Registry;
use serde_json::json;
use subledger::app::stripe_sync::catalog_sync::{carry_out, read_stripe};
use subledger::config::{Config, ConfigError};
use subledger::domain::catalog::Catalog;
use subledger::domain::catalog_sync::{self, Assignment, SyncPlan};
use subledger::startup::{self, Ground, Running, StartError};
use subledger::stripe::client::{CallMetrics, StripeClient};

use super::exit::Exit;
use super::output::print;
use super::{close, open};

#[derive(Debug, Args)]
pub struct PushArguments {
    /// The catalog's file, into which Stripe's ids are written; without it, the catalog in force gets them
    file: Option<PathBuf>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct DiffArguments {
    /// The catalog's file; without it, the catalog in force
    file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct ImportArguments {
    /// Where to write the catalog; without it, to standard output
    #[arg(long)]
    output: Option<PathBuf>,
}

/// Whose catalog it is.
enum Source {
    File(PathBuf),
    InForce(Box<(Ground, Running)>),
}

impl Source {
    async fn open(file: Option<PathBuf>, config: &Config) -> Result<(Self, Catalog), StartError> {
        match file {
            Some(file) => {
                let catalog = startup::read_catalog(&file)?;
                Ok((Self::File(file), catalog))
            }
            None => {
                let opened = open(config).await?;
                let catalog = opened.1.service.catalog.current().catalog.clone();
                Ok((Self::InForce(Box::new(opened)), catalog))
            }
        }
    }

    /// Calls Stripe as the service would.
    async fn client(&self, config: &Config) -> Result<StripeClient, StartError> {
        match self {
            Self::InForce(opened) => client(&opened.1.config),
            Self::File(_) => client(&startup::settings_of_service(config).await?),
        }
    }

    /// Answers what was done.
    async fn keep(&self, catalog: Catalog, assignments: &[Assignment]) -> Result<String, StartError> {
        match self {
            Self::File(path) => {
                write_ids(path, assignments)?;
                let name = path.display();
                Ok(format!("Stripe's ids are in {name}; put it in force with: subledger catalog apply {name}"))
            }
            Self::InForce(opened) => {
                opened.1.service.amend_catalog(catalog_sync::with_assignments(catalog, assignments)).await?;
                Ok("a catalog with Stripe's ids is in force; running services take it over within seconds".to_owned())
            }
        }
    }

    async fn close(self) -> Result<(), StartError> {
        match self {
            Self::File(_) => Ok(()),
            Self::InForce(opened) => close(opened.0, opened.1).await,
        }
    }
}

/// Creates and updates products and prices, and keeps their ids.
pub async fn push(arguments: PushArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (source, catalog) = Source::open(arguments.file, config).await?;
    let pushed = async {
        let client = source.client(config).await?;
        let plan = catalog_sync::plan(&catalog, &read_stripe(&client).await?);
        if arguments.dry_run || plan.is_empty() {
            show(&plan, json, arguments.dry_run);
            return Ok(ExitCode::SUCCESS);
        }
        let steps = plan.steps.clone();
        let assignments = carry_out(&client, plan, |step| {
            if !json {
                println!("{step}: done");
            }
        });
        let assignments = assignments.await?;
        let kept = if assignments.is_empty() {
            "the catalog has all of Stripe's ids already".to_owned()
        } else {
            source.keep(catalog.clone(), &assignments).await?
        };
        // Stripe's answer to a key that it knows is the first one, whatever became of the object since.
        let catalog = catalog_sync::with_assignments(catalog, &assignments);
        let left = catalog_sync::plan(&catalog, &read_stripe(&client).await?);
        print(json, &json!({"steps": steps, "assignments": assignments, "left": left}), &kept);
        if !left.is_empty() && !json {
            eprintln!(
                "subledger: not all of it holds in Stripe; look again tomorrow, or mend by hand:\n{}",
                lines(&left)
            );
        }
        Ok(Exit::unless(!left.is_empty()))
    };
    let pushed: Result<ExitCode, StartError> = pushed.await;
    source.close().await?;
    pushed
}

/// Says what a push would do; exit code 1 if anything.
pub async fn diff(arguments: DiffArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let (source, catalog) = Source::open(arguments.file, config).await?;
    let read = async { Ok::<_, StartError>(read_stripe(&source.client(config).await?).await?) };
    let stripe = read.await;
    source.close().await?;
    let plan = catalog_sync::plan(&catalog, &stripe?);
    show(&plan, json, true);
    Ok(Exit::unless(!plan.is_empty()))
}

/// Writes a catalog of what Stripe sells.
pub async fn import(arguments: ImportArguments, config: &Config, json: bool) -> Result<ExitCode, StartError> {
    let client = client(&startup::settings_of_service(config).await?)?;
    let imported = catalog_sync::import(&read_stripe(&client).await?);
    let path = arguments.output.as_deref().map_or_else(|| "from Stripe".to_owned(), |path| path.display().to_string());
    if let Some(output) = &arguments.output {
        replace(output, &imported.text)?;
    }
    let checked = Catalog::from_toml(&imported.text);
    match &arguments.output {
        None if !json => print!("{}", imported.text),
        _ => {
            let text = format!("written to {path}");
            print(json, &json!({"catalog": imported.text, "notes": imported.notes}), &text);
        }
    }
    for note in imported.notes.iter().filter(|_| !json) {
        eprintln!("{note}");
    }
    let errors = checked.err().map(|errors| StartError::Catalog { path, errors: errors.to_string() });
    errors.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn client(config: &Config) -> Result<StripeClient, StartError> {
    let error = |problem: String| ConfigError { setting: "STRIPE_SECRET_KEY".to_owned(), problem };
    if config.stripe_calls.secret_key.is_none() {
        let problem = "is not set, and Stripe cannot be asked without it: set it in the environment or as \
                       STRIPE_SECRET_KEY_FILE, or name the database whose settings table has it (DATABASE_URL, or \
                       SUBLEDGER_DATA_DIR for the embedded one)";
        return Err(error(problem.to_owned()).into());
    }
    let metrics = CallMetrics::new(&Registry::new()).map_err(|problem| error(problem.to_string()))?;
    let client = StripeClient::new(startup::stripe_client_settings(&config.stripe_calls), metrics);
    client.map_err(|problem| error(problem.to_string()).into())
}

fn lines(plan: &SyncPlan) -> String {
    let steps = plan.steps.iter().map(ToString::to_string);
    let assignments = plan.assignments.iter().map(|assignment| {
        let id = assignment.stripe_price_id.as_deref().unwrap_or("the one to be made");
        format!("the catalog lacks ids of {}: {id}", assignment.price)
    });
    steps.chain(assignments).collect::<Vec<_>>().join("\n")
}

fn show(plan: &SyncPlan, json: bool, is_question: bool) {
    let text = match plan.is_empty() {
        true => "Stripe and the catalog agree".to_owned(),
        false => lines(plan),
    };
    let value =
        json!({"steps": plan.steps, "assignments": plan.assignments, "agrees": plan.is_empty(), "done": !is_question});
    print(json, &value, &text);
}

fn write_ids(path: &Path, assignments: &[Assignment]) -> Result<(), StartError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|cause| StartError::CatalogFile { path: name.clone(), cause })?;
    let written = catalog_sync::write_assignments(&text, assignments);
    let written = written.map_err(|error| StartError::Catalog { path: name, errors: error.to_string() })?;
    replace(path, &written)
}

/// Puts a new text in place of a file, whole or not at all.
fn replace(path: &Path, text: &str) -> Result<(), StartError> {
    let replaced = || -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file_name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = folder.join(format!(".{file_name}.{}", std::process::id()));
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if let Ok(known) = std::fs::metadata(path) {
            std::fs::set_permissions(&beside, known.permissions())?;
        }
        std::fs::rename(&beside, path)
    };
    replaced().map_err(|cause| StartError::CatalogFile { path: path.display().to_string(), cause })
}
