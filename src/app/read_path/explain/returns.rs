//! In words: what a hold that lasts on or ends gave back, and what expired.

use super::told;
use crate::domain::charge::Cover;
use crate::domain::credit::{Credits, Draw};
use crate::domain::event::{CreditsExpired, Event};
use crate::domain::hold::Hold;

/// The hold that an event let last until another time, or gave back, as it stood before.
pub fn hold_of<'a>(credits: &'a Credits, event: &Event) -> Option<&'a Hold> {
    match event {
        Event::HoldExtended(extended) => credits.hold(extended.hold),
        Event::HoldReleased(released) => credits.hold(released.hold),
        Event::HoldExpired(expired) => credits.hold(expired.hold),
        _ => None,
    }
}

/// What becomes of a hold without its being captured.
pub fn of_hold(hold: &Hold, event: &Event) -> Vec<String> {
    let units = hold.quantity.zip(hold.feature.as_ref());
    let units = units.map_or_else(String::new, |(quantity, feature)| format!(", for {quantity} of {feature},"));
    let credits = if hold.amount == 1 { "credit" } else { "credits" };
    let named = format!("the hold {} of {} {credits}{units}", hold.id, hold.amount);
    let until = told(hold.expires_at);
    match event {
        Event::HoldExtended(extended) => {
            let now = told(extended.expires_at);
            vec![
                format!("{named} was to last until {until}"),
                format!("so it lasts until {now}: what it has set aside stays so"),
            ]
        }
        Event::HoldExpired(_) => vec![format!("{named} expired at {until}"), returned(&hold.cover)],
        _ => vec![format!("{named} was released"), returned(&hold.cover)],
    }
}

fn returned(cover: &Cover) -> String {
    if cover.unlimited {
        return "so nothing returned, for nothing had been taken: the plan's credits were unlimited".to_owned();
    }
    let drawn: i64 = cover.lots.iter().map(|draw| draw.amount).sum();
    let mut text = match &cover.lots[..] {
        [] => "so nothing returned to lots".to_owned(),
        [_] => format!("so {drawn} returned to one lot"),
        lots => format!("so {drawn} returned to {} lots", lots.len()),
    };
    if cover.debt > 0 {
        text.push_str(&format!(", and {} are not to be owed", cover.debt));
    }
    if cover.overage > 0 {
        text.push_str(&format!(", and {} are not to be billed", cover.overage));
    }
    text
}

/// Which lots expired, and why.
pub fn of_expiry(credits: &Credits, expired: &CreditsExpired) -> Vec<String> {
    let capped = expired.cause.as_deref().and_then(|cause| cause.strip_prefix("rollover_cap:"));
    let told_of = |draw: &Draw| {
        let Draw { lot, amount } = draw;
        let known = credits.lot(*lot);
        let cause = known.map_or_else(String::new, |known| format!(" ({})", known.cause));
        let end = known.and_then(|known| known.expires_at);
        match (capped, end) {
            (Some(subscription), _) => {
                format!("{amount} credits of the lot {lot}{cause} were more than {subscription} lets roll over")
            }
            (None, Some(end)) => format!("the lot {lot}{cause} expired at {}, with {amount} credits unused", told(end)),
            (None, None) => format!("{amount} credits of the lot {lot}{cause} expired unused"),
        }
    };
    expired.lots.iter().map(told_of).collect()
}
