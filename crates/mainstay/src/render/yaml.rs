//! Objects as YAML that every reader reads alike, old ones too.
//!
//! Text is written plain only where no version of YAML takes it for something else: to Kubernetes'
//! reader `on`, `yes` and `1_000` are no text. Keys stay in their order.

use serde_json::Value;

/// One document, with a line end.
pub fn write(value: &Value) -> String {
    let mut text = String::new();
    node(&mut text, value, 0);
    text.trim_start_matches('\n').to_owned()
}

/// Appends ` VALUE\n`, or a line end and a block.
fn node(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            for (key, field) in fields {
                text.push_str(&format!("{indent}{}:", scalar(key)));
                // A list begins below its key, not further in.
                let deeper = if field.is_array() { depth } else { depth + 1 };
                node(text, field, deeper);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            for item in items {
                let mut inner = String::new();
                node(&mut inner, item, depth + 1);
                // The first field of an object stands beside the dash.
                text.push_str(&format!("{indent}- {}", inner.trim_start()));
            }
        }
        Value::Object(_) => text.push_str(" {}\n"),
        Value::Array(_) => text.push_str(" []\n"),
        Value::String(string) if is_block(string) => block(text, string, &indent),
        Value::String(string) => text.push_str(&format!(" {}\n", scalar(string))),
        other => text.push_str(&format!(" {other}\n")),
    }
}

/// Text of several lines that a literal block keeps to the letter.
fn is_block(string: &str) -> bool {
    let is_plain = |character: char| character == '\n' || is_printable(character);
    string.trim_end_matches('\n').contains('\n')
        && !string.starts_with([' ', '\n'])
        && !string.ends_with("\n\n")
        && string.chars().all(is_plain)
        && string.lines().all(|line| !line.ends_with(' '))
}

fn block(text: &mut String, string: &str, indent: &str) {
    text.push_str(if string.ends_with('\n') {
        " |\n"
    } else {
        " |-\n"
    });
    // A block at the top of a document needs no indent of its own, but one below a key does.
    let indent = if indent.is_empty() { "  " } else { indent };
    for line in string.lines() {
        let line = if line.is_empty() {
            String::new()
        } else {
            format!("{indent}{line}")
        };
        text.push_str(&format!("{line}\n"));
    }
}

fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(u32::from(character), 0x80..=0x9f | 0x2028 | 0x2029 | 0xfeff)
}

fn scalar(string: &str) -> String {
    if is_plain(string) {
        return string.to_owned();
    }
    let json = Value::from(string).to_string();
    // JSON leaves characters as they are that YAML has only escaped.
    json.chars().fold(String::new(), |mut text, character| {
        if is_printable(character) {
            text.push(character);
        } else {
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        }
        text
    })
}

/// Words and paths that can be nothing but text.
fn is_plain(string: &str) -> bool {
    const WORDS: [&str; 11] = [
        "true", "false", "yes", "no", "on", "off", "y", "n", "null", "inf", "nan",
    ];
    let begins = |character: char| character.is_ascii_alphabetic() || character == '/';
    let goes_on = |character: char| {
        character.is_ascii_alphanumeric()
            || matches!(
                character,
                '_' | '-' | '.' | '/' | ' ' | ',' | '(' | ')' | '=' | '+' | '@' | ';'
            )
    };
    string.starts_with(begins)
        && string.chars().all(goes_on)
        && !string.ends_with(' ')
        && !WORDS.iter().any(|word| string.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(value: Value) {
        let text = write(&value);
        let read: Value =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(read, value, "{text}");
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        for text in [
            "",
            " a",
            "a ",
            "a: b",
            "a #b",
            "- a",
            "yes",
            "On",
            "1_000",
            "0o7",
            "1e3",
            "~",
            "null",
            "{a}",
            "[a]",
            "a\nb",
            "a\nb\n",
            "a\nb\n\n",
            "\na\n",
            "  a\nb",
            "a \nb",
            "a\tb",
            "a\n\tb",
            "a\u{7f}\u{85}\u{2028}\u{feff}\u{1}b",
            "é😀\nz",
            "%a",
            "@a",
            "`a",
            "!a",
            "&a",
            "*a",
            "?",
            "a\r\nb",
            "/bin/sh",
            "2001-01-01",
            "12:30",
            "\"",
            "'",
            "\\",
            "---",
            "...",
            "a\n---\nb",
            "a\n\nb",
            "# a\nb",
            "=",
            "<<",
            ".5",
            "0x1f",
            ".inf",
            "a: b\nc",
        ] {
            check(json!(text));
            check(json!({"key": text, "other": [text, {"a": text, "b": text}], (text): 1}));
        }
    }

    #[test]
    fn structure_is_kept() {
        check(json!({"a": {}, "b": [], "c": [[1, 2], [], {}], "d": {"e": [{"f": [{"g": null}]}]}}));
        check(json!([{"a": 1, "b": [1.5, true, -3]}, "x"]));
    }

    #[test]
    fn it_looks_like_what_a_person_writes() {
        let value = json!({"kind": "Agent", "spec": {
            "models": ["openai/gpt-5.1"], "instructions": "a\nb\n", "env": {"LOG": "on"},
        }});
        assert_eq!(
            write(&value),
            "kind: Agent\nspec:\n  models:\n  - openai/gpt-5.1\n  instructions: |\n    a\n    b\n  env:\n    LOG: \"on\"\n"
        );
    }
}
