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
