//! `subledger webhook-endpoints`, beside a service that delivers.

use serde_json::json;

use crate::program::Program;
use crate::support::*;

#[tokio::test]
async fn endpoints_are_made_listed_changed_and_removed() {
    let app = TestApp::start().await;
    let program = Program::on(&app.database_url);
    let run = |arguments: &[&str]| program.run(&[&["webhook-endpoints"], arguments].concat());
    let machine = |arguments: &[&str], code| program.json(&[&["webhook-endpoints"], arguments].concat(), code);
    assert_eq!(run(&["list"]).expect(0), "no webhook endpoints\n");
    assert!(run(&["create", "https://10.0.0.1/"]).complaint(2).contains("no public address"));
    assert_eq!(run(&["create", "https://example.com/", "--types", "moon_landed"]).code, Some(2));
    let made = machine(&["create", "https://example.com/", "--types", "credits_*,notification.*"], 0);
    let id = made["id"].as_str().expect("an id");
    assert!(made["secret"].as_str().expect("a secret").starts_with("whsec_"));
    assert!(run(&["create", "https://example.com/other"]).expect(0).starts_with("whsec_"));
    let listed = machine(&["list"], 0);
    assert_eq!(listed["data"][0]["event_types"], json!(["credits_*", "notification.*"]));
    assert_eq!(run(&["disable", id]).expect(0), format!("{id} is disabled\n"));
    assert!(run(&["list"]).expect(0).contains("disabled (requested)"));
    assert!(run(&["replay", id, "--since", "2026-01-15T12:00:00Z"]).complaint(1).contains("enable it first"));
    assert_eq!(run(&["enable", id]).expect(0), format!("{id} is enabled\n"));
    assert_eq!(machine(&["replay", id, "--since", "2026-01-15T12:00:00Z"], 0)["replay"]["endpoint"], id);
    assert_eq!(run(&["deliveries", id]).expect(0), "no deliveries\n");
    assert_eq!(run(&["retry", id, "evt_0-1"]).code, Some(1));
    assert_eq!(run(&["delete", id]).expect(0), format!("{id} is removed\n"));
    assert_eq!(run(&["delete", id]).code, Some(1));
    assert_eq!(machine(&["list"], 0)["data"].as_array().expect("rows").len(), 1);
}
