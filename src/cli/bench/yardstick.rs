//! What our figures are held against: pgbench on the same server, and a bare actix handler.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use tokio::process::Command;

use super::BenchError;

/// pgbench's scale: 100,000 rows in `pgbench_accounts` each.
const SCALE: u32 = 10;

/// pgbench on a database of its own beside the service's.
#[derive(Debug, Clone)]
pub struct Pgbench {
    url: String,
    program: std::path::PathBuf,
}

impl Pgbench {
    /// Fills the database at `url`.
    pub async fn prepare(url: String) -> Result<Self, BenchError> {
        let beside = subledger::embedded_postgres::find_binaries().map(|folder| folder.join("pgbench"));
        let program = beside.filter(|path| path.exists()).unwrap_or_else(|| "pgbench".into());
        let pgbench = Self { url, program };
        pgbench.call(&["-i", "-q", "-s", &SCALE.to_string()]).await?;
        Ok(pgbench)
    }

    /// Simple updates (`-N`, prepared) by `clients` clients, in transactions each second.
    pub async fn simple_update(&self, clients: usize, time: Duration) -> Result<f64, BenchError> {
        self.rate(&["-N"], clients, time).await
    }

    /// Single-row reads (`-S`, prepared), in transactions each second.
    pub async fn select_only(&self, clients: usize, time: Duration) -> Result<f64, BenchError> {
        self.rate(&["-S"], clients, time).await
    }

    /// The 99th percentile of simple updates at a steady rate, whether or not those before were answered (`-R`), in
    /// milliseconds from when each was to begin.
    pub async fn p99_at_rate(&self, clients: usize, rate: f64, time: Duration) -> Result<f64, BenchError> {
        let folder = std::env::temp_dir().join(format!("subledger-pgbench-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let prefix = folder.join("log").display().to_string();
        let (clients, seconds) = (clients.to_string(), time.as_secs().max(1).to_string());
        let rate = format!("{rate:.0}");
        let arguments = ["-N", "-n", "-M", "prepared", "-c", &clients, "-j", "2", "-T", &seconds, "-R", &rate, "-l"];
        let called = self.call(&[&arguments[..], &["--log-prefix", &prefix]].concat()).await;
        let mut latencies_us: Vec<u64> = Vec::new();
        for file in std::fs::read_dir(&folder)? {
            // client, transaction, time, …
            let text = std::fs::read_to_string(file?.path())?;
            latencies_us.extend(text.lines().filter_map(|line| line.split(' ').nth(2)?.parse::<u64>().ok()));
        }
        std::fs::remove_dir_all(&folder)?;
        called?;
        latencies_us.sort_unstable();
        let at = latencies_us.len() * 99 / 100;
        let p99 = latencies_us.get(at).ok_or_else(|| BenchError::Yardstick("pgbench logged nothing".to_owned()))?;
        Ok(*p99 as f64 / 1e3)
    }

    async fn rate(&self, script: &[&str], clients: usize, time: Duration) -> Result<f64, BenchError> {
        let (clients, seconds) = (clients.to_string(), time.as_secs().max(1).to_string());
        let common = ["-n", "-M", "prepared", "-c", &clients, "-j", "2", "-T", &seconds];
        let output = self.call(&[script, &common].concat()).await?;
        let line = output.lines().find_map(|line| line.strip_prefix("tps = "));
        let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
        number.ok_or_else(|| BenchError::Yardstick(format!("pgbench printed no tps:\n{output}")))
    }

    async fn call(&self, arguments: &[&str]) -> Result<String, BenchError> {
        let output = Command::new(&self.program)
            .args(arguments)
            .arg(&self.url)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|cause| BenchError::Yardstick(format!("pgbench cannot be run: {cause}")))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(BenchError::Yardstick(format!("pgbench failed: {said}")));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Serves one JSON answer and nothing else, until killed: the program's own process runs it.
pub async fn serve_bare(address: SocketAddr) -> std::io::Result<()> {
    let answer = || async { HttpResponse::Ok().json(serde_json::json!({"allowed": true, "remaining": 41})) };
    HttpServer::new(move || App::new().default_service(web::get().to(answer))).workers(2).bind(address)?.run().await
}
