//! What rolls over from month to month of a year within which the plan changes: each month as the plan says that was in force
//! when it began.

use crate::fold::Fold;
use crate::plan_changes::seller_of;
use crate::subscription::{BIG, DAY, JANUARY, MIDDLE, SMALL, Stripe, months_later};

const CAPPED: &str = "{ cap = 200 }";

/// What is there, nothing being spent, after the first month of a year and after the second, whatever the order of the news.
fn left(from_to: [crate::subscription::Deal; 2], rollovers: [&str; 3]) -> [i64; 2] {
    let fold = Fold::of_seller(&seller_of(["full"; 3], rollovers));
    [1, 2].map(|months| {
        let now = months_later(JANUARY, months) + 1;
        let mut stripe = Stripe::subscribe(from_to[0].yearly(), JANUARY);
        stripe.change(from_to[1].yearly(), JANUARY + 3 * DAY, true);
        stripe.in_any_order(&fold, now).credits.available_at(fold.context_at(now).now)
    })
}

#[test]
fn a_year_that_became_another_plans_is_kept_as_that_plan_says() {
    let (none, all) = ("\"none\"", "\"all\"");
    // January's own 500 may be used for one more month; all else is kept.
    assert_eq!(left([MIDDLE, BIG], [none, CAPPED, all]), [2000 + 2000, 1500 + 2000 + 2000]);
    assert_eq!(left([SMALL, MIDDLE], [none, CAPPED, none]), [200 + 500, 200 + 500]);
    assert_eq!(left([SMALL, MIDDLE], [all, none, none]), [100 + 500, 100 + 500]);
    assert_eq!(left([BIG, SMALL], [none, none, all]), [2000 + 100, 2000 + 100]);
    assert_eq!(left([MIDDLE, SMALL], [none, CAPPED, none]), [500 + 100, 100]);
}
