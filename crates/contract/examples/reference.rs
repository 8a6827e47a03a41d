//! Prints `docs/reference/contract.md`: the text of `attach.md` with what the message types say of
//! themselves. `cargo xtask docs` runs it.

use std::fmt::Write as _;

use contract::attach::{FromAgent, HELLO, MAX_MESSAGE_BYTES, PING, SILENCE, ToAgent};
use contract::{NEWEST, OLDEST};
use schemars::{JsonSchema, schema_for};
use serde_json::Value;

fn main() {
    let mib = MAX_MESSAGE_BYTES / (1024 * 1024);
    let filled = [
        ("{{to the agent}}\n", table::<ToAgent>()),
        ("{{from the agent}}\n", table::<FromAgent>()),
        ("{{oldest}}", OLDEST.to_string()),
        ("{{newest}}", NEWEST.to_string()),
        ("{{message}}", mib.to_string()),
        ("{{hello}}", HELLO.as_secs().to_string()),
        ("{{ping}}", PING.as_secs().to_string()),
        ("{{silence}}", SILENCE.as_secs().to_string()),
    ];
    let template = include_str!("../src/attach.md").to_owned();
    let page = filled
        .iter()
        .fold(template, |page, (mark, text)| page.replace(mark, text));
    print!("{page}");
}

/// A row for each message of this side.
fn table<T: JsonSchema>() -> String {
    let schema = serde_json::to_value(schema_for!(T)).unwrap_or_default();
    let mut rows = "| `type` | fields | meaning |\n|---|---|---|\n".to_owned();
    for message in schema["oneOf"].as_array().into_iter().flatten() {
        let fields = message["properties"].as_object();
        let fields = fields.into_iter().flatten();
        let named: Vec<String> = fields
            .filter(|(name, _)| *name != "type")
            .map(|(name, field)| format!("`{name}`{}", said(": ", field)))
            .collect();
        let _ = writeln!(
            rows,
            "| `{}` | {} | {} |",
            message["properties"]["type"]["const"]
                .as_str()
                .unwrap_or_default(),
            named.join("; "),
            said("", message)
        );
    }
    rows
}

/// A type's own words on one line, safe inside a table.
fn said(before: &str, schema: &Value) -> String {
    match schema["description"].as_str() {
        Some(text) => format!("{before}{}", text.replace('\n', " ").replace('|', "\\|")),
        None => String::new(),
    }
}
