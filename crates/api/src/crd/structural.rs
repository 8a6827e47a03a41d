//! A schema of ours as Kubernetes wants it: structural, with rules in CEL, without words it refuses.

use crate::manifest::Kind;
use crate::rule::{Rule, TABLE};
use serde_json::{Map, Value, json};

/// What both mean the same by.
const KEPT: [&str; 12] = [
    "type",
    "description",
    "required",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "pattern",
];

/// The schema at a path of the rules' table, and all below it.
pub(super) fn schema(kind: Kind, path: &str, ours: &Value) -> Value {
    let mut theirs = Map::new();
    for name in KEPT {
        if let Some(value) = ours.get(name) {
            theirs.insert(name.to_owned(), value.clone());
        }
    }
    if let Some(default) = ours.get("default").filter(|default| !default.is_null()) {
        theirs.insert("default".to_owned(), default.clone());
    }
    format(ours, &mut theirs);
    list(ours, &mut theirs);
    children(kind, path, ours, &mut theirs);
    let mut theirs = Value::Object(theirs);
    add_rules(kind, path, &mut theirs);
    theirs
}

/// The rules that hold at a path.
pub(super) fn add_rules(kind: Kind, path: &str, schema: &mut Value) {
    let here = |rule: &&Rule| rule.kind == kind && rule.path == path;
    let rules: Vec<Value> = TABLE.iter().filter(here).map(validation).collect();
    if !rules.is_empty() {
        schema["x-kubernetes-validations"] = rules.into();
    }
}

fn validation(rule: &Rule) -> Value {
    let message = match rule.hint {
        Some(hint) => format!("{}; {hint}", rule.message),
        None => rule.message.to_owned(),
    };
    let mut validation = json!({"rule": rule.cel, "message": message});
    // The API server says the path itself, but for what is its own.
    if rule.field.starts_with("metadata") {
        validation["message"] = format!("`{}` {message}", rule.field).into();
    } else if !rule.field.is_empty() {
        validation["fieldPath"] = format!(".{}", rule.field).into();
    }
    validation
}

fn format(ours: &Value, theirs: &mut Map<String, Value>) {
    let format = ours
        .get("format")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if let Some(pattern) = crate::format::pattern(format) {
        theirs.insert("pattern".to_owned(), pattern.into());
    }
    match format {
        "mainstay-quantity" | "mainstay-cpu" => {
            theirs.shift_remove("type");
            theirs.insert("x-kubernetes-int-or-string".to_owned(), true.into());
            let either = json!([{"type": "integer"}, {"type": "string"}]);
            theirs.insert("anyOf".to_owned(), either);
        }
        "mainstay-duration" => drop(theirs.insert("minLength".to_owned(), 1.into())),
        "mainstay-url" => drop(theirs.insert("maxLength".to_owned(), 4096.into())),
        "uint32" => drop(theirs.entry("maximum").or_insert(u32::MAX.into())),
        _ => {}
    }
}

/// Which items are the same to a server-side apply, and so may be there once only.
fn list(ours: &Value, theirs: &mut Map<String, Value>) {
    let (kind, key) = match ours.get("x-unique") {
        Some(Value::String(key)) => ("map", Some(key)),
        Some(_) => ("set", None),
        None if ours.get("uniqueItems") == Some(&Value::Bool(true)) => ("set", None),
        None => return,
    };
    theirs.insert("x-kubernetes-list-type".to_owned(), kind.into());
    if let Some(key) = key {
        theirs.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
    }
}

fn children(kind: Kind, path: &str, ours: &Value, theirs: &mut Map<String, Value>) {
    if let Some(fields) = crate::schema::properties(ours) {
        let fields = fields.iter().map(|(name, field)| {
            let below = schema(kind, &format!("{path}.{name}"), field);
            (name.clone(), below)
        });
        theirs.insert("properties".to_owned(), Value::Object(fields.collect()));
        return;
    }
    if let Some(items) = ours.get("items") {
        let items = schema(kind, &format!("{path}[]"), items);
        theirs.insert("items".to_owned(), items);
        return;
    }
    let is_map = ours.get("type").and_then(Value::as_str) == Some("object");
    match ours.get("additionalProperties") {
        Some(value @ Value::Object(_)) => {
            let values = schema(kind, &format!("{path}{{}}"), value);
            theirs.insert("additionalProperties".to_owned(), values);
            if let Some(most) = ours.get("maxProperties") {
                theirs.insert("maxProperties".to_owned(), most.clone());
            }
        }
        // An object without fields stays one; what has no form of ours keeps what it holds.
        Some(Value::Bool(false)) if is_map => {}
        _ if is_map || ours.get("type").is_none() => {
            theirs.insert(
                "x-kubernetes-preserve-unknown-fields".to_owned(),
                true.into(),
            );
        }
        _ => {}
    }
}
