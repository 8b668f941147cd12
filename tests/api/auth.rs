//! Who may call what. The route table is walked, so a route that is not guarded cannot exist unnoticed.

use reqwest::Method;
use serde_json::json;
use subledger::http::auth::Scope;
use subledger::http::routes::{RouteSpec, RouteTable};

use crate::support::*;

/// A path of the route, with something in place of its parameters.
fn path_of(route: &RouteSpec) -> String {
    let filled = route.path.split('/').map(|part| if part.starts_with('{') { "something" } else { part });
    filled.collect::<Vec<_>>().join("/")
}

fn guarded() -> Vec<(Method, String, Scope)> {
    let table = RouteTable::new();
    let guarded = table.all().iter().filter_map(|route| Some((route, route.scope?)));
    let method = |route: &RouteSpec| Method::from_bytes(route.method.as_str().as_bytes()).expect("a method");
    guarded.map(|(route, scope)| (method(route), path_of(route), scope)).collect()
}

async fn make_key(app: &TestApp, scope: &str) -> (String, String) {
    let made = app.post("/v1/admin/keys", json!({"scope": scope})).await.expect(201);
    let text = |field: &str| made[field].as_str().expect("a text").to_owned();
    (text("key_id"), text("key"))
}

#[tokio::test]
async fn every_guarded_route_refuses_whoever_holds_no_valid_key() {
    let app = TestApp::start().await;
    let (revoked_id, revoked) = make_key(&app, "admin").await;
    app.call(Method::DELETE, &format!("/v1/admin/keys/{revoked_id}")).send().await.expect(204);
    for (method, path, _) in guarded() {
        let call = || app.call(method.clone(), &path);
        let refused = call().without_key().send().await;
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
        refused.problem(401, "unauthorized");
        for wrong in ["wrong", "", &revoked, &format!("{ADMIN_KEY}x"), &ADMIN_KEY[1..]] {
            call().key(wrong).send().await.problem(401, "unauthorized");
        }
        for header in [format!("Basic {ADMIN_KEY}"), ADMIN_KEY.to_owned(), "Bearer".to_owned()] {
            call().without_key().header("authorization", &header).send().await.problem(401, "unauthorized");
        }
    }
}

#[tokio::test]
async fn every_guarded_route_refuses_each_scope_that_does_not_cover_it_and_no_other() {
    let app = TestApp::start().await;
    for scope in Scope::ALL {
        let (_, key) = make_key(&app, scope.as_str()).await;
        for (method, path, need) in guarded() {
            let answer = app.call(method.clone(), &path).key(&key).send().await;
            let may = scope == Scope::Admin || scope == need || need == Scope::Read;
            if may {
                assert!(!matches!(answer.status, 401 | 403), "{scope:?} on {method} {path}: {}", answer.text);
            } else {
                let problem = answer.problem(403, "forbidden");
                let detail = problem["detail"].as_str().expect("a detail");
                assert!(detail.contains(scope.as_str()) && detail.contains(need.as_str()), "{detail}");
            }
        }
    }
}

#[tokio::test]
async fn open_routes_need_no_key() {
    let app = TestApp::start().await;
    let table = RouteTable::new();
    let open: Vec<&str> = table.all().iter().filter(|route| route.scope.is_none()).map(|route| route.path).collect();
    let expected = ["/webhooks/stripe", "/healthz", "/readyz", "/metrics", "/openapi.yaml", "/openapi.json", "/docs"];
    assert_eq!(open, expected, "a new open route must be meant to be open");
    for path in &open[1..] {
        app.call(Method::GET, path).without_key().send().await.expect(200);
    }
}

#[tokio::test]
async fn a_key_that_was_in_use_is_refused_at_once_where_it_was_revoked() {
    let app = TestApp::start().await;
    let (key_id, key) = make_key(&app, "read").await;
    app.call(Method::GET, "/v1/plans").key(&key).send().await.expect(200);
    app.call(Method::DELETE, &format!("/v1/admin/keys/{key_id}")).send().await.expect(204);
    app.call(Method::GET, "/v1/plans").key(&key).send().await.problem(401, "unauthorized");
    app.call(Method::DELETE, &format!("/v1/admin/keys/{key_id}")).send().await.problem(404, "not_found");
}

#[tokio::test]
async fn on_loopback_calls_without_a_key_are_let_through_until_the_first_key_exists() {
    let app = TestApp::with(Setup { admin_key: None, ..Setup::default() }).await;
    app.call(Method::GET, "/v1/plans").without_key().send().await.expect(200);
    let made = app.call(Method::POST, "/v1/admin/keys").without_key().json(json!({"scope": "admin"})).send().await;
    let key = made.expect(201)["key"].as_str().expect("a key").to_owned();
    app.call(Method::GET, "/v1/plans").without_key().send().await.problem(401, "unauthorized");
    app.call(Method::GET, "/v1/plans").key(&key).send().await.expect(200);
}

#[tokio::test]
async fn a_wrong_key_is_refused_even_where_none_is_needed() {
    let app = TestApp::with(Setup { admin_key: None, ..Setup::default() }).await;
    app.call(Method::GET, "/v1/plans").key("wrong").send().await.problem(401, "unauthorized");
}

#[tokio::test]
async fn what_is_stored_of_a_key_does_not_reveal_it() {
    let app = TestApp::start().await;
    let (key_id, key) = make_key(&app, "spend").await;
    let listed = app.get("/v1/admin/keys").await;
    assert!(listed.text.contains(&key_id) && !listed.text.contains(&key));
    let rows = app.database().await.query("select row_to_json(k)::text from api_keys k", &[]).await.expect("keys");
    assert!(rows.iter().all(|row| !row.get::<_, String>(0).contains(&key)));
}
