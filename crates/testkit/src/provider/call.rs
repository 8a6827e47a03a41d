//! A request as the fake provider reads it: which dialect, which conversation, which turn.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use axum::http::HeaderMap;
use serde_json::Value;

/// How a request is spelt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Chat,
    Responses,
    Messages,
    Embeddings,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call {
    pub dialect: Dialect,
    pub stream: bool,
    pub model: String,
    /// Text of the first user message.
    pub conversation: String,
    /// How many turns the model has had before this one.
    pub turn: u32,
    /// Text of the last item, whoever made it.
    pub last: String,
    /// Names of the tools on offer.
    pub tools: Vec<String>,
    pub body: Value,
    /// Of the body; equal bodies have equal ones.
    pub fingerprint: u64,
    /// What came as `Authorization: Bearer` or `x-api-key`.
    pub credential: Option<String>,
    /// All headers, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Call {
    pub(super) fn parse(path: &str, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let dialect = match path {
            "/v1/chat/completions" => Dialect::Chat,
            "/v1/responses" => Dialect::Responses,
            "/v1/messages" => Dialect::Messages,
            "/v1/embeddings" => Dialect::Embeddings,
            _ => return None,
        };
        let items = items(dialect, &body);
        let first = items.iter().find(|item| item["role"] == "user");
        let mut hasher = DefaultHasher::new();
        body.to_string().hash(&mut hasher);
        Some(Self {
            dialect,
            stream: body["stream"] == true,
            model: body["model"].as_str().unwrap_or_default().to_owned(),
            conversation: first.map(text).unwrap_or_default(),
            turn: turns(&items),
            last: items.last().map(text).unwrap_or_default(),
            tools: tools(&body),
            fingerprint: hasher.finish(),
            credential: credential(headers),
            headers: all(headers),
            body,
        })
    }

    /// The offered tool whose name is this or ends in `__` and this; the name itself if none is.
    #[must_use]
    pub fn tool_named(&self, name: &str) -> String {
        let suffix = format!("__{name}");
        let found = self
            .tools
            .iter()
            .find(|tool| *tool == name || tool.ends_with(&suffix));
        found.cloned().unwrap_or_else(|| name.to_owned())
    }
}

fn items(dialect: Dialect, body: &Value) -> Vec<Value> {
    match dialect {
        Dialect::Chat | Dialect::Messages => list(&body["messages"]),
        Dialect::Responses | Dialect::Embeddings => match &body["input"] {
            Value::String(text) => vec![serde_json::json!({"role": "user", "content": text})],
            other => list(other),
        },
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// Runs of items that the model made; a run of several (parallel tool calls) is one turn.
fn turns(items: &[Value]) -> u32 {
    let mut turns = 0;
    let mut inside = false;
    for item in items {
        let by_model = item["role"] == "assistant"
            || matches!(item["type"].as_str(), Some("function_call" | "reasoning"));
        turns += u32::from(by_model && !inside);
        inside = by_model;
    }
    turns
}

fn text(item: &Value) -> String {
    for field in ["content", "output"] {
        match &item[field] {
            Value::String(text) => return text.clone(),
            Value::Array(parts) => {
                let texts = parts.iter().filter_map(|part| match &part["text"] {
                    Value::String(text) => Some(text.clone()),
                    _ => part.get("content").map(|_| self::text(part)),
                });
                return texts.collect();
            }
            _ => {}
        }
    }
    String::new()
}

fn tools(body: &Value) -> Vec<String> {
    let tools = list(&body["tools"]);
    let names = tools.iter().filter_map(|tool| {
        let name = tool["function"]["name"].as_str();
        name.or_else(|| tool["name"].as_str()).map(str::to_owned)
    });
    names.collect()
}

fn credential(headers: &HeaderMap) -> Option<String> {
    let read = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = read("authorization").and_then(|value| value.strip_prefix("Bearer "));
    bearer.or_else(|| read("x-api-key")).map(str::to_owned)
}

fn all(headers: &HeaderMap) -> Vec<(String, String)> {
    let read = headers.iter().filter_map(|(name, value)| {
        let value = value.to_str().ok()?;
        Some((name.as_str().to_owned(), value.to_owned()))
    });
    read.collect()
}
