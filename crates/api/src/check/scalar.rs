//! Text, numbers and what a schema says about them: types, values to choose from, bounds, formats.

use super::Check;
use crate::nearest::nearest;
use crate::problem::quoted;
use crate::tree::{Content, Node};
use serde_json::{Number, Value};

impl Check<'_> {
    pub(super) fn scalar(
        &mut self,
        node: &Node,
        wanted: &str,
        schema: &Value,
        path: &str,
    ) -> Option<Value> {
        let Content::Scalar { text, plain } = &node.content else {
            return self.wrong_type(node, wanted, path);
        };
        let value = match wanted {
            _ if node.is_null() => None,
            "string" if *plain && is_amount(schema) && is_fraction(text) => {
                let message =
                    format!("`{path}` is {text}: write a number with a fraction in quotes");
                self.problem(node.mark, message);
                return None;
            }
            "string" => return self.text(node, text, schema, path),
            "integer" if *plain => integer(text),
            "number" if *plain => number(text),
            "boolean" if *plain => text.parse().ok().map(Value::Bool),
            _ => None,
        };
        match value {
            Some(value) => self.within_bounds(node, value, schema, path),
            None => self.wrong_type(node, wanted, path),
        }
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Value, path: &str) -> Option<Value> {
        let length = text.chars().count() as u64;
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        let value = Some(Value::String(text.to_owned()));
        if text.contains('\0') {
            self.problem(node.mark, format!("`{path}` holds a NUL character"));
        } else if bound("minLength").is_some_and(|least| length < least) {
            self.problem(node.mark, format!("`{path}` is empty"));
        } else if let Some(most) = bound("maxLength").filter(|most| length > *most) {
            self.problem(
                node.mark,
                format!("`{path}` has {length} characters; the most is {most}"),
            );
        } else if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return self.choice(node, text, values, path);
        } else if let Some(format) = schema.get("format").and_then(Value::as_str)
            && let Err(reason) = crate::format::check(format, text, schema)
        {
            self.problem(
                node.mark,
                format!("`{path}` is {}, which {reason}", quoted(text)),
            );
            return value.filter(|_| format != "mainstay-duration" && !is_amount(schema));
        }
        value
    }

    /// One of the values; a misspelt one is reported and read as what was probably meant.
    fn choice(&mut self, node: &Node, text: &str, values: &[Value], path: &str) -> Option<Value> {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        if values.contains(&text) {
            return Some(Value::from(text));
        }
        let message = format!(
            "`{path}` is {}, which is none of {}",
            quoted(text),
            values.join(", ")
        );
        let meant = nearest(text, values);
        let hint = meant.map(|meant| format!("did you mean `{meant}`?"));
        self.report(self.file.problem(node.mark, message).with_maybe(hint));
        meant.map(Value::from)
    }

    fn within_bounds(
        &mut self,
        node: &Node,
        value: Value,
        schema: &Value,
        path: &str,
    ) -> Option<Value> {
        let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
        let is_u32 = schema.get("format").and_then(Value::as_str) == Some("uint32");
        let (least, most) = (
            bound("minimum"),
            bound("maximum").or(is_u32.then_some(f64::from(u32::MAX))),
        );
        let number = value.as_f64()?;
        if least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most) {
            return Some(value);
        }
        let range = match (least, most) {
            (Some(least), Some(most)) => format!("between {least} and {most}"),
            (Some(least), None) => format!("at least {least}"),
            (None, most) => format!("at most {}", most.unwrap_or_default()),
        };
        self.problem(
            node.mark,
            format!("`{path}` is {value}; it must be {range}"),
        );
        None
    }
}

/// Whether it is a size or an amount of CPU, which may be written as a whole number.
pub(super) fn is_amount(schema: &Value) -> bool {
    let format = schema.get("format").and_then(Value::as_str);
    matches!(format, Some("mainstay-quantity" | "mainstay-cpu"))
}

/// A number that Kubernetes takes neither for a whole number nor for text.
fn is_fraction(text: &str) -> bool {
    integer(text).is_none() && number(text).is_some()
}

fn integer(text: &str) -> Option<Value> {
    // As YAML 1.2 has it: an octal number is 0o17, so 017 is a slip.
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all_digits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if !all_digits || (digits.len() > 1 && digits.starts_with('0')) {
        return None;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    text.parse::<u64>()
        .map(Value::from)
        .or_else(|_| text.parse::<i64>().map(Value::from))
        .ok()
}

fn number(text: &str) -> Option<Value> {
    integer(text).or_else(|| {
        let numeric = text
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'+' | b'e' | b'E'));
        let number: f64 = text.parse().ok().filter(|_| numeric)?;
        Number::from_f64(number).map(Value::Number)
    })
}

/// What a plain scalar is where nothing says what it should be.
pub(super) fn by_core_schema(text: &str) -> Value {
    match text {
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    }
}
