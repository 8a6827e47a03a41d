//! Writes a Responses request, as a provider gets it.

use serde_json::{Map, Value, json};

use crate::chat::render_request::{effort, json_schema, plain_text, url};
use crate::prices;
use crate::refusal::Refusal;
use crate::request::{
    AssistantPart, OutputFormat, Part, Proof, Reasoning, Request, Source, ToolChoice, ToolResult,
    Turn,
};

pub(crate) fn render(request: &Request, model: &str) -> Result<Value, Refusal> {
    refuse_foreign(request)?;
    let mut body = Map::new();
    body.insert("model".to_owned(), Value::from(model));
    body.insert("input".to_owned(), Value::from(input(request)?));
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    put("stream", request.stream.then_some(Value::Bool(true)));
    // Nothing of ours is fetched from the provider again, so nothing need be kept there.
    put("store", Some(Value::Bool(false)));
    put("include", Some(json!(["reasoning.encrypted_content"])));
    let max_tokens = prices::within_output("openai", model, request.max_output_tokens);
    put("max_output_tokens", max_tokens.map(Value::from));
    put("temperature", request.sampling.temperature.map(Value::from));
    put("top_p", request.sampling.top_p.map(Value::from));
    put(
        "reasoning",
        effort(request).map(|effort| json!({"effort": effort})),
    );
    put("text", text_options(request));
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

fn refuse_foreign(request: &Request) -> Result<(), Refusal> {
    let sampling = &request.sampling;
    let foreign = [
        ("stop", !request.stop.is_empty()),
        ("top_k", sampling.top_k.is_some()),
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
    match foreign.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(Refusal::new(
            *field,
            "has no counterpart in the Responses dialect",
        )),
        None => Ok(()),
    }
}

fn text_options(request: &Request) -> Option<Value> {
    let mut options = Map::new();
    if let Some(verbosity) = &request.thinking.verbosity {
        options.insert("verbosity".to_owned(), Value::from(verbosity.as_str()));
    }
    match &request.format {
        OutputFormat::Text => {}
        OutputFormat::JsonObject => {
            options.insert("format".to_owned(), json!({"type": "json_object"}));
        }
        OutputFormat::JsonSchema { .. } => {
            let mut format = json_schema(&request.format);
            format.insert("type".to_owned(), Value::from("json_schema"));
            options.insert("format".to_owned(), Value::Object(format));
        }
    }
    (!options.is_empty()).then_some(Value::Object(options))
}

fn tools(request: &Request) -> Value {
    let tools = request.tools.iter().map(|tool| {
        json!({
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            // The field is required; a schema written for another dialect need not meet strict mode's rules.
            "strict": tool.strict.unwrap_or(false),
        })
    });
    tools.collect()
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::Auto => Value::from("auto"),
        ToolChoice::None => Value::from("none"),
        ToolChoice::Required => Value::from("required"),
        ToolChoice::Named(name) => json!({"type": "function", "name": name}),
    }
}

fn input(request: &Request) -> Result<Vec<Value>, Refusal> {
    let mut input = Vec::new();
    for turn in &request.turns {
        match turn {
            Turn::System(parts) => {
                let content = plain_text(parts, "system")?;
                input.push(json!({"role": "system", "content": content}));
            }
            Turn::User(parts) => {
                let content: Vec<Value> = parts.iter().map(part).collect();
                input.push(json!({"role": "user", "content": content}));
            }
            Turn::Assistant(parts) => input.extend(parts.iter().filter_map(assistant)),
            Turn::Tool(result) => input.push(tool_result(result)),
        }
    }
    Ok(input)
}

fn part(part: &Part) -> Value {
    match part {
        Part::Text(text) => json!({"type": "input_text", "text": text}),
        Part::Image(source) => {
            json!({"type": "input_image", "image_url": url(source), "detail": "auto"})
        }
        Part::Document {
            source: Source::Url(url),
            ..
        } => {
            json!({"type": "input_file", "file_url": url})
        }
        Part::Document { source, name } => {
            let name = name.as_deref().unwrap_or("document.pdf");
            json!({"type": "input_file", "filename": name, "file_data": url(source)})
        }
    }
}

fn tool_result(result: &ToolResult) -> Value {
    let mut content: Vec<Value> = result.content.iter().map(part).collect();
    if result.is_error {
        content.insert(0, json!({"type": "input_text", "text": "The tool failed:"}));
    }
    json!({"type": "function_call_output", "call_id": result.id, "output": content})
}

fn assistant(part: &AssistantPart) -> Option<Value> {
    match part {
        AssistantPart::Text(text) | AssistantPart::Refusal(text) => {
            Some(json!({"role": "assistant", "content": text}))
        }
        AssistantPart::ToolCall(call) => Some(json!({
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        })),
        AssistantPart::Reasoning(reasoning) => reasoning_item(reasoning),
    }
}

/// Only OpenAI's own encrypted reasoning can go back; an item without it was kept at the provider and isn't ours to
/// point at, and other providers' blocks have no place here.
fn reasoning_item(reasoning: &Reasoning) -> Option<Value> {
    let Proof::OpenAi {
        id,
        encrypted: Some(encrypted),
    } = &reasoning.proof
    else {
        return None;
    };
    let summary = match reasoning.text.as_str() {
        "" => json!([]),
        text => json!([{"type": "summary_text", "text": text}]),
    };
    Some(json!({"type": "reasoning", "id": id, "summary": summary, "encrypted_content": encrypted}))
}
