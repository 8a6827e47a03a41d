//! JSON Schemas of what the API takes and prints.
//!
//! Written by hand beside `hub::view`, because the views are the contract and their derive would
//! pull schemas into the hub; the tests serialise each view and compare it with its schema.

use serde_json::{Value, json};

/// `$ref` to a component.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// How a schema's values travel.
pub(super) fn media_type(name: &str) -> &'static str {
    match name {
        "SessionFile" => "application/x-ndjson",
        _ => "application/json",
    }
}

/// A list's shape.
pub(super) fn page_of(name: &str) -> Value {
    object(
        json!({"items": {"type": "array", "items": reference(name)}, "next": nullable("string")}),
    )
}

/// An object whose every property is always there.
fn object(properties: Value) -> Value {
    let required: Vec<_> = properties
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys().cloned())
        .collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn nullable(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn list_of(kind: &str) -> Value {
    json!({"type": "array", "items": {"type": kind}})
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

pub(super) fn all() -> Value {
    json!({
        "Problem": problem(),
        "SubmitTask": submit_task(),
        "ResumeTask": resume_task(),
        "Task": task(),
        "Usage": usage(),
        "Cost": object(json!({"usd": {"type": ["number", "null"], "description": "Null where a price is unknown."}})),
        "TaskError": object(json!({"code": {"type": "string"}, "message": {"type": "string"}})),
        "Step": step(),
        "Session": session(),
        "SessionFile": {"type": "string", "description": "A session as a file: JSON lines, the first naming the log, its signed head and its key, then an entry each with its proof and its payloads."},
        "ImportedSession": imported_session(),
        "ImportedTask": imported_task(),
        "Turn": object(json!({"role": {"enum": ["user", "agent"]}, "content": {}})),
        "Agent": agent(),
        "Instance": instance(),
        "Head": head(),
        "Entry": entry(),
        "Payload": object(json!({"name": {"type": "string"}, "bytes": {"type": "integer"}, "erased": {"type": "boolean"}})),
        "Frame": frame(),
    })
}

fn input() -> Value {
    json!({"type": ["string", "array"], "items": {"type": "object"}, "description": "Text, or a list of A2A parts."})
}

fn problem() -> Value {
    object(json!({
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "The stable word for programs."},
    }))
}

fn submit_task() -> Value {
    json!({
        "type": "object",
        "properties": {
            "input": input(),
            "session": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$", "description": "A name of your choosing, made by its first use."},
            "deadline": time(),
        },
        "required": ["input"],
        "additionalProperties": false,
    })
}

fn resume_task() -> Value {
    json!({
        "type": "object",
        "properties": {
            "step": {"type": "integer", "minimum": 0, "maximum": u32::MAX},
            "as": {"enum": ["done", "repeat", "fail"], "description": "`fail` fails the step, not the task."},
            "result": {"description": "The step's result, with `done`."},
        },
        "required": ["step", "as"],
        "additionalProperties": false,
    })
}

/// A2A's words.
pub(super) fn task_state() -> Value {
    json!({"enum": [
        "submitted", "working", "input-required", "auth-required", "completed", "failed", "canceled", "rejected",
    ]})
}

fn task() -> Value {
    object(json!({
        "id": {"type": "string"},
        "agent": {"type": "string"},
        "session": {"type": "string"},
        "state": task_state(),
        "output": {"description": "Text, or the agent's JSON; null while there is none."},
        "attempts": {"type": "integer"},
        "steps": {"type": "integer", "description": "Delivered to the attempt that ended the task."},
        "replayed": {"type": "integer", "description": "Those of them that came from the journal."},
        "repeated": {"type": "integer", "description": "Calls sent again because nobody can know whether the first arrived."},
        "divergedAt": nullable("integer"),
        "usage": reference("Usage"),
        "cost": reference("Cost"),
        "reason": nullable("string"),
        "error": {"anyOf": [reference("TaskError"), {"type": "null"}]},
        "input": input(),
        "created": time(),
        "updated": time(),
        "generation": nullable("integer"),
        "askedStep": nullable("integer"),
        "parent": nullable("string"),
    }))
}

fn usage() -> Value {
    object(json!({
        "inputTokens": {"type": "integer"},
        "outputTokens": {"type": "integer"},
        "cacheReadTokens": {"type": "integer"},
        "cacheWriteTokens": {"type": "integer"},
        "estimated": {"type": "boolean"},
    }))
}

fn step() -> Value {
    object(json!({
        "n": {"type": "integer"},
        "id": {"type": "string"},
        "kind": {"enum": ["model", "tool"]},
        "name": {"type": "string"},
        "state": {"type": "string"},
        "attempt": {"type": "integer"},
        "replayed": {"type": "boolean"},
        "repeated": {"type": "integer"},
        "model": nullable("string"),
        "usage": reference("Usage"),
        "cost": reference("Cost"),
        "started": time(),
        "ended": {"type": ["string", "null"], "format": "date-time"},
    }))
}

fn session() -> Value {
    let mut schema = object(json!({
        "id": {"type": "string"},
        "agent": {"type": "string"},
        "created": time(),
        "updated": time(),
    }));
    // Lists leave these out.
    schema["properties"]["tasks"] = list_of("string");
    schema["properties"]["turns"] = json!({"type": "array", "items": reference("Turn")});
    schema
}

fn imported_session() -> Value {
    object(json!({
        "session": {"type": "string"},
        "agent": {"type": "string"},
        "origin": {"type": "string", "description": "Of the log that it comes from."},
        "entries": {"type": "integer", "description": "How many were appended."},
        "erased": {"type": "integer", "description": "Payloads that had been erased there."},
        "tasks": {"type": "array", "items": reference("ImportedTask")},
    }))
}

fn imported_task() -> Value {
    object(json!({
        "id": {"type": "string"},
        "agent": {"type": "string"},
        "session": {"type": "string"},
        "state": task_state(),
        "reason": nullable("string"),
        "change": {"enum": ["new", "continued", "returned", "known"]},
    }))
}

fn agent() -> Value {
    object(json!({
        "name": {"type": "string"},
        "runtime": {"type": "string"},
        "state": {"type": "string"},
        "models": list_of("string"),
        "scripted": {"type": "boolean", "description": "A model plays a script instead of thinking."},
        "tools": list_of("string"),
        "replicas": {"type": "integer"},
        "ready": {"type": "integer"},
        "queued": {"type": "integer"},
        "working": {"type": "integer"},
        "generation": nullable("integer"),
        "exposedSecrets": list_of("string"),
    }))
}

fn instance() -> Value {
    object(json!({
        "name": {"type": "string"},
        "agent": {"type": "string"},
        "pid": nullable("integer"),
        "state": {"type": "string"},
        "isolation": {"type": "string"},
        "restarts": {"type": "integer"},
        "lastError": nullable("string"),
        "task": nullable("string"),
        "gatewayPort": {"type": "integer"},
        "shimPid": {"type": "integer"},
    }))
}

fn head() -> Value {
    object(json!({
        "origin": {"type": "string"},
        "size": {"type": "integer"},
        "root": {"type": "string"},
        "text": {"type": "string", "description": "The signed note."},
        "key": {"type": "string", "description": "The key that signs; keep it elsewhere."},
    }))
}

fn entry() -> Value {
    object(json!({
        "seq": {"type": "integer"},
        "time": time(),
        "kind": {"type": "string"},
        "version": {"type": "integer"},
        "subject": {"type": "string"},
        "author": {"type": "string"},
        "data": {},
        "payloads": {"type": "array", "items": reference("Payload")},
    }))
}

fn frame() -> Value {
    json!({
        "type": "object",
        "properties": {
            "id": {"type": "string", "pattern": "^[0-9]+-[0-9]+$"},
            "type": {"enum": ["message", "chunk", "tool_call", "tool_result", "question", "done", "error", "restart"]},
            "role": {"type": "string"},
            "text": {"type": "string"},
            "step": nullable("integer"),
            "name": {"type": "string"},
            "arguments": {},
            "result": {"type": "string"},
            "isError": {"type": "boolean"},
            "reason": {"type": "string"},
            "task": reference("Task"),
            "code": {"type": "string"},
            "message": {"type": "string"},
        },
        "required": ["id", "type"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{self, tests as sample};
    use hub::stream::{Frame, FrameId};
    use hub::view::{
        AgentView, CostView, EntryView, ErrorView, HeadView, ImportView, ImportedTaskView,
        InstanceView, PayloadView, SessionView, StepView, TurnView, UsageView,
    };
    use serde::Serialize;
    use std::collections::BTreeSet;

    fn keys(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    /// The view prints exactly the properties of the schema of that name.
    fn same(name: &str, view: &impl Serialize) {
        let printed = serde_json::to_value(view).unwrap();
        assert_eq!(keys(&printed), keys(&all()[name]["properties"]), "{name}");
    }

    #[test]
    fn every_view_prints_what_its_schema_says() {
        let usage = UsageView::default();
        let cost = CostView { usd: None };
        same("Task", &sample::task());
        same("Usage", &usage);
        same("Cost", &cost);
        same(
            "TaskError",
            &ErrorView {
                code: String::new(),
                message: String::new(),
            },
        );
        same(
            "Step",
            &StepView {
                n: 1,
                id: String::new(),
                kind: "model",
                name: String::new(),
                state: "finished",
                attempt: 1,
                replayed: false,
                repeated: 0,
                model: None,
                usage,
                cost,
                started: String::new(),
                ended: None,
            },
        );
        let turns = vec![TurnView {
            role: "user",
            content: json!("x"),
        }];
        same("Turn", &turns[0]);
        same(
            "Session",
            &SessionView {
                id: String::new(),
                agent: String::new(),
                created: String::new(),
                updated: String::new(),
                tasks: vec![String::new()],
                turns,
            },
        );
        let tasks = vec![ImportedTaskView {
            id: String::new(),
            agent: String::new(),
            session: String::new(),
            state: String::new(),
            reason: None,
            change: "new",
        }];
        same("ImportedTask", &tasks[0]);
        same(
            "ImportedSession",
            &ImportView {
                session: String::new(),
                agent: String::new(),
                origin: String::new(),
                entries: 0,
                erased: 0,
                tasks,
            },
        );
        same(
            "Agent",
            &AgentView {
                name: String::new(),
                runtime: "exec",
                state: "ready",
                models: vec![],
                scripted: false,
                tools: vec![],
                replicas: 1,
                ready: 1,
                queued: 0,
                working: 0,
                generation: None,
                exposed_secrets: vec![],
            },
        );
        same(
            "Instance",
            &InstanceView {
                name: String::new(),
                agent: String::new(),
                pid: None,
                state: "ready",
                isolation: String::new(),
                restarts: 0,
                last_error: None,
                task: None,
                gateway_port: 1,
                shim_pid: 1,
            },
        );
        same(
            "Head",
            &HeadView {
                origin: String::new(),
                size: 0,
                root: String::new(),
                text: String::new(),
                key: String::new(),
            },
        );
        let payloads = vec![PayloadView {
            name: String::new(),
            bytes: 0,
            erased: false,
        }];
        same("Payload", &payloads[0]);
        same(
            "Entry",
            &EntryView {
                seq: 0,
                time: String::new(),
                kind: String::new(),
                version: 1,
                subject: String::new(),
                author: String::new(),
                data: json!({}),
                payloads,
            },
        );
    }

    #[test]
    fn the_frame_schema_knows_every_field_of_every_frame() {
        let schema = all()["Frame"].clone();
        let mut seen = BTreeSet::new();
        for kind in sample::every_kind() {
            let frame: Value = serde_json::from_str(&frames::json(&Frame {
                id: FrameId::default(),
                kind,
            }))
            .unwrap();
            assert!(
                schema["properties"]["type"]["enum"]
                    .as_array()
                    .unwrap()
                    .contains(&frame["type"])
            );
            seen.extend(keys(&frame));
        }
        assert_eq!(seen, keys(&schema["properties"]));
    }
}
