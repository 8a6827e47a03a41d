//! What the operator and the hub say of an object: the schema of its status.

use crate::manifest::Kind;
use serde_json::{Map, Value, json};

pub(super) fn schema(kind: Kind) -> Value {
    let mut fields = Map::new();
    fields.insert(
        "observedGeneration".to_owned(),
        told(integer(), "The generation that the rest is about."),
    );
    fields.insert("conditions".to_owned(), conditions());
    let Value::Object(mut own) = own(kind) else {
        return Value::Null;
    };
    fields.append(&mut own);
    json!({
        "type": "object",
        "description": "What became of it; written by the operator and the hub.",
        "properties": fields,
    })
}

fn own(kind: Kind) -> Value {
    match kind {
        Kind::Agent => json!({
            "replicas": told(integer(), "How many pods there are."),
            "readyReplicas": told(integer(), "How many of them are ready."),
            "selector": told(text(), "Selects its pods."),
            "tasks": {
                "type": "object",
                "description": "Its tasks that have not ended.",
                "properties": {
                    "waiting": told(integer(), "Tasks that wait for an instance."),
                    "working": told(integer(), "Tasks at work."),
                    "open": told(integer(), "All of them."),
                },
            },
            "costToday": told(text(), "US dollars since midnight UTC; absent where a price is unknown."),
            "version": told(text(), "The version that runs."),
        }),
        Kind::Provider => json!({
            "agents": agents(),
        }),
        Kind::PromptPack => json!({
            "version": told(text(), "As written, else of the content's hash."),
            "agents": agents(),
        }),
        Kind::ToolRegistry => json!({
            "toolCount": told(integer(), "How many tools there are, those of MCP servers included."),
            "tools": tools(),
            "agents": agents(),
        }),
        Kind::Workspace => json!({
            "namespace": told(text(), "The namespace it owns or adopted."),
            "hub": {
                "type": "object",
                "properties": {
                    "ready": told(json!({"type": "boolean"}), "Whether it takes tasks."),
                    "address": told(text(), "Where clients in the cluster reach it."),
                },
            },
        }),
    }
}

/// As `metav1.Condition`.
fn conditions() -> Value {
    json!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 316},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                "message": {"type": "string", "maxLength": 32768},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
            },
        },
    })
}

fn tools() -> Value {
    json!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "description": "The tools that there are, and how those of servers are.",
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": told(text(), "As a registry names it: tool, or server/tool."),
                "description": told(text(), "What the model reads."),
                "effect": told(text(), "As the registry says."),
                "healthy": told(json!({"type": "boolean"}), "Whether its server answers."),
                "message": told(text(), "What is wrong with it."),
            },
        },
    })
}

/// Who uses it, and which version of it each runs.
fn agents() -> Value {
    json!({
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "description": "The agents that use it.",
        "items": {
            "type": "object",
            "required": ["name"],
            "properties": {
                "name": told(text(), "The agent."),
                "version": told(text(), "The version of this object that it runs."),
            },
        },
    })
}

fn text() -> Value {
    json!({"type": "string"})
}

fn integer() -> Value {
    json!({"type": "integer", "format": "int64"})
}

fn told(mut schema: Value, description: &str) -> Value {
    schema["description"] = description.into();
    schema
}
