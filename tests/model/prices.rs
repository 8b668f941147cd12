//! What catalog.toml says, written a second time, so that the reference reads nothing of the code under test.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overage {
    Deny,
    Limit(i64),
    Unlimited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollover {
    None,
    Cap(i64),
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    Hour,
    Day,
    Month,
}

#[derive(Debug)]
pub struct Plan {
    /// Every month; `None`: unlimited.
    pub credits: Option<i64>,
    pub rollover: Rollover,
    pub overage: Overage,
    /// For the feature `work`.
    pub overage_of_work: Overage,
    /// Spent credits that are refunded are owed.
    pub claws_back_debt: bool,
    pub has_render: bool,
    /// Units of a feature within a window.
    pub limits: &'static [(&'static str, Window, i64)],
}

pub const FREE: Plan = Plan {
    credits: Some(20),
    rollover: Rollover::None,
    overage: Overage::Deny,
    overage_of_work: Overage::Deny,
    claws_back_debt: true,
    has_render: false,
    limits: &[("call", Window::Day, 15), ("ping", Window::Day, 12), ("flat", Window::Day, 30)],
};
const CAPPED: Plan = Plan {
    credits: Some(100),
    rollover: Rollover::Cap(30),
    has_render: true,
    limits: &[
        ("call", Window::Hour, 40),
        ("call", Window::Month, 120),
        ("work", Window::Day, 50),
        ("ping", Window::Day, 20),
    ],
    ..FREE
};
const KEEPER: Plan = Plan {
    credits: Some(160),
    rollover: Rollover::All,
    overage: Overage::Limit(50),
    overage_of_work: Overage::Deny,
    claws_back_debt: false,
    has_render: true,
    limits: &[("work", Window::Month, 90), ("flat", Window::Day, 40)],
};
const PLAIN: Plan = Plan {
    credits: Some(200),
    rollover: Rollover::None,
    overage: Overage::Unlimited,
    overage_of_work: Overage::Limit(25),
    claws_back_debt: true,
    has_render: true,
    limits: &[("render", Window::Day, 70)],
};
const BOUNDLESS: Plan = Plan {
    credits: None,
    claws_back_debt: false,
    has_render: true,
    limits: &[("call", Window::Hour, 50), ("flat", Window::Day, 60)],
    ..FREE
};

#[derive(Debug)]
pub struct Price {
    pub id: &'static str,
    pub plan: Plan,
    pub amount: i64,
    pub months: u32,
}

/// Monthly ones by ascending plan, then longer ones.
pub const PRICES: &[Price] = &[
    Price { id: "price_capped_month", plan: CAPPED, amount: 1_000, months: 1 },
    Price { id: "price_keeper_month", plan: KEEPER, amount: 2_000, months: 1 },
    Price { id: "price_plain_month", plan: PLAIN, amount: 3_000, months: 1 },
    Price { id: "price_boundless_month", plan: BOUNDLESS, amount: 4_000, months: 1 },
    Price { id: "price_capped_year", plan: CAPPED, amount: 10_000, months: 12 },
    Price { id: "price_keeper_year", plan: KEEPER, amount: 20_000, months: 12 },
    Price { id: "price_plain_year", plan: PLAIN, amount: 30_000, months: 12 },
    Price { id: "price_capped_half", plan: CAPPED, amount: 5_500, months: 6 },
    Price { id: "price_plain_half", plan: PLAIN, amount: 16_000, months: 6 },
];

#[derive(Debug)]
pub struct Pack {
    pub id: &'static str,
    pub credits: i64,
    pub amount: i64,
    pub days: Option<i64>,
    pub priority: i32,
}

pub const PACKS: &[Pack] = &[
    Pack { id: "small", credits: 50, amount: 500, days: Some(40), priority: 50 },
    Pack { id: "large", credits: 300, amount: 2_500, days: None, priority: 5 },
];

/// Whose captures may go beyond their holds.
pub const BEYOND_HOLD: &[&str] = &["work", "flat"];

/// Credits for so many units of a feature, unit by unit.
pub fn cost(feature: &str, quantity: i64) -> Option<i64> {
    let each = |unit: i64| match feature {
        "call" => Some(1),
        "work" => Some(2),
        "render" if unit <= 5 => Some(3),
        "render" if unit <= 20 => Some(2),
        "render" => Some(1),
        "ping" => Some(0),
        "flat" if unit <= 5 => Some(2),
        "flat" => Some(0),
        _ => None,
    };
    (1..=quantity).map(each).sum()
}
