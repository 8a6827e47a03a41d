//! What the loop is given on standard input, and its translation into the first turns of a
//! conversation. The object is the one every `exec` agent gets, with the agent's own settings.

use llm::{AssistantPart, Part, Source, Turn};
use serde::Deserialize;
use serde_json::Value;

use crate::failure::Failure;

/// A task for the built-in loop. Fields it doesn't need are ignored.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Assignment {
    pub(crate) input: Value,
    #[serde(default)]
    pub(crate) history: Vec<HistoryTurn>,
    #[serde(default)]
    pub(crate) token: String,
    #[serde(default)]
    pub(crate) instructions: String,
    /// `provider/model`.
    pub(crate) model: String,
    #[serde(default)]
    pub(crate) dialect: Speech,
}

/// Which of the gateway's dialects to speak: the one nearest to the model's provider loses least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Speech {
    #[default]
    Openai,
    Anthropic,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct HistoryTurn {
    pub(crate) role: String,
    pub(crate) content: Value,
}

impl Assignment {
    /// Instructions, the session's earlier turns, and the input.
    pub(crate) fn turns(&self) -> Result<Vec<Turn>, Failure> {
        let mut turns = Vec::new();
        if !self.instructions.is_empty() {
            turns.push(Turn::System(vec![Part::Text(self.instructions.clone())]));
        }
        for turn in &self.history {
            match turn.role.as_str() {
                "agent" => turns.push(Turn::Assistant(vec![AssistantPart::Text(plain(
                    &turn.content,
                ))])),
                _ => turns.push(Turn::User(parts(&turn.content, "history")?)),
            }
        }
        turns.push(Turn::User(parts(&self.input, "input")?));
        Ok(turns)
    }
}

/// Text as it is, anything else as JSON.
fn plain(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn parts(content: &Value, what: &'static str) -> Result<Vec<Part>, Failure> {
    let parts = match content {
        Value::Array(parts) if parts.iter().all(is_part) && !parts.is_empty() => parts,
        other => return Ok(vec![Part::Text(plain(other))]),
    };
    parts
        .iter()
        .map(|one| part(one).map_err(|reason| Failure::Input { what, reason }))
        .collect()
}

fn is_part(value: &Value) -> bool {
    ["text", "file", "data", "raw", "url"]
        .iter()
        .any(|field| value.get(field).is_some())
}

/// An A2A part, in the form with `kind` or without.
fn part(part: &Value) -> Result<Part, String> {
    if let Some(text) = part.get("text").and_then(Value::as_str) {
        return Ok(Part::Text(text.to_owned()));
    }
    if let Some(data) = part.get("data") {
        return Ok(Part::Text(data.to_string()));
    }
    let file = part.get("file").unwrap_or(part);
    let field = |names: [&str; 3]| {
        names
            .iter()
            .find_map(|name| file.get(*name))
            .and_then(Value::as_str)
    };
    let media_type =
        field(["mimeType", "mediaType", "media_type"]).unwrap_or("application/octet-stream");
    let source = match (
        field(["bytes", "raw", "fileWithBytes"]),
        field(["uri", "url", "fileWithUri"]),
    ) {
        (Some(data), _) => Source::Base64 {
            media_type: media_type.to_owned(),
            data: data.to_owned(),
        },
        (None, Some(url)) => Source::Url(url.to_owned()),
        (None, None) => return Err("a part holds neither text nor data nor a file".to_owned()),
    };
    match media_type {
        image if image.starts_with("image/") => Ok(Part::Image(source)),
        "application/pdf" => Ok(Part::Document {
            source,
            name: field(["name", "filename", "fileName"]).map(str::to_owned),
        }),
        other => Err(format!(
            "a file of type {other} is neither an image nor a PDF"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(input: Value, expect: Result<Vec<Part>, &str>) {
        let read = parts(&input, "input").map_err(|failure| failure.to_string());
        match (read, expect) {
            (Ok(read), Ok(expect)) => assert_eq!(read, expect, "{input}"),
            (Err(read), Err(expect)) => assert!(read.contains(expect), "{read}"),
            (read, expect) => panic!("{input}: {read:?}, not {expect:?}"),
        }
    }

    #[test]
    fn text_stays_text_and_json_becomes_text() {
        check(json!("hello"), Ok(vec![Part::Text("hello".into())]));
        check(json!({"a": 1}), Ok(vec![Part::Text(r#"{"a":1}"#.into())]));
        check(json!([1, 2]), Ok(vec![Part::Text("[1,2]".into())]));
    }

    #[test]
    fn parts_of_either_form_are_read() {
        let image = Part::Image(Source::Base64 {
            media_type: "image/png".into(),
            data: "AAAA".into(),
        });
        check(
            json!([
                {"kind": "text", "text": "look"},
                {"kind": "file", "file": {"mimeType": "image/png", "bytes": "AAAA"}},
                {"raw": "AAAA", "mediaType": "image/png"},
                {"kind": "data", "data": {"n": 1}},
            ]),
            Ok(vec![
                Part::Text("look".into()),
                image.clone(),
                image,
                Part::Text(r#"{"n":1}"#.into()),
            ]),
        );
    }

    #[test]
    fn a_file_that_no_model_reads_is_an_error_that_says_so() {
        check(
            json!([{"url": "https://x/y.zip", "mediaType": "application/zip"}]),
            Err("application/zip"),
        );
    }
}
