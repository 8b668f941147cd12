//! The pages that people see: the hosted Checkout page, the portal, an invoice, and an overview with the clock.

use actix_web::http::header;
use actix_web::{HttpResponse, web};
use serde_json::Value;

use super::State;
use crate::time;
use crate::world::read::Read;
use crate::world::{Card, Entered, Outcome};

type Shared = web::Data<State>;
type Form = web::Form<std::collections::HashMap<String, String>>;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(overview))
        .route("/advance", web::post().to(advance))
        .route("/c/pay/{session}", web::get().to(checkout))
        .route("/c/pay/{session}", web::post().to(pay))
        .route("/p/session/{session}", web::get().to(portal))
        .route("/p/session/{session}", web::post().to(act_in_portal))
        .route("/authenticate/{intent}", web::get().to(authentication))
        .route("/authenticate/{intent}", web::post().to(authenticate))
        .route("/i/{invoice}", web::get().to(invoice))
        .route("/i/{invoice}/pdf", web::get().to(invoice_pdf));
}

fn page(title: &str, content: &str) -> HttpResponse {
    let style = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
        table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.3rem .8rem .3rem 0;border-bottom:1px solid #ddd}\
        button{font:inherit;padding:.4rem 1rem;margin:.3rem .3rem .3rem 0}.note{color:#666}";
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{style}</style><h1>{title}</h1>{content}\
         <p class=\"note\">A simulator: no money moves, and Stripe knows nothing of it.</p></html>"
    ))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn money(amount: i64, currency: &str) -> String {
    format!(
        "{}{}.{:02} {}",
        if amount < 0 { "-" } else { "" },
        amount.abs() / 100,
        amount.abs() % 100,
        escaped(&currency.to_uppercase())
    )
}

fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, to)).finish()
}

fn missing(what: &str) -> HttpResponse {
    let mut response = page("Not here", &format!("<p>There is no such {what}.</p>"));
    *response.status_mut() = actix_web::http::StatusCode::NOT_FOUND;
    response
}

async fn checkout(state: Shared, session: web::Path<String>) -> HttpResponse {
    let inner = state.lock();
    let Some(session) = inner.world.object(&session).filter(|object| object.text("object") == "checkout.session")
    else {
        return missing("Checkout session");
    };
    show_session(session, "")
}

fn show_session(session: &Value, note: &str) -> HttpResponse {
    if session.text("status") != "open" {
        return page("Checkout", &format!("<p>This session is {}.</p>", escaped(session.text("status"))));
    }
    let currency = session.text("currency");
    let lines: String = session
        .rows("_line_items")
        .iter()
        .map(|line| {
            let quantity =
                line.maybe_int("quantity").map_or_else(|| "by use".to_owned(), |quantity| quantity.to_string());
            let amount = money(line.int("amount_total"), currency);
            format!("<tr><td>{}<td>{quantity}<td>{amount}</tr>", escaped(line.text("description")))
        })
        .collect();
    let email = session.maybe_text("customer_email").unwrap_or_default();
    let asks = if session["customer"].is_null() {
        format!("<p><label>E-mail <input name=email type=email value=\"{}\"></label></p>", escaped(email))
    } else {
        String::new()
    };
    let code = if session.is("allow_promotion_codes") {
        "<p><label>Promotion code <input name=promotion_code></label></p>"
    } else {
        ""
    };
    let back = session
        .maybe_text("cancel_url")
        .map(|url| format!("<p><a href=\"{}\">Back</a></p>", escaped(url)))
        .unwrap_or_default();
    let buttons = "<button name=card value=good>Pay</button>\
        <button name=card value=declines>Decline</button>\
        <button name=card value=settles_later>Pay from a bank account (settles later)</button>";
    page(
        "Checkout",
        &format!(
            "<p><strong>{}</strong></p><table><tr><th>What<th>Quantity<th>Amount</tr>{lines}</table><p>In all: <strong>{}</strong></p>\
             <form method=post>{asks}{code}{buttons}</form>{back}",
            escaped(note),
            money(session.int("amount_total"), currency)
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
        Ok(Outcome::Declined { .. }) => show_session(shown, "Your card was declined. Try another one."),
        Err(error) => show_session(shown, &error.message),
    }
}

async fn portal(state: Shared, session: web::Path<String>) -> HttpResponse {
    let inner = state.lock();
    let Some(session) = inner.world.object(&session).filter(|object| object.text("object") == "billing_portal.session")
    else {
        return missing("portal session");
    };
    let customer = session.text("customer");
    let of_customer = inner.world.objects("subscription").filter(|object| object.text("customer") == customer);
    let rows: String = of_customer
        .map(|subscription| {
            let id = escaped(subscription.text("id"));
            let (act, says) =
                if subscription.is("cancel_at_period_end") { ("resume", "Keep it") } else { ("cancel", "Cancel at the period's end") };
            let is_over = matches!(subscription.text("status"), "canceled" | "incomplete_expired");
            let button = if is_over {
                String::new()
            } else {
                format!("<form method=post><input type=hidden name=subscription value=\"{id}\"><button name=act value={act}>{says}</button></form>")
            };
            format!("<tr><td>{id}<td>{}<td>{button}</tr>", escaped(subscription.text("status")))
        })
        .collect();
    let back = session
        .maybe_text("return_url")
        .map(|url| format!("<p><a href=\"{}\">Back</a></p>", escaped(url)))
        .unwrap_or_default();
    page("Your subscriptions", &format!("<table><tr><th>Subscription<th>Status<th></tr>{rows}</table>{back}"))
}

async fn act_in_portal(state: Shared, session: web::Path<String>, form: Form) -> HttpResponse {
    let cancels = form.get("act").is_some_and(|act| act == "cancel");
    let subscription = form.get("subscription").map(String::as_str).unwrap_or_default();
    let mut inner = state.lock();
    let owner = inner.world.object(&session).map(|session| session.text("customer").to_owned());
    let belongs =
        inner.world.object(subscription).is_some_and(|object| Some(object.text("customer")) == owner.as_deref());
    if !belongs {
        return missing("subscription of this customer");
    }
    let request = crate::world::Request {
        method: "POST".to_owned(),
        path: format!("subscriptions/{subscription}"),
        parameters: format!("cancel_at_period_end={cancels}").into_bytes(),
        idempotency_key: None,
        version: None,
    };
    inner.world.handle(&request);
    state.bell.notify_one();
    redirect(&format!("/p/session/{session}"))
}

async fn authentication() -> HttpResponse {
    page(
        "Your bank asks",
        "<p>Is this payment yours?</p><form method=post><button name=succeeds value=true>Yes</button>\
         <button name=succeeds value=false>No</button></form>",
    )
}

async fn authenticate(state: Shared, intent: web::Path<String>, form: Form) -> HttpResponse {
    let succeeds = form.get("succeeds").is_some_and(|answer| answer == "true");
    let done = state.lock().world.authenticate(&intent, succeeds);
    state.bell.notify_one();
    match done {
        Ok(()) => page("Your bank asks", "<p>Thank you. You may close this page.</p>"),
        Err(error) => page("Your bank asks", &format!("<p>{}</p>", escaped(&error.message))),
    }
}

async fn invoice(state: Shared, invoice: web::Path<String>) -> HttpResponse {
    let inner = state.lock();
    let Some(invoice) = inner.world.object(&invoice).filter(|object| object.text("object") == "invoice") else {
        return missing("invoice");
    };
    let currency = invoice.text("currency");
    let line = |line: &Value| {
        format!("<tr><td>{}<td>{}</tr>", escaped(line.text("description")), money(line.int("amount"), currency))
    };
    let lines: String = invoice.rows("lines").iter().map(line).collect();
    page(
        &format!("Invoice {}", escaped(invoice.text("number"))),
        &format!(
            "<table>{lines}</table><p>Total {}, paid {}: {}.</p><p><a href=\"/i/{}/pdf\">PDF</a></p>",
            money(invoice.int("total"), currency),
            money(invoice.int("amount_paid"), currency),
            escaped(invoice.text("status")),
            escaped(invoice.text("id"))
        ),
    )
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
        money(invoice.int("total"), invoice.text("currency")),
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

async fn overview(state: Shared) -> HttpResponse {
    let inner = state.lock();
    let world = &inner.world;
    let table = |kind: &'static str, columns: &[&str]| {
        let head: String = columns.iter().map(|column| format!("<th>{column}")).collect();
        let rows: String = world
            .objects(kind)
            .rev()
            .take(20)
            .map(|object| {
                let cell = |column: &&str| match &object[*column] {
                    Value::String(text) if *column == "url" => format!("<td><a href=\"{0}\">pay</a>", escaped(text)),
                    Value::String(text) => format!("<td>{}", escaped(text)),
                    Value::Null => "<td>".to_owned(),
                    other => format!("<td>{}", escaped(&other.to_string())),
                };
                format!("<tr>{}</tr>", columns.iter().map(cell).collect::<String>())
            })
            .collect();
        format!("<h2>{kind}</h2><table><tr>{head}</tr>{rows}</table>")
    };
    let content = format!(
        "<p>It is <strong>{}</strong> here.</p>\
         <form method=post action=/advance><button name=months value=1>Advance 1 month</button><button name=days value=1>Advance 1 day</button>\
         <button name=hours value=1>Advance 1 hour</button></form>{}{}{}{}",
        time::rfc3339(world.now()),
        table("checkout.session", &["id", "mode", "status", "payment_status", "client_reference_id", "url"]),
        table("subscription", &["id", "customer", "status", "cancel_at_period_end", "latest_invoice"]),
        table("customer", &["id", "email", "currency", "balance"]),
        table("invoice", &["id", "customer", "billing_reason", "status", "total", "currency"]),
    );
    page("Simulated Stripe", &content)
}

async fn advance(state: Shared, form: Form) -> HttpResponse {
    let part =
        |key: &str| form.get(key).and_then(|value| value.parse::<i64>().ok()).unwrap_or_default().clamp(0, 1_200);
    let mut inner = state.lock();
    let now = inner.world.now();
    let target = time::add_months(now, part("months")).unwrap_or(now)
        + part("days") * time::DAY_S
        + part("hours") * time::HOUR_S;
    inner.clock = inner.clock.moved_to(target);
    inner.world.advance_to(target);
    state.bell.notify_one();
    redirect("/")
}
