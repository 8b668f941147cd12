//! Messages: what an event or a notification is told as, and to whom.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::domain::message::wants;
use crate::domain::notification::Notification;
use crate::store::error::StoreError;
use crate::store::log::StoredEvent;
use crate::store::notifications::NewNotification;
use crate::store::webhook_deliveries::{Message, PendingDelivery, event_message_id};
use crate::store::webhook_endpoints::WebhookEndpoint;

/// An event of the log as a message.
pub fn of_event(event: &StoredEvent) -> Message {
    Message {
        id: event_message_id(event.partition_id, event.position),
        message_type: event.event_type.clone(),
        account_id: event.account_id.clone(),
        partition_id: event.partition_id,
        position: event.position,
        part: 0,
    }
}

/// Where a notification stands among the events of its account.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub account_id: &'a str,
    pub partition_id: i16,
    pub position: i64,
    pub part: i16,
}

/// A notification as a message, and as what is to be put on record. Its id derives from its cause.
pub fn of_notification(
    notification: &Notification,
    place: Place<'_>,
    occurred_at: DateTime<Utc>,
    is_mailed: bool,
) -> Result<NewNotification, StoreError> {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, notification.cause.as_bytes());
    let message = Message {
        id: format!("ntf_{}", id.simple()),
        message_type: notification.notice.message_type().to_owned(),
        account_id: place.account_id.to_owned(),
        partition_id: place.partition_id,
        position: place.position,
        part: place.part,
    };
    let data = serde_json::to_string(&notification.notice)?;
    Ok(NewNotification { cause: notification.cause.clone(), message, occurred_at, data, is_mailed })
}

/// The endpoints that want a message and were there when it came to be.
pub fn receivers<'a>(endpoints: &'a [WebhookEndpoint], message: &Message) -> impl Iterator<Item = &'a str> {
    let partition = usize::from(message.partition_id.unsigned_abs());
    let (position, message_type) = (message.position, message.message_type.clone());
    let wanted = endpoints.iter().filter(move |endpoint| {
        wants(&endpoint.event_types, &message_type)
            && endpoint.begins.get(partition).is_none_or(|begins| position > *begins)
    });
    wanted.map(|endpoint| endpoint.id.as_str())
}

/// The body of a message, as it is sent and shown.
#[derive(Debug, Serialize)]
struct Body<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    message_type: &'a str,
    account: &'a str,
    partition: i16,
    position: i64,
    occurred_at: DateTime<Utc>,
    data: &'a RawValue,
}

pub fn body(delivery: &PendingDelivery) -> Result<Vec<u8>, StoreError> {
    let message = &delivery.message;
    let body = Body {
        id: &message.id,
        message_type: &message.message_type,
        account: &message.account_id,
        partition: message.partition_id,
        position: message.position,
        occurred_at: delivery.occurred_at,
        data: serde_json::from_str(&delivery.data)?,
    };
    Ok(serde_json::to_vec(&body)?)
}
