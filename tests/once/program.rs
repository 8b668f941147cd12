//! The program itself, as a process that can be killed.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ground::{CATALOG, SECRET};

/// The program itself, serving.
pub struct Program(Child);

impl Program {
    pub fn start(url: &str, address: SocketAddr) -> Self {
        Self::start_with(url, address, &[])
    }

    /// With further settings.
    pub fn start_with(url: &str, address: SocketAddr, settings: &[(&str, &str)]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_subledger"))
            .arg("serve")
            .env("DATABASE_URL", url)
            .env("SUBLEDGER_LISTEN", address.to_string())
            .env("SUBLEDGER_CATALOG", CATALOG)
            .env("STRIPE_WEBHOOK_SECRETS", SECRET)
            .env("SUBLEDGER_ACCOUNT_METADATA_KEYS", "user_id")
            .env("SUBLEDGER_ALLOW_PRIVATE_WEBHOOKS", "true")
            .env("RUST_LOG", "error")
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("the program runs"))
    }

    pub async fn ready(&mut self, address: SocketAddr) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while reqwest::get(format!("http://{address}/readyz")).await.is_err() {
            assert!(self.0.try_wait().expect("a child").is_none(), "the program ended");
            assert!(Instant::now() < deadline, "not ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn kill(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("gone");
    }

    /// Tells it to stop, and waits for its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let pid = Pid::from_raw(self.0.id().try_into().expect("a pid"));
        kill(pid, Signal::SIGTERM).expect("told");
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            if let Some(status) = self.0.try_wait().expect("a child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not stop");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}
