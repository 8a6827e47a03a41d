//! Reading loosely typed JSON without trusting it: absent, null and wrongly typed values each get a definite meaning.
//! Nothing here knows a dialect.

use serde_json::{Map, Value};

use crate::refusal::Refusal;
use crate::request::Request;

pub(crate) type Fields = Map<String, Value>;

/// The value of a field; `null` counts as absent.
pub(crate) fn present<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

/// A string of an object, or `""`.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A number of an object, or 0.
pub(crate) fn count(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or_default()
}

/// The items of an array, or nothing.
pub(crate) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The conversation, which every request must have.
pub(crate) fn conversation<'a>(fields: &'a Fields, name: &str) -> Result<&'a Value, Refusal> {
    match present(fields, name) {
        Some(value) if value.is_array() => Ok(value),
        Some(_) => Err(Refusal::new(name, "must be an array")),
        None => Err(Refusal::new(name, "is required")),
    }
}

/// A tool schema; one that is missing takes no arguments.
pub(crate) fn schema_or_empty(schema: Option<&Value>) -> Value {
    match schema {
        Some(schema) if schema.is_object() => schema.clone(),
        _ => serde_json::json!({"type": "object", "properties": {}}),
    }
}

/// Typed reads that note a wrong type as a reason not to translate.
impl Request {
    pub(crate) fn read_number(&mut self, name: &str, value: &Value) -> Option<f64> {
        let number = value.as_f64();
        self.note_unless(number.is_some(), name, "must be a number");
        number
    }

    pub(crate) fn read_count(&mut self, name: &str, value: &Value) -> Option<u64> {
        let count = value.as_u64();
        self.note_unless(count.is_some(), name, "must be a whole number");
        count
    }

    pub(crate) fn read_flag(&mut self, name: &str, value: &Value) -> Option<bool> {
        let flag = value.as_bool();
        self.note_unless(flag.is_some(), name, "must be true or false");
        flag
    }

    pub(crate) fn read_text(&mut self, name: &str, value: &Value) -> Option<String> {
        let text = value.as_str().map(str::to_owned);
        self.note_unless(text.is_some(), name, "must be a string");
        text
    }

    /// One string or a list of them.
    pub(crate) fn read_texts(&mut self, name: &str, value: &Value) -> Vec<String> {
        if let Some(text) = value.as_str() {
            return vec![text.to_owned()];
        }
        let texts = items(Some(value)).iter().filter_map(Value::as_str);
        let texts: Vec<String> = texts.map(str::to_owned).collect();
        let complete = value.as_array().is_some_and(|all| all.len() == texts.len());
        self.note_unless(complete, name, "must be a string or a list of strings");
        texts
    }

    fn note_unless(&mut self, fine: bool, name: &str, message: &str) {
        if !fine {
            self.native_only.push(Refusal::new(name, message));
        }
    }
}

/// Splits `data:image/png;base64,AAAA` into media type and data.
pub(crate) fn split_data_url(url: &str) -> Option<(&str, &str)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let media_type = head.strip_suffix(";base64")?;
    let media_type = media_type.split(';').next().unwrap_or(media_type);
    Some((media_type, data))
}
