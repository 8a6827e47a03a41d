//! Reads a Responses request, as an agent sends it.

use serde_json::Value;

use crate::chat::parse_request::{read_json_schema, source};
use crate::dialect::Dialect;
use crate::fields::{self, Fields, items, text};
use crate::refusal::Refusal;
use crate::request::{
    AssistantPart, OutputFormat, Part, Proof, Reasoning, Request, Tool, ToolCall, ToolChoice,
    ToolResult, Turn,
};
use crate::responses::{PLAIN_PROOF, REDACTED_PROOF, SIGNATURE_PROOF};

/// Tools beside functions that the agent itself executes.
const CLIENT_TOOLS: &[&str] = &["custom", "local_shell", "apply_patch", "namespace"];

pub(crate) fn parse(body: &Fields) -> Result<Request, Refusal> {
    let mut request = Request::new(Dialect::OpenAiResponses);
    if fields::present(body, "prompt").is_some() {
        return Err(Refusal::new(
            "prompt",
            "is kept by the provider, outside the record; send its text",
        ));
    }
    read_tools(&mut request, "tools", items(body.get("tools")))?;
    if let Some(instructions) = fields::present(body, "instructions") {
        let text = request
            .read_text("instructions", instructions)
            .unwrap_or_default();
        request.turns.push(Turn::System(vec![Part::Text(text)]));
    }
    match fields::present(body, "input") {
        Some(Value::String(text)) => request
            .turns
            .push(Turn::User(vec![Part::Text(text.clone())])),
        Some(Value::Array(list)) => {
            for (at, item) in list.iter().enumerate() {
                read_item(&mut request, &format!("input[{at}]"), item)?;
            }
        }
        Some(_) => return Err(Refusal::new("input", "must be a string or an array")),
        None => return Err(Refusal::new("input", "is required")),
    }
    for (name, value) in body {
        if !value.is_null() {
            read_option(&mut request, name, value);
        }
    }
    Ok(request)
}

fn read_tools(request: &mut Request, path: &str, tools: &[Value]) -> Result<(), Refusal> {
    for (at, tool) in tools.iter().enumerate() {
        let path = format!("{path}[{at}]");
        match text(tool, "type") {
            "function" => request.tools.push(Tool {
                name: text(tool, "name").to_owned(),
                description: tool
                    .get("description")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                parameters: fields::schema_or_empty(tool.get("parameters")),
                strict: tool.get("strict").and_then(Value::as_bool),
            }),
            "shell" if is_local(tool) => request.native(format!("{path}.type")),
            "namespace" => {
                request.native(format!("{path}.type"));
                let kept = request.tools.len();
                read_tools(request, &format!("{path}.tools"), items(tool.get("tools")))?;
                request.tools.truncate(kept);
            }
            kind if CLIENT_TOOLS.contains(&kind) => request.native(format!("{path}.type")),
            _ => {
                return Err(Refusal::new(
                    format!("{path}.type"),
                    "is executed by the provider, outside the record; use a tool of the agent's own",
                ));
            }
        }
    }
    Ok(())
}

/// A shell runs at the agent only if it says so.
fn is_local(tool: &Value) -> bool {
    tool.get("environment")
        .is_some_and(|environment| text(environment, "type") == "local")
}

fn read_item(request: &mut Request, path: &str, item: &Value) -> Result<(), Refusal> {
    match text(item, "type") {
        "message" | "" => read_message(request, path, item),
        "function_call" => {
            let call = ToolCall {
                id: text(item, "call_id").to_owned(),
                name: text(item, "name").to_owned(),
                arguments: text(item, "arguments").to_owned(),
            };
            push_assistant(request, vec![AssistantPart::ToolCall(call)]);
        }
        "function_call_output" => {
            let content = read_parts(request, path, item.get("output"));
            let id = text(item, "call_id").to_owned();
            request.turns.push(Turn::Tool(ToolResult {
                id,
                content,
                is_error: false,
            }));
        }
        "reasoning" => push_assistant(
            request,
            vec![AssistantPart::Reasoning(read_reasoning(item))],
        ),
        "item_reference" => {
            return Err(Refusal::new(
                format!("{path}.type"),
                "refers to an item kept by the provider, outside the record; send the item itself",
            ));
        }
        _ => request.native(format!("{path}.type")),
    }
    Ok(())
}

fn read_message(request: &mut Request, path: &str, item: &Value) {
    match text(item, "role") {
        "user" => {
            let parts = read_parts(request, path, item.get("content"));
            request.turns.push(Turn::User(parts));
        }
        "system" | "developer" => {
            let parts = read_parts(request, path, item.get("content"));
            request.turns.push(Turn::System(parts));
        }
        "assistant" => {
            let parts = read_assistant(request, path, item.get("content"));
            push_assistant(request, parts);
        }
        _ => request.native(format!("{path}.role")),
    }
}

/// Items of one answer stand side by side: they are one turn here.
fn push_assistant(request: &mut Request, parts: Vec<AssistantPart>) {
    match request.turns.last_mut() {
        Some(Turn::Assistant(turn)) => turn.extend(parts),
        _ => request.turns.push(Turn::Assistant(parts)),
    }
}

fn read_parts(request: &mut Request, path: &str, content: Option<&Value>) -> Vec<Part> {
    if let Some(content) = content.and_then(Value::as_str) {
        return vec![Part::Text(content.to_owned())];
    }
    let mut parts = Vec::new();
    for (at, part) in items(content).iter().enumerate() {
        match read_part(part) {
            Some(part) => parts.push(part),
            None => request.native(format!("{path}.content[{at}]")),
        }
    }
    parts
}

fn read_part(part: &Value) -> Option<Part> {
    match text(part, "type") {
        "input_text" | "output_text" | "text" => Some(Part::Text(text(part, "text").to_owned())),
        "input_image" => {
            let url = part.get("image_url").and_then(Value::as_str)?;
            Some(Part::Image(source(url)))
        }
        "input_file" => {
            let name = part
                .get("filename")
                .and_then(Value::as_str)
                .map(str::to_owned);
            let from = ["file_data", "file_url"]
                .iter()
                .find_map(|field| part.get(*field)?.as_str());
            Some(Part::Document {
                source: source(from?),
                name,
            })
        }
        _ => None,
    }
}

fn read_assistant(
    request: &mut Request,
    path: &str,
    content: Option<&Value>,
) -> Vec<AssistantPart> {
    if let Some(content) = content.and_then(Value::as_str) {
        return vec![AssistantPart::Text(content.to_owned())];
    }
    let mut parts = Vec::new();
    for (at, part) in items(content).iter().enumerate() {
        match text(part, "type") {
            "output_text" | "input_text" | "text" => {
                parts.push(AssistantPart::Text(text(part, "text").to_owned()));
            }
            "refusal" => parts.push(AssistantPart::Refusal(text(part, "refusal").to_owned())),
            _ => request.native(format!("{path}.content[{at}]")),
        }
    }
    parts
}

/// A reasoning item, with Anthropic's proofs unpacked where [`crate::responses::write_answer`] packed them.
pub(crate) fn read_reasoning(item: &Value) -> Reasoning {
    let encrypted = item.get("encrypted_content").and_then(Value::as_str);
    let proof = match encrypted {
        Some(PLAIN_PROOF) => Proof::None,
        Some(packed) if packed.starts_with(SIGNATURE_PROOF) => {
            Proof::Signature(packed[SIGNATURE_PROOF.len()..].to_owned())
        }
        Some(packed) if packed.starts_with(REDACTED_PROOF) => {
            Proof::Redacted(packed[REDACTED_PROOF.len()..].to_owned())
        }
        _ => Proof::OpenAi {
            id: text(item, "id").to_owned(),
            encrypted: encrypted.map(str::to_owned),
        },
    };
    let mut texts = items(item.get("content"))
        .iter()
        .map(|part| text(part, "text"))
        .peekable();
    let text: String = if texts.peek().is_some() {
        texts.collect()
    } else {
        let summary = items(item.get("summary"))
            .iter()
            .map(|part| text(part, "text"));
        summary.collect::<Vec<_>>().join("\n\n")
    };
    Reasoning { text, proof }
}

fn read_option(request: &mut Request, name: &str, value: &Value) {
    match name {
        "input" | "instructions" | "tools" => {}
        // Hints about billing, caching and tracing; `background` and its kin were refused or are false.
        "metadata"
        | "user"
        | "store"
        | "safety_identifier"
        | "prompt_cache_key"
        | "background"
        | "prompt_cache_retention"
        | "prompt_cache_options"
        | "stream_options" => {}
        "model" => request.model = request.read_text(name, value).unwrap_or_default(),
        "stream" => request.stream = request.read_flag(name, value).unwrap_or_default(),
        "max_output_tokens" => request.max_output_tokens = request.read_count(name, value),
        "temperature" => request.sampling.temperature = request.read_number(name, value),
        "top_p" => request.sampling.top_p = request.read_number(name, value),
        "parallel_tool_calls" => request.parallel_tools = request.read_flag(name, value),
        "reasoning" => read_thinking(request, value),
        "text" => read_text_options(request, value),
        "tool_choice" => match read_tool_choice(value) {
            Some(choice) => request.tool_choice = Some(choice),
            None => request.native(name),
        },
        name if is_default(name, value) => {}
        name => request.native(name),
    }
}

/// Values that ask for what happens anyway.
fn is_default(name: &str, value: &Value) -> bool {
    match name {
        "truncation" => value.as_str() == Some("disabled"),
        "top_logprobs" => value.as_u64() == Some(0),
        "service_tier" => matches!(value.as_str(), Some("auto" | "default")),
        // Encrypted reasoning is always given, where there is any.
        "include" => items(Some(value))
            .iter()
            .all(|item| item == "reasoning.encrypted_content"),
        "context_management" => items(Some(value)).is_empty(),
        _ => false,
    }
}

fn read_thinking(request: &mut Request, value: &Value) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match name.as_str() {
            _ if value.is_null() => {}
            "effort" => request.thinking.effort = request.read_text("reasoning.effort", value),
            // A summary is given wherever the provider gives any text.
            "summary" | "generate_summary" => {}
            _ => request.native(format!("reasoning.{name}")),
        }
    }
}

fn read_text_options(request: &mut Request, value: &Value) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match name.as_str() {
            _ if value.is_null() => {}
            "verbosity" => request.thinking.verbosity = request.read_text("text.verbosity", value),
            "format" => match text(value, "type") {
                "text" => {}
                "json_object" => request.format = OutputFormat::JsonObject,
                "json_schema" => request.format = read_json_schema(value),
                _ => request.native("text.format"),
            },
            _ => request.native(format!("text.{name}")),
        }
    }
}

fn read_tool_choice(value: &Value) -> Option<ToolChoice> {
    match value.as_str() {
        Some("auto") => Some(ToolChoice::Auto),
        Some("none") => Some(ToolChoice::None),
        Some("required") => Some(ToolChoice::Required),
        Some(_) => None,
        None if text(value, "type") == "function" => {
            Some(ToolChoice::Named(text(value, "name").to_owned()))
        }
        None => None,
    }
}
