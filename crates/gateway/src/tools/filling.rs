//! Templates of addresses and bodies, filled with a call's arguments.
//!
//! Arguments come from a model and may be anything. They are percent-encoded, can't change the
//! path's shape, and can't choose the host, which a manifest writes without placeholders.

use api::template::{self, Part, STEP_ID};
use serde_json::{Map, Value};
use url::Url;

/// Arguments and step id, to fill templates with.
pub(super) struct Filling<'a> {
    pub(super) arguments: &'a Map<String, Value>,
    pub(super) step_id: &'a str,
}

impl Filling<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        if name == STEP_ID {
            Some(Value::from(self.step_id))
        } else {
            self.arguments.get(name).cloned()
        }
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        }
    }

    /// A URL with its placeholders percent-encoded.
    pub(super) fn url(&self, template: &str) -> Result<Url, String> {
        let mut filled = String::new();
        for part in template::parts(template) {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Argument(name) => filled.extend(encode(&self.text(name))),
            }
        }
        let url =
            Url::parse(&filled).map_err(|error| format!("the address can't be made: {error}"))?;
        // `..` is a step up even when it is percent-encoded.
        let wanted = path_segments(&filled);
        let made = url.path_segments().map_or(0, Iterator::count);
        if wanted.is_some_and(|wanted| wanted != made) {
            return Err("an argument would change the address's path".into());
        }
        Ok(url)
    }

    /// A body with its placeholders filled; a lone one keeps its JSON type, and an argument that
    /// wasn't given leaves its field out.
    pub(super) fn body(&self, template: &Value) -> Value {
        match template {
            Value::String(text) => match template::whole(text) {
                Some(name) => self.value(name).unwrap_or_default(),
                None => Value::String(self.inline(text)),
            },
            Value::Array(items) => items.iter().map(|item| self.body(item)).collect(),
            Value::Object(fields) => {
                let kept = fields.iter().filter(|(_, value)| !self.is_missing(value));
                Value::Object(
                    kept.map(|(name, value)| (name.clone(), self.body(value)))
                        .collect(),
                )
            }
            other => other.clone(),
        }
    }

    fn inline(&self, text: &str) -> String {
        let parts = template::parts(text).into_iter().map(|part| match part {
            Part::Text(text) => text.to_owned(),
            Part::Argument(name) => self.text(name),
        });
        parts.collect()
    }

    fn is_missing(&self, template: &Value) -> bool {
        let name = template.as_str().and_then(template::whole);
        name.is_some_and(|name| self.value(name).is_none())
    }

    /// Arguments that the URL doesn't name.
    pub(super) fn unnamed(&self, template: &str) -> Map<String, Value> {
        let named: Vec<&str> = template::arguments(template).collect();
        let rest = self
            .arguments
            .iter()
            .filter(|(name, _)| !named.contains(&name.as_str()));
        rest.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// Everything but letters, digits, `-`, `_`, `.` and `~` as `%XX`.
fn encode(text: &str) -> impl Iterator<Item = char> {
    text.bytes().flat_map(|byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let hex = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
        if plain {
            vec![char::from(byte)]
        } else {
            vec!['%', hex(byte >> 4), hex(byte & 15)]
        }
    })
}

/// How many segments the path of an address has as it is written.
fn path_segments(url: &str) -> Option<usize> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split(['?', '#']).next()?;
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    Some(path.split('/').count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn filling(arguments: &Value) -> Map<String, Value> {
        arguments.as_object().cloned().unwrap_or_default()
    }

    fn url(template: &str, arguments: &Value) -> Result<String, String> {
        let arguments = filling(arguments);
        Filling {
            arguments: &arguments,
            step_id: "s-1",
        }
        .url(template)
        .map(|url| url.to_string())
    }

    #[test]
    fn an_argument_can_change_nothing_but_its_own_place() {
        let check = |template: &str, arguments: Value, expect: &str| {
            assert_eq!(
                url(template, &arguments).as_deref(),
                Ok(expect),
                "{template} {arguments}"
            );
        };
        check(
            "http://h/v1?city={city}",
            json!({"city": "São Paulo&x=1"}),
            "http://h/v1?city=S%C3%A3o%20Paulo%26x%3D1",
        );
        check(
            "http://h/{a}/end",
            json!({"a": "x/../../y?z#w"}),
            "http://h/x%2F..%2F..%2Fy%3Fz%23w/end",
        );
        check(
            "http://h/{a}?s={stepId}",
            json!({"a": 7}),
            "http://h/7?s=s-1",
        );
        check("http://h/{a}", json!({}), "http://h/");
        for step_up in ["..", ".", "%2e%2e"] {
            let made = url("http://h/one/{a}/two", &json!({"a": step_up}));
            let kept = made.as_deref() == Ok("http://h/one/%252e%252e/two");
            assert!(made.is_err() || kept, "{step_up}: {made:?}");
        }
    }

    #[test]
    fn a_lone_placeholder_keeps_its_type_and_a_missing_one_its_field_out() {
        let arguments = filling(&json!({"n": 3, "list": [1], "text": "a"}));
        let filling = Filling {
            arguments: &arguments,
            step_id: "s-1",
        };
        let template = json!({"n": "{n}", "l": ["{list}"], "t": "<{text}{n}>", "gone": "{other}", "ref": "{stepId}", "k": true});
        assert_eq!(
            filling.body(&template),
            json!({"n": 3, "l": [[1]], "t": "<a3>", "ref": "s-1", "k": true})
        );
    }

    proptest! {
        #[test]
        fn no_argument_leaves_the_host_or_the_path(text in "\\PC{0,40}") {
            if let Ok(url) = url("http://host/a/{x}/b?q={x}", &json!({"x": text})) {
                prop_assert!(url.starts_with("http://host/a/"), "{}", url);
                let path = url.split('?').next().unwrap_or_default();
                prop_assert!(path.ends_with("/b"), "{}", path);
                prop_assert_eq!(path.split('/').count(), 6);
            }
        }
    }
}
