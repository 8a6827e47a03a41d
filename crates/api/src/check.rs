//! A document against its kind's schema: finds everything that is wrong, and yields typed JSON of what isn't.
//!
//! A wrong field is reported and left out, a misspelt one is read as what was probably meant: so the rest of the object
//! can still be checked against the set, and all that is wrong with it is said at once. Knows no kind by name; rules
//! between fields and between objects are `resolve`'s.

mod object;
mod scalar;

use crate::file::{File, Mark};
use crate::manifest::Kind;
use crate::problem::{Problem, quoted};
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

    /// The value in the types that the schema asks for; `None` if it has none of them, which is then reported.
    pub(crate) fn value(&mut self, node: &Node, schema: &Value, path: &str) -> Option<Value> {
        self.places.insert(path.to_owned(), node.mark);
        // An amount may be a number; its text is read either way.
        let wanted = if scalar::is_amount(schema) {
            Some("string")
        } else {
            schema.get("type").and_then(Value::as_str)
        };
        match (wanted, &node.content) {
            (None, _) => Some(free(node)),
            (Some("object"), Content::Mapping(pairs)) => {
                Some(self.object(node, pairs, schema, path))
            }
            (Some("array"), Content::Sequence(items)) => self.array(node, items, schema, path),
            (
                Some(wanted @ ("string" | "integer" | "number" | "boolean")),
                Content::Scalar { .. },
            ) => self.scalar(node, wanted, schema, path),
            (Some(wanted), _) => self.wrong_type(node, wanted, path),
        }
    }

    /// All items or none: a list with a gap would shift the places of the others.
    fn array(&mut self, node: &Node, items: &[Node], schema: &Value, path: &str) -> Option<Value> {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        if bound("minItems").is_some_and(|least| (items.len() as u64) < least) {
            self.problem(node.mark, format!("`{path}` is empty"));
        }
        if let Some(most) = bound("maxItems").filter(|most| items.len() as u64 > *most) {
            self.problem(
                node.mark,
                format!("`{path}` has {} items; the most is {most}", items.len()),
            );
            return None;
        }
        let any = Value::Bool(true);
        let item_schema = schema.get("items").unwrap_or(&any);
        let each = items.iter().enumerate();
        let values: Vec<Option<Value>> = each
            .map(|(index, item)| self.value(item, item_schema, &format!("{path}[{index}]")))
            .collect();
        values.into_iter().collect()
    }

    fn wrong_type(&mut self, node: &Node, wanted: &str, path: &str) -> Option<Value> {
        let wanted = match wanted {
            "object" => "a mapping",
            "array" => "a list",
            "string" => "text",
            "integer" => "a whole number",
            "number" => "a number",
            _ => "true or false",
        };
        let found = match &node.content {
            _ if node.is_null() => "nothing".to_owned(),
            Content::Scalar { plain: true, text } if !text.is_empty() => quoted(text),
            Content::Scalar { .. } => "text in quotes".to_owned(),
            Content::Sequence(_) => "a list".to_owned(),
            Content::Mapping(_) => "a mapping".to_owned(),
        };
        self.problem(node.mark, format!("`{path}` must be {wanted}, not {found}"));
        None
    }

    fn problem(&mut self, mark: Mark, message: impl Into<String>) {
        if !self.is_full() {
            self.report(self.file.problem(mark, message));
        }
    }

    /// So many problems that one more helps nobody, and only costs time.
    fn is_full(&self) -> bool {
        self.problems.len() >= MOST_PROBLEMS
    }

    fn report(&mut self, problem: Problem) {
        if !self.is_full() {
            self.problems.push(problem);
        }
    }
}

/// A value whose form is the user's own, by YAML's core schema.
fn free(node: &Node) -> Value {
    match &node.content {
        Content::Scalar { .. } if node.is_null() => Value::Null,
        Content::Scalar { text, plain: true } => scalar::by_core_schema(text),
        Content::Scalar { text, .. } => Value::String(text.clone()),
        Content::Sequence(items) => Value::Array(items.iter().map(free).collect()),
        Content::Mapping(pairs) => Value::Object(
            pairs
                .iter()
                .map(|(key, node)| (key.text.clone(), free(node)))
                .collect(),
        ),
    }
}
