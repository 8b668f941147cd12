//! Random histories: nothing is lost, months add up, and a naive account of the same story comes to the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;
use subledger::domain::charge::Charge;
use subledger::domain::command::{Command, Grant};
use subledger::domain::credit::LotSource;
use subledger::domain::revenue::month::Month;
use uuid::Uuid;

use crate::ledger::*;

const PRICES: [&str; 5] = ["price_small", "price_small_year", "price_small_week", "price_small_eur", "price_big"];
const DAY: i64 = 86_400;

/// What an account does next.
#[derive(Debug, Clone)]
enum Step {
    /// Subscribes, or changes what it is subscribed to.
    Subscribe {
        price: usize,
        quantity: i64,
    },
    /// As Stripe calls it.
    Status(&'static str),
    Pause(bool),
    Cancel,
    /// Pays for so many days to come; an invoice with tax, and some of it out of the credit balance.
    Pay {
        amount: i64,
        days: i64,
        tax: i64,
        from_balance: i64,
    },
    /// So much of its last payment goes back.
    Refund {
        permille: i64,
    },
    BuyPack,
    Grant(i64),
    Spend(i64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..PRICES.len(), 1i64..20).prop_map(|(price, quantity)| Step::Subscribe { price, quantity }),
        2 => prop::sample::select(vec!["active", "past_due", "unpaid"]).prop_map(Step::Status),
        1 => any::<bool>().prop_map(Step::Pause),
        2 => Just(Step::Cancel),
        4 => (1i64..100_000, 0i64..400, 0i64..3_000, 0i64..500)
            .prop_map(|(amount, days, tax, from_balance)| Step::Pay { amount, days, tax, from_balance }),
        3 => (1i64..1_300).prop_map(|permille| Step::Refund { permille }),
        1 => Just(Step::BuyPack),
        1 => (1i64..100).prop_map(Step::Grant),
        2 => (1i64..60).prop_map(Step::Spend),
    ]
}

/// A story of some accounts: whose turn it is, after how many hours, and what is done.
fn any_story() -> impl Strategy<Value = Vec<(usize, i64, Step)>> {
    prop::collection::vec((0..3usize, 0i64..700, any_step()), 1..40)
}

/// One account as somebody sees it who writes down each evening what it brings.
#[derive(Debug, Default)]
struct Diary {
    subscriptions: usize,
    /// Price, quantity, status, paused.
    current: Option<(usize, i64, &'static str, bool)>,
    begun: i64,
    invoices: usize,
    paid: i64,
    /// By day since 1970: currency, and minor units a month.
    evenings: BTreeMap<i64, (&'static str, i128)>,
}

impl Diary {
    fn note(&mut self, at: i64) {
        let brings = match self.current {
            Some((price, quantity, status, false)) if status != "unpaid" => {
                let (amount, currency, interval) = terms(PRICES[price]);
                let amount = i128::from(amount * quantity);
                let nearest = |n: i128, d: i128| (n + d / 2) / d;
                let per_month = match interval {
                    "year" => nearest(amount, 12),
                    "week" => nearest(amount * 13, 3),
                    _ => amount,
                };
                (currency, per_month)
            }
            _ => ("usd", 0),
        };
        self.evenings.insert(at / DAY, brings);
    }

    fn brings_by(&self, end: i64, currency: &str) -> i128 {
        let evening = self.evenings.range(..end / DAY).next_back();
        evening.map_or(0, |(_, (known, amount))| if *known == currency { *amount } else { 0 })
    }
}

fn play(story: &[(usize, i64, Step)]) -> (Ledger, Vec<Diary>, i64) {
    let mut ledger = Ledger::new();
    let mut diaries: Vec<Diary> = (0..3).map(|_| Diary::default()).collect();
    let mut at = second("2025-01-10");
    for (n, (who, hours, step)) in story.iter().enumerate() {
        at += hours * 3_600 + 1;
        let (account, diary) = (format!("user_{who}"), &mut diaries[*who]);
        act(&mut ledger, &account, diary, at, step, n);
        diary.note(at);
    }
    (ledger, diaries, at)
}

fn act(ledger: &mut Ledger, account: &str, diary: &mut Diary, at: i64, step: &Step, n: usize) {
    let is_new = diary.current.is_none();
    match (step, diary.current) {
        (Step::Subscribe { price, quantity }, known) => {
            let (status, paused) = known.map_or(("active", false), |(_, _, status, paused)| (status, paused));
            diary.current = Some((*price, *quantity, status, paused));
        }
        (Step::Status(status), Some((price, quantity, _, paused))) => {
            diary.current = Some((price, quantity, status, paused));
        }
        (Step::Pause(paused), Some((price, quantity, status, _))) => {
            diary.current = Some((price, quantity, status, *paused));
        }
        (Step::Cancel, Some(_)) => {}
        _ => return money(ledger, account, diary, at, step, n),
    }
    if is_new {
        diary.subscriptions += 1;
        diary.begun = at;
    }
    let Some((price, quantity, status, paused)) = diary.current else { return };
    let id = format!("sub_{account}_{}", diary.subscriptions);
    let ends = matches!(step, Step::Cancel);
    let status = if ends { "canceled" } else { status };
    let mut object = subscription(&id, PRICES[price], quantity, status, diary.begun);
    if paused {
        object = with(object, json!({"pause_collection": {"behavior": "void"}}));
    }
    if ends {
        object = with(object, json!({"ended_at": at}));
        diary.current = None;
    }
    ledger.tell(account, "customer.subscription.updated", at, object);
}

fn money(ledger: &mut Ledger, account: &str, diary: &mut Diary, at: i64, step: &Step, n: usize) {
    let id = Uuid::from_u128(n as u128 + 1);
    match step {
        Step::Pay { amount, days, tax, from_balance } => {
            diary.invoices += 1;
            let total = amount + tax;
            diary.paid = (total - from_balance).max(0);
            let bill = format!("in_{account}_{}", diary.invoices);
            let paid = json!({"total": total, "tax": tax, "amount_due": diary.paid, "amount_paid": diary.paid});
            let object = invoice(&bill, &format!("sub_{account}_x"), "price_small", *amount, (at, at + days * DAY));
            ledger.tell(account, "invoice.paid", at, with(object, paid));
        }
        Step::Refund { permille } if diary.invoices > 0 => {
            let (bill, back) = (format!("in_{account}_{}", diary.invoices), diary.paid * permille / 1_000);
            if back > 0 {
                ledger.tell(account, "refund.created", at, refund(&bill, &format!("re_{n}"), back, at));
            }
        }
        Step::BuyPack => {
            let session = json!({"object": "checkout.session", "id": format!("cs_{n}"), "customer": "cus_1",
                "mode": "payment", "status": "complete", "payment_status": "paid", "currency": "usd", "amount_total": 997,
                "payment_intent": format!("pi_cs_{n}"), "metadata": {"kind": "credit_pack", "credit_pack": "hundred"},
                "created": at});
            ledger.tell(account, "checkout.session.completed", at, session);
        }
        Step::Grant(amount) => {
            let expires_at = Some(time(at + 40 * DAY));
            let source = LotSource::Manual;
            let grant = Grant {
                grant: id,
                amount: *amount,
                source,
                priority: 20,
                effective_at: None,
                expires_at,
                reason: None,
            };
            ledger.act_if_allowed(account, &Command::Grant(grant), at);
        }
        Step::Spend(amount) => {
            ledger.act_if_allowed(account, &Command::Debit { debit: id, charge: Charge::Amount(*amount) }, at);
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn nothing_is_lost_and_months_add_up(story in any_story()) {
        let (ledger, _, end) = play(&story);
        for as_of in [end, end + 20 * DAY, end + 500 * DAY] {
            assert_conserved(&ledger.report(as_of));
        }
    }

    #[test]
    fn each_month_ends_with_what_a_diary_says(story in any_story()) {
        let (ledger, diaries, end) = play(&story);
        let report = ledger.report(end);
        let (first, last) = (Month::of(time(second("2025-01-10")).date_naive()), Month::of(time(end).date_naive()));
        for month in first.until(last) {
            let evening = month.next().first_day().and_hms_opt(0, 0, 0).expect("midnight").and_utc().timestamp();
            for currency in ["usd", "eur"] {
                let told: i128 = diaries.iter().map(|diary| diary.brings_by(evening, currency)).sum();
                let figures = crate::ledger::month(&report, currency, None, &month.to_string());
                prop_assert_eq!(figures.mrr_end, told, "{} in {}", currency, month);
            }
        }
    }

    #[test]
    fn a_month_that_is_over_stays_as_it_was_told(story in any_story(), cut in any::<prop::sample::Index>()) {
        let (earlier, _, end) = play(&story[..cut.index(story.len()) + 1]);
        let (later, _, later_end) = play(&story);
        let (before, after) = (earlier.report(end), later.report(later_end));
        let this_month = Month::of(time(end).date_naive());
        for told in &before.books {
            let known = after.books.iter().find(|report| report.book == told.book).expect("books stay");
            for (month, figures) in told.months.range(..this_month) {
                let now = known.months.get(month).copied().unwrap_or_default();
                prop_assert_eq!(now, *figures, "{:?} in {}", told.book, month);
            }
        }
    }
}
