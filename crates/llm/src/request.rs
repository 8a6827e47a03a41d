//! The one request model that every dialect is read into and written from.
//! Policy refusals (provider-executed tools, conversations that live elsewhere) are errors of `parse`; what merely
//! has no counterpart in another dialect is remembered in `native_only` and is an error of `render` alone, so that a
//! request that stays in its own dialect is never judged by what this model can express.

use serde_json::{Value, json};

use crate::dialect::Dialect;
use crate::refusal::Refusal;
use crate::{anthropic, chat, estimate, responses};

/// A model request, whatever dialect it was written in.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub dialect: Dialect,
    /// As the agent wrote it; empty if it wrote none.
    pub model: String,
    pub stream: bool,
    /// Chat only: the agent asked for the usage chunk itself.
    pub include_usage: bool,
    pub turns: Vec<Turn>,
    pub tools: Vec<Tool>,
    pub tool_choice: Option<ToolChoice>,
    pub parallel_tools: Option<bool>,
    pub max_output_tokens: Option<u64>,
    pub sampling: Sampling,
    pub stop: Vec<String>,
    pub format: OutputFormat,
    pub thinking: Thinking,
    /// How many answers are wanted (`n`); 1 if not said.
    pub choices: u64,
    /// Parts that only the agent's own dialect can carry; refused when the request is rendered in another.
    pub native_only: Vec<Refusal>,
    /// A rough count of input tokens (see [`crate::estimate_input_tokens`]).
    pub estimated_input_tokens: u64,
}

/// How tokens are drawn. Absent values are the provider's defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampling {
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u64>,
    pub seed: Option<i64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
}

/// How hard the model may think.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Thinking {
    /// `none`, `minimal`, `low`, `medium`, `high`, `xhigh`, `max`.
    pub effort: Option<String>,
    /// Anthropic's explicit budget in tokens.
    pub budget_tokens: Option<u64>,
    /// OpenAI's `verbosity`.
    pub verbosity: Option<String>,
}

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    System(Vec<Part>),
    User(Vec<Part>),
    Assistant(Vec<AssistantPart>),
    Tool(ToolResult),
}

/// A piece of what a person or a tool says.
#[derive(Debug, Clone, PartialEq)]
pub enum Part {
    Text(String),
    Image(Source),
    Document {
        source: Source,
        name: Option<String>,
    },
}

/// Where an image or a document comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Base64 { media_type: String, data: String },
    Url(String),
}

/// A piece of what the model said.
#[derive(Debug, Clone, PartialEq)]
pub enum AssistantPart {
    Text(String),
    /// OpenAI's refusal text.
    Refusal(String),
    Reasoning(Reasoning),
    ToolCall(ToolCall),
}

/// A block of reasoning, with what its provider needs to accept it back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasoning {
    pub text: String,
    pub proof: Proof,
}

/// Who vouches for a reasoning block. Only the provider that made it can check it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Proof {
    /// Plain text, as open models give it.
    #[default]
    None,
    /// Anthropic's `signature`.
    Signature(String),
    /// Anthropic's `redacted_thinking`: no text, opaque data.
    Redacted(String),
    /// An OpenAI reasoning item with its id and, if asked for, encrypted content.
    OpenAi {
        id: String,
        encrypted: Option<String>,
    },
}

/// A tool call that the model proposes. `arguments` is the JSON text as the model wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    pub arguments: String,
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolResult {
    pub id: String,
    pub content: Vec<Part>,
    pub is_error: bool,
}

/// A tool that runs on the agent's side.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: Option<String>,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    pub strict: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    Auto,
    None,
    /// Some tool must be called.
    Required,
    Named(String),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub enum OutputFormat {
    #[default]
    Text,
    JsonObject,
    JsonSchema {
        name: Option<String>,
        description: Option<String>,
        schema: Value,
        strict: Option<bool>,
    },
}

impl Request {
    pub(crate) fn new(dialect: Dialect) -> Request {
        Request {
            dialect,
            model: String::new(),
            stream: false,
            include_usage: false,
            turns: Vec::new(),
            tools: Vec::new(),
            tool_choice: None,
            parallel_tools: None,
            max_output_tokens: None,
            sampling: Sampling::default(),
            stop: Vec::new(),
            format: OutputFormat::Text,
            thinking: Thinking::default(),
            choices: 1,
            native_only: Vec::new(),
            estimated_input_tokens: 0,
        }
    }

    /// Remembers a field that no other dialect can carry.
    pub(crate) fn native(&mut self, field: impl Into<String>) {
        self.native_only.push(Refusal::new(
            field,
            format!("can't be carried from {} to another dialect", self.dialect),
        ));
    }
}

/// Reads an agent's body. Errors are policy refusals and bodies that are no request at all.
pub fn parse(dialect: Dialect, body: &Value) -> Result<Request, Refusal> {
    let fields = body
        .as_object()
        .ok_or_else(|| Refusal::new("body", "must be a JSON object"))?;
    for field in ["previous_response_id", "conversation", "background"] {
        match fields.get(field) {
            None | Some(Value::Null | Value::Bool(false)) => {}
            Some(_) => {
                return Err(Refusal::new(
                    field,
                    "is not supported: the work or the conversation would live at the provider, outside the record",
                ));
            }
        }
    }
    let mut request = match dialect {
        Dialect::OpenAiChat => chat::parse_request::parse(fields),
        Dialect::OpenAiResponses => responses::parse_request::parse(fields),
        Dialect::Anthropic => anthropic::parse_request::parse(fields),
    }?;
    request.estimated_input_tokens = estimate::input_tokens_of(dialect, fields);
    Ok(request)
}

/// Writes the request in the provider's dialect, for `model`. What can't be carried over is refused by field.
///
/// A request that stays in its own dialect should go through [`forward`] instead, which loses nothing.
pub fn render_request(request: &Request, provider: Dialect, model: &str) -> Result<Value, Refusal> {
    if let Some(refusal) = request.native_only.first() {
        return Err(refusal.clone());
    }
    if request.choices > 1 && provider != Dialect::OpenAiChat {
        return Err(Refusal::new(
            "n",
            format!("a {provider} provider gives one answer per call"),
        ));
    }
    match provider {
        Dialect::OpenAiChat => chat::render_request::render(request, model),
        Dialect::OpenAiResponses => responses::render_request::render(request, model),
        Dialect::Anthropic => anthropic::render_request::render(request, model),
    }
}

/// The body to send when agent and provider speak one dialect: the agent's own, with the model replaced and, on a
/// chat stream, usage asked for.
pub fn forward(dialect: Dialect, body: &Value, model: &str) -> Value {
    let mut forwarded = body.clone();
    if let Some(fields) = forwarded.as_object_mut() {
        fields.insert("model".to_owned(), Value::from(model));
        let streams = fields.get("stream").and_then(Value::as_bool) == Some(true);
        if dialect == Dialect::OpenAiChat && streams {
            let options = fields.entry("stream_options").or_insert_with(|| json!({}));
            if !options.is_object() {
                *options = json!({});
            }
            options["include_usage"] = Value::Bool(true);
        }
    }
    forwarded
}
