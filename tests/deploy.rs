//! What stands in deploy/ fits the program: alerts speak of metrics it has, and settings are explained.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::Command;

use prometheus::core::Collector;
use serde_json::Value;
use subledger::app::metrics::Metrics;
use subledger::config;
use subledger::stripe::client::CallMetrics;

const ALERTS: &str = include_str!("../deploy/alerts.yml");
const ALERT_TESTS: [&str; 2] =
    [include_str!("../deploy/alerts_test.yml"), include_str!("../deploy/alerts_days_test.yml")];
const COMPOSE: &str = include_str!("../deploy/compose.yaml");
const DOCKERFILE: &str = include_str!("../deploy/Dockerfile");
const SETTINGS: &str = include_str!("../deploy/env.example");

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("readable YAML")
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Recording rules and alerts alike.
fn rules() -> Vec<Value> {
    let file = yaml(ALERTS);
    let groups = file["groups"].as_array().expect("groups").iter();
    let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array().expect("rules")).cloned().collect();
    assert!(rules.len() > 20, "only {} rules were read", rules.len());
    rules
}

/// The labels of each metric, by its name.
fn metrics() -> BTreeMap<String, Vec<String>> {
    let metrics = Metrics::new().expect("metrics");
    // A new metric that alerts.yml uses has to be listed here.
    let collectors: [&dyn Collector; 25] = [
        &metrics.stripe_events,
        &metrics.parked,
        &metrics.unmapped_prices,
        &metrics.conflicting_claims,
        &metrics.second_subscriptions,
        &metrics.appended_events,
        &metrics.append_batch_size,
        &metrics.append_seconds,
        &metrics.lane_queue_depth,
        &metrics.lane_queue_seconds,
        &metrics.tx_retries,
        &metrics.pool_connections,
        &metrics.projection_lag,
        &metrics.cached_reads,
        &metrics.read_throughs,
        &metrics.follower_age_seconds,
        &metrics.revenue.as_of,
        &metrics.cursor_lag,
        &metrics.webhook_dead_letters,
        &metrics.webhook_endpoints_disabled,
        &metrics.mails,
        &metrics.usage_oldest_pending_seconds,
        &metrics.usage_too_old,
        &metrics.http_requests,
        &metrics.http_seconds,
    ];
    let calls = CallMetrics::new(&prometheus::Registry::new()).expect("metrics");
    let of_calls: [&dyn Collector; 2] = [&calls.calls, &calls.key_refusals];
    let descriptions = collectors.iter().chain(&of_calls).flat_map(|collector| collector.desc());
    descriptions.map(|metric| (metric.fq_name.clone(), metric.variable_labels.clone())).collect()
}

/// The series that an expression selects whose names begin so, with the labels it selects them by.
fn selected(expression: &str, prefix: &str) -> Vec<(String, Vec<String>)> {
    let in_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(prefix) {
        rest = &rest[start..];
        let name = &rest[..rest.find(|c| !in_name(c)).unwrap_or(rest.len())];
        rest = &rest[name.len()..];
        let matchers = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(inside, _)| inside);
        let labels = matchers.split(", ").filter_map(|matcher| matcher.split(['=', '!']).next());
        let labels = labels.filter(|label| !label.is_empty()).map(str::to_owned).collect();
        found.push((name.to_owned(), labels));
    }
    found
}

#[test]
fn selectors_are_found_in_expressions() {
    let expression = r#"sum(rate(a_b_total{x="1", y=~"2|3"}[5m])) / a_c > 0.5 and a:d != 1"#;
    let series = |name: &str, labels: &[&str]| (name.to_owned(), labels.iter().map(|l| (*l).to_owned()).collect());
    assert_eq!(selected(expression, "a_"), [series("a_b_total", &["x", "y"]), series("a_c", &[])]);
    assert_eq!(selected(expression, "a:"), [series("a:d", &[])]);
}

#[test]
fn alerts_select_metrics_that_exist_by_labels_they_have() {
    let metrics = metrics();
    let mut seen = BTreeSet::new();
    for rule in rules() {
        for (name, labels) in selected(text(&rule, "/expr"), "subledger_") {
            let histogram = ["_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let known = metrics.get(&name).or_else(|| metrics.get(histogram?));
            let known = known.unwrap_or_else(|| panic!("alerts.yml selects {name}, which is no metric of the service"));
            for label in labels {
                assert!(known.contains(&label), "alerts.yml selects {name} by {label}, but it has {known:?}");
            }
            seen.insert(name);
        }
    }
    assert!(seen.len() > 8, "only {seen:?} were found in alerts.yml");
}

#[test]
fn what_alerts_take_as_recorded_is_recorded() {
    let rules = rules();
    let recorded: BTreeSet<_> = rules.iter().map(|rule| text(rule, "/record")).collect();
    let mut used = BTreeSet::new();
    for rule in &rules {
        used.extend(selected(text(rule, "/expr"), "subledger:").into_iter().map(|(name, _)| name));
    }
    assert!(!used.is_empty());
    for name in used {
        assert!(recorded.contains(name.as_str()), "{name} is not recorded by any rule");
    }
}

#[test]
fn each_alert_says_what_to_do_and_has_a_test_in_which_it_fires() {
    let rules = rules();
    let alerts: Vec<_> = rules.iter().filter(|rule| rule.get("alert").is_some()).collect();
    assert!(!alerts.is_empty());
    for alert in alerts {
        let name = text(alert, "/alert");
        assert!(["page", "ticket"].contains(&text(alert, "/labels/severity")), "{name}: how urgent is it?");
        assert!(!text(alert, "/annotations/summary").is_empty(), "{name} has no summary");
        assert!(text(alert, "/annotations/runbook").len() > 80, "{name}: what is to be done?");
        let expected = format!("alertname=\"{name}\"");
        assert!(ALERT_TESTS.iter().any(|tests| tests.contains(&expected)), "{name} fires in no test");
    }
}

/// The real thing, where it is installed.
#[test]
fn prometheus_takes_the_rules_and_their_tests_pass() {
    if Command::new("promtool").arg("--version").output().is_err() {
        // Not by eprintln, which is hidden when a test passes.
        let skipped = "SKIPPED: promtool is not installed, so the alert rules are not tested (Debian: prometheus)";
        writeln!(std::io::stderr(), "{skipped}").expect("standard error");
        return;
    }
    let deploy = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy");
    let calls: [&[&str]; 2] =
        [&["check", "config", "prometheus.yml"], &["test", "rules", "alerts_test.yml", "alerts_days_test.yml"]];
    for arguments in calls {
        let output = Command::new("promtool").args(arguments).current_dir(deploy).output().expect("promtool runs");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&said));
    }
}

/// `NAME=` in `line`, be it commented out or not.
fn setting(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix("# ").unwrap_or(line).split_once('=')?;
    let plain = |c: char| c.is_ascii_uppercase() || c == '_';
    (!name.is_empty() && name.chars().all(plain)).then_some(name)
}

#[test]
fn each_setting_is_explained_with_its_default() {
    let mut names = BTreeSet::new();
    for paragraph in SETTINGS.split("\n\n") {
        let Some(name) = paragraph.lines().find_map(setting) else { continue };
        assert!(paragraph.contains("# Default: "), "{name}: what if it is not set?");
        assert!(names.insert(name), "{name} is explained twice");
    }
    for (name, _) in config::SETTINGS {
        assert!(names.contains(name), "env.example does not explain {name}");
    }

    let compose = yaml(COMPOSE);
    let environment = compose["x-subledger"]["environment"].as_object().expect("an environment");
    let in_image = DOCKERFILE.lines().filter_map(|line| {
        let line = line.trim().trim_start_matches("ENV ");
        setting(line.split(' ').next()?)
    });
    let used: BTreeSet<_> = environment.keys().map(String::as_str).chain(in_image).collect();
    assert!(used.len() >= 8, "only {used:?} were found in compose.yaml and Dockerfile");
    for name in used {
        assert!(names.contains(name.trim_end_matches("_FILE")), "env.example does not explain {name}");
    }
}
