//! The OpenAPI 3.1 document, made from the list of operations.

use axum::Json;
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::{Answer, Method, Operation, Parameter, Place, operations, read, schema};

pub(super) fn operation() -> Operation {
    Operation {
        errors: &[],
        ..read(
            "/api/v1/openapi.json",
            "openapi",
            "This document.",
            Answer::Object,
            || get(show),
        )
    }
}

async fn show() -> Json<Value> {
    Json(document())
}

fn document() -> Value {
    let mut paths = Map::new();
    for operation in operations() {
        let method = match operation.method {
            Method::Get => "get",
            Method::Post => "post",
        };
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[method] = describe(&operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Mainstay", "version": env!("CARGO_PKG_VERSION"), "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schema::all(),
            "responses": {"Problem": {"description": "What went wrong.", "content": content("application/problem+json", "Problem")}},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "`mainstay token` prints it."}},
        },
    })
}

fn describe(operation: &Operation) -> Value {
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": path_parameters(operation.path).chain(operation.parameters.iter().map(parameter)).collect::<Vec<_>>(),
        "responses": responses(operation),
    });
    if let Some(body) = operation.body {
        described["requestBody"] =
            json!({"required": true, "content": content(schema::media_type(body), body)});
    }
    described
}

/// The names in braces.
fn path_parameters(path: &'static str) -> impl Iterator<Item = Value> {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
    )
}

fn parameter(parameter: &Parameter) -> Value {
    let place = match parameter.place {
        Place::Query => "query",
        Place::Header => "header",
    };
    json!({"name": parameter.name, "in": place, "required": false, "description": parameter.text, "schema": schema_of(parameter)})
}

/// What a parameter's values are, as exactly as handlers take them.
fn schema_of(parameter: &Parameter) -> Value {
    match parameter.name {
        "limit" => json!({"type": "integer", "minimum": 1, "maximum": 200}),
        "state" => schema::task_state(),
        "Idempotency-Key" => json!({"type": "string", "pattern": "^[!-~]([ -~]{0,254}[!-~])?$"}),
        _ if parameter.integer => json!({"type": "integer", "minimum": 0}),
        _ => json!({"type": "string"}),
    }
}

fn responses(operation: &Operation) -> Value {
    let mut responses = Map::new();
    let (status, success) = success(operation.answer);
    responses.insert(status.to_owned(), success);
    for status in operation.errors.iter().chain(&[401, 403, 421]) {
        responses.insert(
            status.to_string(),
            json!({"$ref": "#/components/responses/Problem"}),
        );
    }
    if matches!(operation.answer, Answer::Events("Frame")) {
        responses.insert("204".into(), json!({"description": "The task has ended and nothing follows the last event that was seen."}));
    }
    Value::Object(responses)
}

fn success(answer: Answer) -> (&'static str, Value) {
    let ok = |content: Value| ("200", json!({"description": "Done.", "content": content}));
    match answer {
        Answer::One(name) => ok(content(schema::media_type(name), name)),
        Answer::Object => ok(json!({"application/json": {"schema": {"type": "object"}}})),
        Answer::List(name) => ok(json!({"application/json": {"schema": schema::page_of(name)}})),
        Answer::Events(name) => ok(json!({"text/event-stream": {
            "schema": {"type": "string", "description": format!("Server-sent events; the data of each is a {name}."), "contentMediaType": "text/event-stream"}}})),
        Answer::Created(name) => {
            let headers = json!({
                "Location": {"description": "The task's address.", "schema": {"type": "string"}},
                "Preference-Applied": {"description": "How long was waited at most.", "schema": {"type": "string"}},
            });
            (
                "201",
                json!({"description": "Submitted, durably.", "headers": headers, "content": content("application/json", name)}),
            )
        }
    }
}

fn content(media_type: &str, schema: &str) -> Value {
    json!({media_type: {"schema": schema::reference(schema)}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_is_described_and_nothing_else() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let described: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(move |method| format!("{method} {path}"))
            })
            .collect();
        let served = operations()
            .iter()
            .map(|operation| {
                format!("{:?} {}", operation.method, operation.path)
                    .replacen('G', "g", 1)
                    .replacen('P', "p", 1)
            })
            .collect();
        assert_eq!(described, served);
    }

    #[test]
    fn operation_ids_are_unique_and_every_reference_leads_somewhere() {
        let document = document();
        let operations = operations();
        assert_eq!(
            operations
                .iter()
                .map(|operation| operation.id)
                .collect::<BTreeSet<_>>()
                .len(),
            operations.len()
        );
        let mut open = vec![&document];
        let mut references = 0;
        while let Some(value) = open.pop() {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(reference)) = map.get("$ref") {
                        assert!(
                            document
                                .pointer(reference.trim_start_matches('#'))
                                .is_some(),
                            "{reference}"
                        );
                        references += 1;
                    }
                    open.extend(map.values());
                }
                Value::Array(list) => open.extend(list),
                _ => {}
            }
        }
        assert!(references > 30);
    }

    #[test]
    fn a_parameters_schema_is_what_the_handlers_take() {
        let document = document();
        let parameters = document["paths"]["/api/v1/tasks"]["get"]["parameters"].clone();
        let schema = |name: &str| {
            let parameters = parameters.as_array().unwrap().iter();
            let mut named = parameters.filter(|parameter| parameter["name"] == name);
            named.next().unwrap()["schema"].clone()
        };
        let limit = schema("limit");
        for n in [0, 1, 200, 201] {
            let fits = limit["minimum"].as_u64() <= Some(n) && Some(n) <= limit["maximum"].as_u64();
            let is_taken = crate::decode::page_limit(Some(usize::try_from(n).unwrap())).is_ok();
            assert_eq!(fits, is_taken, "{n}");
        }
        for word in schema("state")["enum"].as_array().unwrap() {
            assert!(super::super::task::state_word(word.as_str().unwrap()).is_ok());
        }
    }

    #[test]
    fn every_parameter_of_a_path_is_declared() {
        let document = document();
        let submit = &document["paths"]["/api/v1/agents/{agent}/tasks"]["post"];
        assert_eq!(
            submit["parameters"][0],
            json!({"name": "agent", "in": "path", "required": true, "schema": {"type": "string"}})
        );
        assert_eq!(
            submit["requestBody"]["content"]["application/json"]["schema"]["$ref"],
            "#/components/schemas/SubmitTask"
        );
        assert!(submit["responses"]["429"].is_object());
    }
}
