//! `{{…}}` in a transcript's texts: what the user said and what tools answered.
//!
//! What is filled in is never read as a template again.

use serde_json::Value;

use super::conversation::Conversation;

/// Fills in a text's placeholders. One that finds nothing becomes empty.
pub(super) fn fill(text: &str, conversation: &Conversation) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let Some((name, after)) = after.split_once("}}") else {
            filled.push_str("{{");
            rest = after;
            continue;
        };
        filled.push_str(&value(name.trim(), conversation));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// Fills in all texts of a tool call's arguments.
pub(super) fn fill_value(value: &Value, conversation: &Conversation) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text, conversation)),
        Value::Array(items) => items
            .iter()
            .map(|item| fill_value(item, conversation))
            .collect(),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| (name.clone(), fill_value(value, conversation)))
                .collect(),
        ),
        other => other.clone(),
    }
}

/// A placeholder's name that doesn't exist, if there is one.
pub(super) fn unknown_name(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}")?;
        let head = name.trim().split('.').next().unwrap_or_default();
        if !matches!(
            head,
            "input" | "lastToolResult" | "toolResults" | "turn" | "model"
        ) {
            return Some(name.trim());
        }
        rest = after;
    }
    None
}

fn value(name: &str, conversation: &Conversation) -> String {
    let (head, path) = name.split_once('.').unwrap_or((name, ""));
    match head {
        "input" => conversation.input.clone(),
        "turn" => conversation.turn.to_string(),
        "model" => conversation.model.clone(),
        "lastToolResult" => conversation
            .tool_results
            .last()
            .map(|result| inside(result, path))
            .unwrap_or_default(),
        "toolResults" if path.is_empty() => conversation.tool_results.join("\n"),
        "toolResults" => {
            let (index, path) = path.split_once('.').unwrap_or((path, ""));
            let result = index
                .parse()
                .ok()
                .and_then(|index: usize| conversation.tool_results.get(index));
            result
                .map(|result| inside(result, path))
                .unwrap_or_default()
        }
        _ => String::new(),
    }
}

/// The result, or the value at a path in it if it is JSON.
fn inside(result: &str, path: &str) -> String {
    if path.is_empty() {
        return result.to_owned();
    }
    let pointer = format!("/{}", path.replace('.', "/"));
    let parsed: Option<Value> = serde_json::from_str(result).ok();
    match parsed.as_ref().and_then(|value| value.pointer(&pointer)) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn conversation() -> Conversation {
        Conversation {
            input: "how {{turn}}".into(),
            tool_results: vec![
                r#"{"disk":{"free":[7,8]},"name":"x"}"#.into(),
                "plain".into(),
            ],
            ..Conversation::default()
        }
    }

    #[test]
    fn placeholders_find_texts_and_values_inside_json() {
        let check =
            |text: &str, expect: &str| assert_eq!(fill(text, &conversation()), expect, "{text}");
        check("a {{input}} b", "a how {{turn}} b");
        check("{{ toolResults.0.disk.free.1 }}", "8");
        check("{{toolResults.0.name}}", "x");
        check("{{lastToolResult}}", "plain");
        check("{{lastToolResult.disk}}", "");
        check(
            "{{toolResults.9}}|{{toolResults}}",
            "|{\"disk\":{\"free\":[7,8]},\"name\":\"x\"}\nplain",
        );
        check("{{open", "{{open");
    }

    #[test]
    fn a_name_that_does_not_exist_is_found() {
        assert_eq!(unknown_name("{{input}} {{ lastToolResult.a }}"), None);
        assert_eq!(unknown_name("{{inptu}}"), Some("inptu"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[{}a.\\PC]{0,60}") {
            fill(&text, &conversation());
            unknown_name(&text);
        }
    }
}
