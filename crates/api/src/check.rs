//! A document against its kind's schema: finds everything that is wrong, and yields typed JSON where nothing is.
//!
//! Knows no kind by name; what it checks is what `schema` says. Rules between fields and between objects are `resolve`'s.

mod object;
mod scalar;

use crate::file::{File, Mark};
use crate::manifest::Kind;
use crate::problem::Problem;
use crate::tree::{Content, MOST_PROBLEMS, Node};
use serde_json::Value;
use std::collections::BTreeMap;

/// Where each field of a document is, by its path: `spec.tools[0].http.url`.
pub(crate) type Places = BTreeMap<String, Mark>;

pub(crate) struct Check<'a> {
    file: &'a File,
    kind: Kind,
    pub(crate) problems: Vec<Problem>,
    pub(crate) places: Places,
}

impl<'a> Check<'a> {
    pub(crate) fn new(file: &'a File, kind: Kind) -> Self {
        Self {
            file,
            kind,
            problems: Vec::new(),
            places: Places::new(),
        }
    }

    /// The value in the types that the schema asks for. Without meaning if there were problems.
    pub(crate) fn value(&mut self, node: &Node, schema: &Value, path: &str) -> Value {
        self.places.insert(path.to_owned(), node.mark);
        let name = schema.get("type").and_then(Value::as_str);
        match (name, &node.content) {
            _ if schema.get("format").and_then(Value::as_str) == Some("mainstay-quantity") => {
                self.scalar(node, "string", schema, path)
            }
            (Some("object"), Content::Mapping(pairs)) => self.object(node, pairs, schema, path),
            (Some("array"), Content::Sequence(items)) => self.array(node, items, schema, path),
            (
                Some(name @ ("string" | "integer" | "number" | "boolean")),
                Content::Scalar { .. },
            ) => self.scalar(node, name, schema, path),
            (Some(name), _) => self.wrong_type(node, name, path),
            (None, _) => self.free(node, path),
        }
    }

    fn array(&mut self, node: &Node, items: &[Node], schema: &Value, path: &str) -> Value {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        if bound("minItems").is_some_and(|least| (items.len() as u64) < least) {
            self.problem(node.mark, format!("`{path}` is empty"));
        }
        if let Some(most) = bound("maxItems").filter(|most| items.len() as u64 > *most) {
            self.problem(
                node.mark,
                format!("`{path}` has {} items; the most is {most}", items.len()),
            );
        }
        let any = Value::Bool(true);
        let item_schema = schema.get("items").unwrap_or(&any);
        let each = items.iter().enumerate();
        Value::Array(
            each.map(|(index, item)| self.value(item, item_schema, &format!("{path}[{index}]")))
                .collect(),
        )
    }

    /// A value whose form is the user's own, by YAML's core schema.
    fn free(&mut self, node: &Node, path: &str) -> Value {
        match &node.content {
            Content::Scalar { .. } if node.is_null() => Value::Null,
            Content::Scalar { text, plain: true } => scalar::by_core_schema(text),
            Content::Scalar { text, .. } => Value::String(text.clone()),
            Content::Sequence(items) => {
                Value::Array(items.iter().map(|item| self.free(item, path)).collect())
            }
            Content::Mapping(pairs) => Value::Object(
                pairs
                    .iter()
                    .map(|(key, node)| (key.text.clone(), self.free(node, path)))
                    .collect(),
            ),
        }
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str, path: &str) -> Value {
        let wanted = match wanted {
            "object" => "a mapping",
            "array" => "a list",
            "string" => "text",
            "integer" => "a whole number",
            "number" => "a number",
            _ => "true or false",
        };
        let found = match &node.content {
            _ if node.is_null() => "nothing",
            Content::Scalar { plain: true, text } if scalar::by_core_schema(text).is_number() => {
                "a number"
            }
            Content::Scalar { .. } => "text",
            Content::Sequence(_) => "a list",
            Content::Mapping(_) => "a mapping",
        };
        self.problem(node.mark, format!("`{path}` must be {wanted}, not {found}"));
        Value::Null
    }

    fn problem(&mut self, mark: Mark, message: impl Into<String>) {
        self.report(self.file.problem(mark, message));
    }

    /// Keeps the problem, unless there are so many already that one more helps nobody.
    fn report(&mut self, problem: Problem) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem);
        }
    }
}
