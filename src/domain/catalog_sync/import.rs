//! A catalog file out of what a Stripe account sells.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{CREDITS_METADATA, InStripe, Owner, PRICE_METADATA, StripePrice, StripeProduct};
use crate::domain::catalog::Interval;
use crate::domain::money::Currency;

/// Longest names of the catalog's plans, packs and prices, with room for a number behind them.
const MAX_SLUG: usize = 56;
const MAX_NAME: usize = 200;

/// A catalog file, and what could not be put into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// TOML.
    pub text: String,
    /// For people: what was left out, and why.
    pub notes: Vec<String>,
}

#[derive(Debug)]
struct Plan<'a> {
    id: String,
    product: &'a StripeProduct,
    credits: Option<String>,
    prices: Vec<Price<'a>>,
}

#[derive(Debug)]
struct Price<'a> {
    name: String,
    price: &'a StripePrice,
    former: Vec<&'a str>,
}

/// Writes a catalog of everything that is for sale: products with recurring prices become plans, those paid once become
/// credit packs. How many credits they give is read from their `credits` metadata.
pub fn import(stripe: &InStripe) -> Imported {
    let mut notes = Vec::new();
    let (mut plans, mut packs) = (Vec::new(), Vec::new());
    let (mut plan_ids, mut pack_ids) = (BTreeSet::new(), BTreeSet::new());
    let mut products: Vec<&StripeProduct> = stripe.products.iter().collect();
    // Those that bear our marks keep their names.
    products.sort_by_key(|product| (Owner::of_metadata(&product.metadata).is_none(), product.created, &product.id));
    for product in products {
        let of_product = stripe.prices.iter().filter(|price| price.product == product.id);
        let mut prices: Vec<&StripePrice> = of_product.filter(|price| is_fixed(price, &mut notes)).collect();
        prices.sort_by_key(|price| (price.created, &price.id));
        let is_recurring = |price: &&StripePrice| price.recurring.is_some();
        let (recurring, once): (Vec<&StripePrice>, Vec<&StripePrice>) = prices.into_iter().partition(is_recurring);
        if !product.active {
            notes.push(format!("{} ({}) is archived in Stripe, and left out", product.id, product.name));
            continue;
        }
        let owner = Owner::of_metadata(&product.metadata);
        if recurring.iter().any(|price| price.active) {
            let named = owner.as_ref().filter(|owner| matches!(owner, Owner::Plan(_))).map(Owner::id);
            let id = unused(&named.map_or_else(|| slug(&product.name), str::to_owned), &mut plan_ids);
            let prices = name_prices(&id, &recurring, &mut notes);
            plans.push(Plan { id, product, credits: credits_of(product, &recurring), prices });
        }
        if once.iter().any(|price| price.active) {
            let named = owner.as_ref().filter(|owner| matches!(owner, Owner::CreditPack(_))).map(Owner::id);
            let credits = credits_of(product, &once);
            if credits.as_ref().and_then(|credits| credits.parse::<i64>().ok()).is_none_or(|credits| credits < 1) {
                notes.push(format!(
                    "{} ({}) is paid once, and its metadata do not say how many credits it gives: left out",
                    product.id, product.name
                ));
                continue;
            }
            let id = unused(&named.map_or_else(|| slug(&product.name), str::to_owned), &mut pack_ids);
            let prices = name_prices(&id, &once, &mut notes);
            packs.push(Plan { id, product, credits, prices });
        }
    }
    plans.sort_by_key(|plan| (plan.prices.iter().map(|price| monthly(price.price)).min(), plan.product.created));
    packs.sort_by_key(|pack| pack.credits.as_ref().and_then(|credits| credits.parse::<i64>().ok()));
    Imported { text: write(&plans, &packs, &mut plan_ids), notes }
}

fn credits_of(product: &StripeProduct, prices: &[&StripePrice]) -> Option<String> {
    let of_prices = prices.iter().filter(|price| price.active).find_map(|price| price.metadata.get(CREDITS_METADATA));
    let credits = product.metadata.get(CREDITS_METADATA).or(of_prices)?.trim();
    let is_word = matches!(credits, "none" | "unlimited");
    (is_word || credits.parse::<i64>().is_ok_and(|credits| credits >= 0)).then(|| credits.to_owned())
}

/// Whether the catalog can say what a price asks.
fn is_fixed(price: &StripePrice, notes: &mut Vec<String>) -> bool {
    let metered = price.recurring.as_ref().is_some_and(|recurring| recurring.usage_type.as_deref() == Some("metered"));
    let currency = Currency::parse(&price.currency).ok();
    let fits = currency.is_some_and(|currency| price.unit_amount.is_some_and(|amount| amount % currency.charge_step() == 0));
    let why = match (metered, price.unit_amount) {
        (true, _) => "is metered: name its meter at the feature that is used (stripe_meter)",
        (false, None) => "has tiers or a fraction of a minor unit",
        (false, Some(_)) if !fits => "has a currency or an amount that the catalog cannot have",
        (false, Some(_)) => return true,
    };
    if price.active {
        notes.push(format!("{} {why}; left out", price.id));
    }
    false
}

/// Archived prices are former ones of the price of the same currency and period that is for sale.
fn name_prices<'a>(owner: &str, prices: &[&'a StripePrice], notes: &mut Vec<String>) -> Vec<Price<'a>> {
    let mut names = BTreeSet::new();
    let mut named: Vec<Price<'a>> = Vec::new();
    let first = prices.iter().find(|price| price.active).map(|price| price.currency.as_str()).unwrap_or_default();
    for price in prices.iter().filter(|price| price.active) {
        let known = price.metadata.get(PRICE_METADATA).and_then(|name| name.strip_prefix(owner)?.strip_prefix('.'));
        let name = known.map_or_else(|| price_name(price, first), str::to_owned);
        named.push(Price { name: unused(&name, &mut names), price, former: Vec::new() });
    }
    for price in prices.iter().filter(|price| !price.active) {
        let is_same = |other: &&mut Price<'_>| {
            other.price.currency == price.currency && every(other.price) == every(price)
        };
        match named.iter_mut().find(is_same) {
            Some(successor) => successor.former.push(&price.id),
            None => notes.push(format!("{} of {owner} is archived in Stripe without a successor; left out", price.id)),
        }
    }
    named
}

fn every(price: &StripePrice) -> Option<(u32, Interval)> {
    price.recurring.as_ref().map(|recurring| (recurring.interval_count, recurring.interval))
}

fn price_name(price: &StripePrice, first_currency: &str) -> String {
    let Some((count, interval)) = every(price) else { return price.currency.clone() };
    let period = match (count, interval) {
        (1, Interval::Day) => "daily".to_owned(),
        (1, Interval::Week) => "weekly".to_owned(),
        (1, Interval::Month) => "monthly".to_owned(),
        (1, Interval::Year) => "yearly".to_owned(),
        (count, interval) => format!("every_{count}_{}s", word(interval)),
    };
    if price.currency == first_currency { period } else { format!("{period}_{}", price.currency) }
}

fn word(interval: Interval) -> &'static str {
    match interval {
        Interval::Day => "day",
        Interval::Week => "week",
        Interval::Month => "month",
        Interval::Year => "year",
    }
}

/// What it costs in about a month, for putting plans in order.
fn monthly(price: &StripePrice) -> i64 {
    let amount = price.unit_amount.unwrap_or(0);
    let Some((count, interval)) = every(price) else { return amount };
    let days = match interval {
        Interval::Day => 1,
        Interval::Week => 7,
        Interval::Month => 30,
        Interval::Year => 365,
    };
    amount.saturating_mul(30) / (i64::from(count.max(1)) * days)
}

/// What the catalog takes for an id: lower-case letters, digits and underscores.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for letter in name.chars() {
        match letter.to_ascii_lowercase() {
            letter if letter.is_ascii_alphanumeric() => slug.push(letter),
            _ if !slug.is_empty() && !slug.ends_with('_') => slug.push('_'),
            _ => {}
        }
    }
    slug.truncate(MAX_SLUG);
    let slug = slug.trim_end_matches('_');
    if slug.is_empty() { "product".to_owned() } else { slug.to_owned() }
}

fn unused(wanted: &str, taken: &mut BTreeSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{wanted}_{number}"));
    let free = std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !taken.contains(name));
    let free = free.unwrap_or_else(|| wanted.to_owned());
    taken.insert(free.clone());
    free
}

fn write(plans: &[Plan<'_>], packs: &[Plan<'_>], ids: &mut BTreeSet<String>) -> String {
    let mut text = "# What Stripe sells. Features, rollover, trials and the like are not known there: see the sample catalog.\n"
        .to_owned();
    let free = plans.iter().position(|plan| plan.prices.iter().all(|price| price.price.unit_amount == Some(0)));
    if free.is_none() {
        let id = unused("free", ids);
        let _ = write!(text, "\n[plans.{id}]\nname = \"Free\"\ndefault = true\nrank = 0\n");
    }
    let mut rank = 0;
    for (at, plan) in plans.iter().enumerate() {
        let _ = write!(text, "\n[plans.{}]\nname = {}\n", plan.id, quoted(&name_of(plan.product)));
        if let Some(description) = plan.product.description.as_deref().filter(|text| fits_description(text)) {
            let _ = writeln!(text, "description = {}", quoted(description));
        }
        if free == Some(at) {
            text.push_str("default = true\nrank = 0\n");
        } else {
            rank += 10;
            let _ = writeln!(text, "rank = {rank}");
        }
        match plan.credits.as_deref() {
            None => text.push_str("credits = \"none\" # Stripe does not say: its product has no metadata `credits`\n"),
            Some(word @ ("none" | "unlimited")) => drop(writeln!(text, "credits = \"{word}\"")),
            Some(credits) => drop(writeln!(text, "credits = {credits}")),
        }
        write_prices(&mut text, "plans", plan);
    }
    for pack in packs {
        let credits = pack.credits.as_deref().unwrap_or("1");
        let name = quoted(&name_of(pack.product));
        let _ = write!(text, "\n[credit_packs.{}]\nname = {name}\ncredits = {credits}\n", pack.id);
        write_prices(&mut text, "credit_packs", pack);
    }
    text
}

fn write_prices(text: &mut String, family: &str, plan: &Plan<'_>) {
    for Price { name, price, former } in &plan.prices {
        let _ = write!(text, "\n[{family}.{}.prices.{name}]\nstripe_price_id = {}\n", plan.id, quoted(&price.id));
        if let Some(key) = price.lookup_key.as_deref().filter(|key| key.bytes().all(|byte| byte.is_ascii_graphic())) {
            let _ = writeln!(text, "lookup_key = {}", quoted(key));
        }
        if !former.is_empty() {
            let former: Vec<String> = former.iter().map(|id| quoted(id)).collect();
            let _ = writeln!(text, "former_stripe_price_ids = [{}]", former.join(", "));
        }
        let amount = price.unit_amount.unwrap_or(0);
        let _ = write!(text, "currency = {}\nunit_amount = {amount}\n", quoted(&price.currency));
        if let Some((count, interval)) = every(price) {
            let _ = writeln!(text, "interval = \"{}\"", word(interval));
            if count != 1 {
                let _ = writeln!(text, "interval_count = {count}");
            }
        }
    }
}

fn name_of(product: &StripeProduct) -> String {
    let name: String = product.name.chars().filter(|letter| !letter.is_control()).take(MAX_NAME).collect();
    if name.trim().is_empty() { product.id.clone() } else { name }
}

fn fits_description(text: &str) -> bool {
    let is_short = text.chars().count() <= 2_000;
    is_short && !text.trim().is_empty() && !text.chars().any(|letter| letter.is_control() && letter != '\n')
}

fn quoted(text: &str) -> String {
    toml_edit::Value::from(text).to_string()
}
