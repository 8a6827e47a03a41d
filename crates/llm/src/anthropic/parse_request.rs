//! Reads an Anthropic Messages request, as an agent sends it.

use serde_json::Value;

use crate::anthropic::OPENAI_PROOF;
use crate::dialect::Dialect;
use crate::fields::{self, Fields, conversation, items, text};
use crate::refusal::Refusal;
use crate::request::{
    AssistantPart, OutputFormat, Part, Proof, Reasoning, Request, Source, Tool, ToolCall,
    ToolChoice, ToolResult, Turn,
};

/// Typed tools that the agent itself executes. Everything else with a type runs at the provider.
const CLIENT_TOOLS: &[&str] = &[
    "bash_",
    "text_editor_",
    "memory_",
    "computer_",
    "browser_toolset_",
];

pub(crate) fn parse(body: &Fields) -> Result<Request, Refusal> {
    let mut request = Request::new(Dialect::Anthropic);
    for field in ["mcp_servers", "container", "thread"] {
        match fields::present(body, field) {
            None => {}
            Some(Value::Array(list)) if list.is_empty() => {}
            Some(_) => return Err(hosted(field)),
        }
    }
    read_tools(&mut request, items(body.get("tools")))?;
    if let Some(system) = fields::present(body, "system") {
        let parts = read_parts(&mut request, "system", Some(system));
        request.turns.push(Turn::System(parts));
    }
    let messages = conversation(body, "messages")?;
    for (at, message) in items(Some(messages)).iter().enumerate() {
        read_message(&mut request, &format!("messages[{at}]"), message)?;
    }
    for (name, value) in body {
        if !value.is_null() {
            read_option(&mut request, name, value);
        }
    }
    Ok(request)
}

fn hosted(field: impl Into<String>) -> Refusal {
    Refusal::new(
        field,
        "is executed or kept by the provider, outside the record; use a tool of the agent's own",
    )
}

fn read_tools(request: &mut Request, tools: &[Value]) -> Result<(), Refusal> {
    for (at, tool) in tools.iter().enumerate() {
        let kind = text(tool, "type");
        if matches!(kind, "" | "custom") {
            request.tools.push(Tool {
                name: text(tool, "name").to_owned(),
                description: tool
                    .get("description")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                parameters: fields::schema_or_empty(tool.get("input_schema")),
                strict: tool.get("strict").and_then(Value::as_bool),
            });
        } else if CLIENT_TOOLS.iter().any(|prefix| kind.starts_with(prefix)) {
            request.native(format!("tools[{at}].type"));
        } else {
            return Err(hosted(format!("tools[{at}].type")));
        }
    }
    Ok(())
}

fn read_message(request: &mut Request, path: &str, message: &Value) -> Result<(), Refusal> {
    let content = message.get("content");
    match text(message, "role") {
        "user" => read_user(request, path, content),
        "assistant" => read_assistant(request, path, content),
        "system" => {
            let parts = read_parts(request, path, content);
            request.turns.push(Turn::System(parts));
        }
        _ => request.native(format!("{path}.role")),
    }
    Ok(())
}

/// A user message may hold tool results beside what the person says; each result is a turn of its own here.
fn read_user(request: &mut Request, path: &str, content: Option<&Value>) {
    let mut said = Vec::new();
    if let Some(content) = content.and_then(Value::as_str) {
        said.push(Part::Text(content.to_owned()));
    }
    for (at, block) in items(content).iter().enumerate() {
        let path = format!("{path}.content[{at}]");
        if text(block, "type") == "tool_result" {
            let content = read_parts(request, &path, block.get("content"));
            request.turns.push(Turn::Tool(ToolResult {
                id: text(block, "tool_use_id").to_owned(),
                content,
                is_error: block
                    .get("is_error")
                    .and_then(Value::as_bool)
                    .unwrap_or_default(),
            }));
        } else {
            match read_part(block) {
                Some(part) => said.push(part),
                None => request.native(path),
            }
        }
    }
    if !said.is_empty() {
        request.turns.push(Turn::User(said));
    }
}

fn read_parts(request: &mut Request, path: &str, content: Option<&Value>) -> Vec<Part> {
    if let Some(content) = content.and_then(Value::as_str) {
        return vec![Part::Text(content.to_owned())];
    }
    let mut parts = Vec::new();
    for (at, block) in items(content).iter().enumerate() {
        match read_part(block) {
            Some(part) => parts.push(part),
            None => request.native(format!("{path}.content[{at}]")),
        }
    }
    parts
}

fn read_part(block: &Value) -> Option<Part> {
    match text(block, "type") {
        "text" => Some(Part::Text(text(block, "text").to_owned())),
        "image" => Some(Part::Image(read_source(block.get("source")?)?)),
        "document" => {
            let source = block.get("source")?;
            if text(source, "type") == "text" {
                return Some(Part::Text(text(source, "data").to_owned()));
            }
            let name = block
                .get("title")
                .and_then(Value::as_str)
                .map(str::to_owned);
            Some(Part::Document {
                source: read_source(source)?,
                name,
            })
        }
        _ => None,
    }
}

fn read_source(source: &Value) -> Option<Source> {
    match text(source, "type") {
        "base64" => Some(Source::Base64 {
            media_type: text(source, "media_type").to_owned(),
            data: text(source, "data").to_owned(),
        }),
        "url" => Some(Source::Url(text(source, "url").to_owned())),
        _ => None,
    }
}

fn read_assistant(request: &mut Request, path: &str, content: Option<&Value>) {
    let mut parts = Vec::new();
    if let Some(content) = content.and_then(Value::as_str) {
        parts.push(AssistantPart::Text(content.to_owned()));
    }
    for (at, block) in items(content).iter().enumerate() {
        match read_assistant_block(block) {
            Some(part) => parts.push(part),
            None => request.native(format!("{path}.content[{at}]")),
        }
    }
    request.turns.push(Turn::Assistant(parts));
}

fn read_assistant_block(block: &Value) -> Option<AssistantPart> {
    match text(block, "type") {
        "text" => Some(AssistantPart::Text(text(block, "text").to_owned())),
        "thinking" => Some(AssistantPart::Reasoning(Reasoning {
            text: text(block, "thinking").to_owned(),
            proof: read_proof(text(block, "signature")),
        })),
        "redacted_thinking" => Some(AssistantPart::Reasoning(Reasoning {
            text: String::new(),
            proof: Proof::Redacted(text(block, "data").to_owned()),
        })),
        "tool_use" if block.get("toolset_name").is_none_or(Value::is_null) => {
            Some(AssistantPart::ToolCall(ToolCall {
                id: text(block, "id").to_owned(),
                name: text(block, "name").to_owned(),
                arguments: block.get("input").unwrap_or(&Value::Null).to_string(),
            }))
        }
        _ => None,
    }
}

/// A signature is Anthropic's, or carries an OpenAI item as [`crate::anthropic::write_answer`] packed it.
pub(crate) fn read_proof(signature: &str) -> Proof {
    if signature.is_empty() {
        return Proof::None;
    }
    match signature.strip_prefix(OPENAI_PROOF) {
        None => Proof::Signature(signature.to_owned()),
        Some(packed) => {
            let (id, encrypted) = packed.split_once(':').unwrap_or((packed, ""));
            Proof::OpenAi {
                id: id.to_owned(),
                encrypted: (!encrypted.is_empty()).then(|| encrypted.to_owned()),
            }
        }
    }
}

fn read_option(request: &mut Request, name: &str, value: &Value) {
    match name {
        "messages" | "system" | "tools" => {}
        // Hints about billing, caching and tracing.
        "metadata" | "cache_control" | "diagnostics" | "mcp_servers" | "container" | "thread" => {}
        "model" => request.model = request.read_text(name, value).unwrap_or_default(),
        "stream" => request.stream = request.read_flag(name, value).unwrap_or_default(),
        "max_tokens" => request.max_output_tokens = request.read_count(name, value),
        "temperature" => request.sampling.temperature = request.read_number(name, value),
        "top_p" => request.sampling.top_p = request.read_number(name, value),
        "top_k" => request.sampling.top_k = request.read_count(name, value),
        "stop_sequences" => request.stop = request.read_texts(name, value),
        "tool_choice" => read_tool_choice(request, value),
        "thinking" => read_thinking(request, value),
        "output_config" => read_output_config(request, value),
        "service_tier" if matches!(value.as_str(), Some("auto" | "standard_only")) => {}
        "speed" if value.as_str() == Some("standard") => {}
        name => request.native(name),
    }
}

fn read_tool_choice(request: &mut Request, value: &Value) {
    request.tool_choice = match text(value, "type") {
        "auto" => Some(ToolChoice::Auto),
        "none" => Some(ToolChoice::None),
        "any" => Some(ToolChoice::Required),
        "tool" => Some(ToolChoice::Named(text(value, "name").to_owned())),
        _ => {
            request.native("tool_choice.type");
            None
        }
    };
    if let Some(disabled) = value
        .get("disable_parallel_tool_use")
        .and_then(Value::as_bool)
    {
        request.parallel_tools = Some(!disabled);
    }
}

/// Adaptive and disabled thinking are what other providers' models do by default.
fn read_thinking(request: &mut Request, value: &Value) {
    match text(value, "type") {
        "enabled" => {
            request.thinking.budget_tokens = value.get("budget_tokens").and_then(Value::as_u64);
        }
        "adaptive" | "disabled" | "between_tools" => {}
        _ => request.native("thinking.type"),
    }
}

fn read_output_config(request: &mut Request, value: &Value) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match name.as_str() {
            _ if value.is_null() => {}
            "effort" => request.thinking.effort = request.read_text("output_config.effort", value),
            "format" if text(value, "type") == "json_schema" => {
                request.format = OutputFormat::JsonSchema {
                    name: None,
                    description: None,
                    schema: fields::schema_or_empty(value.get("schema")),
                    strict: Some(true),
                };
            }
            _ => request.native(format!("output_config.{name}")),
        }
    }
}
