//! Text, numbers and what a schema says about them: types, values to choose from, bounds, formats.

use super::Check;
use crate::nearest::did_you_mean;
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
    ) -> Value {
        let Content::Scalar { text, plain } = &node.content else {
            return self.wrong_type(node, wanted, path);
        };
        if node.is_null() {
            return self.wrong_type(node, wanted, path);
        }
        let value = match wanted {
            "string" => return self.text(node, text, schema, path),
            "integer" if *plain => integer(text),
            "number" if *plain => number(text),
            "boolean" if *plain => text.parse().ok().map(Value::Bool),
            _ => None,
        };
        let Some(value) = value else {
            return self.wrong_type(node, wanted, path);
        };
        self.bounds(node, &value, schema, path);
        value
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Value, path: &str) -> Value {
        let length = text.chars().count() as u64;
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
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
            self.choice(node, text, values, path);
        } else if let Some(format) = schema.get("format").and_then(Value::as_str)
            && let Err(reason) = crate::format::check(format, text, schema)
        {
            self.problem(
                node.mark,
                format!("`{path}` is {}, which {reason}", quoted(text)),
            );
        }
        Value::String(text.to_owned())
    }

    fn choice(&mut self, node: &Node, text: &str, values: &[Value], path: &str) {
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        if values.contains(&text) {
            return;
        }
        let message = format!(
            "`{path}` is {}, which is none of {}",
            quoted(text),
            values.join(", ")
        );
        let hint = did_you_mean(text, values);
        self.report(self.file.problem(node.mark, message).with_maybe(hint));
    }

    fn bounds(&mut self, node: &Node, value: &Value, schema: &Value, path: &str) {
        let bound = |name: &str| schema.get(name).filter(|bound| bound.is_number());
        let (Some(number), least, most) = (value.as_f64(), bound("minimum"), bound("maximum"))
        else {
            return;
        };
        let below = least.is_some_and(|least| least.as_f64().is_some_and(|least| number < least));
        let above = most.is_some_and(|most| most.as_f64().is_some_and(|most| number > most));
        let range = match (least, most) {
            (Some(least), Some(most)) => format!("between {} and {}", shown(least), shown(most)),
            (Some(least), None) => format!("at least {}", shown(least)),
            (None, most) => format!("at most {}", most.map(shown).unwrap_or_default()),
        };
        if below || above {
            self.problem(
                node.mark,
                format!("`{path}` is {value}; it must be {range}"),
            );
        }
    }
}

/// Bounds come out of the schema generator as floats or integers; people want to read integers.
fn shown(bound: &Value) -> String {
    bound
        .as_f64()
        .filter(|number| number.fract() == 0.0)
        .map_or_else(|| bound.to_string(), |number| format!("{number:.0}"))
}

fn integer(text: &str) -> Option<Value> {
    // As YAML 1.2 has it: an octal number is 0o17, so 017 is a slip.
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let clean = !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'));
    let text = text.strip_prefix('+').unwrap_or(text);
    clean
        .then(|| {
            text.parse::<u64>()
                .map(Value::from)
                .or_else(|_| text.parse::<i64>().map(Value::from))
                .ok()
        })
        .flatten()
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
