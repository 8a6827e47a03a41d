//! The custom resource definitions: what of their form can be told without an API server.

use api::Kind;
use api::crd;
use api::rule::TABLE;
use serde_json::Value;

/// The API server takes no object of more than about 1.5 MiB, and nobody wants to read more than this.
const MOST_BYTES: usize = 200_000;

/// Words that a structural schema may not have, and words of ours.
const FOREIGN: [&str; 9] = [
    "const",
    "title",
    "examples",
    "$schema",
    "uniqueItems",
    "oneOf",
    "x-minimum",
    "x-maximum",
    "x-unique",
];

#[test]
fn each_definition_is_small() {
    for definition in crd::all() {
        let size = definition.to_string().len();
        assert!(
            size < MOST_BYTES,
            "{}: {size}",
            definition["metadata"]["name"]
        );
    }
}

#[test]
fn there_is_one_for_each_kind_and_every_rule_stands_in_it() {
    let all = crd::all();
    for (definition, kind) in all.iter().zip(Kind::ALL) {
        let spec = &definition["spec"];
        assert_eq!(spec["names"]["kind"], kind.name());
        assert_eq!(spec["conversion"]["strategy"], "None");
        let cluster = kind == Kind::Workspace;
        assert_eq!(
            spec["scope"],
            if cluster { "Cluster" } else { "Namespaced" }
        );
        let mut rules = Vec::new();
        collect(
            &spec["versions"][0]["schema"]["openAPIV3Schema"],
            &mut rules,
        );
        let expected = TABLE.iter().filter(|rule| rule.kind == kind);
        for rule in expected.clone() {
            assert!(
                rules.iter().any(|text| text == rule.cel),
                "{kind}: {}",
                rule.cel
            );
        }
        assert_eq!(rules.len(), expected.count(), "{kind}");
    }
    assert_eq!(all.len(), Kind::ALL.len());
}

#[test]
fn every_schema_is_structural() {
    for definition in crd::all() {
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        structural(
            schema,
            definition["metadata"]["name"].as_str().expect("a name"),
        );
    }
}

#[test]
fn an_agent_scales() {
    let agent = &crd::all()[Kind::Agent as usize]["spec"]["versions"][0];
    let scale = &agent["subresources"]["scale"];
    assert_eq!(scale["specReplicasPath"], ".spec.replicas");
    let spec = &agent["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    assert_eq!(spec["replicas"]["default"], 1);
    assert_eq!(spec["image"]["type"], "string");
    let memory = &spec["resources"]["properties"]["memory"];
    assert_eq!(memory["x-kubernetes-int-or-string"], true);
    assert_eq!(memory.get("type"), None);
}

fn collect(schema: &Value, rules: &mut Vec<String>) {
    let own = schema["x-kubernetes-validations"].as_array();
    let own = own.into_iter().flatten();
    rules.extend(own.map(|rule| rule["rule"].as_str().expect("a rule").to_owned()));
    below(schema, |_, schema| collect(schema, rules));
}

fn structural(schema: &Value, path: &str) {
    for word in FOREIGN {
        assert_eq!(schema.get(word), None, "{path}: {word}");
    }
    let typed = schema["type"].is_string()
        || schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    assert!(typed, "{path} has no type");
    let both = schema.get("properties").is_some() && schema.get("additionalProperties").is_some();
    assert!(!both, "{path} has properties and additionalProperties");
    assert_ne!(schema.get("default"), Some(&Value::Null), "{path}");
    if schema["type"] == "array" {
        assert!(schema["items"].is_object(), "{path} has no items");
    }
    below(schema, |name, schema| {
        structural(schema, &format!("{path}.{name}"))
    });
}

fn below(schema: &Value, mut each: impl FnMut(&str, &Value)) {
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        each(name, schema);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(schema) = schema.get(name) {
            each(name, schema);
        }
    }
}
