//! Stripe's own libraries as clients of every call, and as verifiers of what is delivered.
//!
//! They are installed from PyPI and npm into the target folder, once. Without pip or npm, or a way to their registries, the
//! tests say loudly that they did not run.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::deliveries::simulator;

const PYTHON_LIBRARY: &str = "stripe==16.1.0";
const NODE_LIBRARY: &str = "stripe@23.1.0";

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("parties").join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Whether a command succeeded; what it said if not.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(said(&output.stdout))
    } else {
        Err(format!("{command:?}: {}\n{}{}", output.status, said(&output.stdout), said(&output.stderr)))
    }
}

fn python() -> Result<PathBuf, String> {
    let folder = folder("python");
    let python = folder.join("bin/python");
    let has_library = |python: &Path| run(Command::new(python).args(["-c", "import stripe"])).is_ok();
    if !has_library(&python) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", PYTHON_LIBRARY]))?;
    }
    Ok(python)
}

fn node() -> Result<PathBuf, String> {
    let folder = folder("node");
    if !folder.join("node_modules/stripe").exists() {
        run(Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", NODE_LIBRARY])
            .arg("--prefix")
            .arg(&folder))?;
    }
    Ok(folder)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simulator/parties").join(name)
}

async fn drive(mut command: Command) {
    let said = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ran");
    match said {
        Ok(said) => println!("{}", said.trim()),
        Err(said) => panic!("{said}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripes_python_library_drives_every_call() {
    let python = match python() {
        Ok(python) => python,
        Err(why) => return eprintln!("NOT TESTED: Stripe's Python library is not here: {why}"),
    };
    let simulator = simulator(Vec::new());
    let mut command = Command::new(python);
    command.arg(script("drive.py")).arg(simulator.base_url());
    drive(command).await;
    simulator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stripes_node_library_drives_it() {
    let folder = match node() {
        Ok(folder) => folder,
        Err(why) => return eprintln!("NOT TESTED: Stripe's Node library is not here: {why}"),
    };
    let simulator = simulator(Vec::new());
    // A module finds its libraries beside itself.
    let copy = folder.join("drive.mjs");
    std::fs::copy(script("drive.mjs"), &copy).expect("a copy");
    let mut command = Command::new("node");
    command.arg(copy).arg(simulator.base_url());
    drive(command).await;
    simulator.stop().await;
}
