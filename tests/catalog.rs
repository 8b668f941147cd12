//! The catalog as the outside sees it: the sample, the golden error messages, and the properties that hold for all.

use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use subledger::domain::catalog::{
    Catalog, ClawbackPolicy, CostTier, CreditAllowance, CreditPack, Dunning, Feature, FeatureGrant, FeatureKind,
    Interval, Overage, PackPrice, Per, Plan, PlanChange, PlanPrice, PriceKey, Rollover, TrialCredits, TrialPolicy,
    WhilePaused, WindowLimit,
};
use subledger::domain::money::Currency;

const SAMPLE: &str = include_str!("../deploy/catalog.toml");

fn sample() -> Catalog {
    Catalog::from_toml(SAMPLE).expect("the sample is valid")
}

#[test]
fn the_sample_holds_the_tiers_it_promises() {
    let catalog = sample();
    let tiers: Vec<_> = catalog.plans.iter().map(|plan| (plan.id.as_str(), plan.credits)).collect();
    assert_eq!(
        tiers,
        [
            ("free", CreditAllowance::PerPeriod(10)),
            ("starter", CreditAllowance::PerPeriod(100)),
            ("basic", CreditAllowance::PerPeriod(200)),
            ("professional", CreditAllowance::PerPeriod(500)),
            ("business", CreditAllowance::PerPeriod(2_000)),
            ("premium", CreditAllowance::Unlimited),
        ]
    );
    assert_eq!(catalog.default_plan().id, "free");
    let packs: Vec<_> = catalog
        .credit_packs
        .iter()
        .map(|pack| {
            let dollars = pack.prices.iter().find(|price| price.currency == Currency::USD);
            (pack.credits, dollars.map(|price| price.unit_amount))
        })
        .collect();
    assert_eq!(packs, [(100, Some(1000)), (250, Some(2000)), (500, Some(3500)), (1000, Some(6000))]);
}

#[test]
fn the_sample_shows_every_spelling() {
    let catalog = sample();
    let professional = catalog.plan("professional").unwrap();
    assert_eq!(professional.rollover, Rollover::Capped(500));
    assert_eq!(professional.trial, TrialPolicy { days: 14, credits: TrialCredits::Full });
    assert!(professional.per_seat);
    let business = catalog.plan("business").unwrap();
    assert_eq!(business.rollover, Rollover::All);
    assert_eq!(business.clawback, ClawbackPolicy::Debt);
    assert_eq!(business.features["projects"], FeatureGrant::default());
    let windows = [WindowLimit { limit: 600, per: Per::Minute }, WindowLimit { limit: 1_000_000, per: Per::Month }];
    assert_eq!(business.features["api_calls"].windows, windows);
    assert_eq!(professional.features["api_calls"].windows, [WindowLimit { limit: 60, per: Per::Minute }]);
    let basic = catalog.plan("basic").unwrap();
    assert_eq!(basic.rollover, Rollover::None);
    assert_eq!(basic.features["projects"].limit, Some(5));
    assert_eq!(basic.features["models"].values, ["flux-schnell", "flux-dev"]);
    assert!(!basic.features.contains_key("api_access"));
    assert!(!catalog.plan("premium").unwrap().per_seat);
    let pack = catalog.pack("pack_100").unwrap();
    assert_eq!((pack.priority, pack.expires_after_days), (50, Some(365)));
    assert_eq!(catalog.feature("image_upscale").unwrap().credit_cost, Some(2));
}

#[test]
fn a_stripe_price_is_found_by_its_id() {
    let catalog = sample();
    let key = |stripe_price_id| PriceKey { stripe_price_id, lookup_key: None };
    let (plan, price) = catalog.plan_of_price(key("price_sample_professional_yearly_eur")).unwrap();
    assert_eq!(
        (plan.id.as_str(), price.id.as_str(), price.interval, price.currency),
        ("professional", "professional.yearly_eur", Interval::Year, Currency::EUR)
    );
    let (pack, price) = catalog.pack_of_price(key("price_sample_pack_100_eur")).unwrap();
    assert_eq!((pack.credits, price.id.as_str()), (100, "pack_100.eur"));
    assert_eq!(catalog.plan_of_price(key("price_sample_pack_100")), None);
    assert_eq!(catalog.pack_of_price(key("price_sample_basic_monthly")), None);
}

/// Every `tests/fixtures/catalog_errors/*.toml` gives exactly the messages in the `.txt` beside it. To accept what
/// the messages are now, run the test with `ACCEPT_MESSAGES=1` and review the diff.
#[test]
fn error_messages_are_as_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/catalog_errors");
    let files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut catalogs: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    catalogs.sort();
    assert!(!catalogs.is_empty(), "no catalogs in {}", folder.display());
    for catalog in catalogs {
        let text = fs::read_to_string(&catalog).unwrap();
        let errors = Catalog::from_toml(&text).expect_err(&catalog.display().to_string());
        let actual = format!("{errors}\n");
        let recorded = catalog.with_extension("txt");
        if std::env::var_os("ACCEPT_MESSAGES").is_some() {
            fs::write(&recorded, &actual).unwrap();
        }
        let expected = fs::read_to_string(&recorded).unwrap_or_default();
        assert_eq!(actual, expected, "messages of {}", catalog.display());
    }
}

// ---- properties ----

fn any_plan_price() -> impl Strategy<Value = PlanPrice> {
    (
        (
            any::<String>(),
            any::<Option<String>>(),
            any::<Option<String>>(),
            prop::collection::vec(any::<String>(), 0..3),
        ),
        prop::sample::select(vec!["usd", "eur", "jpy", "kwd"]),
        any::<i64>(),
        prop::sample::select(vec![Interval::Day, Interval::Week, Interval::Month, Interval::Year]),
        any::<u32>(),
    )
        .prop_map(|(names, currency, unit_amount, interval, interval_count)| {
            let (id, stripe_price_id, lookup_key, former_stripe_price_ids) = names;
            PlanPrice {
                id,
                stripe_price_id,
                lookup_key,
                former_stripe_price_ids,
                currency: Currency::parse(currency).expect("a listed code"),
                unit_amount,
                interval,
                interval_count,
            }
        })
}

fn any_pack_price() -> impl Strategy<Value = PackPrice> {
    any_plan_price().prop_map(|price| PackPrice {
        id: price.id,
        stripe_price_id: price.stripe_price_id,
        lookup_key: price.lookup_key,
        former_stripe_price_ids: price.former_stripe_price_ids,
        currency: price.currency,
        unit_amount: price.unit_amount,
    })
}

fn any_grant() -> impl Strategy<Value = FeatureGrant> {
    let pers: Vec<Per> = Per::ALL.into_iter().map(|(_, per)| per).collect();
    let window = (any::<i64>(), prop::sample::select(pers)).prop_map(|(limit, per)| WindowLimit { limit, per });
    (
        any::<Option<i64>>(),
        prop::collection::vec(any::<String>(), 0..3),
        prop::collection::btree_map(0..5u8, window, 0..3),
        prop::option::of(any_overage()),
    )
        .prop_map(|(limit, values, windows, overage)| FeatureGrant {
            limit,
            values,
            windows: windows.into_values().collect(),
            overage,
        })
}

fn any_overage() -> impl Strategy<Value = Overage> {
    prop_oneof![Just(Overage::Deny), any::<i64>().prop_map(Overage::Limit), Just(Overage::Unlimited)]
}

fn any_credits() -> impl Strategy<Value = (CreditAllowance, Rollover, TrialCredits, ClawbackPolicy, PlanChange)> {
    let some = any::<i64>();
    (
        prop_oneof![
            Just(CreditAllowance::None),
            some.prop_map(CreditAllowance::PerPeriod),
            Just(CreditAllowance::Unlimited)
        ],
        prop_oneof![Just(Rollover::None), some.prop_map(Rollover::Capped), Just(Rollover::All)],
        prop_oneof![Just(TrialCredits::Full), Just(TrialCredits::None), some.prop_map(TrialCredits::Amount)],
        prop_oneof![Just(ClawbackPolicy::WriteOff), Just(ClawbackPolicy::Debt)],
        prop_oneof![Just(PlanChange::Prorated), Just(PlanChange::Full), Just(PlanChange::None)],
    )
}

fn any_dunning() -> impl Strategy<Value = Dunning> {
    let features =
        prop::collection::btree_set(any::<String>(), 0..3).prop_map(|features| features.into_iter().collect());
    (prop::option::of(features), any::<Option<u32>>())
        .prop_map(|(restricted_features, suspend_after_days)| Dunning { restricted_features, suspend_after_days })
}

fn any_plan() -> impl Strategy<Value = Plan> {
    (
        (any::<String>(), any::<String>(), any::<Option<String>>()),
        (any::<u32>(), any::<bool>(), any::<u32>(), (any::<u32>(), any_dunning()), any::<bool>()),
        prop::collection::vec(any_plan_price(), 0..3),
        any_credits(),
        (prop::collection::btree_map(any::<String>(), any_grant(), 0..3), any_overage()),
    )
        .prop_map(
            |(
                (id, name, description),
                (rank, default, days, (grace_days, dunning), per_seat),
                prices,
                credits,
                rest,
            )| {
                let (features, overage) = rest;
                let (credits, rollover, trial_credits, clawback, plan_change) = credits;
                Plan {
                    id,
                    name,
                    description,
                    rank,
                    default,
                    prices,
                    credits,
                    rollover,
                    renewal_hours: days,
                    trial: TrialPolicy { days, credits: trial_credits },
                    grace_days,
                    dunning,
                    while_paused: if default { WhilePaused::Keep } else { WhilePaused::Stop },
                    clawback,
                    plan_change,
                    per_seat,
                    overage,
                    low_balance: per_seat.then_some(i64::from(days)),
                    features,
                }
            },
        )
}

fn any_pack() -> impl Strategy<Value = CreditPack> {
    (
        (any::<String>(), any::<String>(), any::<i64>()),
        prop::collection::vec(any_pack_price(), 0..3),
        (any::<Option<u32>>(), any::<i32>()),
    )
        .prop_map(|((id, name, credits), prices, (expires_after_days, priority))| CreditPack {
            id,
            name,
            credits,
            prices,
            expires_after_days,
            priority,
        })
}

fn any_feature() -> impl Strategy<Value = Feature> {
    let kinds = vec![FeatureKind::Boolean, FeatureKind::Limit, FeatureKind::Metered, FeatureKind::List];
    let tier = (any::<Option<i64>>(), any::<i64>()).prop_map(|(up_to, each)| CostTier { up_to, each });
    let tiers = prop::collection::vec(tier, 0..3);
    (
        any::<String>(),
        any::<String>(),
        prop::sample::select(kinds),
        any::<Option<i64>>(),
        tiers,
        any::<(bool, Option<String>)>(),
    )
        .prop_map(|(id, name, kind, credit_cost, credit_cost_tiers, (capture_beyond_hold, stripe_meter))| {
            Feature { id, name, kind, credit_cost, credit_cost_tiers, capture_beyond_hold, stripe_meter }
        })
}

/// Any catalog the types allow, valid or not.
fn any_catalog() -> impl Strategy<Value = Catalog> {
    (
        prop::collection::vec(any_plan(), 0..4),
        prop::collection::vec(any_pack(), 0..3),
        prop::collection::vec(any_feature(), 0..3),
        any::<u32>(),
    )
        .prop_map(|(plans, credit_packs, features, credit_display_scale)| Catalog {
            plans,
            credit_packs,
            features,
            credit_display_scale,
        })
}

/// One edit of the text: at a place, remove some characters and insert some others.
fn any_edit() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    let inserted = prop_oneof![
        Just(String::new()),
        prop::sample::select(vec![
            "[",
            "]",
            "{",
            "}",
            "=",
            "\"",
            "\n",
            ".",
            "-",
            "0",
            "9223372036854775808",
            "true",
            "1.5",
            "[[x]]\n",
            "plans",
            "\u{0}",
            "é",
            "inf",
            "\"unlimited\"",
            "'''",
            "\\u0000",
            "2026-01-01",
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    (any::<prop::sample::Index>(), 0..40usize, inserted)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn json_round_trip_is_identity(catalog in any_catalog()) {
        let json = serde_json::to_string(&catalog).unwrap();
        let back: Catalog = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&back, &catalog);
        prop_assert_eq!(back.digest(), catalog.digest());
    }

    #[test]
    fn validation_never_panics_and_always_explains(catalog in any_catalog()) {
        if let Err(errors) = catalog.validate() {
            prop_assert!(!errors.0.is_empty());
        }
    }

    #[test]
    fn the_order_of_a_catalog_does_not_change_its_digest(seed in any::<u64>()) {
        let catalog = sample();
        let mut shuffled = catalog.clone();
        let turn = |length: usize| (seed % length.max(1) as u64) as usize;
        shuffled.plans.rotate_left(turn(catalog.plans.len()));
        shuffled.features.rotate_left(turn(catalog.features.len()));
        shuffled.credit_packs.reverse();
        for plan in &mut shuffled.plans {
            plan.prices.reverse();
        }
        prop_assert_ne!(&shuffled, &catalog);
        prop_assert_eq!(shuffled.digest(), catalog.digest());
    }

    #[test]
    fn mutated_text_never_panics(edits in prop::collection::vec(any_edit(), 1..6)) {
        let mut letters: Vec<char> = SAMPLE.chars().collect();
        for (place, removed, inserted) in edits {
            let start = place.index(letters.len() + 1);
            let end = (start + removed).min(letters.len());
            letters.splice(start..end, inserted.chars());
        }
        let text: String = letters.into_iter().collect();
        match Catalog::from_toml(&text) {
            Ok(catalog) => prop_assert!(catalog.validate().is_ok()),
            Err(errors) => {
                let lines = text.lines().count().max(1);
                prop_assert!(!errors.0.is_empty());
                for error in &errors.0 {
                    prop_assert!((1..=lines + 1).contains(&error.line), "{error} has a line out of 1..={lines}");
                }
            }
        }
    }

    #[test]
    fn any_text_never_panics(text in any::<String>()) {
        let _ = Catalog::from_toml(&text);
    }
}
