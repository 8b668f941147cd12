//! Debits: one at a time, or many accounts' in one request.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use serde_with::skip_serializing_none;

use super::fields::amount_if_given;
use super::problem::{ApiError, Problem};
use super::reading::Data;
use super::request::{MAX_JSON_BYTES, account_id, key_of, keyed_json, parse_json, parse_row, read_body};
use super::server::State;
use super::views::DebitView;
use crate::app::read_path::receipt::Receipt;
use crate::app::write_path::work::{Answer, Key};
use crate::domain::charge::Charge;
use crate::domain::command::{Command, Outcome};
use crate::domain::ids::AccountId;

/// Debits in one batch.
const MAX_DEBITS: usize = 1_000;

/// Either a feature and how much of it, or credits.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostCharge {
    pub feature: Option<String>,
    #[serde(default, deserialize_with = "amount_if_given")]
    pub quantity: Option<i64>,
    #[serde(default, deserialize_with = "amount_if_given")]
    pub amount: Option<i64>,
}

impl PostCharge {
    pub fn charge(self) -> Result<Charge, ApiError> {
        match (self.feature, self.quantity, self.amount) {
            (Some(feature), quantity, None) => Ok(Charge::Feature { feature, quantity: quantity.unwrap_or(1) }),
            (None, None, Some(amount)) => Ok(Charge::Amount(amount)),
            _ => Err(ApiError::InvalidBody("give either feature and quantity, or amount".to_owned())),
        }
    }
}

/// A durable answer to a request that made something: 201.
pub fn created<T: Serialize>(
    answer: Answer,
    view: impl FnOnce(&Outcome) -> Result<T, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let receipt = answer.receipt_of_refusal();
    reply(StatusCode::CREATED, answer, view, receipt)
}

/// A durable answer to a request that changed something there was; refusals of it are on record.
pub fn changed<T: Serialize>(
    answer: Answer,
    view: impl FnOnce(&Outcome) -> Result<T, ApiError>,
) -> Result<HttpResponse, ApiError> {
    let receipt = answer.receipt_of_refusal();
    reply(StatusCode::OK, answer, view, receipt)
}

/// Turns a durable answer into a reply, marked when it is an earlier one again.
pub fn answered<T: Serialize>(
    status: StatusCode,
    answer: Answer,
    view: impl FnOnce(&Outcome) -> Result<T, ApiError>,
) -> Result<HttpResponse, ApiError> {
    reply(status, answer, view, None)
}

fn reply<T: Serialize>(
    status: StatusCode,
    answer: Answer,
    view: impl FnOnce(&Outcome) -> Result<T, ApiError>,
    receipt: Option<Receipt>,
) -> Result<HttpResponse, ApiError> {
    let replayed = answer.replayed;
    let response = match answer.result {
        Ok(outcome) => HttpResponse::build(status).json(view(&outcome)?),
        Err(rejection) => {
            let error = ApiError::from(rejection);
            error.response(&error.kept_problem(receipt))
        }
    };
    Ok(marked(response, replayed))
}

/// Marks an answer that was given before.
pub fn marked(mut response: HttpResponse, replayed: bool) -> HttpResponse {
    if replayed {
        let name = actix_web::http::header::HeaderName::from_static("idempotent-replayed");
        response.headers_mut().insert(name, actix_web::http::header::HeaderValue::from_static("true"));
    }
    response
}

fn view(outcome: &Outcome, receipt: Receipt, position: i64) -> Result<DebitView, ApiError> {
    match outcome {
        Outcome::Debited(debited) => Ok(DebitView::of(debited, receipt, position)),
        _ => Err(ApiError::Internal),
    }
}

/// Spends credits, if there are enough.
pub async fn debit(
    request: HttpRequest,
    path: web::Path<String>,
    state: web::Data<State>,
    payload: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let account = account_id(&path)?;
    let (key, body) = keyed_json::<PostCharge>(&request, payload).await?;
    let charge = body.charge()?;
    let answer = execute(&state, account, charge, key).await?;
    let (receipt, position) = (answer.receipt(), answer.position);
    created(answer, |outcome| view(outcome, receipt, position))
}

async fn execute(state: &State, account: AccountId, charge: Charge, key: Key) -> Result<Answer, ApiError> {
    let account = state.service.resolve(&account).await?;
    let command = Command::Debit { debit: state.service.new_id(), charge };
    Ok(state.service.execute(account, command, Some(key)).await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PostBatch<'a> {
    /// Each is read by itself, so that a bad one spoils no other.
    #[serde(borrow)]
    debits: Vec<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchDebit {
    account: String,
    idempotency_key: Option<String>,
    feature: Option<String>,
    #[serde(default, deserialize_with = "amount_if_given")]
    quantity: Option<i64>,
    #[serde(default, deserialize_with = "amount_if_given")]
    amount: Option<i64>,
}

/// What became of one debit of a batch.
#[skip_serializing_none]
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Row {
    Made {
        status: u16,
        replayed: bool,
        debit: DebitView,
    },
    /// Without `replayed`, it was not decided at all.
    Refused {
        status: u16,
        replayed: Option<bool>,
        problem: Problem,
    },
}

/// Up to 1,000 debits, each with its own key and its own outcome: good rows go through beside bad ones.
pub async fn batch(state: web::Data<State>, payload: web::Payload) -> Result<HttpResponse, ApiError> {
    let body = read_body(payload, MAX_JSON_BYTES).await?;
    let body: PostBatch<'_> = parse_json(&body)?;
    if body.debits.is_empty() || body.debits.len() > MAX_DEBITS {
        let problem = format!("must hold 1 to {MAX_DEBITS} debits");
        return Err(ApiError::InvalidParameter { field: "debits".to_owned(), problem });
    }
    let rows = body.debits.iter().enumerate().map(|(index, row)| batch_row(&state, row, index));
    let outcomes: Vec<Row> = join_all(rows).await.into_iter().map(|row| row.unwrap_or_else(row_problem)).collect();
    Ok(HttpResponse::Ok().json(Data { data: outcomes }))
}

async fn batch_row(state: &State, row: &RawValue, index: usize) -> Result<Row, ApiError> {
    let debit: BatchDebit = parse_row(row, "debits", index)?;
    let key = debit.idempotency_key.as_deref().ok_or(ApiError::IdempotencyKeyMissing)?;
    // The same row however its fields are laid out.
    let text = serde_json::from_str::<Value>(row.get()).map_err(|_| ApiError::Internal)?.to_string();
    let key = key_of(key, &[b"batch", text.as_bytes()])?;
    let account = account_id(&debit.account)?;
    let charge = PostCharge { feature: debit.feature, quantity: debit.quantity, amount: debit.amount }.charge()?;
    let answer = execute(state, account, charge, key).await?;
    let outcome = match &answer.result {
        Ok(outcome) => outcome,
        Err(rejection) => {
            let problem = ApiError::from(rejection.clone()).kept_problem(answer.receipt_of_refusal());
            return Ok(Row::Refused { status: problem.status, replayed: Some(answer.replayed), problem });
        }
    };
    let debit = view(outcome, answer.receipt(), answer.position)?;
    Ok(Row::Made { status: StatusCode::CREATED.as_u16(), replayed: answer.replayed, debit })
}

fn row_problem(error: ApiError) -> Row {
    let problem = error.problem();
    Row::Refused { status: problem.status, replayed: None, problem }
}
