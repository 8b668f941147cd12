//! Guards that keep `openapi.yaml` and the service from drifting apart. Every answer that any test receives is held
//! against it too (`support/contract.rs`).

use std::collections::BTreeSet;

use serde_json::{Value, json};
use subledger::http::problem::CODES;
use subledger::http::routes::RouteTable;

use crate::support::TestApp;
use crate::support::contract::{self, DOCUMENT, operations};

fn documented() -> BTreeSet<(String, String)> {
    operations().into_iter().map(|(method, path, _)| (method, path)).collect()
}

#[test]
fn every_route_is_documented_and_every_documented_route_exists() {
    let table = RouteTable::new();
    let registered: BTreeSet<(String, String)> =
        table.all().iter().map(|route| (route.method.to_string(), route.path.to_owned())).collect();
    assert_eq!(registered, documented());
}

#[test]
fn every_operation_names_the_scope_its_route_needs() {
    let table = RouteTable::new();
    for (method, path, operation) in operations() {
        let route = table.all().iter().find(|route| route.method.as_str() == method && route.path == path);
        let needed = route.expect("documented routes exist").scope;
        let expected = needed.map_or(json!([]), |scope| json!([{"key": [scope.as_str()]}]));
        assert_eq!(operation["security"], expected, "{method} {path}");
    }
}

#[test]
fn every_query_parameter_is_known_to_its_route_and_described() {
    let table = RouteTable::new();
    for (method, path, operation) in operations() {
        let route = table.all().iter().find(|route| route.method.as_str() == method && route.path == path);
        let all = operation["parameters"].as_array().into_iter().flatten().map(contract::resolve);
        let described: BTreeSet<&str> = all
            .filter(|parameter| parameter["in"] == "query")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        let known = route.expect("documented routes exist").query.iter().copied().collect();
        assert_eq!(described, known, "{method} {path}");
    }
}

#[test]
fn every_path_parameter_is_described() {
    for (method, path, operation) in operations() {
        let item = &contract::DOCUMENT["paths"][&path];
        let of_path = item["parameters"].as_array().into_iter().flatten();
        let all = of_path.chain(operation["parameters"].as_array().into_iter().flatten());
        let described: BTreeSet<&str> = all
            .map(contract::resolve)
            .filter(|parameter| parameter["in"] == "path")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        let named: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(described, named, "{method} {path}");
    }
}

#[test]
fn every_operation_says_what_it_is_and_under_a_known_tag() {
    let tags: Vec<&Value> = DOCUMENT["tags"].as_array().expect("tags").iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for (method, path, operation) in operations() {
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path}");
        assert!(tags.contains(&&operation["tags"][0]), "{method} {path}");
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "the id {id} is there twice");
    }
}

#[test]
fn every_error_code_is_documented_with_its_status_its_occasion_and_its_cure() {
    let codes = DOCUMENT["components"]["schemas"]["ProblemCode"]["oneOf"].as_array().expect("codes");
    let documented: Vec<&str> = codes.iter().filter_map(|code| code["const"].as_str()).collect();
    assert_eq!(documented, CODES);
    for code in codes {
        assert!(code["x-status"].as_u64().is_some_and(|status| (400..600).contains(&status)), "{code}");
        assert!(code["description"].is_string() && code["x-cure"].is_string(), "{code}");
    }
}

#[test]
fn every_error_code_belongs_to_a_response() {
    let mut named: BTreeSet<&str> = BTreeSet::new();
    for response in DOCUMENT["components"]["responses"].as_object().expect("responses").values() {
        let codes =
            &response["content"]["application/problem+json"]["schema"]["allOf"][1]["properties"]["code"]["enum"];
        named.extend(codes.as_array().expect("the codes of a response").iter().filter_map(Value::as_str));
    }
    // These two are answers to what is no operation.
    named.extend(["method_not_allowed", "no_such_route"]);
    assert_eq!(named, CODES.iter().copied().collect());
}

/// By reading the tests: a code in one of them is one that some test expects.
#[test]
fn every_error_code_is_provoked_by_a_test() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api");
    let files = std::fs::read_dir(folder).expect("this folder").map(|entry| entry.expect("a file").path());
    let tests = files.filter(|path| path.is_file() && !path.ends_with("contract.rs"));
    let text: String = tests.map(|path| std::fs::read_to_string(path).expect("a test")).collect();
    let missing: Vec<&&str> = CODES.iter().filter(|code| !text.contains(&format!("\"{code}\""))).collect();
    assert!(missing.is_empty(), "no test provokes {missing:?}");
}

#[test]
fn every_schema_and_response_is_used() {
    for kind in ["schemas", "responses", "parameters", "headers"] {
        for name in DOCUMENT["components"][kind].as_object().expect("components").keys() {
            let reference = format!("'#/components/{kind}/{name}'");
            assert!(contract::TEXT.contains(&reference), "nothing refers to {reference}");
        }
    }
}

/// Every `example` and `examples` beside a `schema`, with the schema's JSON pointer.
fn examples<'a>(value: &'a Value, pointer: &str, found: &mut Vec<(String, &'a Value)>) {
    let Some(fields) = value.as_object() else {
        for (n, item) in value.as_array().into_iter().flatten().enumerate() {
            examples(item, &format!("{pointer}/{n}"), found);
        }
        return;
    };
    if fields.contains_key("schema") {
        let schema = format!("{pointer}/schema");
        found.extend(fields.get("example").map(|example| (schema.clone(), example)));
        let several = fields.get("examples").and_then(Value::as_object).into_iter().flatten();
        found.extend(several.map(|(_, example)| (schema.clone(), &example["value"])));
    }
    for (key, field) in fields {
        let key = key.replace('~', "~0").replace('/', "~1");
        examples(field, &format!("{pointer}/{key}"), found);
    }
}

#[test]
fn every_example_is_valid() {
    let mut found = Vec::new();
    examples(&DOCUMENT, "", &mut found);
    assert!(found.len() > 40, "only {} examples", found.len());
    for (schema, example) in found {
        let problems = contract::problems(&schema, example);
        assert!(problems.is_empty(), "{schema}: {problems:?}");
    }
}

#[test]
fn every_json_body_has_an_example() {
    for (method, path, operation) in operations() {
        let responses = operation["responses"].as_object().expect("responses");
        let good = responses.iter().filter(|(status, _)| status.starts_with('2'));
        let bodies = good.map(|(_, response)| contract::resolve(response)).chain(operation.get("requestBody"));
        for body in bodies {
            // The document itself is no example of anything.
            let Some(json) = body.pointer("/content/application~1json").filter(|_| path != "/openapi.json") else {
                continue;
            };
            assert!(json.get("example").or(json.get("examples")).is_some(), "{method} {path} has no example");
        }
    }
}

#[tokio::test]
async fn the_document_is_served_as_yaml_as_json_and_as_a_page() {
    let app = TestApp::start().await;
    assert_eq!(app.get("/openapi.yaml").await.text, contract::TEXT);
    let json = app.get("/openapi.json").await.expect(200);
    assert_eq!(json, *DOCUMENT);
    let page = app.get("/docs").await;
    assert!(page.text.contains("<!doctype html>"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none';"), "{policy}");
    assert!(
        !page.text.contains("https://") && !page.text.contains("http://"),
        "the page fetches nothing from elsewhere"
    );
}

/// A judge that lets everything through would be worse than none.
#[test]
fn the_judge_finds_what_is_wrong() {
    let good = json!({"id": "01890a5d-ac96-774b-bcce-b302099a8057", "amount": 5});
    let of_draw = |value: &Value| contract::problems("/components/schemas/Draw", value);
    assert!(of_draw(&good).is_empty());
    assert!(!of_draw(&json!({"id": "no uuid", "amount": 5})).is_empty(), "a format is asserted");
    assert!(!of_draw(&json!({"id": good["id"], "amount": "5"})).is_empty(), "a type is asserted");
    assert!(!of_draw(&json!({"id": good["id"]})).is_empty(), "a missing field is found");
    assert!(!of_draw(&json!({"id": good["id"], "amount": 5, "secret": 1})).is_empty(), "an unknown field is found");
}
