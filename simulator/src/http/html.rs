//! What the pages are put together from.

use actix_web::HttpResponse;
use actix_web::http::header;

const STYLE: &str = "\
    body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:2.5rem auto;padding:0 1rem;color:#1a1f36}\
    body.wide{max-width:80rem}\
    h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2rem 0 .4rem}\
    .scroll{overflow-x:auto}\
    table{border-collapse:collapse;width:100%}\
    td,th{text-align:left;vertical-align:top;padding:.45rem 1rem .45rem 0;border-bottom:1px solid #e3e8ee}\
    .wide td,.wide th{white-space:nowrap}\
    th{color:#5b6780;font-size:.875rem;font-weight:600}\
    td.amount,th.amount{text-align:right;padding-right:0;white-space:nowrap}\
    tr.sum td{border-bottom:0;font-weight:600}\
    button{font:inherit;padding:.5rem 1.1rem;margin:.3rem .4rem .3rem 0;border:1px solid #b7c0cc;border-radius:.4rem;\
        background:#fff;color:inherit;cursor:pointer}\
    button.main{background:#1f5fbf;border-color:#1f5fbf;color:#fff}\
    label{display:block;margin:.8rem 0}\
    input{font:inherit;display:block;box-sizing:border-box;width:100%;max-width:24rem;padding:.45rem .6rem;\
        border:1px solid #b7c0cc;border-radius:.4rem}\
    .said{background:#fff4e5;border:1px solid #f0c48a;border-radius:.4rem;padding:.5rem .8rem}\
    .note{color:#5b6780;font-size:.875rem}a{color:#1f5fbf}";

/// A page for a customer.
pub fn page(title: &str, content: &str) -> HttpResponse {
    document(title, "", content)
}

/// A page with wide tables.
pub fn wide_page(title: &str, content: &str) -> HttpResponse {
    document(title, " class=wide", content)
}

fn document(title: &str, class: &str, content: &str) -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><link rel=\"icon\" href=\"data:,\">\
         <title>{title}</title><style>{STYLE}</style></head><body{class}><h1>{title}</h1>{content}\
         <p class=\"note\">A simulator: no money moves, and Stripe knows nothing of it.</p></body></html>"
    ))
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// An amount as people read it.
pub fn money(amount: i64, currency: &str) -> String {
    escaped(&crate::money::shown(amount, currency))
}

/// Something that the reader must see first; nothing for an empty text.
pub fn said(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("<p class=said role=alert>{}</p>", escaped(text)) }
}

/// A link, if it leads anywhere.
pub fn link(url: Option<&str>, text: &str) -> String {
    url.map(|url| format!("<p><a href=\"{}\">{text}</a></p>", escaped(url))).unwrap_or_default()
}

pub fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, to)).finish()
}

pub fn missing(what: &str) -> HttpResponse {
    let mut response = page("Not here", &format!("<p>There is no such {what}.</p>"));
    *response.status_mut() = actix_web::http::StatusCode::NOT_FOUND;
    response
}
