//! Cards, and how each behaves when it is charged (<https://docs.stripe.com/testing>).

use crate::error::StripeError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Card {
    /// Every charge succeeds.
    Good,
    /// Can be attached, and declines every charge.
    Declines,
    DeclinesForFunds,
    /// Every charge needs its holder first.
    NeedsAuthentication,
    /// Cannot even be attached.
    Refused,
    /// Not a card: what is paid with it is settled, one way or the other, later.
    SettlesLater,
}

impl Card {
    /// By the id of one of Stripe's test payment methods, a test token or a test number.
    pub fn of_test(name: &str) -> Option<(Self, &'static str, &'static str)> {
        let card = match name {
            "pm_card_visa" | "tok_visa" | "4242424242424242" => (Self::Good, "visa", "4242"),
            "pm_card_mastercard" | "tok_mastercard" | "5555555555554444" => (Self::Good, "mastercard", "4444"),
            "pm_card_amex" | "tok_amex" | "378282246310005" => (Self::Good, "amex", "0005"),
            "pm_card_chargeCustomerFail" | "tok_chargeCustomerFail" | "4000000000000341" => {
                (Self::Declines, "visa", "0341")
            }
            "pm_card_visa_chargeDeclinedInsufficientFunds"
            | "pm_card_chargeDeclinedInsufficientFunds"
            | "tok_visa_chargeDeclinedInsufficientFunds"
            | "4000000000009995" => (Self::DeclinesForFunds, "visa", "9995"),
            "pm_card_authenticationRequired"
            | "pm_card_authenticationRequiredSetupForOffSession"
            | "4000002760003184" => (Self::NeedsAuthentication, "visa", "3184"),
            "pm_card_chargeDeclined" | "tok_chargeDeclined" | "4000000000000002" => (Self::Refused, "visa", "0002"),
            "pm_usBankAccount_success" => (Self::SettlesLater, "visa", "6789"),
            _ => return None,
        };
        Some(card)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Declines => "declines",
            Self::DeclinesForFunds => "declines_for_funds",
            Self::NeedsAuthentication => "needs_authentication",
            Self::Refused => "refused",
            Self::SettlesLater => "settles_later",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Good,
            Self::Declines,
            Self::DeclinesForFunds,
            Self::NeedsAuthentication,
            Self::Refused,
            Self::SettlesLater,
        ];
        all.into_iter().find(|card| card.as_str() == text)
    }

    /// Why a charge fails now, if it does.
    pub fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Good | Self::SettlesLater => None,
            Self::Declines | Self::Refused => Some(Refusal {
                code: "card_declined",
                decline_code: "generic_decline",
                message: "Your card was declined.",
                needs_action: false,
            }),
            Self::DeclinesForFunds => Some(Refusal {
                code: "card_declined",
                decline_code: "insufficient_funds",
                message: "Your card has insufficient funds.",
                needs_action: false,
            }),
            Self::NeedsAuthentication => Some(Refusal {
                code: "authentication_required",
                decline_code: "authentication_required",
                message: "Your card was declined. This transaction requires authentication.",
                needs_action: true,
            }),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    pub code: &'static str,
    pub decline_code: &'static str,
    pub message: &'static str,
    pub needs_action: bool,
}

impl Refusal {
    pub fn error(&self) -> StripeError {
        StripeError::card(self.code, Some(self.decline_code), self.message)
    }
}
