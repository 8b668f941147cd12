//! Usage that is reported, counted once, and invoiced.

use subledger_simulator::World;

use crate::support::{START, ask, customer_with, id, post, refusal, world};

fn metered(world: &mut World) -> (String, String, String, i64) {
    let meter =
        id(&post(world, "billing/meters", "display_name=Calls&event_name=calls&default_aggregation[formula]=sum"));
    let price = id(&post(
        world,
        "prices",
        &format!(
            "currency=usd&product=prod_pro&unit_amount=2&recurring[interval]=month&recurring[usage_type]=metered&recurring[meter]={meter}"
        ),
    ));
    let customer = customer_with(world, "pm_card_visa");
    let made = post(
        world,
        "subscriptions",
        &format!("customer={customer}&items[0][price]={price}&items[1][price]=price_basic"),
    );
    assert!(made["items"]["data"][0].get("quantity").is_none());
    let end = made["items"]["data"][0]["current_period_end"].as_i64().expect("an end");
    (meter, customer, id(&made), end)
}

fn report(customer: &str, value: i64, identifier: &str, at: i64) -> String {
    format!(
        "event_name=calls&payload[stripe_customer_id]={customer}&payload[value]={value}&identifier={identifier}&timestamp={at}"
    )
}

#[test]
fn usage_counts_once_and_is_on_the_renewals_invoice() {
    let mut world = world();
    let (meter, customer, subscription, end) = metered(&mut world);
    post(&mut world, "billing/meter_events", &report(&customer, 100, "a", START + 60));
    let (status, error) = refusal(&mut world, "POST", "billing/meter_events", &report(&customer, 100, "a", START + 60));
    assert_eq!((status, error["code"].as_str()), (400, Some("duplicate_meter_event")));
    world.advance_to(START + 86_400);
    post(&mut world, "billing/meter_events", &report(&customer, 50, "b", START + 80_000));
    world.advance_to(end + 60);
    // The invoice is a draft for an hour: what belongs to the old period still comes onto it.
    post(&mut world, "billing/meter_events", &report(&customer, 7, "c", end - 1));
    post(&mut world, "billing/meter_events", &report(&customer, 1_000, "d", end));
    world.advance_to(end + 7_200);
    let renewed = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice").body;
    let lines = renewed["latest_invoice"]["lines"]["data"].as_array().expect("lines").clone();
    let amounts: Vec<_> = lines.iter().map(|line| (line["quantity"].as_i64(), line["amount"].as_i64())).collect();
    assert_eq!(amounts, [(Some(157), Some(314)), (Some(1), Some(999))]);
    assert_eq!(
        (renewed["latest_invoice"]["amount_paid"].as_i64(), lines[0]["period"]["start"].as_i64()),
        (Some(1_313), Some(START))
    );

    let day = START / 86_400 * 86_400;
    let form = format!("customer={customer}&start_time={day}&end_time={}&value_grouping_window=day", day + 40 * 86_400);
    let summaries = ask(&mut world, "GET", &format!("billing/meters/{meter}/event_summaries"), &form).body;
    let values: Vec<_> =
        summaries["data"].as_array().expect("data").iter().map(|one| one["aggregated_value"].as_f64()).collect();
    assert_eq!(values.iter().flatten().sum::<f64>(), 1_157.0, "{summaries}");
}

#[test]
fn usage_out_of_time_or_of_nobody_is_refused() {
    let mut world = world();
    let (_, customer, _, _) = metered(&mut world);
    for (form, code) in [
        (report(&customer, 1, "x", START - 36 * 86_400), "timestamp_too_far_in_past"),
        (report(&customer, 1, "x", START + 600), "timestamp_in_future"),
        (report("cus_none", 1, "x", START), "resource_missing"),
        (report(&customer, 1, "x", START).replace("event_name=calls", "event_name=other"), "resource_missing"),
    ] {
        let (status, error) = refusal(&mut world, "POST", "billing/meter_events", &form);
        assert_eq!((status, error["code"].as_str()), (400, Some(code)), "{form}");
    }
    post(&mut world, "billing/meter_events", &report(&customer, 1, "x", START - 34 * 86_400));
    let identifiers_are_forgotten = {
        world.advance_to(START + 2 * 86_400);
        ask(&mut world, "POST", "billing/meter_events", &report(&customer, 1, "x", START)).status
    };
    assert_eq!(identifiers_are_forgotten, 200, "after a day");
}

#[test]
fn tiers_are_counted() {
    let mut world = world();
    let meter =
        id(&post(&mut world, "billing/meters", "display_name=Calls&event_name=calls&default_aggregation[formula]=sum"));
    let tiers = "billing_scheme=tiered&tiers_mode=graduated&tiers[0][up_to]=10&tiers[0][unit_amount]=5&tiers[1][up_to]=inf&tiers[1][unit_amount]=1";
    let form = format!(
        "currency=usd&product=prod_pro&recurring[interval]=month&recurring[usage_type]=metered&recurring[meter]={meter}&{tiers}"
    );
    let price = id(&post(&mut world, "prices", &form));
    let customer = customer_with(&mut world, "pm_card_visa");
    let made = post(&mut world, "subscriptions", &format!("customer={customer}&items[0][price]={price}"));
    let end = made["items"]["data"][0]["current_period_end"].as_i64().expect("an end");
    post(&mut world, "billing/meter_events", &report(&customer, 25, "a", START));
    world.advance_to(end + 7_200);
    let renewed = ask(&mut world, "GET", &format!("subscriptions/{}", id(&made)), "expand[]=latest_invoice").body;
    assert_eq!(renewed["latest_invoice"]["total"], 65);
}

#[test]
fn values_below_zero_take_back_and_an_invoice_has_none_of_them() {
    for (values, billed) in [([10, -4], 6), ([10, -30], 0)] {
        let mut world = world();
        let (meter, customer, subscription, end) = metered(&mut world);
        for (value, identifier) in values.into_iter().zip(["a", "b"]) {
            post(&mut world, "billing/meter_events", &report(&customer, value, identifier, START + 60));
        }
        assert_eq!(world.usage(&meter, &customer, (START, end)), values.iter().sum::<i64>() as f64);
        world.advance_to(end + 7_200);
        let renewed = ask(&mut world, "GET", &format!("subscriptions/{subscription}"), "expand[]=latest_invoice").body;
        let line = &renewed["latest_invoice"]["lines"]["data"][0];
        assert_eq!((line["quantity"].as_i64(), line["amount"].as_i64()), (Some(billed), Some(2 * billed)), "{line}");
    }
}

/// What a customer has used in the days around the start.
fn used(world: &mut World, meter: &str, customer: &str) -> f64 {
    let day = START / 86_400 * 86_400;
    let form = format!("customer={customer}&start_time={}&end_time={}", day - 86_400, day + 2 * 86_400);
    let summaries = ask(world, "GET", &format!("billing/meters/{meter}/event_summaries"), &form).body;
    summaries["data"][0]["aggregated_value"].as_f64().expect("a value")
}

#[test]
fn each_formula_counts_as_it_says() {
    for (formula, expected) in [("sum", 12.0), ("count", 3.0), ("last", 4.0)] {
        let mut world = world();
        let form = format!("display_name=Calls&event_name=calls&default_aggregation[formula]={formula}");
        let meter = id(&post(&mut world, "billing/meters", &form));
        let customer = customer_with(&mut world, "pm_card_visa");
        for (value, identifier, at) in [(5, "a", START - 300), (4, "b", START - 60), (3, "c", START - 200)] {
            post(&mut world, "billing/meter_events", &report(&customer, value, identifier, at));
        }
        assert_eq!(used(&mut world, &meter, &customer), expected, "{formula}");
    }
}

#[test]
fn usage_is_taken_back_by_its_identifier() {
    let mut world = world();
    let (meter, customer, _, _) = metered(&mut world);
    post(&mut world, "billing/meter_events", &report(&customer, 5, "a", START));
    post(&mut world, "billing/meter_events", &report(&customer, 4, "b", START));
    post(&mut world, "billing/meter_event_adjustments", "event_name=calls&type=cancel&cancel[identifier]=a");
    assert_eq!(used(&mut world, &meter, &customer), 4.0);
}
