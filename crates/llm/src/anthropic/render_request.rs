//! Writes an Anthropic Messages request, as a provider gets it.
//! Messages of one role that follow each other are joined: all results of parallel calls must stand in one message.

use serde_json::{Map, Value, json};

use crate::chat::render_request::plain_text;
use crate::prices;
use crate::refusal::Refusal;
use crate::request::{
    AssistantPart, OutputFormat, Part, Proof, Request, Source, ToolChoice, ToolResult, Turn,
};

/// `max_tokens` must be given: what an agent gets that named none, unless its model can write less.
const DEFAULT_MAX_TOKENS: u64 = 16_384;
/// The same for a model whose facts are unknown: every Claude since 3.5 can write this much.
const UNKNOWN_MODEL_MAX_TOKENS: u64 = 8192;

/// Models that refuse to be told not to think (Anthropic's model table: "adaptive, always on").
const ALWAYS_THINKS: &[&str] = &["claude-opus-5-5", "claude-fable-5", "claude-mythos-5"];

pub(crate) fn render(request: &Request, model: &str) -> Result<Value, Refusal> {
    let mut body = Map::new();
    body.insert("model".to_owned(), Value::from(model));
    let max_tokens = prices::within_output("anthropic", model, request.max_output_tokens);
    let max_tokens = max_tokens.unwrap_or_else(|| default_max_tokens(model));
    body.insert("max_tokens".to_owned(), Value::from(max_tokens));
    let system = system(request)?;
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    put("system", (!system.is_empty()).then(|| Value::from(system)));
    put("messages", Some(Value::from(messages(request)?)));
    put("stream", request.stream.then_some(Value::Bool(true)));
    refuse_foreign_sampling(request)?;
    put("temperature", request.sampling.temperature.map(Value::from));
    put("top_p", request.sampling.top_p.map(Value::from));
    put("top_k", request.sampling.top_k.map(Value::from));
    put(
        "stop_sequences",
        (!request.stop.is_empty()).then(|| json!(request.stop)),
    );
    put("thinking", thinking(request, model));
    put("output_config", output_config(request)?);
    if !request.tools.is_empty() {
        put("tools", Some(tools(request)));
        put("tool_choice", tool_choice(request));
    }
    Ok(Value::Object(body))
}

fn default_max_tokens(model: &str) -> u64 {
    match prices::lookup("anthropic", model) {
        Some(facts) => facts.max_output_tokens.min(DEFAULT_MAX_TOKENS),
        None => UNKNOWN_MODEL_MAX_TOKENS,
    }
}

/// `verbosity` is left out without a word: it is a hint about style that OpenAI's frameworks send by default.
fn refuse_foreign_sampling(request: &Request) -> Result<(), Refusal> {
    let sampling = &request.sampling;
    let foreign = [
        ("seed", sampling.seed.is_some()),
        (
            "frequency_penalty",
            sampling.frequency_penalty.is_some_and(|value| value != 0.0),
        ),
        (
            "presence_penalty",
            sampling.presence_penalty.is_some_and(|value| value != 0.0),
        ),
    ];
    if let Some((field, _)) = foreign.iter().find(|(_, set)| *set) {
        return Err(Refusal::new(
            *field,
            "has no counterpart in Anthropic's dialect",
        ));
    }
    if sampling
        .temperature
        .is_some_and(|temperature| temperature > 1.0)
    {
        return Err(Refusal::new(
            "temperature",
            "must be at most 1 for an Anthropic provider",
        ));
    }
    Ok(())
}

/// Only "no thinking" and an explicit budget have a field; effort is part of `output_config`. OpenAI's frameworks ask
/// for no thinking by default, so a model that always thinks isn't asked.
fn thinking(request: &Request, model: &str) -> Option<Value> {
    let always = ALWAYS_THINKS.iter().any(|prefix| model.starts_with(prefix));
    match (
        request.thinking.effort.as_deref(),
        request.thinking.budget_tokens,
    ) {
        (Some("none"), _) => (!always).then(|| json!({"type": "disabled"})),
        (_, Some(budget)) => Some(json!({"type": "enabled", "budget_tokens": budget})),
        _ => None,
    }
}

fn output_config(request: &Request) -> Result<Option<Value>, Refusal> {
    let mut config = Map::new();
    match request.thinking.effort.as_deref() {
        None | Some("none") => {}
        Some("minimal") => drop(config.insert("effort".to_owned(), Value::from("low"))),
        Some(effort) => drop(config.insert("effort".to_owned(), Value::from(effort))),
    }
    match &request.format {
        OutputFormat::Text => {}
        OutputFormat::JsonObject => {
            return Err(Refusal::new(
                "response_format",
                "json_object has no counterpart in Anthropic's dialect; give a json_schema",
            ));
        }
        OutputFormat::JsonSchema { schema, .. } => {
            let format = json!({"type": "json_schema", "schema": schema});
            config.insert("format".to_owned(), format);
        }
    }
    Ok((!config.is_empty()).then_some(Value::Object(config)))
}

fn tools(request: &Request) -> Value {
    let tools = request.tools.iter().map(|tool| {
        let mut rendered = json!({"name": tool.name, "input_schema": tool.parameters});
        if let Some(description) = &tool.description {
            rendered["description"] = Value::from(description.as_str());
        }
        if tool.strict == Some(true) {
            rendered["strict"] = Value::Bool(true);
        }
        rendered
    });
    tools.collect()
}

fn tool_choice(request: &Request) -> Option<Value> {
    let mut choice = match &request.tool_choice {
        None if request.parallel_tools == Some(false) => json!({"type": "auto"}),
        None => return None,
        Some(ToolChoice::Auto) => json!({"type": "auto"}),
        Some(ToolChoice::None) => return Some(json!({"type": "none"})),
        Some(ToolChoice::Required) => json!({"type": "any"}),
        Some(ToolChoice::Named(name)) => json!({"type": "tool", "name": name}),
    };
    if request.parallel_tools == Some(false) {
        choice["disable_parallel_tool_use"] = Value::Bool(true);
    }
    Some(choice)
}

/// All system turns in order: not every model takes one in the middle of a conversation.
fn system(request: &Request) -> Result<String, Refusal> {
    let mut texts = Vec::new();
    for turn in &request.turns {
        if let Turn::System(parts) = turn {
            texts.push(plain_text(parts, "system")?);
        }
    }
    Ok(texts.join("\n\n"))
}

fn messages(request: &Request) -> Result<Vec<Value>, Refusal> {
    let mut messages: Vec<(&str, Vec<Value>)> = Vec::new();
    for turn in &request.turns {
        let (role, blocks) = match turn {
            Turn::System(_) => continue,
            Turn::User(parts) => ("user", blocks(parts)),
            Turn::Tool(result) => ("user", vec![tool_result(result)]),
            Turn::Assistant(parts) => ("assistant", assistant(parts)?),
        };
        match messages.last_mut() {
            Some((last, joined)) if *last == role => joined.extend(blocks),
            _ => messages.push((role, blocks)),
        }
    }
    if messages.is_empty() {
        return Err(Refusal::new(
            "messages",
            "must hold a message that is not the system's",
        ));
    }
    let messages = messages
        .into_iter()
        .filter(|(_, blocks)| !blocks.is_empty());
    Ok(messages
        .map(|(role, blocks)| json!({"role": role, "content": blocks}))
        .collect())
}

/// Content blocks, without blank text: Anthropic refuses it, and tools that return nothing are common.
fn blocks(parts: &[Part]) -> Vec<Value> {
    let blank = |part: &Part| matches!(part, Part::Text(text) if text.trim().is_empty());
    parts.iter().filter(|part| !blank(part)).map(part).collect()
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "text", "text": text}),
        Part::Image(from) => json!({"type": "image", "source": source(from)}),
        Part::Document { source: from, name } => {
            let mut document = json!({"type": "document", "source": source(from)});
            if let Some(name) = name {
                document["title"] = Value::from(name.as_str());
            }
            document
        }
    }
}

fn source(source: &Source) -> Value {
    match source {
        Source::Base64 { media_type, data } => {
            json!({"type": "base64", "media_type": media_type, "data": data})
        }
        Source::Url(url) => json!({"type": "url", "url": url}),
    }
}

fn tool_result(result: &ToolResult) -> Value {
    let content = blocks(&result.content);
    let mut block = json!({"type": "tool_result", "tool_use_id": result.id, "content": content});
    if result.is_error {
        block["is_error"] = Value::Bool(true);
    }
    block
}

fn assistant(parts: &[AssistantPart]) -> Result<Vec<Value>, Refusal> {
    let mut blocks = Vec::new();
    for part in parts {
        match part {
            // Blank text blocks are refused by Anthropic.
            AssistantPart::Text(text) | AssistantPart::Refusal(text) => {
                if !text.trim().is_empty() {
                    blocks.push(json!({"type": "text", "text": text}));
                }
            }
            AssistantPart::ToolCall(call) => blocks.push(json!({
                "type": "tool_use",
                "id": call.id,
                "name": call.name,
                "input": input(&call.arguments)?,
            })),
            AssistantPart::Reasoning(reasoning) => match &reasoning.proof {
                Proof::Signature(signature) => blocks.push(json!({
                    "type": "thinking", "thinking": reasoning.text, "signature": signature
                })),
                Proof::Redacted(data) => {
                    blocks.push(json!({"type": "redacted_thinking", "data": data}));
                }
                // Anthropic checks every block's signature, so another provider's reasoning has no place here. Leaving
                // it out is legal: no budget is asked for in a translated request, and only with one must a turn that
                // calls tools begin with thinking.
                Proof::None | Proof::OpenAi { .. } => {}
            },
        }
    }
    Ok(blocks)
}

/// Arguments as an object. Empty text is what some servers send for no arguments.
fn input(arguments: &str) -> Result<Value, Refusal> {
    if arguments.trim().is_empty() {
        return Ok(json!({}));
    }
    match serde_json::from_str(arguments) {
        Ok(input @ Value::Object(_)) => Ok(input),
        _ => Err(Refusal::new(
            "arguments",
            "of an earlier tool call are not a JSON object, which an Anthropic provider requires",
        )),
    }
}
