//! Meters, and the usage reported to them (<https://docs.stripe.com/api/billing/meter>).

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::World;
use super::lines::Period;
use super::list::{PAGE_PARAMS, Page};
use super::read::Read;
use crate::error::{Result, StripeError};
use crate::params::Params;
use crate::time::{DAY_S, HOUR_S};

/// How old usage may be, how far ahead, and how long an identifier is remembered.
const OLDEST_S: i64 = 35 * DAY_S;
const AHEAD_S: i64 = 300;
const REMEMBERED_S: i64 = DAY_S;

/// What was reported, by meter and customer.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    reported: HashMap<(String, String), Vec<Reported>>,
    /// When an identifier came.
    identifiers: HashMap<String, i64>,
}

#[derive(Debug, Clone)]
struct Reported {
    at: i64,
    value: f64,
    identifier: String,
}

impl World {
    pub(crate) fn create_meter(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&[
            "default_aggregation",
            "display_name",
            "event_name",
            "customer_mapping",
            "event_time_window",
            "value_settings",
        ])?;
        let event_name = params.required("event_name")?;
        let is_taken = |meter: &&Arc<Value>| meter.text("event_name") == event_name && meter.text("status") == "active";
        if self.objects.all("billing.meter").find(is_taken).is_some() {
            let message = format!("An active meter already has the event name {event_name}.");
            return Err(StripeError::state("resource_already_exists", message));
        }
        let aggregation = params.map("default_aggregation")?;
        let formula = aggregation
            .one_of("formula", &["sum", "count", "last"])?
            .ok_or_else(|| StripeError::missing("default_aggregation[formula]"))?;
        let mapping = params.map("customer_mapping")?;
        let settings = params.map("value_settings")?;
        let id = self.ids.id("mtr");
        self.objects.insert(json!({
            "id": id, "object": "billing.meter", "created": self.now,
            "customer_mapping": {
                "event_payload_key": mapping.text("event_payload_key")?.unwrap_or("stripe_customer_id"), "type": "by_id",
            },
            "default_aggregation": { "formula": formula }, "display_name": params.required("display_name")?,
            "event_name": event_name, "event_time_window": params.one_of("event_time_window", &["hour", "day"])?,
            "livemode": false, "status": "active", "status_transitions": { "deactivated_at": null },
            "updated": self.now,
            "value_settings": { "event_payload_key": settings.text("event_payload_key")?.unwrap_or("value") },
        }));
        self.emit("billing.meter.created", &id);
        Ok(self.answer(&id))
    }

    pub(crate) fn update_meter(&mut self, id: &str, params: &Params<'_>) -> Result<Value> {
        params.only(&["display_name"])?;
        self.objects.of("billing.meter", id)?;
        if let Some(name) = params.text("display_name")? {
            self.change("billing.meter.updated", id, |meter| meter["display_name"] = json!(name));
        }
        Ok(self.answer(id))
    }

    pub(crate) fn switch_meter(&mut self, id: &str, params: &Params<'_>, is_active: bool) -> Result<Value> {
        params.only(&[])?;
        self.objects.of("billing.meter", id)?;
        let now = self.now;
        let (kind, status) =
            if is_active { ("billing.meter.reactivated", "active") } else { ("billing.meter.deactivated", "inactive") };
        self.change(kind, id, |meter| {
            meter["status"] = json!(status);
            meter["status_transitions"]["deactivated_at"] = if is_active { Value::Null } else { json!(now) };
            meter["updated"] = json!(now);
        });
        Ok(self.answer(id))
    }

    pub(crate) fn create_meter_event(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&["event_name", "payload", "identifier", "timestamp"])?;
        let event_name = params.required("event_name")?;
        let is_meant = |meter: &&Arc<Value>| meter.text("event_name") == event_name && meter.text("status") == "active";
        let meter = self.objects.all("billing.meter").rev().find(is_meant).cloned();
        let meter = meter.ok_or_else(|| StripeError::no_such("billing.meter", event_name, "event_name"))?;
        let payload = params.map("payload")?;
        let customer = payload.required(meter["customer_mapping"].text("event_payload_key"))?.to_owned();
        self.objects.named("customer", &customer, "payload")?;
        let value_key = meter["value_settings"].text("event_payload_key");
        let value = match (payload.decimal(value_key)?, meter["default_aggregation"].text("formula")) {
            (Some(value), _) => value,
            (None, "count") => 1.0,
            (None, _) => return Err(StripeError::missing(payload.name(value_key))),
        };
        let at = params.int("timestamp")?.unwrap_or(self.now);
        if at < self.now - OLDEST_S {
            return Err(StripeError {
                code: Some("timestamp_too_far_in_past"),
                ..StripeError::unfit("timestamp", "The timestamp must be within the past 35 calendar days.")
            });
        }
        if at > self.now + AHEAD_S {
            return Err(StripeError {
                code: Some("timestamp_in_future"),
                ..StripeError::unfit("timestamp", "The timestamp must be at most 5 minutes in the future.")
            });
        }
        let identifier = match params.text("identifier")? {
            Some(identifier) if identifier.chars().count() > 100 => {
                return Err(StripeError::malformed("identifier", "An identifier has 100 characters at most."));
            }
            Some(identifier) => identifier.to_owned(),
            None => self.ids.id("mtrevt"),
        };
        let seen = self.usage.identifiers.get(&identifier);
        if seen.is_some_and(|seen| *seen > self.now - REMEMBERED_S) {
            let message = format!("An event already exists with identifier {identifier}.");
            return Err(StripeError {
                code: Some("duplicate_meter_event"),
                ..StripeError::unfit("identifier", message)
            });
        }
        let now = self.now;
        let usage = Arc::make_mut(&mut self.usage);
        usage.identifiers.insert(identifier.clone(), now);
        let reported = Reported { at, value, identifier: identifier.clone() };
        usage.reported.entry((meter.text("id").to_owned(), customer.clone())).or_default().push(reported);
        Ok(json!({
            "object": "billing.meter_event", "created": self.now, "event_name": event_name, "identifier": identifier,
            "livemode": false, "payload": { "stripe_customer_id": customer, "value": value.to_string() }, "timestamp": at,
        }))
    }

    pub(crate) fn adjust_meter_event(&mut self, params: &Params<'_>) -> Result<Value> {
        params.only(&["event_name", "type", "cancel"])?;
        params.one_of("type", &["cancel"])?.ok_or_else(|| StripeError::missing("type"))?;
        let cancel = params.map("cancel")?;
        let identifier = cancel.required("identifier")?;
        for reported in Arc::make_mut(&mut self.usage).reported.values_mut() {
            reported.retain(|reported| reported.identifier != identifier);
        }
        Ok(json!({
            "object": "billing.meter_event_adjustment", "cancel": { "identifier": identifier },
            "event_name": params.required("event_name")?, "livemode": false, "status": "pending", "type": "cancel",
        }))
    }

    /// What a customer used of a meter in a period: from its start on, before its end.
    pub fn usage(&self, meter: &str, customer: &str, period: Period) -> f64 {
        let key = (meter.to_owned(), customer.to_owned());
        let reported = self.usage.reported.get(&key).map(Vec::as_slice).unwrap_or_default();
        let within = reported.iter().filter(|reported| (period.0..period.1).contains(&reported.at));
        let formula = self.objects.get(meter).map_or("sum", |meter| meter["default_aggregation"].text("formula"));
        match formula {
            "count" => within.count() as f64,
            "last" => within.max_by_key(|reported| reported.at).map_or(0.0, |reported| reported.value),
            _ => within.map(|reported| reported.value).sum(),
        }
    }

    /// The same, as an invoice has it: values below zero take back what was reported too much, and no more than all of it
    /// (<https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api>).
    pub(crate) fn billed_usage(&self, meter: &str, customer: &str, period: Period) -> f64 {
        self.usage(meter, customer, period).max(0.0)
    }

    pub(crate) fn list_usage(&self, id: &str, params: &Params<'_>) -> Result<Value> {
        let known: Vec<&str> = PAGE_PARAMS
            .iter()
            .copied()
            .chain(["customer", "start_time", "end_time", "value_grouping_window"])
            .collect();
        params.only(&known)?;
        self.objects.of("billing.meter", id)?;
        let customer = params.required("customer")?;
        self.objects.named("customer", customer, "customer")?;
        let times = (params.int("start_time")?, params.int("end_time")?);
        let (Some(start), Some(end)) = times else {
            return Err(StripeError::missing(if times.0.is_none() { "start_time" } else { "end_time" }));
        };
        let window = match params.one_of("value_grouping_window", &["hour", "day"])? {
            None => (end - start).max(1),
            Some("hour") => HOUR_S,
            Some(_) => DAY_S,
        };
        let step = if params.has("value_grouping_window") { window } else { 60 };
        for (name, time) in [("start_time", start), ("end_time", end)] {
            if time % step != 0 {
                let message = format!("{name} must be aligned with {step} seconds.");
                return Err(StripeError::unfit(name, message));
            }
        }
        let mut summaries = Vec::new();
        let mut from = start;
        while from < end && summaries.len() < 10_000 {
            let until = (from + window).min(end);
            let value = self.usage(id, customer, (from, until));
            let any = value != 0.0 || !params.has("value_grouping_window");
            if any {
                summaries.push(json!({
                    "id": format!("mtrusg_{from}_{until}"), "object": "billing.meter_event_summary",
                    "aggregated_value": value, "end_time": until, "livemode": false, "meter": id, "start_time": from,
                }));
            }
            from = until;
        }
        summaries.reverse();
        let url = format!("/v1/billing/meters/{id}/event_summaries");
        Page::read(params)?.of(summaries.iter(), |summary| summary.text("id"), Value::clone, &url)
    }
}
