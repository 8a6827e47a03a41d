//! Writes a Chat Completions request, as a provider gets it.

use serde_json::{Map, Value, json};

use crate::prices;
use crate::refusal::Refusal;
use crate::request::{
    AssistantPart, OutputFormat, Part, Proof, Request, Source, ToolChoice, ToolResult, Turn,
};

/// The format's name where the agent's dialect has none.
pub(crate) const FORMAT_NAME: &str = "answer";

pub(crate) fn render(request: &Request, model: &str) -> Result<Value, Refusal> {
    let mut body = Map::new();
    body.insert("model".to_owned(), Value::from(model));
    body.insert("messages".to_owned(), Value::from(messages(request)?));
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    if request.stream {
        put("stream", Some(Value::Bool(true)));
        put("stream_options", Some(json!({"include_usage": true})));
    }
    let max_tokens = prices::within_output("openai", model, request.max_output_tokens);
    put("max_completion_tokens", max_tokens.map(Value::from));
    let sampling = &request.sampling;
    if sampling.top_k.is_some() {
        return Err(Refusal::new(
            "top_k",
            "has no counterpart in OpenAI's dialects",
        ));
    }
    put("temperature", sampling.temperature.map(Value::from));
    put("top_p", sampling.top_p.map(Value::from));
    put("seed", sampling.seed.map(Value::from));
    put(
        "frequency_penalty",
        sampling.frequency_penalty.map(Value::from),
    );
    put(
        "presence_penalty",
        sampling.presence_penalty.map(Value::from),
    );
    put(
        "stop",
        (!request.stop.is_empty()).then(|| json!(request.stop)),
    );
    put(
        "n",
        (request.choices > 1).then(|| Value::from(request.choices)),
    );
    put("reasoning_effort", effort(request).map(Value::from));
    put(
        "verbosity",
        request.thinking.verbosity.clone().map(Value::from),
    );
    put("response_format", format(&request.format));
    if !request.tools.is_empty() {
        put("tools", Some(tools(request)));
        put("tool_choice", request.tool_choice.as_ref().map(tool_choice));
        put(
            "parallel_tool_calls",
            request.parallel_tools.map(Value::from),
        );
    }
    Ok(Value::Object(body))
}

/// OpenAI's effort, or the nearest to a budget that Anthropic's dialect gives in tokens.
pub(crate) fn effort(request: &Request) -> Option<&str> {
    match (&request.thinking.effort, request.thinking.budget_tokens) {
        (Some(effort), _) => Some(effort),
        (None, Some(0..=4096)) => Some("low"),
        (None, Some(4097..=16384)) => Some("medium"),
        (None, Some(_)) => Some("high"),
        (None, None) => None,
    }
}

fn tools(request: &Request) -> Value {
    let tools = request.tools.iter().map(|tool| {
        let mut function = json!({"name": tool.name, "parameters": tool.parameters});
        if let Some(description) = &tool.description {
            function["description"] = Value::from(description.as_str());
        }
        if let Some(strict) = tool.strict {
            function["strict"] = Value::from(strict);
        }
        json!({"type": "function", "function": function})
    });
    tools.collect()
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => Value::from("auto"),
        ToolChoice::None => Value::from("none"),
        ToolChoice::Required => Value::from("required"),
        ToolChoice::Named(name) => json!({"type": "function", "function": {"name": name}}),
    }
}

fn format(format: &OutputFormat) -> Option<Value> {
    match format {
        OutputFormat::Text => None,
        OutputFormat::JsonObject => Some(json!({"type": "json_object"})),
        OutputFormat::JsonSchema { .. } => {
            Some(json!({"type": "json_schema", "json_schema": json_schema(format)}))
        }
    }
}

/// The object with `name`, `schema` and `strict` that both OpenAI dialects have.
pub(crate) fn json_schema(format: &OutputFormat) -> Map<String, Value> {
    let mut object = Map::new();
    if let OutputFormat::JsonSchema {
        name,
        description,
        schema,
        strict,
    } = format
    {
        let name = name.as_deref().unwrap_or(FORMAT_NAME);
        object.insert("name".to_owned(), Value::from(name));
        object.insert("schema".to_owned(), schema.clone());
        // Anthropic's format is always strict, so what comes from there asks for the same.
        object.insert("strict".to_owned(), Value::from(strict.unwrap_or(false)));
        if let Some(description) = description {
            object.insert("description".to_owned(), Value::from(description.as_str()));
        }
    }
    object
}

fn messages(request: &Request) -> Result<Vec<Value>, Refusal> {
    let mut messages = Vec::new();
    // Images of tool results, waiting for the end of the run of results: nothing may stand between those.
    let mut waiting: Vec<Value> = Vec::new();
    for turn in &request.turns {
        if !matches!(turn, Turn::Tool(_)) && !waiting.is_empty() {
            messages.push(json!({"role": "user", "content": std::mem::take(&mut waiting)}));
        }
        match turn {
            Turn::System(parts) => {
                messages.push(json!({"role": "system", "content": plain_text(parts, "system")?}));
            }
            Turn::User(parts) => messages.push(json!({"role": "user", "content": content(parts)?})),
            Turn::Assistant(parts) => messages.push(assistant(parts)),
            Turn::Tool(result) => messages.push(tool_result(result, &mut waiting)?),
        }
    }
    if !waiting.is_empty() {
        messages.push(json!({"role": "user", "content": waiting}));
    }
    Ok(messages)
}

/// Parts that must be text, joined by blank lines.
pub(crate) fn plain_text(parts: &[Part], field: &str) -> Result<String, Refusal> {
    let mut texts = Vec::new();
    for part in parts {
        match part {
            Part::Text(text) => texts.push(text.as_str()),
            Part::Image(_) | Part::Document { .. } => {
                return Err(Refusal::new(field, "may only hold text"));
            }
        }
    }
    Ok(texts.join("\n\n"))
}

fn content(parts: &[Part]) -> Result<Value, Refusal> {
    if let [Part::Text(text)] = parts {
        return Ok(Value::from(text.as_str()));
    }
    parts.iter().map(content_part).collect()
}

fn content_part(part: &Part) -> Result<Value, Refusal> {
    match part {
        Part::Text(text) => Ok(json!({"type": "text", "text": text})),
        Part::Image(source) => Ok(json!({"type": "image_url", "image_url": {"url": url(source)}})),
        Part::Document {
            source: Source::Url(_),
            ..
        } => Err(Refusal::new(
            "messages",
            "a document by url can't be carried to a chat provider; send its data",
        )),
        Part::Document { source, name } => {
            let name = name.as_deref().unwrap_or("document.pdf");
            Ok(json!({"type": "file", "file": {"filename": name, "file_data": url(source)}}))
        }
    }
}

pub(crate) fn url(source: &Source) -> String {
    match source {
        Source::Url(url) => url.clone(),
        Source::Base64 { media_type, data } => format!("data:{media_type};base64,{data}"),
    }
}

fn assistant(parts: &[AssistantPart]) -> Value {
    let mut text = String::new();
    let mut refusal = String::new();
    let mut reasoning = String::new();
    let mut calls = Vec::new();
    for part in parts {
        match part {
            AssistantPart::Text(more) => text.push_str(more),
            AssistantPart::Refusal(more) => refusal.push_str(more),
            AssistantPart::ToolCall(call) => calls.push(json!({
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            })),
            // Open models want their own reasoning back within a turn; a block with another provider's proof has no
            // place here and isn't needed by anyone.
            AssistantPart::Reasoning(block) if block.proof == Proof::None => {
                reasoning.push_str(&block.text);
            }
            AssistantPart::Reasoning(_) => {}
        }
    }
    let mut message = json!({"role": "assistant"});
    // Only a message with calls may be without content.
    message["content"] = if text.is_empty() && !calls.is_empty() {
        Value::Null
    } else {
        Value::from(text)
    };
    if !refusal.is_empty() {
        message["refusal"] = Value::from(refusal);
    }
    if !reasoning.is_empty() {
        message["reasoning_content"] = Value::from(reasoning);
    }
    if !calls.is_empty() {
        message["tool_calls"] = Value::from(calls);
    }
    message
}

/// A tool message holds text only: images follow in the next user message, and the text says so.
fn tool_result(result: &ToolResult, waiting: &mut Vec<Value>) -> Result<Value, Refusal> {
    let mut texts = Vec::new();
    if result.is_error {
        texts.push("The tool failed:".to_owned());
    }
    for part in &result.content {
        match part {
            Part::Text(text) => texts.push(text.clone()),
            Part::Image(_) | Part::Document { .. } => {
                texts.push("(A file of this result follows in the next message.)".to_owned());
                waiting.push(json!({"type": "text", "text": format!("From the result of tool call {}:", result.id)}));
                waiting.push(content_part(part)?);
            }
        }
    }
    Ok(json!({"role": "tool", "tool_call_id": result.id, "content": texts.join("\n")}))
}
