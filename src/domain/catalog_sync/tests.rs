use proptest::prelude::*;

use super::*;

const CATALOG: &str = r#"
[plans.free]
name = "Free"
default = true
rank = 0

[plans.basic]
name = "Basic"
description = "For individuals."
rank = 10
credits = 200

# What it costs.
[plans.basic.prices.monthly]
currency = "usd" # dollars
unit_amount = 999
interval = "month"

[plans.basic.prices.yearly]
lookup_key = "basic-yearly"
currency = "usd"
unit_amount = 9990
interval = "year"

[credit_packs.pack_100]
name = "100 credits"
credits = 100
prices.usd = { currency = "usd", unit_amount = 1000 }
"#;

fn catalog(text: &str) -> Catalog {
    Catalog::from_toml(text).expect("a catalog")
}

/// Does to Stripe what a step says, as Stripe does it; `made` counts what was made.
fn carry_out(stripe: &mut InStripe, step: &Step, products: &mut BTreeMap<Owner, String>, made: &mut i64) {
    fn price<'s>(stripe: &'s mut InStripe, id: &str) -> &'s mut StripePrice {
        stripe.prices.iter_mut().find(|price| price.id == id).expect("a price")
    }
    fn product<'s>(stripe: &'s mut InStripe, id: &str) -> &'s mut StripeProduct {
        stripe.products.iter_mut().find(|product| product.id == id).expect("a product")
    }
    match step {
        Step::CreateProduct(new) => {
            *made += 1;
            let id = format!("prod_{made}");
            products.insert(new.owner.clone(), id.clone());
            stripe.products.push(StripeProduct {
                id,
                name: new.name.clone(),
                description: new.description.clone(),
                active: true,
                default_price: None,
                metadata: new.metadata.clone(),
                created: *made,
                updated: *made,
            });
        }
        Step::UpdateProduct(change) => {
            let product = product(stripe, &change.product);
            product.name = change.name.clone().unwrap_or(product.name.clone());
            product.description = change.description.clone().or(product.description.clone());
            product.active = change.active.unwrap_or(product.active);
            product.metadata.extend(change.metadata.clone().unwrap_or_default());
        }
        Step::CreatePrice(new) => {
            *made += 1;
            let holder = |price: &&mut StripePrice| price.lookup_key.as_ref() == Some(&new.lookup_key);
            stripe.prices.iter_mut().filter(holder).for_each(|price| price.lookup_key = None);
            let every = new.terms.every;
            let usage_type = Some("licensed".to_owned());
            stripe.prices.push(StripePrice {
                id: format!("price_{made}"),
                product: new.product.clone().unwrap_or_else(|| products[&new.owner].clone()),
                active: true,
                currency: new.terms.currency.clone(),
                unit_amount: Some(new.terms.unit_amount),
                lookup_key: Some(new.lookup_key.clone()),
                nickname: None,
                recurring: every.map(|(interval_count, interval)| Recurring { interval, interval_count, usage_type }),
                metadata: new.metadata(),
                created: *made,
            });
        }
        Step::UpdatePrice(change) => {
            if let Some(key) = &change.lookup_key {
                let holder = |price: &&mut StripePrice| price.lookup_key.as_ref() == Some(key);
                stripe.prices.iter_mut().filter(holder).for_each(|price| price.lookup_key = None);
            }
            let price = price(stripe, &change.stripe_price_id);
            price.active = change.active.unwrap_or(price.active);
            price.lookup_key = change.lookup_key.clone().or(price.lookup_key.clone());
            price.metadata.extend(change.metadata.clone().unwrap_or_default());
        }
        Step::ArchivePrice(archival) => {
            if let Some(of) = &archival.default_of {
                product(stripe, of).default_price = None;
            }
            price(stripe, &archival.stripe_price_id).active = false;
        }
        Step::ArchiveProduct { product: id, .. } => product(stripe, id).active = false,
    }
}

/// Carries out the first so many steps, each pushed by a run that is cut after it.
fn push(catalog: &Catalog, stripe: &mut InStripe, made: &mut i64, most: usize) {
    let mut products = BTreeMap::new();
    for step in plan(catalog, stripe).steps.iter().take(most) {
        carry_out(stripe, step, &mut products, made);
    }
}

fn active(stripe: &InStripe) -> BTreeMap<&str, &str> {
    let prices = stripe.prices.iter().filter(|price| price.active);
    prices.map(|price| (price.metadata[PRICE_METADATA].as_str(), price.id.as_str())).collect()
}

#[test]
fn an_empty_account_gets_a_product_for_each_plan_and_pack_that_is_for_sale() {
    let catalog = catalog(CATALOG);
    let plan = plan(&catalog, &InStripe::default());
    let shown: Vec<String> = plan.steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "create the product \"Basic\" for plan basic",
            "create the price basic.monthly: 999 usd a month",
            "create the price basic.yearly: 9990 usd a year",
            "create the product \"100 credits\" for credit pack pack_100",
            "create the price pack_100.usd: 1000 usd",
        ]
    );
    assert_eq!(plan.assignments.len(), 3);
}

#[test]
fn a_push_cut_after_any_step_and_run_again_makes_nothing_twice() {
    let catalog = catalog(CATALOG);
    let mut whole = InStripe::default();
    push(&catalog, &mut whole, &mut 0, usize::MAX);
    for cut in 0..5 {
        let (mut stripe, mut made) = (InStripe::default(), 0);
        push(&catalog, &mut stripe, &mut made, cut);
        push(&catalog, &mut stripe, &mut made, usize::MAX);
        assert_eq!(stripe, whole, "cut after {cut} steps");
        assert_eq!(plan(&catalog, &stripe).steps, [], "a second push does nothing");
    }
}

#[test]
fn once_the_ids_are_written_back_nothing_is_left() {
    let mut stripe = InStripe::default();
    push(&catalog(CATALOG), &mut stripe, &mut 0, usize::MAX);
    let text = write_assignments(CATALOG, &plan(&catalog(CATALOG), &stripe).assignments).expect("written");
    assert!(plan(&catalog(&text), &stripe).is_empty(), "{text}");
    assert!(text.contains("# What it costs."), "comments stay");
    assert!(text.contains("currency = \"usd\" # dollars"), "layout stays");
    assert!(
        text.contains("prices.usd = { currency = \"usd\", unit_amount = 1000 , stripe_price_id = \"price_5\" }")
            || text.contains("stripe_price_id = \"price_5\"")
    );
}

#[test]
fn another_amount_is_another_price_and_whoever_pays_the_old_one_keeps_the_plan() {
    let (mut stripe, mut made) = (InStripe::default(), 0);
    push(&catalog(CATALOG), &mut stripe, &mut made, usize::MAX);
    let first = write_assignments(CATALOG, &plan(&catalog(CATALOG), &stripe).assignments).expect("written");
    stripe.products[0].default_price = Some("price_2".to_owned());
    let dearer = first.replace("unit_amount = 999\n", "unit_amount = 1299\n");
    let steps = plan(&catalog(&dearer), &stripe).steps;
    let shown: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "create the price basic.monthly: 1299 usd a month, in place of price_2",
            "archive the price basic.monthly (price_2): replaced",
        ]
    );
    push(&catalog(&dearer), &mut stripe, &mut made, usize::MAX);
    let second = write_assignments(&dearer, &plan(&catalog(&dearer), &stripe).assignments).expect("written");
    assert!(plan(&catalog(&second), &stripe).is_empty());
    let catalog = catalog(&second);
    let key = |id| super::super::catalog::PriceKey { stripe_price_id: id, lookup_key: None };
    for id in ["price_2", "price_6"] {
        let (plan, price) = catalog.plan_of_price(key(id)).expect("a plan");
        assert_eq!((plan.id.as_str(), price.id.as_str()), ("basic", "basic.monthly"));
    }
    let holder = stripe.prices.iter().find(|price| price.lookup_key.as_deref() == Some("basic.monthly"));
    assert_eq!(holder.expect("the key moved").id, "price_6");
    // Back to what it was: the archived one is not taken up again, for Stripe's keys tell replacements apart.
    let back = second.replace("unit_amount = 1299\n", "unit_amount = 999\n");
    let steps = plan(&super::tests::catalog(&back), &stripe).steps;
    assert!(matches!(&steps[0], Step::CreatePrice(new) if new.replaces.as_deref() == Some("price_6")), "{steps:?}");
}

#[test]
fn what_left_the_catalog_is_archived_and_what_is_not_ours_is_left_alone() {
    let (mut stripe, mut made) = (InStripe::default(), 0);
    push(&catalog(CATALOG), &mut stripe, &mut made, usize::MAX);
    let foreign =
        StripeProduct { id: "prod_other".to_owned(), metadata: BTreeMap::new(), ..stripe.products[0].clone() };
    stripe.products.push(foreign);
    let other = StripePrice {
        id: "price_other".to_owned(),
        product: "prod_other".to_owned(),
        lookup_key: None,
        metadata: BTreeMap::new(),
        ..stripe.prices[0].clone()
    };
    stripe.prices.push(other);
    let without = &CATALOG[..CATALOG.find("[credit_packs").expect("packs")];
    let shown: Vec<String> = plan(&catalog(without), &stripe).steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "archive the price pack_100.usd (price_5): not in the catalog",
            "archive the product prod_4: credit pack pack_100 is not for sale",
        ]
    );
}

#[test]
fn one_product_of_several_plans_belongs_to_none() {
    let text = r#"
[plans.free]
name = "Free"
default = true
rank = 0
[plans.a]
name = "A"
rank = 1
prices.monthly = { stripe_price_id = "price_a", currency = "usd", unit_amount = 100, interval = "month" }
[plans.b]
name = "B"
rank = 2
prices.monthly = { stripe_price_id = "price_b", currency = "usd", unit_amount = 200, interval = "month" }
"#;
    let price = |id: &str, unit_amount| StripePrice {
        id: id.to_owned(),
        product: "prod_app".to_owned(),
        active: true,
        currency: "usd".to_owned(),
        unit_amount: Some(unit_amount),
        lookup_key: None,
        nickname: None,
        recurring: Some(Recurring { interval: Interval::Month, interval_count: 1, usage_type: None }),
        metadata: BTreeMap::new(),
        created: 0,
    };
    let app = StripeProduct {
        id: "prod_app".to_owned(),
        name: "App".to_owned(),
        description: None,
        active: true,
        default_price: None,
        metadata: BTreeMap::new(),
        created: 0,
        updated: 0,
    };
    let (mut stripe, mut made) =
        (InStripe { products: vec![app], prices: vec![price("price_a", 100), price("price_b", 200)] }, 0);
    push(&catalog(text), &mut stripe, &mut made, usize::MAX);
    assert_eq!(stripe.products[0].name, "App");
    assert_eq!(active(&stripe), BTreeMap::from([("a.monthly", "price_a"), ("b.monthly", "price_b")]));
    assert!(plan(&catalog(text), &stripe).is_empty());
}

#[test]
fn what_was_pushed_can_be_imported() {
    let (mut stripe, mut made) = (InStripe::default(), 0);
    push(&catalog(CATALOG), &mut stripe, &mut made, usize::MAX);
    push(&catalog(&CATALOG.replace("= 999\n", "= 1299\n")), &mut stripe, &mut made, usize::MAX);
    let imported = import(&stripe);
    let catalog = catalog(&imported.text);
    assert_eq!(imported.notes, [] as [String; 0]);
    assert!(plan(&catalog, &stripe).is_empty(), "{}\n{:#?}", imported.text, plan(&catalog, &stripe));
    assert_eq!(catalog.plan("basic").expect("basic").credits, CreditAllowance::PerPeriod(200));
    assert_eq!(catalog.plan("basic").expect("basic").prices[0].former_stripe_price_ids, ["price_2"]);
    assert_eq!(catalog.pack("pack_100").expect("the pack").credits, 100);
}

#[test]
fn what_a_catalog_cannot_say_is_said_beside_it() {
    let (mut stripe, mut made) = (InStripe::default(), 0);
    push(&catalog(CATALOG), &mut stripe, &mut made, usize::MAX);
    for product in &mut stripe.products {
        product.metadata.clear();
        product.name = "Größe: XL \"2\"\n".to_owned();
    }
    stripe.prices.iter_mut().for_each(|price| price.metadata.clear());
    stripe.prices[0].unit_amount = None;
    let imported = import(&stripe);
    let catalog = catalog(&imported.text);
    assert!(imported.notes.iter().any(|note| note.starts_with("price_2 has tiers")), "{:?}", imported.notes);
    assert!(imported.notes.iter().any(|note| note.contains("how many credits")), "{:?}", imported.notes);
    assert_eq!(catalog.plan("gr_e_xl_2").expect("a plan").prices[0].id, "gr_e_xl_2.yearly");
}

proptest! {
    /// Whatever amounts a catalog goes through, and wherever each push is cut, one price of each name is for sale in the
    /// end, it asks what the catalog says, and no price that was ever sold is forgotten.
    #[test]
    fn any_history_ends_as_the_catalog_says(history in proptest::collection::vec((1i64..4, 1i64..4, 0usize..9, any::<bool>()), 1..7)) {
        let (mut stripe, mut made, mut text) = (InStripe::default(), 0, CATALOG.to_owned());
        let set = |text: &str, from: &str, amount: i64| {
            let at = text.find(from).expect("a price");
            let start = at + text[at..].find("unit_amount = ").expect("an amount") + "unit_amount = ".len();
            let end = start + text[start..].find(|letter: char| !letter.is_ascii_digit()).expect("an end");
            format!("{}{amount}{}", &text[..start], &text[end..])
        };
        for (monthly, pack, cut, is_written) in history {
            text = set(&set(&text, "[plans.basic.prices.monthly]", monthly * 100), "prices.usd", pack * 100);
            push(&catalog(&text), &mut stripe, &mut made, cut);
            if is_written {
                let known: Vec<Assignment> = plan(&catalog(&text), &stripe).assignments;
                text = write_assignments(&text, &known).expect("written");
            }
        }
        push(&catalog(&text), &mut stripe, &mut made, usize::MAX);
        let left = plan(&catalog(&text), &stripe);
        prop_assert_eq!(&left.steps, &[]);
        text = write_assignments(&text, &left.assignments).expect("written");
        let end = catalog(&text);
        prop_assert!(plan(&end, &stripe).is_empty(), "{}", text);
        prop_assert_eq!(active(&stripe).len(), 3);
        for price in &stripe.prices {
            let key = super::super::catalog::PriceKey { stripe_price_id: &price.id, lookup_key: None };
            prop_assert!(end.plan_of_price(key).is_some() || end.pack_of_price(key).is_some(), "{} is forgotten", price.id);
        }
    }
}
