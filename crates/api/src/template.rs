//! `{name}` placeholders in an HTTP tool's address and body: one reading of them, shared by validation and by the gateway.
//!
//! Filling them in (percent-encoding, JSON types) is the caller's.

use serde_json::Value;

/// The placeholder that stands for the step's id.
pub const STEP_ID: &str = "stepId";

/// A piece of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    Text(&'a str),
    /// The name between the braces: an argument, or `STEP_ID`.
    Argument(&'a str),
}

/// Splits a text at its placeholders. Braces around anything but a name are text.
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let (mut begin, mut from) = (0, 0);
    while let Some(open) = text[from..].find('{').map(|at| from + at) {
        let inner = &text[open + 1..];
        let name = &inner[..inner.find(|c| !is_name_character(c)).unwrap_or(inner.len())];
        let close = open + 1 + name.len();
        if name.is_empty() || !text[close..].starts_with('}') {
            from = open + 1;
            continue;
        }
        if begin < open {
            parts.push(Part::Text(&text[begin..open]));
        }
        parts.push(Part::Argument(name));
        begin = close + 1;
        from = begin;
    }
    if begin < text.len() {
        parts.push(Part::Text(&text[begin..]));
    }
    parts
}

/// The names of a text's placeholders, in order, repeated ones repeated.
pub fn arguments(text: &str) -> impl Iterator<Item = &str> {
    parts(text).into_iter().filter_map(|part| match part {
        Part::Argument(name) => Some(name),
        Part::Text(_) => None,
    })
}

/// The name, if the whole text is one placeholder: then the argument keeps its JSON type.
pub fn whole(text: &str) -> Option<&str> {
    match parts(text).as_slice() {
        [Part::Argument(name)] => Some(name),
        _ => None,
    }
}

/// The names of all placeholders in a JSON value's texts. Keys are not templates.
pub fn arguments_of(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => arguments(text).collect(),
        Value::Array(items) => items.iter().flat_map(arguments_of).collect(),
        Value::Object(map) => map.values().flat_map(arguments_of).collect(),
        _ => Vec::new(),
    }
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::{Part, parts, whole};

    fn check(text: &str, expect: &[Part<'_>]) {
        assert_eq!(parts(text), expect, "{text}");
    }

    #[test]
    fn a_template_splits_at_names_in_braces_only() {
        use Part::{Argument, Text};
        check("", &[]);
        check("a", &[Text("a")]);
        check("{a}", &[Argument("a")]);
        check(
            "x{a}{b-c}y",
            &[Text("x"), Argument("a"), Argument("b-c"), Text("y")],
        );
        check("{}", &[Text("{}")]);
        check("{a b}", &[Text("{a b}")]);
        check("{{a}}", &[Text("{"), Argument("a"), Text("}")]);
        check("{a", &[Text("{a")]);
        check("ü{é}{ok}", &[Text("ü{é}"), Argument("ok")]);
    }

    #[test]
    fn only_a_lone_placeholder_is_whole() {
        assert_eq!(whole("{order}"), Some("order"));
        assert_eq!(whole(" {order}"), None);
        assert_eq!(whole("{a}{b}"), None);
    }
}
