//! Mappings: unknown fields with the name that was probably meant, missing fields, and siblings that exclude each other.

use super::Check;
use crate::nearest::{did_you_mean, nearest};
use crate::problem::quoted;
use crate::schema::properties;
use crate::tree::{Key, Node};
use serde_json::{Map, Value};

impl Check<'_> {
    pub(super) fn object(
        &mut self,
        node: &Node,
        pairs: &[(Key, Node)],
        schema: &Value,
        path: &str,
    ) -> Value {
        let fields = properties(schema);
        if fields.is_none() && schema.get("additionalProperties") != Some(&Value::Bool(false)) {
            return self.map(pairs, schema, path);
        }
        let none = Map::new();
        let fields = fields.unwrap_or(&none);
        let mut object = Map::new();
        for (key, value) in pairs {
            let field_path = join(path, &key.text);
            match fields.get(&key.text) {
                // Written without a value is the same as not written.
                Some(_) if value.is_null() => {}
                Some(field) => {
                    object.insert(key.text.clone(), self.value(value, field, &field_path));
                }
                None => self.unknown_field(key, fields, path),
            }
        }
        self.missing_fields(node, pairs, &object, schema, path);
        self.siblings(node, &object, schema, path);
        Value::Object(object)
    }

    fn map(&mut self, pairs: &[(Key, Node)], schema: &Value, path: &str) -> Value {
        let any = Value::Bool(true);
        let item = schema.get("additionalProperties").unwrap_or(&any);
        let each = pairs.iter();
        Value::Object(
            each.map(|(key, node)| {
                (
                    key.text.clone(),
                    self.value(node, item, &join(path, &key.text)),
                )
            })
            .collect(),
        )
    }

    fn unknown_field(&mut self, key: &Key, fields: &Map<String, Value>, path: &str) {
        let place = if path.is_empty() {
            "a manifest".to_owned()
        } else {
            format!("`{path}`")
        };
        let message = format!("{} is no field of {place}", quoted(&key.text));
        let hint = self.unknown_hint(key, fields, path);
        self.report(self.file.problem(key.mark, message).with_maybe(hint));
    }

    fn unknown_hint(&self, key: &Key, fields: &Map<String, Value>, path: &str) -> Option<String> {
        let field_path = join(path, &key.text);
        if crate::later::is_later(self.kind, &field_path) {
            return Some(format!(
                "`{field_path}` comes with a later version of Mainstay"
            ));
        }
        if key.text == "<<" {
            return Some("merge keys are not read; write the fields where they belong".to_owned());
        }
        let known = || fields.keys().map(String::as_str);
        did_you_mean(&key.text, known())
            .or_else(|| self.elsewhere(&key.text))
            .or_else(|| {
                let names: Vec<&str> = known().collect();
                (!names.is_empty()).then(|| format!("its fields are {}", names.join(", ")))
            })
    }

    /// A field of that name which belongs somewhere else in this kind.
    fn elsewhere(&self, name: &str) -> Option<String> {
        let path = find(crate::schema::kind_schema(self.kind), name, "")?;
        Some(format!("did you mean `{path}`?"))
    }

    fn missing_fields(
        &mut self,
        node: &Node,
        pairs: &[(Key, Node)],
        object: &Map<String, Value>,
        schema: &Value,
        path: &str,
    ) {
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for name in required.filter_map(Value::as_str) {
            if object.contains_key(name) {
                continue;
            }
            let field_path = join(path, name);
            // A near miss has been reported as an unknown field already.
            let misspelt = pairs.iter().any(|(key, _)| {
                !object.contains_key(&key.text)
                    && nearest(&key.text, [name]).is_some()
                    && key.text != name
            });
            if !misspelt {
                self.problem(node.mark, format!("`{field_path}` is missing"));
            }
        }
    }

    /// `oneOf` lists of required fields mean "exactly one of these"; `maxProperties: 1` means "at most one".
    fn siblings(&mut self, node: &Node, object: &Map<String, Value>, schema: &Value, path: &str) {
        let one_of = schema
            .get("oneOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let names: Vec<&str> = one_of
            .filter_map(|variant| variant["required"][0].as_str())
            .collect();
        let written: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| object.contains_key(*name))
            .collect();
        let place = if path.is_empty() {
            "it".to_owned()
        } else {
            format!("`{path}`")
        };
        match (names.len(), written.len()) {
            (0, _) | (_, 1) => {}
            (_, 0) => self.problem(
                node.mark,
                format!("{place} needs exactly one of {}", names.join(", ")),
            ),
            _ => {
                let message = format!(
                    "{place} has {}, but only one of them may be written",
                    written.join(" and ")
                );
                self.problem(node.mark, message);
            }
        }
        if schema.get("maxProperties") == Some(&Value::from(1)) && object.len() > 1 {
            let written: Vec<&str> = object.keys().map(String::as_str).collect();
            self.problem(
                node.mark,
                format!(
                    "{place} has {}, but only one of them may be written",
                    written.join(" and ")
                ),
            );
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The path of the first field with exactly this name, outermost first.
fn find(schema: &Value, name: &str, path: &str) -> Option<String> {
    let mut level = vec![(schema, path.to_owned())];
    while !level.is_empty() {
        let mut next = Vec::new();
        for (schema, path) in &level {
            for (field, inner) in properties(schema).into_iter().flatten() {
                let field_path = join(path, field);
                if field == name {
                    return Some(field_path);
                }
                next.push((inner, field_path));
            }
        }
        level = next;
    }
    None
}
