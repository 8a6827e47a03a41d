//! JSON Schema of the kinds: for editors, and as the one description that documents are checked against.
//!
//! Generated from the spec structs, then made structural: no references, no `null` alternatives. So whatever serde reads
//! is what the schema says, and a new field needs no second place.

use crate::manifest::{Kind, Metadata};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// For editors: a manifest is exactly one of the kinds.
pub fn schema() -> Value {
    let kinds: Vec<Value> = Kind::ALL
        .iter()
        .map(|kind| exported(kind_schema(*kind).clone()))
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Mainstay manifest",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "properties": {
            "apiVersion": {"const": crate::API_VERSION},
            "kind": {"enum": Kind::ALL.map(Kind::name)},
        },
        "oneOf": kinds,
    })
}

/// A whole manifest of one kind.
pub(crate) fn kind_schema(kind: Kind) -> &'static Value {
    static SCHEMAS: OnceLock<Vec<Value>> = OnceLock::new();
    &SCHEMAS.get_or_init(|| {
        Kind::ALL
            .iter()
            .map(|kind| manifest_schema(*kind))
            .collect()
    })[kind as usize]
}

fn manifest_schema(kind: Kind) -> Value {
    let spec = match kind {
        Kind::Provider => structural::<crate::provider::ProviderSpec>(),
        Kind::PromptPack => structural::<crate::prompt_pack::PromptPackSpec>(),
        Kind::ToolRegistry => structural::<crate::tool_registry::ToolRegistrySpec>(),
        Kind::Agent => structural::<crate::agent::AgentSpec>(),
        Kind::Workspace => structural::<crate::workspace::WorkspaceSpec>(),
    };
    let mut required = vec!["apiVersion", "kind", "metadata"];
    if spec.get("required").is_some() {
        required.push("spec");
    }
    json!({
        "title": kind.name(),
        "description": spec.get("description"),
        "type": "object",
        "required": required,
        "additionalProperties": false,
        "properties": {
            "apiVersion": {"type": "string", "const": crate::API_VERSION},
            "kind": {"type": "string", "const": kind.name()},
            "metadata": structural::<Metadata>(),
            "spec": spec,
        },
    })
}

fn structural<T: schemars::JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    simplify(&mut schema);
    if let Value::Object(map) = &mut schema {
        map.shift_remove("$schema");
        map.shift_remove("title");
    }
    schema
}

/// `null` is the same as leaving a field out, so it never appears as a type.
fn simplify(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    if let Some(Value::Array(mut variants)) = map.shift_remove("anyOf") {
        variants.retain(|variant| variant.get("type") != Some(&json!("null")));
        match variants.as_mut_slice() {
            [Value::Object(only)] => {
                for (name, value) in std::mem::take(only) {
                    map.entry(name).or_insert(value);
                }
            }
            _ => drop(map.insert("anyOf".to_owned(), Value::Array(variants))),
        }
    }
    if let Some(Value::Array(types)) = map.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            map.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(values)) = map.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    for (name, value) in map.iter_mut() {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(simplify),
            ("items" | "additionalProperties", inner) => simplify(inner),
            _ => {}
        }
    }
}

/// Without what only the checker reads, and with a pattern for every format of ours.
fn exported(mut schema: Value) -> Value {
    export_map(&mut schema);
    schema
}

fn export_map(schema: &mut Value) {
    let Value::Object(map) = schema else { return };
    map.retain(|name, _| !name.starts_with("x-"));
    if let Some(Value::String(format)) = map.shift_remove("format")
        && let Some(pattern) = crate::format::pattern(&format)
    {
        map.insert("pattern".to_owned(), json!(pattern));
    }
    for (name, value) in map.iter_mut() {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties.values_mut().for_each(export_map)
            }
            ("items" | "additionalProperties", inner) => export_map(inner),
            _ => {}
        }
    }
}

/// The properties of an object's schema.
pub(crate) fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}
