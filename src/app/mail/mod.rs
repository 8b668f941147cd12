//! Notifications by mail: plain text with an HTML twin, to the address in the account's profile.
//!
//! At most once for each cause: a row is claimed, durably, before its mail goes out. A server that cannot be reached is
//! noticed before anything is claimed. If the process dies with a claim, or nobody can tell whether the server took the
//! mail, it is not sent again, and counted as failed.

mod text;

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::Error as SmtpError;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::outbound::Outbound;
use crate::store::error::StoreError;
use crate::store::notifications::{self, Mail, MailEnd};

/// Between two looks for mail that is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to reach a server.
const SERVER_RETRY: Duration = Duration::from_secs(10);
/// For each command to the server.
const SMTP_TIMEOUT: Duration = Duration::from_secs(20);
/// A server that asks for patience (4xx) is asked again so often, after 5, 10, 20 … minutes.
const MAX_ATTEMPTS: i32 = 6;
const FIRST_WAIT: TimeDelta = TimeDelta::minutes(5);
/// No mail takes so long to send: whoever claimed it is dead.
const CLAIMED_FOR: TimeDelta = TimeDelta::minutes(10);

/// How mail is sent.
#[derive(Clone)]
pub struct MailSettings {
    /// `smtps://user:password@host`, or `smtp://host:587?tls=required`.
    pub smtp_url: String,
    /// Whom it comes from, such as `Example <billing@example.com>`.
    pub from: String,
}

impl std::fmt::Debug for MailSettings {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailSettings").field("from", &self.from).finish_non_exhaustive()
    }
}

type Transport = AsyncSmtpTransport<Tokio1Executor>;

impl MailSettings {
    /// Says which setting is wrong, and how.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.transport().map_err(|error| ("SUBLEDGER_SMTP_URL", error.to_string()))?;
        self.sender().map_err(|error| ("SUBLEDGER_MAIL_FROM", error))?;
        Ok(())
    }

    fn transport(&self) -> Result<Transport, SmtpError> {
        Ok(Transport::from_url(&self.smtp_url)?.timeout(Some(SMTP_TIMEOUT)).build())
    }

    fn sender(&self) -> Result<Mailbox, String> {
        self.from
            .parse::<Mailbox>()
            .map_err(|error| format!("{error}; give an address such as Example <billing@example.com>"))
    }
}

/// The task that mails.
#[derive(Debug)]
pub(super) struct Mailer {
    outbound: Arc<Outbound>,
    transport: Transport,
    from: Mailbox,
}

impl Mailer {
    pub fn new(settings: &MailSettings, outbound: Arc<Outbound>) -> Result<Self, StoreError> {
        settings.check().map_err(|(setting, problem)| StoreError::Refused(format!("{setting}: {problem}")))?;
        let transport = settings.transport().map_err(|error| StoreError::Refused(error.to_string()))?;
        let from = settings.sender().map_err(StoreError::Refused)?;
        Ok(Self { outbound, transport, from })
    }

    /// Works until the service stops.
    pub async fn run(self) {
        let mut is_away = false;
        while !self.outbound.is_stopping() {
            let pause = match self.work_off().await {
                Ok(()) => {
                    is_away = false;
                    LOOK_EVERY
                }
                Err(problem) => {
                    if !is_away {
                        tracing::warn!(problem, "mail cannot be sent; trying again");
                    }
                    is_away = true;
                    SERVER_RETRY
                }
            };
            self.outbound.pause(pause).await;
        }
    }

    /// Sends what is due.
    async fn work_off(&self) -> Result<(), String> {
        self.give_up_claimed().await.map_err(|error| error.to_string())?;
        while !self.outbound.is_stopping() && self.is_due().await.map_err(|error| error.to_string())? {
            let is_there = self.transport.test_connection().await.map_err(|error| error.to_string())?;
            if !is_there {
                return Err("the SMTP server does not answer".to_owned());
            }
            self.send_next().await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn give_up_claimed(&self) -> Result<(), StoreError> {
        let client = self.outbound.connection().await?;
        let lost = notifications::give_up_claimed(&**client, self.outbound.clock.now() - CLAIMED_FOR).await?;
        for cause in lost {
            self.outbound.metrics.mails.with_label_values(&["failed"]).inc();
            tracing::warn!(cause, "a mail was not sent, or nobody knows: its process died");
        }
        Ok(())
    }

    async fn is_due(&self) -> Result<bool, StoreError> {
        let client = self.outbound.connection().await?;
        notifications::is_mail_due(&**client, self.outbound.clock.now()).await
    }

    async fn send_next(&self) -> Result<(), StoreError> {
        let client = self.outbound.connection().await?;
        let Some(mail) = notifications::claim_mail(&**client, self.outbound.clock.now()).await? else { return Ok(()) };
        drop(client);
        let (outcome, end) = match self.message(&mail) {
            Ok(Some(message)) => self.send(&mail, message).await,
            Ok(None) => ("no_address", MailEnd::NoAddress),
            Err(problem) => {
                tracing::warn!(problem, cause = mail.cause, "a mail cannot be written");
                ("failed", MailEnd::Failed)
            }
        };
        self.outbound.metrics.mails.with_label_values(&[outcome]).inc();
        let client = self.outbound.connection().await?;
        notifications::end_mail(&**client, &mail.cause, end).await
    }

    async fn send(&self, mail: &Mail, message: Message) -> (&'static str, MailEnd) {
        match self.transport.send(message).await {
            Ok(_) => ("sent", MailEnd::Sent),
            // The server said itself that it did not take it.
            Err(error) if error.is_transient() && mail.attempts < MAX_ATTEMPTS => {
                let wait = FIRST_WAIT * 2_i32.pow(u32::try_from(mail.attempts - 1).unwrap_or(0));
                ("postponed", MailEnd::Again(self.outbound.clock.now() + wait))
            }
            Err(error) => {
                // Without the server's words: they may name the address.
                let status = error.status().map(|code| code.to_string());
                tracing::warn!(cause = mail.cause, status, "a mail was not sent, or nobody knows");
                ("failed", MailEnd::Failed)
            }
        }
    }

    /// `None`: there is nobody to write to.
    fn message(&self, mail: &Mail) -> Result<Option<Message>, String> {
        let Some(address) = &mail.address else { return Ok(None) };
        // A mailbox of its own, so that what stands in a profile is an address and nothing else.
        let to = Mailbox::new(None, address.parse().map_err(|_| "the profile's address is none".to_owned())?);
        let text = text::of(&mail.message_type, &mail.data)?;
        let domain = self.from.email.domain();
        Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(text.subject)
            .message_id(Some(format!("<{}@{domain}>", mail.message_id)))
            .multipart(MultiPart::alternative_plain_html(text.plain, text.html))
            .map(Some)
            .map_err(|error| error.to_string())
    }
}
