//! `openapi.yaml` as the judge of every answer a test receives.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::{Draft, Registry, Validator};
use serde_json::{Value, json};

use super::answer::Answer;

pub const TEXT: &str = include_str!("../../../openapi.yaml");

const METHODS: &[&str] = &["get", "put", "post", "delete", "patch"];
/// Response headers that mean something: none may come undeclared.
const TELLING_HEADERS: &[&str] = &["x-request-id", "idempotent-replayed", "retry-after", "www-authenticate", "allow"];

/// The contract as written.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_saphyr::from_str(TEXT).expect("openapi.yaml is YAML"));

/// The contract in which nothing may be said that it does not name.
static STRICT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = DOCUMENT.clone();
    close_objects(&mut document);
    document
});

static REGISTRY: LazyLock<Registry<'static>> = LazyLock::new(|| {
    let registry = Registry::new().draft(Draft::Draft202012).add("urn:openapi", STRICT.clone());
    registry.expect("a resource").prepare().expect("references that lead somewhere")
});

static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// A client must bear fields it does not know, so the contract leaves its objects open; a field that the contract does
/// not know is a gap in it all the same.
fn close_objects(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            let is_schema = fields.get("type") == Some(&json!("object")) && fields.contains_key("properties");
            if is_schema && !fields.contains_key("additionalProperties") {
                fields.insert("additionalProperties".to_owned(), Value::Bool(false));
            }
            fields.values_mut().for_each(close_objects);
        }
        Value::Array(items) => items.iter_mut().for_each(close_objects),
        _ => {}
    }
}

/// Every documented operation: method in upper case, path template, the operation itself.
pub fn operations() -> Vec<(String, String, &'static Value)> {
    let paths = STRICT["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, item)| {
        METHODS.iter().filter_map(move |method| {
            let operation = item.get(*method)?;
            Some((method.to_uppercase(), path.clone(), operation))
        })
    });
    all.collect()
}

/// The template of a path, as the router would choose it: literal segments before parameters.
pub fn template_of(path: &str) -> Option<&'static str> {
    let path = path.split('?').next().unwrap_or(path);
    let fits = |template: &str| {
        let (have, want): (Vec<&str>, Vec<&str>) = (path.split('/').collect(), template.split('/').collect());
        have.len() == want.len()
            && have.iter().zip(&want).all(|(have, want)| have == want || (want.starts_with('{') && !have.is_empty()))
    };
    let paths = STRICT["paths"].as_object().expect("paths");
    let fitting = paths.keys().filter(|template| fits(template));
    fitting.min_by_key(|template| template.matches('{').count()).map(String::as_str)
}

/// Follows a reference within the document.
pub fn resolve(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => STRICT.pointer(reference.trim_start_matches('#')).expect("a reference that leads somewhere"),
        None => value,
    }
}

fn escape(part: &str) -> String {
    part.replace('~', "~0").replace('/', "~1")
}

/// What is wrong with a value, by the schema at a JSON pointer of the document.
pub fn problems(pointer: &str, value: &Value) -> Vec<String> {
    let mut validators = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let validator = Arc::clone(validators.entry(pointer.to_owned()).or_insert_with(|| {
        let fragment = pointer.replace('{', "%7B").replace('}', "%7D");
        let options = jsonschema::options().with_draft(Draft::Draft202012).with_registry(&REGISTRY);
        let schema = json!({"$ref": format!("urn:openapi#{fragment}")});
        Arc::new(options.should_validate_formats(true).build(&schema).expect("a valid schema"))
    }));
    drop(validators);
    validator.iter_errors(value).map(|error| format!("{error} at {}", error.instance_path())).collect()
}

/// Where a response of an operation is described.
fn response_pointer(method: &str, template: &str, status: u16) -> String {
    let pointer = format!("/paths/{}/{}/responses/{status}", escape(template), method.to_lowercase());
    match STRICT.pointer(&pointer).and_then(|response| response.get("$ref")).and_then(Value::as_str) {
        Some(reference) => reference.trim_start_matches('#').to_owned(),
        None => pointer,
    }
}

/// Holds an answer against the contract. Answers the path template, if the contract has one.
pub fn check(method: &str, path: &str, request: Option<&Value>, answer: &Answer) -> Option<String> {
    let name = format!("{} answered {}", answer.request, answer.status);
    let template = template_of(path);
    let operation = template.and_then(|template| STRICT["paths"][template].get(method.to_lowercase()));
    let (Some(template), Some(operation)) = (template, operation) else {
        // No such route, or not for this method: only ever a problem.
        assert!(matches!(answer.status, 404 | 405), "{name}, but the contract has no such operation");
        assert_eq!(answer.media_type(), "application/problem+json", "{name}");
        let problems = problems("/components/schemas/Problem", &answer.body);
        assert!(problems.is_empty(), "{name}: {problems:?}\n{}", answer.text);
        return None;
    };
    let pointer = response_pointer(method, template, answer.status);
    let Some(response) = STRICT.pointer(&pointer) else { panic!("{name}, which is not declared: {}", answer.text) };
    check_headers(&name, response, answer);
    check_body(&name, &pointer, response, answer);
    if (200..300).contains(&answer.status) {
        check_request(&name, template, method, operation, path, request);
    }
    Some(template.to_owned())
}

fn check_headers(name: &str, response: &'static Value, answer: &Answer) {
    let declared = response.get("headers").and_then(Value::as_object);
    for (header, description) in declared.into_iter().flatten() {
        let is_required = resolve(description)["required"] == true;
        assert!(!is_required || answer.header(header).is_some(), "{name} without {header}");
    }
    for header in TELLING_HEADERS.iter().filter(|header| answer.header(header).is_some()) {
        let is_declared = declared.is_some_and(|all| all.keys().any(|name| name.eq_ignore_ascii_case(header)));
        assert!(is_declared, "{name} with the header {header}, which is not declared");
    }
}

fn check_body(name: &str, pointer: &str, response: &Value, answer: &Answer) {
    let Some(content) = response.get("content") else {
        assert!(answer.text.is_empty(), "{name} with a body, and none is declared: {}", answer.text);
        return;
    };
    let media_type = answer.media_type();
    assert!(content.get(media_type).is_some(), "{name} with the media type {media_type:?}, which is not declared");
    let value = if media_type.ends_with("json") { answer.body.clone() } else { Value::String(answer.text.clone()) };
    let problems = problems(&format!("{pointer}/content/{}/schema", escape(media_type)), &value);
    assert!(problems.is_empty(), "{name}, against the contract: {problems:?}\n{}", answer.text);
}

/// What was accepted must be what the contract allows to be sent.
fn check_request(
    name: &str,
    template: &str,
    method: &str,
    operation: &'static Value,
    path: &str,
    request: Option<&Value>,
) {
    let parameters = operation["parameters"].as_array().into_iter().flatten().map(resolve);
    let known: Vec<&str> =
        parameters.filter(|parameter| parameter["in"] == "query").filter_map(|p| p["name"].as_str()).collect();
    let query = path.split_once('?').map_or("", |(_, query)| query);
    for parameter in query.split('&').filter(|part| !part.is_empty()) {
        let parameter = parameter.split('=').next().unwrap_or(parameter);
        assert!(known.contains(&parameter), "{name} although the contract has no parameter {parameter}");
    }
    if let (Some(body), Some(_)) = (request, operation.get("requestBody")) {
        let at = format!("/paths/{}/{}/requestBody/content", escape(template), method.to_lowercase());
        let problems = problems(&format!("{at}/application~1json/schema"), body);
        assert!(problems.is_empty(), "{name} although the contract does not allow the request: {problems:?}");
    }
}
