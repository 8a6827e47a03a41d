//! Rough token counts, for reserving budget before a call and for calls whose provider doesn't count.
//! Four bytes a token is OpenAI's own rule of thumb; being wrong by a third is fine, being silent isn't.

use serde_json::Value;

use crate::answer::Answer;
use crate::dialect::Dialect;
use crate::fields::{Fields, items};
use crate::request::Request;
use crate::usage::Usage;

const BYTES_PER_TOKEN: u64 = 4;
/// Role and separators of one message.
const TOKENS_PER_MESSAGE: u64 = 4;
/// About a 1,000 by 1,200 picture at either provider.
const TOKENS_PER_MEDIA: u64 = 1600;
/// A base64 document costs by its pages; this is about 1,600 tokens for each 80 KB.
const DOCUMENT_BYTES_PER_TOKEN: u64 = 50;

/// A rough count of what the request makes the model read.
pub fn estimate_input_tokens(request: &Request) -> u64 {
    request.estimated_input_tokens
}

pub(crate) fn input_tokens_of(dialect: Dialect, body: &Fields) -> u64 {
    let mut sum = Sum::default();
    for name in [
        "system",
        "instructions",
        "tools",
        "response_format",
        "text",
        "output_config",
    ] {
        if let Some(value) = body.get(name) {
            sum.add(value);
        }
    }
    let messages = body.get(dialect.messages_field());
    if let Some(messages) = messages {
        sum.add(messages);
    }
    let overhead = items(messages).len() as u64 * TOKENS_PER_MESSAGE;
    sum.bytes.div_ceil(BYTES_PER_TOKEN) + sum.media_tokens + overhead
}

/// What a call used whose provider didn't say.
pub(crate) fn usage(input_tokens: u64, answer: &Answer) -> Usage {
    Usage {
        input_tokens,
        output_tokens: (answer.bytes() as u64).div_ceil(BYTES_PER_TOKEN),
        estimated: true,
        ..Usage::default()
    }
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    media_tokens: u64,
}

impl Sum {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::Number(_) => self.bytes += 2,
            Value::String(text) => self.add_text(text),
            Value::Array(list) => list.iter().for_each(|item| self.add(item)),
            Value::Object(fields) => {
                let is_base64 = fields.contains_key("media_type");
                for (name, value) in fields {
                    match value {
                        Value::String(data) if is_base64 && name == "data" => {
                            self.add_media(
                                data.len(),
                                fields.get("media_type").and_then(Value::as_str),
                            );
                        }
                        _ => {
                            self.bytes += name.len() as u64;
                            self.add(value);
                        }
                    }
                }
            }
        }
    }

    fn add_text(&mut self, text: &str) {
        match crate::fields::split_data_url(text) {
            Some((media_type, data)) => self.add_media(data.len(), Some(media_type)),
            None => self.bytes += text.len() as u64,
        }
    }

    fn add_media(&mut self, bytes: usize, media_type: Option<&str>) {
        self.media_tokens += TOKENS_PER_MEDIA;
        if media_type == Some("application/pdf") {
            self.media_tokens += bytes as u64 / DOCUMENT_BYTES_PER_TOKEN;
        }
    }
}
