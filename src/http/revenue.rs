//! Revenue of the whole ledger.

use actix_web::{HttpResponse, web};
use chrono::TimeDelta;
use serde::Deserialize;

use super::problem::ApiError;
use super::reading::{consistency, min_position};
use super::request::number;
use super::server::State;
use crate::app::read_path::reads::Consistency;
use crate::domain::money::Currency;
use crate::domain::revenue::answer::{Asked, MAX_MONTHS};
use crate::domain::revenue::month::Month;

/// A year, in seconds.
const MAX_AGE_SECONDS: i64 = 31_536_000;

#[derive(Debug, Deserialize)]
pub struct RevenueQuery {
    from: Option<String>,
    to: Option<String>,
    currency: Option<String>,
    plan: Option<String>,
    max_age_seconds: Option<String>,
    min_position: Option<String>,
    consistency: Option<String>,
}

/// MRR and its movements, money earned and deferred, credits: by month, from the last report.
pub async fn get(query: web::Query<RevenueQuery>, state: web::Data<State>) -> Result<HttpResponse, ApiError> {
    let service = &state.service;
    let asked = asked(&query, Month::of(service.clock.now().date_naive()))?;
    if let Some(plan) = &asked.plan
        && service.catalog.current().catalog.plan(plan).is_none()
    {
        return Err(ApiError::NotFound { what: "plan", id: plan.clone() });
    }
    let consistency = consistency(query.consistency.as_deref())?;
    let min_position = min_position(query.min_position.as_deref())?;
    let max_age = match &query.max_age_seconds {
        None => None,
        given => Some(TimeDelta::seconds(number(given.as_deref(), "max_age_seconds", 0, 0, MAX_AGE_SECONDS)?)),
    };
    service.wait_for_some_position(min_position).await?;
    // A report does not say which positions it rests on, but one that is made now rests on all that anybody was given.
    let max_age =
        if consistency == Consistency::Strong || min_position > 0 { Some(TimeDelta::zero()) } else { max_age };
    Ok(HttpResponse::Ok().json(service.revenue(max_age).await?.answer(&asked)))
}

fn asked(query: &RevenueQuery, this_month: Month) -> Result<Asked, ApiError> {
    let invalid = |field: &str, problem: String| ApiError::InvalidParameter { field: field.to_owned(), problem };
    let month = |text: &Option<String>, field: &str| {
        let month = text.as_ref().map(|text| text.parse::<Month>().map_err(|error| invalid(field, error.to_string())));
        month.transpose()
    };
    let to = month(&query.to, "to")?.unwrap_or(this_month);
    let from = month(&query.from, "from")?.unwrap_or(to.plus(-11));
    if from > to {
        return Err(invalid("from", "must not lie after to".to_owned()));
    }
    if from.until(to).take(MAX_MONTHS + 1).count() > MAX_MONTHS {
        return Err(invalid("from", format!("must be less than {MAX_MONTHS} months before to")));
    }
    if to > this_month {
        return Err(invalid("to", "must not lie after the current month".to_owned()));
    }
    let currency = query.currency.as_ref().map(|code| {
        let known = Currency::parse(code).map_err(|error| invalid("currency", error.to_string()))?;
        Ok::<_, ApiError>(known.as_str().to_owned())
    });
    Ok(Asked { from, to, currency: currency.transpose()?, plan: query.plan.clone() })
}
