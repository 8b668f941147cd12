//! Commands out of events: what was asked, so that it can be asked again.

use chrono::{DateTime, TimeDelta, Utc};

use super::charge::Charge;
use super::command::{Command, Grant, HoldAct, OfHold};
use super::credit::LotSource;
use super::event::{ChargeRejected, CreditsGranted, Event};
use super::hold::Used;

/// What was asked for, if the event is the answer to a debit or a hold, or refuses a capture.
pub fn charge_of(event: &Event) -> Option<Charge> {
    let charge = |feature: &Option<String>, quantity: Option<i64>, amount| match (feature, quantity) {
        (Some(feature), Some(quantity)) => Charge::Feature { feature: feature.clone(), quantity },
        _ => Charge::Amount(amount),
    };
    match event {
        Event::CreditsDebited(debited) => Some(charge(&debited.feature, debited.quantity, debited.amount)),
        Event::HoldPlaced(placed) => Some(charge(&placed.hold.feature, placed.hold.quantity, placed.hold.amount)),
        Event::ChargeRejected(rejected) => Some(rejected.charge.clone()),
        _ => None,
    }
}

/// The command that an event answered, if a request asked for it.
pub fn command_of(event: &Event, at: DateTime<Utc>) -> Option<Command> {
    let of_hold = |hold, act| Command::OfHold(OfHold { hold, ended: None, act });
    match event {
        Event::CreditsDebited(debited) => Some(Command::Debit { debit: debited.debit, charge: charge_of(event)? }),
        Event::CreditsGranted(CreditsGranted { lot, reason, .. })
            if matches!(lot.source, LotSource::Manual | LotSource::Promotion) =>
        {
            Some(Command::Grant(Grant {
                grant: lot.id,
                amount: lot.granted,
                source: lot.source,
                priority: lot.priority,
                effective_at: Some(lot.effective_at),
                expires_at: lot.expires_at,
                reason: reason.clone(),
            }))
        }
        Event::HoldPlaced(placed) => {
            Some(Command::Hold { hold: placed.hold.id, charge: charge_of(event)?, expires_at: placed.hold.expires_at })
        }
        Event::ChargeRejected(ChargeRejected { id, capture: Some(used), .. }) => {
            Some(of_hold(*id, HoldAct::Capture(*used)))
        }
        Event::ChargeRejected(rejected) if rejected.is_hold => {
            // Any that may be will do: its end was not what it was refused for.
            let expires_at = at + TimeDelta::seconds(1);
            Some(Command::Hold { hold: rejected.id, charge: rejected.charge.clone(), expires_at })
        }
        Event::ChargeRejected(rejected) => Some(Command::Debit { debit: rejected.id, charge: rejected.charge.clone() }),
        Event::HoldCaptured(captured) => {
            let used = captured.used.unwrap_or(match (&captured.feature, captured.quantity) {
                (Some(_), Some(quantity)) => Used::Quantity(quantity),
                _ => Used::Amount(captured.amount),
            });
            Some(of_hold(captured.hold, HoldAct::Capture(used)))
        }
        Event::HoldReleased(released) => Some(of_hold(released.hold, HoldAct::Release)),
        Event::HoldExtended(extended) => {
            Some(of_hold(extended.hold, HoldAct::Extend { expires_at: extended.expires_at }))
        }
        _ => None,
    }
}
