//! The pages that customers see: the hosted Checkout page, the portal, an invoice, and their bank's question.

use std::collections::HashMap;

use actix_web::{HttpResponse, web};
use serde_json::Value;

use super::html::{escaped, link, missing, money, page, redirect, said};
use super::{State, overview};
use crate::time;
use crate::world::read::Read;
use crate::world::{Card, Entered, Outcome, Request, World};

type Shared = web::Data<State>;
type Form = web::Form<HashMap<String, String>>;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(overview::show))
        .route("/advance", web::post().to(overview::advance))
        .route("/c/pay/{session}", web::get().to(checkout))
        .route("/c/pay/{session}", web::post().to(pay))
        .route("/p/session/{session}", web::get().to(portal))
        .route("/p/session/{session}", web::post().to(act_in_portal))
        .route("/authenticate/{intent}", web::get().to(authentication))
        .route("/authenticate/{intent}", web::post().to(authenticate))
        .route("/i/{invoice}", web::get().to(invoice))
        .route("/i/{invoice}", web::post().to(pay_invoice))
        .route("/i/{invoice}/pdf", web::get().to(invoice_pdf));
}

/// An object of a kind.
fn object<'w>(world: &'w World, kind: &str, id: &str) -> Option<&'w Value> {
    world.object(id).filter(|object| object.text("object") == kind)
}

/// What the page itself asks, as a client of the API would.
fn ask(world: &mut World, path: String, parameters: String) -> Result<Value, String> {
    let parameters = parameters.into_bytes();
    let answer = world.handle(&Request { method: "POST".to_owned(), path, parameters, ..Request::default() });
    match answer.status {
        200 => Ok(answer.body),
        _ => Err(answer.body["error"].text("message").to_owned()),
    }
}

/// Such as ` a month`; nothing for what is paid once.
fn interval(price: &Value) -> String {
    let recurring = &price["recurring"];
    match (recurring.text("interval"), recurring.int("interval_count")) {
        ("", _) => String::new(),
        (interval, 1) => format!(" a {interval}"),
        (interval, count) => format!(" every {count} {interval}s"),
    }
}

/// Such as `2026-01-15`.
fn day(moment: i64) -> String {
    time::rfc3339(moment).chars().take(10).collect()
}

async fn checkout(state: Shared, session: web::Path<String>) -> HttpResponse {
    let inner = state.lock();
    match object(&inner.world, "checkout.session", &session) {
        Some(session) => show_session(session, "", &HashMap::new()),
        None => missing("Checkout session"),
    }
}

/// `entered` is what was in the form before.
fn show_session(session: &Value, note: &str, entered: &HashMap<String, String>) -> HttpResponse {
    match session.text("status") {
        "open" => {}
        "complete" => {
            let url = session.maybe_text("success_url");
            let url = url.map(|url| url.replace("{CHECKOUT_SESSION_ID}", session.text("id")));
            let back = link(url.as_deref(), "Go on");
            return page("Checkout", &format!("<p>This session is complete: there is nothing left to pay.</p>{back}"));
        }
        status => {
            let back = link(session.maybe_text("cancel_url"), "Back");
            return page("Checkout", &format!("<p>This session is {}.</p>{back}", escaped(status)));
        }
    }
    let currency = session.text("currency");
    let row = |line: &Value| {
        let quantity = line.maybe_int("quantity").map_or_else(|| "by use".to_owned(), |quantity| quantity.to_string());
        let amount = money(line.int("amount_subtotal"), currency);
        let interval = interval(&line["price"]);
        format!("<tr><td>{}<td>{quantity}<td class=amount>{amount}{interval}</tr>", escaped(line.text("description")))
    };
    let lines: String = session.rows("_line_items").iter().map(row).collect();
    let off = match session["total_details"].int("amount_discount") {
        0 => String::new(),
        off => format!("<tr><td colspan=2>Discount<td class=amount>{}</tr>", money(-off, currency)),
    };
    let data = &session["_data"];
    let trial = match (data.maybe_int("trial_period_days"), data.maybe_int("trial_end")) {
        (Some(days), _) => format!("<p>Free for {days} days; what is paid then is shown above.</p>"),
        (None, Some(end)) => format!("<p>Free until {}; what is paid then is shown above.</p>", day(end)),
        (None, None) => String::new(),
    };
    let before = |key: &str| entered.get(key).map(String::as_str);
    let asks = if session["customer"].is_null() {
        let email = before("email").or(session.maybe_text("customer_email")).unwrap_or_default();
        format!("<label>E-mail <input name=email type=email autocomplete=email value=\"{}\"></label>", escaped(email))
    } else {
        String::new()
    };
    let code = if session.is("allow_promotion_codes") {
        let code = before("promotion_code").unwrap_or_default();
        format!("<label>Promotion code <input name=promotion_code value=\"{}\"></label>", escaped(code))
    } else {
        String::new()
    };
    let later = if session.text("mode") == "payment" {
        "<button name=card value=settles_later>Pay from a bank account (settles later)</button>"
    } else {
        ""
    };
    page(
        "Checkout",
        &format!(
            "{}<table><tr><th>What<th>Quantity<th class=amount>Amount</tr>{lines}{off}\
             <tr class=sum><td colspan=2>To pay now<td class=amount>{}</tr></table>{trial}\
             <form method=post>{asks}{code}<button class=main name=card value=good>Pay</button>\
             <button name=card value=declines>Pay with a card that is declined</button>{later}</form>{}",
            said(note),
            money(session.int("amount_total"), currency),
            link(session.maybe_text("cancel_url"), "Back")
        ),
    )
}

async fn pay(state: Shared, session: web::Path<String>, form: Form) -> HttpResponse {
    let field = |key: &str| form.get(key).filter(|value| !value.is_empty()).cloned();
    let card = field("card").and_then(|card| Card::parse(&card)).unwrap_or(Card::Good);
    let entered = Entered { card, email: field("email"), name: None, promotion_code: field("promotion_code") };
    let mut inner = state.lock();
    let outcome = inner.world.pay_session(&session, &entered);
    state.bell.notify_one();
    let Some(shown) = inner.world.object(&session) else { return missing("Checkout session") };
    match outcome {
        Ok(Outcome::Completed) => match shown.maybe_text("success_url") {
            Some(url) => redirect(&url.replace("{CHECKOUT_SESSION_ID}", &session)),
            None => page("Checkout", "<p>Paid.</p>"),
        },
        Ok(Outcome::Declined { .. }) => show_session(shown, "Your card was declined. Try another one.", &form),
        Err(error) => show_session(shown, &error.message, &form),
    }
}

async fn portal(state: Shared, session: web::Path<String>) -> HttpResponse {
    let inner = state.lock();
    let world = &inner.world;
    let Some(session) = object(world, "billing_portal.session", &session) else { return missing("portal session") };
    let customer = session.text("customer");
    let of_customer =
        |kind: &'static str| world.objects(kind).filter(move |object: &&Value| object.text("customer") == customer);
    let rows: String = of_customer("subscription").map(|subscription| in_portal(world, subscription)).collect();
    let subscriptions = if rows.is_empty() {
        "<p class=note>None.</p>".to_owned()
    } else {
        format!("<table><tr><th>What<th>Status<th></tr>{rows}</table>")
    };
    let bill = |invoice: &Value| {
        let (id, currency) = (escaped(invoice.text("id")), invoice.text("currency"));
        let (at, status) = (day(invoice.int("created")), escaped(invoice.text("status")));
        let total = money(invoice.int("total"), currency);
        format!("<tr><td><a href=\"/i/{id}\">{at}</a><td>{status}<td class=amount>{total}</tr>")
    };
    let bills: String = of_customer("invoice").rev().map(bill).collect();
    page(
        "Your subscriptions",
        &format!(
            "{subscriptions}<h2>Card</h2><form method=post><button name=act value=card>Use a card that works</button>\
             <button name=act value=bad_card>Use one that is declined</button></form>\
             <h2>Invoices</h2><table>{bills}</table>{}",
            link(session.maybe_text("return_url"), "Back")
        ),
    )
}

fn in_portal(world: &World, subscription: &Value) -> String {
    let id = escaped(subscription.text("id"));
    let item = |item: &Value| {
        let price = &item["price"];
        let product = world.object(price.text("product")).map_or("", |product| product.text("name"));
        let quantity = match item.int("quantity") {
            0 | 1 => String::new(),
            quantity => format!("{quantity} × "),
        };
        let amount = money(price.int("unit_amount"), price.text("currency"));
        format!("{quantity}{}, {amount}{}", escaped(product), interval(price))
    };
    let what: Vec<String> = subscription.rows("items").iter().map(item).collect();
    let end = day(subscription["items"]["data"][0].int("current_period_end"));
    let is_ending = subscription.is("cancel_at_period_end");
    let status = match subscription.text("status") {
        over @ ("canceled" | "incomplete_expired") => over.replace('_', " "),
        status if is_ending => format!("{}, ends on {end}", status.replace('_', " ")),
        status => format!("{}, renews on {end}", status.replace('_', " ")),
    };
    let is_over = matches!(subscription.text("status"), "canceled" | "incomplete_expired");
    let (act, says) = if is_ending { ("resume", "Keep it") } else { ("cancel", "Cancel at the period's end") };
    let button = if is_over {
        String::new()
    } else {
        format!(
            "<form method=post><input type=hidden name=subscription value=\"{id}\">\
             <button name=act value={act}>{says}</button></form>"
        )
    };
    format!("<tr><td>{}<br><span class=note>{id}</span><td>{}<td>{button}</tr>", what.join("<br>"), escaped(&status))
}

async fn act_in_portal(state: Shared, session: web::Path<String>, form: Form) -> HttpResponse {
    let field = |key: &str| form.get(key).map(String::as_str).unwrap_or_default();
    let mut inner = state.lock();
    let Some(portal) = object(&inner.world, "billing_portal.session", &session) else {
        return missing("portal session");
    };
    let customer = portal.text("customer").to_owned();
    let card = match field("act") {
        "card" => Some(Card::Good),
        "bad_card" => Some(Card::Declines),
        _ => None,
    };
    let done = match card {
        Some(card) => inner.world.change_card(&customer, card).map_err(|error| error.message),
        None => {
            let subscription = field("subscription");
            let owned = object(&inner.world, "subscription", subscription)
                .is_some_and(|object| object.text("customer") == customer);
            if !owned {
                return missing("subscription of this customer");
            }
            let path = format!("subscriptions/{subscription}");
            ask(&mut inner.world, path, format!("cancel_at_period_end={}", field("act") == "cancel")).map(|_| ())
        }
    };
    state.bell.notify_one();
    let back = format!("/p/session/{session}");
    match done {
        Ok(()) => redirect(&back),
        Err(message) => page("Your subscriptions", &format!("{}{}", said(&message), link(Some(&back), "Back"))),
    }
}

async fn authentication(state: Shared, intent: web::Path<String>) -> HttpResponse {
    let inner = state.lock();
    let Some(intent) = object(&inner.world, "payment_intent", &intent) else { return missing("payment") };
    let amount = money(intent.int("amount"), intent.text("currency"));
    page(
        "Your bank asks",
        &format!(
            "<p>Is this payment of <strong>{amount}</strong> yours?</p>\
             <form method=post><button class=main name=succeeds value=true>Yes</button>\
             <button name=succeeds value=false>No</button></form>"
        ),
    )
}

async fn authenticate(state: Shared, intent: web::Path<String>, form: Form) -> HttpResponse {
    let succeeds = form.get("succeeds").is_some_and(|answer| answer == "true");
    let done = state.lock().world.authenticate(&intent, succeeds);
    state.bell.notify_one();
    match done {
        Ok(()) => page("Your bank asks", "<p>Thank you. You may close this page.</p>"),
        Err(error) => page("Your bank asks", &said(&error.message)),
    }
}

async fn invoice(state: Shared, invoice: web::Path<String>) -> HttpResponse {
    let inner = state.lock();
    match object(&inner.world, "invoice", &invoice) {
        Some(invoice) => show_invoice(invoice, ""),
        None => missing("invoice"),
    }
}

fn show_invoice(invoice: &Value, note: &str) -> HttpResponse {
    let currency = invoice.text("currency");
    let amount = |key: &str| money(invoice.int(key), currency);
    let line = |line: &Value| {
        let (description, amount) = (escaped(line.text("description")), money(line.int("amount"), currency));
        format!("<tr><td>{description}<td class=amount>{amount}</tr>")
    };
    let lines: String = invoice.rows("lines").iter().map(line).collect();
    let pays = if invoice.text("status") == "open" {
        "<form method=post><button class=main name=card value=good>Pay</button>\
         <button name=card value=declines>Pay with a card that is declined</button></form>"
    } else {
        ""
    };
    page(
        &format!("Invoice {}", escaped(invoice.text("number"))),
        &format!(
            "{}<p>Of {}, {}.</p><table>{lines}<tr class=sum><td>Total<td class=amount>{}</tr>\
             <tr><td>Paid<td class=amount>{}</tr><tr><td>Left to pay<td class=amount>{}</tr></table>{pays}\
             <p><a href=\"/i/{}/pdf\">PDF</a></p>",
            said(note),
            day(invoice.int("created")),
            escaped(invoice.text("status")),
            amount("total"),
            amount("amount_paid"),
            amount("amount_remaining"),
            escaped(invoice.text("id"))
        ),
    )
}

/// By a card that the customer keeps.
async fn pay_invoice(state: Shared, id: web::Path<String>, form: Form) -> HttpResponse {
    let mut inner = state.lock();
    let Some(invoice) = object(&inner.world, "invoice", &id) else { return missing("invoice") };
    let customer = invoice.text("customer").to_owned();
    let is_declined = form.get("card").is_some_and(|card| card == "declines");
    let card = if is_declined { "pm_card_chargeCustomerFail" } else { "pm_card_visa" };
    let attached = ask(&mut inner.world, format!("payment_methods/{card}/attach"), format!("customer={customer}"));
    let paid = attached.and_then(|method| {
        ask(&mut inner.world, format!("invoices/{id}/pay"), format!("payment_method={}", method.text("id")))
    });
    state.bell.notify_one();
    match (paid, object(&inner.world, "invoice", &id)) {
        (Err(message), Some(invoice)) => show_invoice(invoice, &message),
        _ => redirect(&format!("/i/{id}")),
    }
}

/// The smallest document that says what it is.
async fn invoice_pdf(state: Shared, invoice: web::Path<String>) -> HttpResponse {
    let inner = state.lock();
    let Some(invoice) = inner.world.object(&invoice).filter(|object| object.text("object") == "invoice") else {
        return missing("invoice");
    };
    let says = format!(
        "Invoice {} over {} ({})",
        invoice.text("number"),
        crate::money::shown(invoice.int("total"), invoice.text("currency")),
        invoice.text("status")
    );
    let text = format!("BT /F1 14 Tf 72 720 Td ({}) Tj ET", says.replace(['(', ')', '\\'], " "));
    let objects = [
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        "<< /Type /Pages /Kids [3 0 R] /Count 1 >>".to_owned(),
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>".to_owned(),
        format!("<< /Length {} >>\nstream\n{text}\nendstream", text.len()),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut document = "%PDF-1.4\n".to_owned();
    let mut places = Vec::new();
    for (index, object) in objects.iter().enumerate() {
        places.push(document.len());
        document.push_str(&format!("{} 0 obj\n{object}\nendobj\n", index + 1));
    }
    let table = document.len();
    let entries: String = places.iter().map(|place| format!("{place:010} 00000 n \n")).collect();
    let count = objects.len() + 1;
    document.push_str(&format!("xref\n0 {count}\n0000000000 65535 f \n{entries}trailer << /Size {count} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n"));
    HttpResponse::Ok().content_type("application/pdf").body(document)
}
