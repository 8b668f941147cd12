//! The figures, as `BENCHMARKS.md` shows them.

use std::fmt;

use subledger::store::connect::Database;

use super::BenchError;

/// Rows and notes of one run.
#[derive(Debug)]
pub struct Report {
    machine: String,
    settings: Vec<(String, String)>,
    rounds: usize,
    seconds: u64,
    rows: Vec<Row>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Row {
    subject: String,
    rate: f64,
    yardstick: String,
    yardstick_rate: f64,
    target: Option<Target>,
    unit: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

impl Report {
    /// Starts a report with what the figures depend on.
    pub async fn new(url: &str, seconds: u64, rounds: usize) -> Result<Self, BenchError> {
        const SETTINGS: [&str; 8] = [
            "server_version",
            "fsync",
            "synchronous_commit",
            "full_page_writes",
            "shared_buffers",
            "max_wal_size",
            "wal_compression",
            "checkpoint_timeout",
        ];
        let client = Database::parse(url)?.connect_as_owner().await?;
        let mut settings = Vec::new();
        for name in SETTINGS {
            let row = client.query_one("select current_setting($1)", &[&name]).await?;
            settings.push((name.to_owned(), row.get(0)));
        }
        Ok(Self { machine: machine(), settings, rounds, seconds, rows: Vec::new(), notes: Vec::new() })
    }

    pub fn row(&mut self, subject: &str, rate: f64, yardstick: &str, yardstick_rate: f64, target: Option<f64>) {
        let (subject, yardstick) = (subject.to_owned(), yardstick.to_owned());
        let target = target.map(Target::AtLeast);
        self.rows.push(Row { subject, rate, yardstick, yardstick_rate, target, unit: "/s" });
    }

    /// Milliseconds, the fewer the better.
    pub fn latency(&mut self, subject: &str, ms: f64, yardstick: &str, yardstick_ms: f64, at_most: f64) {
        let (subject, yardstick) = (subject.to_owned(), yardstick.to_owned());
        let target = Some(Target::AtMost(at_most));
        self.rows.push(Row { subject, rate: ms, yardstick, yardstick_rate: yardstick_ms, target, unit: " ms" });
    }

    pub fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cpu = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores ({cpu}), {memory} of memory; load generator, service and Postgres share them")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Benchmarks\n")?;
        writeln!(
            f,
            "Written by `make bench`. Figures are medians of {} rounds of {} s, subject and yardstick",
            self.rounds, self.seconds
        )?;
        writeln!(f, "alternating in one run. What counts is the ratio: absolute rates depend on the machine.\n")?;
        writeln!(f, "Where the time goes, and what was tried where a target is missed, is in docs/performance.md.\n")?;
        writeln!(f, "Machine: {}.", self.machine)?;
        let settings: Vec<String> = self.settings.iter().map(|(name, value)| format!("{name} {value}")).collect();
        writeln!(f, "Postgres: {}.\n", settings.join(", "))?;
        writeln!(f, "| subject | rate | yardstick | its rate | ratio | target |")?;
        writeln!(f, "|---|---:|---|---:|---:|---|")?;
        for row in &self.rows {
            let ratio = row.rate / row.yardstick_rate;
            let target = match row.target {
                None => "–".to_owned(),
                Some(Target::AtLeast(target)) if ratio >= target => format!("≥ {target}: met"),
                Some(Target::AtLeast(target)) => format!("≥ {target}: **missed**"),
                Some(Target::AtMost(target)) if ratio <= target => format!("≤ {target}: met"),
                Some(Target::AtMost(target)) => format!("≤ {target}: **missed**"),
            };
            let Row { subject, rate, yardstick, yardstick_rate, unit, .. } = row;
            let digits = if *unit == "/s" { 0 } else { 2 };
            let (rate, yardstick_rate) = (format!("{rate:.digits$}{unit}"), format!("{yardstick_rate:.digits$}{unit}"));
            writeln!(f, "| {subject} | {rate} | {yardstick} | {yardstick_rate} | {ratio:.2} | {target} |")?;
        }
        writeln!(f)?;
        for note in &self.notes {
            writeln!(f, "- {note}")?;
        }
        Ok(())
    }
}
