//! What Stripe's objects say of an account: subscriptions, invoices, payments, purchases, payment methods.

use std::collections::HashMap;

use actix_web::{HttpResponse, web};
use chrono::DateTime;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::page::{Cursor, Page, PageQuery};
use super::problem::ApiError;
use super::reading::as_of;
use super::request::account_id;
use super::server::State;
use super::views::{CreditPurchaseView, InvoiceView, PaymentMethodView, PaymentView, SubscriptionView};
use crate::app::read_path::history::Past;
use crate::app::read_path::reads::AccountNow;
use crate::domain::billing::{CheckoutRecord, Kind};
use crate::domain::invoice_record::InvoiceRecord;
use crate::domain::payment::Payment;
use crate::domain::stripe_object::{PaymentMethod, Subscription, SubscriptionSchedule};
use crate::domain::tracked::Tracked;
use crate::store::error::StoreError;
use crate::store::read::{self, StoredObject};

/// Objects of one kind that an account can reasonably have, where all of them are read.
const ALL: i64 = 1_000;

pub async fn account(state: &State, path: &str, query: &PageQuery) -> Result<AccountNow, ApiError> {
    let min_position = query.min_position()?;
    Ok(state.service.account_now(&account_id(path)?, min_position).await?)
}

pub fn parse<T: DeserializeOwned>(object: &StoredObject) -> Result<T, ApiError> {
    Ok(serde_json::from_str(&object.state).map_err(StoreError::from)?)
}

/// Reads a page of objects of a kind; those that `view` leaves out are not listed.
pub async fn list<T: Serialize>(
    state: &State,
    account: &AccountNow,
    kind: Kind,
    query: &PageQuery,
    view: impl Fn(&StoredObject) -> Result<Option<T>, ApiError>,
) -> Result<Page<T>, ApiError> {
    let limit = query.limit()?;
    let mut after = query.cursor()?;
    let client = state.service.connection().await?;
    let mut rows = Vec::new();
    loop {
        let before = after
            .as_ref()
            .map(|cursor| (DateTime::from_timestamp_micros(cursor.at_us).unwrap_or_default(), cursor.id.as_str()));
        let wanted = limit + 1 - rows.len() as i64;
        let objects = read::objects(&**client, account.id.as_str(), kind.as_str(), before, wanted).await?;
        let is_last = (objects.len() as i64) < wanted;
        for object in &objects {
            let cursor = Cursor { at_us: object.sort_at.timestamp_micros(), id: object.id.clone() };
            if let Some(row) = view(object)? {
                rows.push((cursor.clone(), row));
            }
            after = Some(cursor);
        }
        if is_last || rows.len() as i64 > limit {
            return Ok(Page::of(rows, limit));
        }
    }
}

async fn subscriptions(
    state: &State,
    account: &AccountNow,
) -> Result<(Vec<Subscription>, Vec<SubscriptionSchedule>), ApiError> {
    let client = state.service.connection().await?;
    let (id, service) = (account.id.as_str(), &**client);
    let objects = read::objects(service, id, Kind::Subscription.as_str(), None, ALL).await?;
    let schedules = read::objects(service, id, Kind::SubscriptionSchedule.as_str(), None, ALL).await?;
    let subscriptions = objects.iter().map(|object| parse::<Tracked<Subscription>>(object).map(|o| *o.current));
    let schedules = schedules.iter().map(|object| parse::<Tracked<SubscriptionSchedule>>(object).map(|o| *o.current));
    Ok((subscriptions.collect::<Result<_, _>>()?, schedules.collect::<Result<_, _>>()?))
}

fn subscriptions_then(past: &Past) -> (Vec<Subscription>, Vec<SubscriptionSchedule>) {
    let Some(billing) = &past.account.billing else { return (Vec::new(), Vec::new()) };
    let subscriptions = billing.subscriptions.values().map(|tracked| (*tracked.current).clone());
    let schedules = billing.subscription_schedules.values().map(|tracked| (*tracked.current).clone());
    (subscriptions.collect(), schedules.collect())
}

/// A moment of an account's past, if that is what was asked for.
pub async fn past(state: &State, path: &str, query: &PageQuery) -> Result<Option<Past>, ApiError> {
    let name = account_id(path)?;
    let min_position = query.min_position()?;
    match as_of(query.as_of.as_deref(), state.service.clock.now())? {
        None => Ok(None),
        Some(moment) => Ok(Some(state.service.past(&name, moment, min_position).await?)),
    }
}

/// Cuts a page out of rows that are all at hand, newest first.
pub fn page_of<T>(mut rows: Vec<(Cursor, T)>, query: &PageQuery) -> Result<Page<T>, ApiError> {
    let key = |cursor: &Cursor| (cursor.at_us, cursor.id.clone());
    rows.sort_by_key(|(cursor, _)| std::cmp::Reverse(key(cursor)));
    if let Some(after) = query.cursor()? {
        rows.retain(|(cursor, _)| key(cursor) < key(&after));
    }
    Ok(Page::of(rows, query.limit()?))
}

/// All subscriptions an account has had, newest first.
pub async fn list_subscriptions(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    if let Some(past) = past(&state, &path, &query).await? {
        let (subscriptions, schedules) = subscriptions_then(&past);
        let catalog = &past.catalog.catalog;
        let rows = subscriptions.iter().map(|subscription| {
            let at_us = subscription.created.unwrap_or(0).saturating_mul(1_000_000);
            let cursor = Cursor { at_us, id: subscription.id.clone() };
            (cursor, SubscriptionView::of(subscription, &schedules, catalog))
        });
        return Ok(HttpResponse::Ok().json(page_of(rows.collect(), &query)?));
    }
    let account = account(&state, &path, &query).await?;
    let (_, schedules) = subscriptions(&state, &account).await?;
    let catalog = state.service.catalog.current();
    let page = list(&state, &account, Kind::Subscription, &query, |object| {
        let tracked: Tracked<Subscription> = parse(object)?;
        Ok(Some(SubscriptionView::of(&tracked.current, &schedules, &catalog.catalog)))
    });
    Ok(HttpResponse::Ok().json(page.await?))
}

/// The subscription that decides entitlements; when none does, the one created last.
pub async fn get_subscription(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let (account, subscriptions, schedules) = match past(&state, &path, &query).await? {
        Some(past) => {
            let (subscriptions, schedules) = subscriptions_then(&past);
            (AccountNow::from(past), subscriptions, schedules)
        }
        None => {
            let account = account(&state, &path, &query).await?;
            let (subscriptions, schedules) = subscriptions(&state, &account).await?;
            (account, subscriptions, schedules)
        }
    };
    let standing = account.standing();
    let deciding = standing.subscription.map(|access| access.subscription.as_str());
    let chosen = subscriptions.iter().max_by_key(|subscription| {
        (Some(subscription.id.as_str()) == deciding, !subscription.has_ended(), subscription.created)
    });
    let not_found = || ApiError::NotFound { what: "subscription of account", id: account.id.to_string() };
    let view = SubscriptionView::of(chosen.ok_or_else(not_found)?, &schedules, &account.catalog.catalog);
    Ok(HttpResponse::Ok().json(view))
}

pub async fn list_invoices(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = account(&state, &path, &query).await?;
    let catalog = state.service.catalog.current();
    let page = list(&state, &account, Kind::Invoice, &query, |object| {
        let record: InvoiceRecord = parse(object)?;
        Ok(InvoiceView::of(&record, 0, &catalog.catalog))
    });
    let mut page = page.await?;
    let refunded = refunds_of(&state, &account, &page.data).await?;
    for invoice in &mut page.data {
        invoice.amount_refunded = invoice.payments.iter().filter_map(|payment| refunded.get(payment)).sum();
    }
    Ok(HttpResponse::Ok().json(page))
}

async fn refunds_of(
    state: &State,
    account: &AccountNow,
    invoices: &[InvoiceView],
) -> Result<HashMap<String, i64>, ApiError> {
    let payments: Vec<String> = invoices.iter().flat_map(|invoice| invoice.payments.iter().cloned()).collect();
    let client = state.service.connection().await?;
    let objects = read::objects_by_id(&**client, account.id.as_str(), Kind::Payment.as_str(), &payments).await?;
    let refunded = objects.iter().map(|object| Ok((object.id.clone(), parse::<Payment>(object)?.amount_refunded())));
    refunded.collect()
}

pub async fn list_payments(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = account(&state, &path, &query).await?;
    let page = list(&state, &account, Kind::Payment, &query, |object| {
        Ok(Some(PaymentView::of(&object.id, &parse::<Payment>(object)?)))
    });
    Ok(HttpResponse::Ok().json(page.await?))
}

pub async fn list_credit_purchases(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = account(&state, &path, &query).await?;
    let page = list(&state, &account, Kind::CheckoutSession, &query, |object| {
        Ok(CreditPurchaseView::of(&parse::<CheckoutRecord>(object)?))
    });
    Ok(HttpResponse::Ok().json(page.await?))
}

pub async fn list_payment_methods(
    path: web::Path<String>,
    query: web::Query<PageQuery>,
    state: web::Data<State>,
) -> Result<HttpResponse, ApiError> {
    let account = account(&state, &path, &query).await?;
    let page = list(&state, &account, Kind::PaymentMethod, &query, |object| {
        Ok(PaymentMethodView::of(&parse::<Tracked<PaymentMethod>>(object)?.current))
    });
    Ok(HttpResponse::Ok().json(page.await?))
}
