//! A tool as a server lists it and as an agent sees it.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The most tools that one server may list: more would only fill a model's context.
pub const MAX_TOOLS: usize = 1024;

/// A tool. Annotations are shown, never trusted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    #[serde(default = "no_arguments")]
    pub input_schema: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
}

fn no_arguments() -> Value {
    json!({"type": "object", "properties": {}})
}

/// Reads one page of `tools/list`; entries that are no tools are left out.
pub(crate) fn read_page(result: &Value) -> (Vec<Tool>, Option<String>) {
    let entries = result.get("tools").and_then(Value::as_array);
    let tools = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| serde_json::from_value(entry.clone()).ok())
        .collect();
    let next = result.get("nextCursor").and_then(Value::as_str);
    (tools, next.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_is_no_tool_hides_only_itself() {
        let page =
            json!({"tools": [{"name": "a"}, {"description": "no name"}, 7], "nextCursor": "x"});
        let (tools, next) = read_page(&page);
        assert_eq!(tools.len(), 1);
        assert_eq!(
            tools[0].input_schema,
            json!({"type": "object", "properties": {}})
        );
        assert_eq!(next.as_deref(), Some("x"));
    }
}
