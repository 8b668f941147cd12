//! What customers do on the pages.

use reqwest::{Client, Response};
use serde_json::json;
use subledger_simulator::{Card, SeedPrice, Simulator};

use crate::deliveries::simulator;
use crate::support::{advance_days, advance_months, get, post, subscribe, subscription_of};

fn browser() -> Client {
    Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

async fn text(response: Response) -> String {
    String::from_utf8_lossy(&response.bytes().await.expect("a body")).into_owned()
}

async fn open(url: &str) -> String {
    text(browser().get(url).send().await.expect("a page")).await
}

async fn send(url: &str, form: &str) -> Response {
    let request = browser().post(url).header("Content-Type", "application/x-www-form-urlencoded");
    request.body(form.to_owned()).send().await.expect("a page")
}

/// A seller of a monthly plan and of something in yen.
fn seller() -> Simulator {
    let simulator = simulator(Vec::new());
    simulator.with_world(|world| {
        world.seed_product("prod_pro", "Pro", json!({}));
        for (id, currency, interval) in [("price_pro", "usd", Some("month")), ("price_yen", "jpy", None)] {
            world.seed_price(&SeedPrice {
                id: Some(id.to_owned()),
                product: "prod_pro".to_owned(),
                currency: currency.to_owned(),
                unit_amount: 2_999,
                interval: interval.map(str::to_owned),
                ..SeedPrice::default()
            });
        }
    });
    simulator
}

#[tokio::test]
async fn checkout_says_what_is_paid_and_forgets_nothing_that_was_entered() {
    let simulator = seller();
    let session = |form: &str| {
        let form = format!("{form}&line_items[0][quantity]=1&success_url=https://app.example.com/");
        simulator.with_world(|world| post(world, "checkout/sessions", &form))["url"].as_str().expect("a url").to_owned()
    };
    let trial = "mode=subscription&line_items[0][price]=price_pro&subscription_data[trial_period_days]=14";
    let shown = open(&session(trial)).await;
    for part in ["29.99 USD a month", "Free for 14 days", "0.00 USD"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let yen = session("mode=payment&line_items[0][price]=price_yen");
    assert!(open(&yen).await.contains("2999 JPY"), "yen have no hundredths");
    let declined = text(send(&yen, "card=declines&email=ada%40example.com").await).await;
    assert!(declined.contains("declined") && declined.contains("value=\"ada@example.com\""), "{declined}");
    assert_eq!(send(&yen, "card=good&email=ada%40example.com").await.status(), 303);
    assert!(open(&yen).await.contains("nothing left to pay"));
    simulator.stop().await;
}

#[tokio::test]
async fn an_open_invoice_is_paid_and_the_portal_cancels_and_keeps() {
    let simulator = seller();
    let (subscription, customer, invoice, portal) = simulator.with_world(|world| {
        let session = subscribe(world, "price_pro", "");
        let customer = session["customer"].as_str().expect("one").to_owned();
        world.change_card(&customer, Card::Declines).expect("a customer");
        advance_months(world, 1);
        advance_days(world, 1);
        let subscription = format!("subscriptions/{}", subscription_of(&session));
        let made = get(world, &subscription);
        assert_eq!(made["status"], "past_due");
        let invoice = get(world, &format!("invoices/{}", made["latest_invoice"].as_str().expect("one")));
        let form = format!("customer={customer}&return_url=https://app.example.com/");
        let portal = post(world, "billing_portal/sessions", &form)["url"].as_str().expect("a url").to_owned();
        (subscription, customer, invoice["hosted_invoice_url"].as_str().expect("a url").to_owned(), portal)
    });
    let status = || simulator.with_world(|world| get(world, &subscription));
    assert!(open(&invoice).await.contains("Left to pay"));
    assert!(text(send(&invoice, "card=declines").await).await.contains("declined"));
    assert_eq!(status()["status"], "past_due");
    assert_eq!(send(&invoice, "card=good").await.status(), 303);
    assert_eq!(status()["status"], "active");
    assert!(!open(&invoice).await.contains("<button"), "it is paid");

    let shown = open(&portal).await;
    assert!(shown.contains("Pro, 29.99 USD a month") && shown.contains("renews on"), "{shown}");
    let id = subscription.trim_start_matches("subscriptions/");
    assert_eq!(send(&portal, &format!("act=cancel&subscription={id}")).await.status(), 303);
    assert_eq!(status()["cancel_at_period_end"], true);
    assert!(open(&portal).await.contains("ends on"));
    send(&portal, &format!("act=resume&subscription={id}")).await;
    assert_eq!(status()["cancel_at_period_end"], false);
    assert_eq!(send(&portal, "act=cancel&subscription=sub_of_another").await.status(), 404);
    assert!(simulator.with_world(|world| get(world, &format!("customers/{customer}")))["delinquent"] == false);
    simulator.stop().await;
}
