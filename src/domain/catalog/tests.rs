//! What the catalog's parts promise, each on a catalog just large enough to show it.

use super::*;

/// A valid catalog; tests break one thing of it at a time.
const SMALL: &str = r#"
[features.images]
name = "Images"
kind = "metered"
credit_cost = 1

[features.projects]
name = "Projects"
kind = "limit"

[plans.free]
name = "Free"
rank = 0
default = true
credits = 10

[plans.pro]
name = "Pro"
rank = 10
credits = 200

[plans.pro.features]
images = true
projects = 5

[plans.pro.prices.monthly]
lookup_key = "pro"
currency = "usd"
unit_amount = 999
interval = "month"

[plans.pro.prices.legacy]
stripe_price_id = "price_legacy"
lookup_key = "legacy"
currency = "usd"
unit_amount = 799
interval = "month"
"#;

fn small() -> Catalog {
    Catalog::from_toml(SMALL).unwrap()
}

/// The problems of the small catalog with one text replaced, one a line.
fn problems_with(old: &str, new: &str) -> String {
    assert_eq!(SMALL.matches(old).count(), 1, "{old:?} must stand once in the small catalog");
    Catalog::from_toml(&SMALL.replace(old, new)).map_or_else(|errors| errors.to_string(), |_| String::new())
}

#[test]
fn what_is_left_out_has_its_documented_default() {
    let catalog = small();
    let pro = catalog.plan("pro").unwrap();
    assert_eq!(pro.rollover, Rollover::None);
    assert_eq!(pro.trial, TrialPolicy { days: 0, credits: TrialCredits::Full });
    assert_eq!((pro.grace_days, pro.clawback, pro.per_seat), (0, ClawbackPolicy::WriteOff, true));
    assert_eq!(pro.description, None);
    assert_eq!(pro.prices[0].interval_count, 1);
    assert_eq!(catalog.credit_display_scale, 0);
}

#[test]
fn a_lookup_key_counts_only_where_the_catalog_states_no_price_id() {
    let catalog = small();
    let found = |stripe_price_id, lookup_key| {
        catalog.plan_of_price(PriceKey { stripe_price_id, lookup_key }).map(|(_, price)| price.id.as_str())
    };
    assert_eq!(found("price_new", Some("pro")), Some("pro.monthly"));
    assert_eq!(found("price_legacy", Some("pro")), Some("pro.legacy"), "the id comes first");
    assert_eq!(found("price_new", Some("legacy")), None, "the key moved to a price we do not know");
    assert_eq!(found("price_new", None), None);
}

#[test]
fn json_without_newer_fields_is_read_with_their_defaults() {
    let oldest = r#"{"plans":[{"id":"pro","name":"Pro","rank":1,"prices":[
        {"id":"pro.monthly","currency":"usd","unit_amount":1,"interval":"month"}]}],
        "credit_packs":[{"id":"p","name":"P","credits":1,"prices":[]}]}"#;
    let catalog: Catalog = serde_json::from_str(oldest).unwrap();
    let plan = &catalog.plans[0];
    assert!(plan.per_seat && !plan.default);
    assert_eq!(plan.prices[0].interval_count, 1);
    assert_eq!(catalog.credit_packs[0].priority, DEFAULT_PACK_PRIORITY);
    let unknown_field = oldest.replacen("\"rank\"", "\"from_the_future\":1,\"rank\"", 1);
    assert_eq!(serde_json::from_str::<Catalog>(&unknown_field).unwrap(), catalog);
}

#[test]
fn a_metered_feature_is_limited_within_one_window_or_several() {
    let windows_of = |grant: &str| {
        let text = SMALL.replace("images = true", &format!("images = {grant}"));
        let catalog = Catalog::from_toml(&text).expect("valid");
        catalog.plan("pro").expect("a plan").features["images"].windows.clone()
    };
    let (minute, month) = (WindowLimit { limit: 10, per: Per::Minute }, WindowLimit { limit: 1_000, per: Per::Month });
    assert_eq!(windows_of("true"), []);
    assert_eq!(windows_of(r#"{ limit = 10, per = "minute" }"#), [minute]);
    let several = r#"[{ limit = 1_000, per = "month" }, { limit = 10, per = "minute" }]"#;
    assert_eq!(windows_of(several), [minute, month], "from the shortest to the longest");
}

/// Recorded catalogs are told apart by their digest, so it must never change for what is recorded already.
#[test]
fn the_digest_of_a_recorded_catalog_never_changes() {
    assert_eq!(small().digest(), "90e2d831a24ad8e270199b7da0e876ac89b511f21b28da8ee98d217ee459f3b0");
    assert_eq!(Catalog::empty().digest(), "ae0464a179c932b3fc4bb446eb19e4c5206179e8aed1e6f20a00e3f9dee47b3e");
}

#[test]
fn the_digest_sees_every_difference() {
    let mut other = small();
    other.plans[1].grace_days = 1;
    assert_ne!(other.digest(), small().digest());
}

#[test]
fn the_empty_catalog_is_valid_and_free() {
    let empty = Catalog::empty();
    assert_eq!(empty.validate(), Ok(()));
    assert_eq!(empty.default_plan().id, "free");
    assert_eq!(empty.default_plan().credits, CreditAllowance::None);
}

#[test]
fn a_catalog_without_a_default_plan_falls_back_to_the_built_in_free_one() {
    let mut catalog = small();
    catalog.plans.iter_mut().for_each(|plan| plan.default = false);
    assert_eq!(catalog.default_plan().prices, []);
    assert_eq!(catalog.default_plan().id, "free");
    assert!(catalog.validate().is_err());
}

#[test]
fn validation_without_a_file_names_no_line() {
    let mut catalog = small();
    catalog.plans.push(catalog.plans[1].clone());
    let errors = catalog.validate().unwrap_err();
    assert!(errors.0.iter().all(|error| error.line == 0));
    let told = errors.to_string();
    assert!(told.contains("plans.pro: the plan \"pro\" is taken by plans.pro"), "{told}");
    assert!(told.contains("the price id \"pro.monthly\" is taken"), "{told}");
}

#[test]
fn a_price_id_must_carry_its_owners_id() {
    let mut catalog = small();
    catalog.plans[1].prices[0].id = "other.monthly".to_owned();
    let told = catalog.validate().unwrap_err().to_string();
    assert!(told.contains("\"other.monthly\" is no price id"), "{told}");
}

#[test]
fn a_slip_of_the_pen_is_told_once_and_not_as_missing_too() {
    assert_eq!(problems_with("rank = 10", "rnak = 10"), "line 19: plans.pro.rnak: unknown name (did you mean `rank`?)");
}

#[test]
fn a_name_beside_its_misspelling_is_still_checked() {
    let told = problems_with("rank = 10", "rank = 0\nrnak = 10");
    assert!(told.contains("the rank \"0\" is taken by plans.free.rank"), "{told}");
}

#[test]
fn a_plan_may_decline_a_declared_feature_and_no_other() {
    assert_eq!(problems_with("images = true", "images = false"), "");
    assert_eq!(
        problems_with("images = true", "image = false"),
        "line 23: plans.pro.features.image: is not a declared feature (did you mean `images`?)"
    );
}

#[test]
fn a_limit_without_its_number_is_not_read_as_no_limit() {
    let told = problems_with("projects = 5", "projects = true");
    assert!(told.contains("a limit needs its number"), "{told}");
    let told = problems_with("projects = 5", "projects = {}");
    assert!(told.contains("limit: is missing"), "{told}");
    assert_eq!(problems_with("projects = 5", "projects = \"unlimited\""), "");
    assert_eq!(problems_with("projects = 5", "projects = { limit = 5 }"), "");
}

#[test]
fn numbers_past_64_bits_are_told() {
    let told = problems_with("credits = 200", "credits = 9223372036854775808");
    assert!(told.contains("plans.pro.credits: 9223372036854775808 is out of range"), "{told}");
    let told = problems_with("credits = 200", "credits = 9223372036854775807");
    assert!(told.contains("9223372036854775807 is too high (write at most 1000000000000)"), "{told}");
    assert_eq!(problems_with("credits = 200", "credits = 0x1_00"), "", "hexadecimal is fine");
}

#[test]
fn lines_are_counted_with_windows_line_ends_too() {
    let text = SMALL.replace("rank = 10", "rank = -1").replace('\n', "\r\n");
    assert_eq!(Catalog::from_toml(&text).unwrap_err().0[0].line, 19);
}

#[test]
fn the_default_plan_must_rank_lowest() {
    let told = problems_with("rank = 0", "rank = 11");
    assert_eq!(
        told,
        "line 13: plans.free.rank: the default plan must rank lowest, but plans.pro ranks 10 (write a rank below it)"
    );
}

#[test]
fn the_default_plan_may_have_prices_of_zero() {
    let price = "\n[plans.free.prices.monthly]\ncurrency = \"usd\"\nunit_amount = 0\ninterval = \"month\"\n";
    assert_eq!(Catalog::from_toml(&format!("{SMALL}{price}")).err(), None);
}

#[test]
fn plans_are_ordered_by_rank_and_packs_by_size() {
    let packs: String = [1000, 100, 250]
        .map(|credits| {
            format!("[credit_packs.p{credits}]\nname = \"p\"\ncredits = {credits}\n[credit_packs.p{credits}.prices.usd]\ncurrency = \"usd\"\nunit_amount = 1\n")
        })
        .concat();
    let catalog = Catalog::from_toml(&format!("{packs}{SMALL}")).unwrap();
    let sizes: Vec<_> = catalog.credit_packs.iter().map(|pack| pack.credits).collect();
    assert_eq!(sizes, [100, 250, 1000]);
    assert_eq!(catalog.plans[0].id, "free");
}

#[test]
fn a_price_that_is_not_in_stripe_yet_matches_nothing() {
    let mut catalog = small();
    catalog.plans[1].prices.iter_mut().for_each(|price| {
        price.stripe_price_id = None;
        price.lookup_key = None;
    });
    let unknown = PriceKey { stripe_price_id: "price_unknown", lookup_key: None };
    assert_eq!(catalog.plan_of_price(unknown), None);
}

#[test]
fn a_pack_is_found_by_its_lookup_key() {
    let pack = "[credit_packs.p]\nname = \"P\"\ncredits = 1\n[credit_packs.p.prices.usd]\nlookup_key = \"pack\"\ncurrency = \"usd\"\nunit_amount = 1\n";
    let catalog = Catalog::from_toml(&format!("{SMALL}{pack}")).unwrap();
    let key = |lookup_key| PriceKey { stripe_price_id: "price_new", lookup_key };
    assert_eq!(catalog.pack_of_price(key(Some("pack"))).map(|(pack, _)| pack.id.as_str()), Some("p"));
    assert_eq!(catalog.pack_of_price(key(None)), None);
}

#[test]
fn an_id_has_1_to_64_characters() {
    let told = |id: &str| {
        let plan = format!("{SMALL}\n[plans.\"{id}\"]\nname = \"X\"\nrank = 99\n");
        Catalog::from_toml(&plan).err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    assert_eq!(told(&"x".repeat(64)), "");
    for id in ["".to_owned(), "x".repeat(65), "x".repeat(1000), "é".to_owned(), "a.b".to_owned()] {
        assert!(told(&id).contains("is no plan id (use 1 to 64 of a-z, 0-9 and _)"), "{}", told(&id));
    }
}
