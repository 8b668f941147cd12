//! Notifications: once for each cause, and what became of their mail.

use chrono::{DateTime, Utc};
use tokio_postgres::GenericClient;
use tokio_postgres::types::Type;

use super::cursors::Positions;
use super::error::StoreError;
use super::webhook_deliveries::Message;

/// A notification that may have been given before.
#[derive(Debug, Clone)]
pub struct NewNotification {
    pub cause: String,
    pub message: Message,
    pub occurred_at: DateTime<Utc>,
    /// JSON.
    pub data: String,
    pub is_mailed: bool,
}

/// Puts a notification on record; `false`: there has been one for its cause.
pub async fn claim_cause(client: &impl GenericClient, new: &NewNotification) -> Result<bool, StoreError> {
    let status = if new.is_mailed { "pending" } else { "off" };
    let message = &new.message;
    let claimed = client
        .execute(
            "/* claim_cause */ insert into notifications (cause, message_id, type, account_id, partition_id, position, part,
                 occurred_at, data, mail_status, mail_due_at)
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::json, $10, $8) on conflict do nothing",
            &[
                &new.cause,
                &message.id,
                &message.message_type,
                &message.account_id,
                &message.partition_id,
                &message.position,
                &message.part,
                &new.occurred_at,
                &new.data,
                &status,
            ],
        )
        .await?;
    Ok(claimed == 1)
}

/// The notifications within a stretch of the log.
pub async fn between(
    client: &impl GenericClient,
    after: &Positions,
    upto: &Positions,
) -> Result<Vec<Message>, StoreError> {
    let (partitions, after): (Vec<i16>, Vec<i64>) = after.iter().copied().unzip();
    let upto: Vec<i64> = upto.iter().map(|(_, position)| *position).collect();
    let rows = client
        .query_typed(
            "/* notifications_between */ select n.message_id, n.type, n.account_id, n.partition_id, n.position, n.part
             from unnest($1::smallint[], $2::bigint[], $3::bigint[]) as c (partition_id, after, upto)
             join notifications n on n.partition_id = c.partition_id and n.position > c.after and n.position <= c.upto
             order by n.partition_id, n.position, n.part",
            &[(&partitions, Type::INT2_ARRAY), (&after, Type::INT8_ARRAY), (&upto, Type::INT8_ARRAY)],
        )
        .await?;
    let message = |row: &tokio_postgres::Row| Message {
        id: row.get(0),
        message_type: row.get(1),
        account_id: row.get(2),
        partition_id: row.get(3),
        position: row.get(4),
        part: row.get(5),
    };
    Ok(rows.iter().map(message).collect())
}

/// Notes that an account's balance is low; `false`: it was before.
pub async fn mark_low(client: &impl GenericClient, account: &str, since: DateTime<Utc>) -> Result<bool, StoreError> {
    let marked = client
        .execute(
            "/* mark_low */ insert into low_balances (account_id, since) values ($1, $2) on conflict do nothing",
            &[&account, &since],
        )
        .await?;
    Ok(marked == 1)
}

/// Notes that some accounts' balances are not low, or no longer.
pub async fn unmark_low(client: &impl GenericClient, accounts: &[&str]) -> Result<(), StoreError> {
    client.execute("/* unmark_low */ delete from low_balances where account_id = any($1)", &[&accounts]).await?;
    Ok(())
}

/// A trial whose end is to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialReminder {
    pub subscription: String,
    pub account_id: String,
    pub trial_end: DateTime<Utc>,
}

/// Notes when a trial is to be told of; the same subscription's again takes its place.
pub async fn put_reminder(
    client: &impl GenericClient,
    reminder: &TrialReminder,
    remind_at: DateTime<Utc>,
) -> Result<(), StoreError> {
    client
        .execute(
            "/* put_reminder */ insert into trial_reminders (stripe_subscription_id, account_id, trial_end, remind_at)
             values ($1, $2, $3, $4) on conflict (stripe_subscription_id) do update
             set account_id = excluded.account_id, trial_end = excluded.trial_end, remind_at = excluded.remind_at",
            &[&reminder.subscription, &reminder.account_id, &reminder.trial_end, &remind_at],
        )
        .await?;
    Ok(())
}

pub async fn drop_reminder(client: &impl GenericClient, subscription: &str) -> Result<(), StoreError> {
    client
        .execute("/* drop_reminder */ delete from trial_reminders where stripe_subscription_id = $1", &[&subscription])
        .await?;
    Ok(())
}

/// Takes some reminders that are due, within the transaction that tells of them.
pub async fn take_reminders(
    client: &impl GenericClient,
    now: DateTime<Utc>,
    most: i64,
) -> Result<Vec<TrialReminder>, StoreError> {
    let rows = client
        .query_typed(
            "/* take_reminders */ delete from trial_reminders where stripe_subscription_id in (
                 select stripe_subscription_id from trial_reminders where remind_at <= $1
                 order by remind_at limit $2 for update skip locked)
             returning stripe_subscription_id, account_id, trial_end",
            &[(&now, Type::TIMESTAMPTZ), (&most, Type::INT8)],
        )
        .await?;
    let reminder = |row: &tokio_postgres::Row| TrialReminder {
        subscription: row.get(0),
        account_id: row.get(1),
        trial_end: row.get(2),
    };
    Ok(rows.iter().map(reminder).collect())
}

/// A notification about to be mailed.
#[derive(Debug, Clone)]
pub struct Mail {
    pub cause: String,
    pub message_id: String,
    pub message_type: String,
    pub account_id: String,
    /// JSON.
    pub data: String,
    /// Tries so far, with this one.
    pub attempts: i32,
    /// Where to; `None`: no address is known.
    pub address: Option<String>,
}

/// Claims a notification whose mail is due: from now on it is mailed by the caller or not at all.
pub async fn claim_mail(client: &impl GenericClient, now: DateTime<Utc>) -> Result<Option<Mail>, StoreError> {
    let row = client
        .query_opt(
            "/* claim_mail */ update notifications n set mail_status = 'claimed', mail_due_at = $1,
                 mail_attempts = mail_attempts + 1
             from (select cause from notifications where mail_status = 'pending' and mail_due_at <= $1
                   order by mail_due_at limit 1 for update skip locked) due
             where n.cause = due.cause
             returning n.cause, n.message_id, n.type, n.account_id, n.data::text, n.mail_attempts,
                 (select email from account_profiles p where p.account_id = n.account_id)",
            &[&now],
        )
        .await?;
    Ok(row.map(|row| Mail {
        cause: row.get(0),
        message_id: row.get(1),
        message_type: row.get(2),
        account_id: row.get(3),
        data: row.get(4),
        attempts: row.get(5),
        address: row.get(6),
    }))
}

/// Gives up mails that were claimed before a moment and have not ended: whoever was at them is dead. Answers their causes.
pub async fn give_up_claimed(
    client: &impl GenericClient,
    claimed_before: DateTime<Utc>,
) -> Result<Vec<String>, StoreError> {
    let rows = client
        .query(
            "/* give_up_claimed */ update notifications set mail_status = 'failed'
             where mail_status = 'claimed' and mail_due_at < $1 returning cause",
            &[&claimed_before],
        )
        .await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailEnd {
    Sent,
    NoAddress,
    Failed,
    /// It was certainly not sent, and is tried again.
    Again(DateTime<Utc>),
}

pub async fn end_mail(client: &impl GenericClient, cause: &str, end: MailEnd) -> Result<(), StoreError> {
    let (status, due_at) = match end {
        MailEnd::Sent => ("sent", None),
        MailEnd::NoAddress => ("no_address", None),
        MailEnd::Failed => ("failed", None),
        MailEnd::Again(at) => ("pending", Some(at)),
    };
    client
        .execute(
            "/* end_mail */ update notifications set mail_status = $2, mail_due_at = coalesce($3, mail_due_at)
             where cause = $1 and mail_status = 'claimed'",
            &[&cause, &status, &due_at],
        )
        .await?;
    Ok(())
}

/// Whether any mail is due.
pub async fn is_mail_due(client: &impl GenericClient, now: DateTime<Utc>) -> Result<bool, StoreError> {
    let row = client
        .query_one(
            "/* is_mail_due */ select exists (
                 select from notifications where mail_status = 'pending' and mail_due_at <= $1)",
            &[&now],
        )
        .await?;
    Ok(row.get(0))
}
