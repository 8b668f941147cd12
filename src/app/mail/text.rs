//! What mails say: templates with names in double braces. A line that names what is not known is left out.

use serde_json::Value;

use crate::domain::money::{Currency, Money};

/// A mail's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub subject: String,
    pub plain: String,
    pub html: String,
}

/// The type, the plain text (its first line is the subject), and the HTML.
const TEMPLATES: &[(&str, &str, &str)] = &[
    (
        "notification.payment_failed",
        include_str!("templates/payment_failed.txt"),
        include_str!("templates/payment_failed.html"),
    ),
    (
        "notification.action_required",
        include_str!("templates/action_required.txt"),
        include_str!("templates/action_required.html"),
    ),
    (
        "notification.trial_ending",
        include_str!("templates/trial_ending.txt"),
        include_str!("templates/trial_ending.html"),
    ),
    (
        "notification.subscription_ended",
        include_str!("templates/subscription_ended.txt"),
        include_str!("templates/subscription_ended.html"),
    ),
    ("notification.refunded", include_str!("templates/refunded.txt"), include_str!("templates/refunded.html")),
    ("notification.low_balance", include_str!("templates/low_balance.txt"), include_str!("templates/low_balance.html")),
];

/// Writes a mail about a notification, whose data are JSON.
pub fn of(message_type: &str, data: &str) -> Result<Text, String> {
    let template = TEMPLATES.iter().find(|(known, _, _)| *known == message_type);
    let (_, plain, html) = template.ok_or_else(|| format!("there is no template for {message_type}"))?;
    let data: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
    let plain = fill(plain, &data, str::to_owned);
    let (subject, plain) = plain.split_once('\n').unwrap_or((&plain, ""));
    let subject = subject.trim_start_matches("Subject: ").to_owned();
    Ok(Text { subject, plain: plain.trim_start().to_owned(), html: fill(html, &data, escape) })
}

fn fill(template: &str, data: &Value, write: impl Fn(&str) -> String) -> String {
    let filled: Vec<String> = template.lines().filter_map(|line| fill_line(line, data, &write)).collect();
    filled.join("\n") + "\n"
}

fn fill_line(line: &str, data: &Value, write: &impl Fn(&str) -> String) -> Option<String> {
    let mut filled = String::new();
    let mut rest = line;
    while let Some((before, name)) = rest.split_once("{{") {
        let (name, after) = name.split_once("}}")?;
        filled.push_str(before);
        filled.push_str(&write(&value(name, data)?));
        rest = after;
    }
    Some(filled + rest)
}

/// What a name stands for; `amount` comes with its currency, and a time as its day.
fn value(name: &str, data: &Value) -> Option<String> {
    match (name, data.get(name)?) {
        ("amount", amount) => {
            let currency = Currency::parse(data.get("currency")?.as_str()?).ok()?;
            Some(Money::new(amount.as_i64()?, currency).to_string().to_uppercase())
        }
        (_, Value::Number(number)) => Some(number.to_string()),
        (_, Value::String(text)) if name.ends_with("_at") || name == "trial_end" => {
            text.split('T').next().map(str::to_owned)
        }
        (_, Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::MESSAGE_TYPES;

    #[test]
    fn amounts_days_and_links_are_filled_in_and_lines_without_them_left_out() {
        let data = r#"{"amount": 2900, "currency": "usd", "next_attempt_at": "2026-01-18T09:00:00Z",
            "hosted_invoice_url": "https://pay.example/i?a=1&b=<2>"}"#;
        let text = of("notification.payment_failed", data).expect("written");
        assert!(!text.subject.is_empty() && !text.subject.contains("Subject"), "{text:?}");
        assert!(text.plain.contains("29.00 USD") && text.plain.contains("2026-01-18"), "{text:?}");
        assert!(text.plain.contains("https://pay.example/i?a=1&b=<2>"));
        assert!(text.html.contains("https://pay.example/i?a=1&amp;b=&lt;2&gt;"), "{text:?}");
        let bare = of("notification.payment_failed", r#"{"amount": 2900, "currency": "usd"}"#).expect("written");
        assert!(!bare.plain.contains("{{") && !bare.html.contains("{{") && !bare.plain.contains("https:"), "{bare:?}");
    }

    #[test]
    fn every_notification_for_account_holders_has_a_template() {
        let told = MESSAGE_TYPES.iter().filter(|name| name.starts_with("notification."));
        for name in told.filter(|name| **name != "notification.webhook_endpoint_disabled") {
            let text = of(name, "{}").expect("a template");
            assert!(text.subject.len() > 5 && text.plain.len() > 20 && text.html.contains("<p>"), "{name}: {text:?}");
        }
        assert!(of("credits_debited", "{}").is_err());
    }
}
