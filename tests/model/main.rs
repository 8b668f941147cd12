//! Random scripts against a naive reference: grants, debits, holds, refunds, plan changes and the clock, in any order. After
//! every step both must show the same, now and later, and no credit may come from nowhere or vanish.
//!
//! The same scripts come again in every run. `MODEL_SEED` gives others, `MODEL_CASES` another number of them.

mod prices;
mod reference;
mod script;
mod subject;

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use reference::{Charge, Used};
use script::{Play, Script, Step};
use subject::{Offer, Subject};

/// 31 January 2026, noon: not every month has such a day.
const START: i64 = 1_769_860_800;
const STEPS: usize = 60;
/// How far ahead what will be is compared, too: an hour, a day, and past one and several months.
const AHEAD: [i64; 5] = [0, 3_600, 86_400, 33 * 86_400, 100 * 86_400];

/// A rejection as the reference names it.
fn told(rejection: &subledger::domain::rejection::Rejection) -> (String, Option<i64>, Option<i64>) {
    let told = serde_json::to_value(rejection).expect("JSON");
    let number = |name: &str| told[name].as_i64();
    let is_insufficient = told["code"] == "insufficient_credits";
    let numbers = if is_insufficient { (number("required"), number("available")) } else { (None, None) };
    (told["code"].as_str().expect("a code").to_owned(), numbers.0, numbers.1)
}

fn compare(script: &Script, subject: &mut Subject<'_>, plays: &[Play]) {
    for play in plays {
        let got = subject.play(play).map_err(|rejection| told(&rejection));
        let want =
            play.expected.clone().map_err(|refusal| (refusal.code.to_owned(), refusal.required, refusal.available));
        assert_eq!(got, want, "(code, then reference) of {:?}", play.action);
    }
    subject.assert_conserved();
    assert_eq!(subject.statement(), script.ledger.balance(), "the statement's balance (code, then reference)");
    let questions = [("call", 1), ("call", 14), ("call", 45), ("render", 30), ("work", 1), ("work", 25)];
    for (feature, quantity) in questions.into_iter().chain([("ping", 1), ("ping", 13), ("flat", 5), ("flat", 31)]) {
        let got = subject.may(script.now, feature, quantity);
        let want = script.ledger.clone().debit(script.now, Charge::Feature(feature, quantity)).is_ok();
        assert_eq!(
            got, want,
            "a check of {quantity} of {feature} (code), and whether a debit would be made (reference)"
        );
    }
    let next = script.ledger.next_change(script.now).map(|next| next - script.now);
    for ahead in AHEAD.into_iter().chain(next) {
        let at = script.now + ahead;
        assert_eq!(subject.view(at), script.ledger.view(at), "{ahead} s ahead (code, then reference)");
    }
}

/// Plays a script to its end, or tells its steps up to the one that went wrong.
fn play(offer: &Offer, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut script = Script::new(START, subject::id_of, subject::cause_of_grant);
    let mut subject = Subject::open(offer, START);
    let mut story = String::new();
    for (n, step) in steps.iter().enumerate() {
        let played = catch_unwind(AssertUnwindSafe(|| {
            let plays = script.play(step);
            compare(&script, &mut subject, &plays);
        }));
        let at = subject::at(script.now);
        story.push_str(&format!("{:>3}. {at} {step:?}\n", n + 1));
        if let Err(panic) = played {
            let problem = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "it panicked".to_owned());
            return Err(TestCaseError::fail(format!("after\n{story}{problem}")));
        }
    }
    subject.assert_rebuilds();
    Ok(())
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

fn run(cases: u32) {
    let cases = number("MODEL_CASES").map_or(cases, |cases| u32::try_from(cases).expect("a number of cases"));
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&number("MODEL_SEED").unwrap_or(1).to_le_bytes());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 20_000, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let offer = Offer::new();
    // What goes wrong on the way to the shortest script is nobody's business.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = runner.run(&script::steps(STEPS), |steps| play(&offer, &steps));
    let _ = std::panic::take_hook();
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, _)) => panic!("the shortest script that goes wrong: {reason}"),
        Err(TestError::Abort(reason)) => panic!("given up: {reason}"),
    }
}

/// Captures of more units than were held, where the further ones cost nothing: they passed unasked.
fn free_units() -> [Vec<Step>; 2] {
    let held = |feature, quantity| Step::Hold { charge: Charge::Feature(feature, quantity), minutes: 5 };
    let capture = |quantity| Step::Capture { hold: 0, used: Used::Quantity(quantity) };
    [vec![held("ping", 1), capture(11)], vec![held("flat", 5), capture(31)]]
}

/// The shortest scripts that once went wrong.
#[test]
fn what_once_went_wrong_ends_as_the_reference_says() {
    let scripts = [
        // A capped plan's newest month went to a debt, and the months before it were kept whole, until Stripe's objects
        // happened to be in memory.
        vec![
            Step::Subscribe { price: 4, seats: 1 },
            Step::BuyPack { pack: 1 },
            Step::Debit(Charge::Amount(100)),
            Step::Dispute { purchase: 1 },
        ],
        // What a free month had paid of a debt came back to it after the free plan had started afresh.
        vec![
            Step::Subscribe { price: 2, seats: 1 },
            Step::Debit(Charge::Amount(70)),
            Step::Refund { purchase: 0, quarters: 3 },
            Step::Cancel,
            Step::Grant { amount: 1, priority: 1, begins_in_days: 0, days: None },
            Step::Subscribe { price: 0, seats: 1 },
            Step::Cancel,
            Step::FailRefund { purchase: 0 },
        ],
        // A capped plan's next month was paid for early, and its beginning went by unseen while a free month still ran.
        vec![
            Step::Debit(Charge::Amount(1)),
            Step::WaitForChange { just_before: false },
            Step::Debit(Charge::Amount(1)),
            Step::Subscribe { price: 0, seats: 1 },
            Step::Renew { price: None, days_late: -2 },
            Step::WaitForChange { just_before: false },
        ],
    ];
    let offer = Offer::new();
    for script in scripts.into_iter().chain(free_units()) {
        play(&offer, &script).unwrap_or_else(|problem| panic!("{problem}"));
    }
}

#[test]
fn hundreds_of_random_scripts_end_as_the_reference_says() {
    run(400);
}

#[test]
#[ignore = "long: part of make test-long"]
fn thousands_of_random_scripts_end_as_the_reference_says() {
    run(12_000);
}
