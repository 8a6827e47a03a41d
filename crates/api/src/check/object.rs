//! Mappings: unknown fields with the name that was probably meant, missing fields, and siblings that exclude each other.

use super::Check;
use crate::nearest::nearest;
use crate::problem::quoted;
use crate::schema::properties;
use crate::tree::{Key, Node};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

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
            self.map_bounds(node, pairs.len() as u64, schema, path);
            return self.map(pairs, schema, path);
        }
        let none = Map::new();
        let fields = fields.unwrap_or(&none);
        let mut object = Map::new();
        let mut written: BTreeSet<&str> = BTreeSet::new();
        // Written without a value is the same as not written.
        for (key, value) in pairs
            .iter()
            .filter(|(key, value)| !value.is_null() || !fields.contains_key(&key.text))
        {
            let name = if fields.contains_key(&key.text) {
                Some(key.text.as_str())
            } else {
                let meant = self.unknown_field(key, fields, path);
                meant.filter(|meant| !pairs.iter().any(|(key, _)| key.text == *meant))
            };
            let Some((name, field)) = name.and_then(|name| fields.get_key_value(name)) else {
                continue;
            };
            if written.insert(name)
                && let Some(value) = self.value(value, field, &join(path, name))
            {
                object.insert(name.clone(), value);
            }
        }
        self.missing_fields(node, &written, schema, path);
        self.siblings(node, pairs, &written, schema, path);
        Value::Object(object)
    }

    fn map_bounds(&mut self, node: &Node, length: u64, schema: &Value, path: &str) {
        let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
        if bound("minProperties").is_some_and(|least| length < least) {
            self.problem(node.mark, format!("`{path}` is empty"));
        }
        if let Some(most) = bound("maxProperties").filter(|most| length > *most) {
            let message = format!("`{path}` has {length} entries; the most is {most}");
            self.problem(node.mark, message);
        }
    }

    fn map(&mut self, pairs: &[(Key, Node)], schema: &Value, path: &str) -> Value {
        let any = Value::Bool(true);
        let item = schema.get("additionalProperties").unwrap_or(&any);
        let mut typed = Map::new();
        for (key, node) in pairs {
            let item_path = join(path, &key.text);
            if let Some(value) = self.value(node, item, &item_path) {
                typed.insert(key.text.clone(), value);
            }
            // Here the key is the user's own, so it is what a later rule may complain about.
            self.places.insert(item_path, key.mark);
        }
        Value::Object(typed)
    }

    /// Reports it, and returns the field that was probably meant.
    fn unknown_field<'f>(
        &mut self,
        key: &Key,
        fields: &'f Map<String, Value>,
        path: &str,
    ) -> Option<&'f str> {
        if self.is_full() {
            return None;
        }
        let place = if path.is_empty() {
            "a manifest".to_owned()
        } else {
            format!("`{path}`")
        };
        let message = format!("{} is no field of {place}", quoted(&key.text));
        let field_path = join(path, &key.text);
        let later = crate::later::is_later(self.kind, &field_path);
        let meant = nearest(&key.text, fields.keys().map(String::as_str)).filter(|_| !later);
        let hint = match meant {
            _ if later => Some(format!(
                "`{field_path}` comes with a later version of Mainstay"
            )),
            _ if key.text == "<<" => {
                Some("merge keys are not read; write the fields where they belong".to_owned())
            }
            Some(meant) => Some(format!("did you mean `{meant}`?")),
            None => self.stranger_hint(&key.text, fields, path),
        };
        self.report(self.file.problem(key.mark, message).with_maybe(hint));
        meant
    }

    /// For a name that no field here comes near: a field of that name elsewhere, or the names that there are.
    fn stranger_hint(&self, name: &str, fields: &Map<String, Value>, path: &str) -> Option<String> {
        let is_outer = matches!(path, "" | "metadata" | "spec");
        let elsewhere = find(crate::schema::kind_schema(self.kind), name).filter(|_| is_outer);
        if let Some(elsewhere) = elsewhere {
            return Some(format!("did you mean `{elsewhere}`?"));
        }
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        match names.as_slice() {
            [] => None,
            [only] => Some(format!("its only field is {only}")),
            names => Some(format!("its fields are {}", names.join(", "))),
        }
    }

    fn missing_fields(
        &mut self,
        node: &Node,
        written: &BTreeSet<&str>,
        schema: &Value,
        path: &str,
    ) {
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for name in required
            .filter_map(Value::as_str)
            .filter(|name| !written.contains(name))
        {
            self.problem(node.mark, format!("`{}` is missing", join(path, name)));
        }
    }

    /// `oneOf` lists of required fields mean "exactly one of these"; `maxProperties: 1` means "at most one".
    fn siblings(
        &mut self,
        node: &Node,
        pairs: &[(Key, Node)],
        written: &BTreeSet<&str>,
        schema: &Value,
        path: &str,
    ) {
        let one_of = schema
            .get("oneOf")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        let names: Vec<&str> = one_of
            .filter_map(|variant| variant["required"][0].as_str())
            .collect();
        let chosen: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| written.contains(name))
            .collect();
        let later = || {
            pairs
                .iter()
                .any(|(key, _)| crate::later::is_later(self.kind, &join(path, &key.text)))
        };
        if !names.is_empty() && chosen.is_empty() && !later() {
            self.problem(
                node.mark,
                format!("`{path}` needs exactly one of {}", names.join(", ")),
            );
        }
        let exclusive: Vec<&str> = if schema.get("maxProperties") == Some(&Value::from(1)) {
            written.iter().copied().collect()
        } else {
            chosen
        };
        if exclusive.len() > 1 {
            let message = format!(
                "`{path}` has {}, but only one of them may be written",
                exclusive.join(" and ")
            );
            self.problem(node.mark, message);
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
fn find(schema: &Value, name: &str) -> Option<String> {
    let mut level = vec![(schema, String::new())];
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
