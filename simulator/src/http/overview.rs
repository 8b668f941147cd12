//! The page for whoever runs the simulator: what there is, and the clock.

use std::collections::HashMap;

use actix_web::{HttpResponse, web};
use serde_json::Value;

use super::State;
use super::html::{escaped, money, redirect, wide_page};
use crate::time;
use crate::world::read::Read;

/// Rows of each kind that are shown, the newest ones.
const SHOWN: usize = 20;

pub async fn show(state: web::Data<State>) -> HttpResponse {
    let inner = state.lock();
    let world = &inner.world;
    let table = |title: &str, kind: &'static str, columns: &[&str]| {
        let head: String = columns.iter().map(|column| format!("<th>{}", column.replace('_', " "))).collect();
        let row = |object: &Value| -> String {
            let cells: String = columns.iter().map(|column| format!("<td>{}", cell(object, column))).collect();
            format!("<tr>{cells}</tr>")
        };
        let rows: String = world.objects(kind).rev().take(SHOWN).map(row).collect();
        if rows.is_empty() {
            return format!("<h2>{title}</h2><p class=note>None yet.</p>");
        }
        format!("<h2>{title}</h2><div class=scroll><table><tr>{head}</tr>{rows}</table></div>")
    };
    let content = format!(
        "<p>It is <strong>{}</strong> here.</p>\
         <form method=post action=/advance><button name=months value=1>Advance 1 month</button><button name=days value=1>Advance 1 day</button>\
         <button name=hours value=1>Advance 1 hour</button></form>{}{}{}{}",
        time::rfc3339(world.now()),
        table(
            "Checkout sessions",
            "checkout.session",
            &["id", "mode", "status", "payment_status", "amount_total", "client_reference_id", "url"]
        ),
        table("Subscriptions", "subscription", &["id", "customer", "status", "cancel_at_period_end", "latest_invoice"]),
        table("Customers", "customer", &["id", "email", "balance"]),
        table("Invoices", "invoice", &["id", "customer", "billing_reason", "status", "total"]),
    );
    wide_page("Simulated Stripe", &content)
}

fn cell(object: &Value, column: &str) -> String {
    match (&object[column], column) {
        (Value::String(url), "url") => format!("<a href=\"{}\">pay</a>", escaped(url)),
        (Value::String(id), _) if id.starts_with("in_") => format!("<a href=\"/i/{0}\">{0}</a>", escaped(id)),
        // Nothing tells two sessions apart but their ends, and the whole would take the page.
        (Value::String(id), "id") if id.len() > 40 => format!("<span title=\"{0}\">{0:.30}…</span>", escaped(id)),
        (Value::String(text), _) => escaped(text),
        (Value::Number(amount), "amount_total" | "total" | "balance") => {
            let currency = object.maybe_text("currency").unwrap_or("usd");
            money(amount.as_i64().unwrap_or_default(), currency)
        }
        (Value::Bool(flag), _) => if *flag { "yes" } else { "no" }.to_owned(),
        (Value::Null, _) => String::new(),
        (other, _) => escaped(&other.to_string()),
    }
}

pub async fn advance(state: web::Data<State>, form: web::Form<HashMap<String, String>>) -> HttpResponse {
    let part =
        |key: &str| form.get(key).and_then(|value| value.parse::<i64>().ok()).unwrap_or_default().clamp(0, 1_200);
    let mut inner = state.lock();
    let now = inner.world.now();
    let target = time::add_months(now, part("months")).unwrap_or(now)
        + part("days") * time::DAY_S
        + part("hours") * time::HOUR_S;
    inner.clock = inner.clock.moved_to(target);
    inner.world.advance_to(target);
    state.bell.notify_one();
    redirect("/")
}
