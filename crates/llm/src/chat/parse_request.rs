//! Reads a Chat Completions request, as an agent sends it.

use serde_json::Value;

use crate::dialect::Dialect;
use crate::fields::{self, Fields, conversation, items, text};
use crate::refusal::Refusal;
use crate::request::{
    AssistantPart, OutputFormat, Part, Proof, Reasoning, Request, Source, Tool, ToolCall,
    ToolChoice, ToolResult, Turn,
};

/// Hints about billing, caching and tracing: they change nothing about the answer and are left out in translation.
const HINTS: &[&str] = &[
    "metadata",
    "user",
    "store",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
];

pub(crate) fn parse(body: &Fields) -> Result<Request, Refusal> {
    let mut request = Request::new(Dialect::OpenAiChat);
    if fields::present(body, "web_search_options").is_some() {
        return Err(hosted("web_search_options"));
    }
    read_tools(&mut request, items(body.get("tools")))?;
    let messages = conversation(body, "messages")?;
    for (at, message) in items(Some(messages)).iter().enumerate() {
        read_message(&mut request, &format!("messages[{at}]"), message);
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
        "is executed by the provider, outside the record; use a tool of the agent's own",
    )
}

fn read_tools(request: &mut Request, tools: &[Value]) -> Result<(), Refusal> {
    for (at, tool) in tools.iter().enumerate() {
        match text(tool, "type") {
            "function" | "" => {
                let function = tool.get("function").unwrap_or(&Value::Null);
                request.tools.push(Tool {
                    name: text(function, "name").to_owned(),
                    description: function
                        .get("description")
                        .and_then(Value::as_str)
                        .map(str::to_owned),
                    parameters: fields::schema_or_empty(function.get("parameters")),
                    strict: function.get("strict").and_then(Value::as_bool),
                });
            }
            "custom" => request.native(format!("tools[{at}].type")),
            _ => return Err(hosted(format!("tools[{at}].type"))),
        }
    }
    Ok(())
}

fn read_message(request: &mut Request, path: &str, message: &Value) {
    let content = message.get("content");
    match text(message, "role") {
        "system" | "developer" => {
            let parts = read_parts(request, path, content);
            request.turns.push(Turn::System(parts));
        }
        "user" => {
            let parts = read_parts(request, path, content);
            request.turns.push(Turn::User(parts));
        }
        "assistant" => read_assistant(request, path, message),
        "tool" => {
            let content = read_parts(request, path, content);
            request.turns.push(Turn::Tool(ToolResult {
                id: text(message, "tool_call_id").to_owned(),
                content,
                is_error: false,
            }));
        }
        _ => request.native(format!("{path}.role")),
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
        "text" => Some(Part::Text(text(part, "text").to_owned())),
        "image_url" => Some(Part::Image(source(text(part.get("image_url")?, "url")))),
        "file" => {
            let file = part.get("file")?;
            let name = file
                .get("filename")
                .and_then(Value::as_str)
                .map(str::to_owned);
            // A `file_id` names a file that lives at one provider.
            let data = file.get("file_data").and_then(Value::as_str)?;
            Some(Part::Document {
                source: source(data),
                name,
            })
        }
        _ => None,
    }
}

pub(crate) fn source(url: &str) -> Source {
    match fields::split_data_url(url) {
        Some((media_type, data)) => Source::Base64 {
            media_type: media_type.to_owned(),
            data: data.to_owned(),
        },
        None => Source::Url(url.to_owned()),
    }
}

fn read_assistant(request: &mut Request, path: &str, message: &Value) {
    let mut parts = read_reasoning(message);
    for part in items(message.get("content")) {
        match text(part, "type") {
            "text" => parts.push(AssistantPart::Text(text(part, "text").to_owned())),
            "refusal" => parts.push(AssistantPart::Refusal(text(part, "refusal").to_owned())),
            _ => request.native(format!("{path}.content")),
        }
    }
    match text(message, "content") {
        "" => {}
        content => parts.push(AssistantPart::Text(content.to_owned())),
    }
    match text(message, "refusal") {
        "" => {}
        refusal => parts.push(AssistantPart::Refusal(refusal.to_owned())),
    }
    for (at, call) in items(message.get("tool_calls")).iter().enumerate() {
        match (text(call, "type"), call.get("function")) {
            ("function" | "", Some(function)) => parts.push(AssistantPart::ToolCall(ToolCall {
                id: text(call, "id").to_owned(),
                name: text(function, "name").to_owned(),
                arguments: text(function, "arguments").to_owned(),
            })),
            _ => request.native(format!("{path}.tool_calls[{at}]")),
        }
    }
    for name in ["function_call", "audio"] {
        if message.get(name).is_some_and(|value| !value.is_null()) {
            request.native(format!("{path}.{name}"));
        }
    }
    request.turns.push(Turn::Assistant(parts));
}

/// Reasoning that an earlier answer carried: signed blocks as this gateway wrote them, else an open model's plain text.
fn read_reasoning(message: &Value) -> Vec<AssistantPart> {
    let blocks = items(message.get("thinking_blocks")).iter().map(|block| {
        let proof = match text(block, "type") {
            "redacted_thinking" => Proof::Redacted(text(block, "data").to_owned()),
            _ => Proof::Signature(text(block, "signature").to_owned()),
        };
        AssistantPart::Reasoning(Reasoning {
            text: text(block, "thinking").to_owned(),
            proof,
        })
    });
    let blocks: Vec<AssistantPart> = blocks.collect();
    if !blocks.is_empty() {
        return blocks;
    }
    match ["reasoning_content", "reasoning"].map(|name| text(message, name)) {
        ["", ""] => Vec::new(),
        [plain, other] => vec![AssistantPart::Reasoning(Reasoning {
            text: if plain.is_empty() { other } else { plain }.to_owned(),
            proof: Proof::None,
        })],
    }
}

fn read_option(request: &mut Request, name: &str, value: &Value) {
    match name {
        "messages" | "tools" => {}
        name if HINTS.contains(&name) => {}
        "model" => request.model = request.read_text(name, value).unwrap_or_default(),
        "stream" => request.stream = request.read_flag(name, value).unwrap_or_default(),
        "stream_options" => {
            let asked = value.get("include_usage").and_then(Value::as_bool);
            request.include_usage = asked.unwrap_or_default();
        }
        "max_tokens" | "max_completion_tokens" => {
            let count = request.read_count(name, value);
            request.max_output_tokens = request.max_output_tokens.max(count);
        }
        "temperature" => request.sampling.temperature = request.read_number(name, value),
        "top_p" => request.sampling.top_p = request.read_number(name, value),
        "seed" => request.sampling.seed = value.as_i64(),
        "frequency_penalty" => {
            request.sampling.frequency_penalty = request.read_number(name, value);
        }
        "presence_penalty" => request.sampling.presence_penalty = request.read_number(name, value),
        "stop" => request.stop = request.read_texts(name, value),
        "n" => request.choices = request.read_count(name, value).unwrap_or(1),
        "reasoning_effort" => request.thinking.effort = request.read_text(name, value),
        "verbosity" => request.thinking.verbosity = request.read_text(name, value),
        "parallel_tool_calls" => request.parallel_tools = request.read_flag(name, value),
        "tool_choice" => match read_tool_choice(value) {
            Some(choice) => request.tool_choice = Some(choice),
            None => request.native(name),
        },
        "response_format" => match read_format(value) {
            Some(format) => request.format = format,
            None => request.native(name),
        },
        name if is_default(name, value) => {}
        name => request.native(name),
    }
}

/// Values that ask for what happens anyway.
fn is_default(name: &str, value: &Value) -> bool {
    match name {
        "logprobs" => value == &Value::Bool(false),
        "top_logprobs" => value.as_u64() == Some(0),
        "logit_bias" => value.as_object().is_some_and(Fields::is_empty),
        "modalities" => items(Some(value)) == [Value::from("text")],
        "service_tier" => matches!(value.as_str(), Some("auto" | "default")),
        "functions" => items(Some(value)).is_empty(),
        _ => false,
    }
}

fn read_tool_choice(value: &Value) -> Option<ToolChoice> {
    match value.as_str() {
        Some("auto") => Some(ToolChoice::Auto),
        Some("none") => Some(ToolChoice::None),
        Some("required") => Some(ToolChoice::Required),
        Some(_) => None,
        None if text(value, "type") == "function" => {
            let name = text(value.get("function")?, "name");
            Some(ToolChoice::Named(name.to_owned()))
        }
        None => None,
    }
}

fn read_format(value: &Value) -> Option<OutputFormat> {
    match text(value, "type") {
        "text" => Some(OutputFormat::Text),
        "json_object" => Some(OutputFormat::JsonObject),
        "json_schema" => Some(read_json_schema(value.get("json_schema")?)),
        _ => None,
    }
}

/// The object with `name`, `schema` and `strict` that both OpenAI dialects have.
pub(crate) fn read_json_schema(value: &Value) -> OutputFormat {
    let string = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
    OutputFormat::JsonSchema {
        name: string("name"),
        description: string("description"),
        schema: fields::schema_or_empty(value.get("schema")),
        strict: value.get("strict").and_then(Value::as_bool),
    }
}
