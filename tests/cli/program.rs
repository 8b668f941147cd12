//! The program, with a ledger and an environment of its own.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// What a run of the program came to.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Run {
    /// That it ended with this code. Answers what it printed.
    #[track_caller]
    pub fn expect(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self.out
    }

    /// The same for JSON.
    #[track_caller]
    pub fn json(self, code: i32) -> Value {
        let out = self.expect(code);
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// That it ended with this code and one line of complaint. Answers the line.
    #[track_caller]
    pub fn complaint(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        let line = self.err.strip_prefix("subledger: ").and_then(|err| err.strip_suffix('\n'));
        let line = line.unwrap_or_else(|| panic!("no complaint: {}", self.err));
        assert!(!line.contains('\n'), "more than one line: {line}");
        line.to_owned()
    }
}

/// How the program is called: with this environment and no other.
#[derive(Debug, Clone)]
pub struct Program {
    environment: BTreeMap<String, String>,
}

impl Program {
    pub fn on(database_url: &str) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        Self { environment: BTreeMap::new() }.with("PATH", &path).with("DATABASE_URL", database_url)
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_subledger"));
        command.args(arguments).env_clear().envs(&self.environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, "")
    }

    /// With something on its standard input.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Run {
        let mut child = self.command(arguments).spawn().expect("the program runs");
        // One that does not read its input may be gone already.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("an end");
        Run {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// With `--json`.
    pub fn json(&self, arguments: &[&str], code: i32) -> Value {
        self.run(&[&["--json"], arguments].concat()).json(code)
    }

    /// Starts it, to be ended later.
    pub fn start(&self, arguments: &[&str]) -> Started {
        Started(Some(self.command(arguments).spawn().expect("the program runs")))
    }
}

/// The program at work.
#[derive(Debug)]
pub struct Started(Option<Child>);

impl Started {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("not ended yet")
    }

    /// Waits until the service answers.
    pub async fn ready(&mut self, address: SocketAddr) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while reqwest::get(format!("http://{address}/readyz")).await.is_err() {
            assert!(self.child().try_wait().expect("a child").is_none(), "the program ended");
            assert!(Instant::now() < deadline, "not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What it has printed up to the end of a line that holds `text`.
    pub fn printed(&mut self, text: &str) -> String {
        let out = self.child().stdout.as_mut().expect("a pipe");
        let mut printed = Vec::new();
        let mut byte = [0];
        loop {
            assert_eq!(out.read(&mut byte).expect("readable"), 1, "it ended before it printed {text}");
            printed.push(byte[0]);
            let so_far = String::from_utf8_lossy(&printed);
            if byte[0] == b'\n' && so_far.lines().next_back().is_some_and(|line| line.contains(text)) {
                return so_far.into_owned();
            }
        }
    }

    /// Reads no more of what it prints.
    pub fn stop_reading(&mut self) {
        drop(self.child().stdout.take());
    }

    /// Waits for its end.
    pub fn end(mut self) -> Run {
        let child = self.0.take().expect("not ended yet");
        let output = child.wait_with_output().expect("an end");
        Run {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Tells it to stop.
    pub fn stop(mut self, signal: Signal) -> Run {
        kill(Pid::from_raw(self.child().id().try_into().expect("a pid")), signal).expect("told");
        self.end()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}
