//! An object of the API server as JSON, only as deep as a manifest may nest, and one level more.
//!
//! Fields without a schema may hold JSON that nests thousands of levels deep. A reader that recurses
//! refuses it, and with it everything beside it: one object would end every list that it is in. So
//! what lies deeper is skipped, without recursion, and null is in its place. What is left is too
//! deep for a manifest still, so that `resolve` refuses this object, and no other.

use crate::tree::DEEPEST;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// Reads one object. What the API server notes of who wrote which field (`managedFields`, as deep as
/// the object and of no use here) is left out.
///
/// # Errors
/// What isn't JSON, or isn't read from JSON as it stands but from a tree of it that is too deep.
pub fn shallow<'de, D: Deserializer<'de>>(json: D) -> Result<Value, D::Error> {
    let mut object = Levels(DEEPEST + 1).deserialize(json)?;
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.shift_remove("managedFields");
    }
    Ok(object)
}

/// How many lists and objects, one in another, are still read.
#[derive(Clone, Copy)]
struct Levels(usize);

impl<'de> DeserializeSeed<'de> for Levels {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Levels {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        self.deserialize(json)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut read = Vec::new();
        if let Some(below) = self.below() {
            while let Some(item) = items.next_element_seed(below)? {
                read.push(item);
            }
            return Ok(Value::Array(read));
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut read = Map::new();
        if let Some(below) = self.below() {
            while let Some(name) = fields.next_key::<String>()? {
                read.insert(name, fields.next_value_seed(below)?);
            }
            return Ok(Value::Object(read));
        }
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }
}

impl Levels {
    /// None where the present level is one too many.
    fn below(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::document;

    /// A ToolRegistry that nests so many levels in all.
    fn registry(levels: usize) -> String {
        let inner = levels - 6;
        let (open, close) = (r#"{"a":"#.repeat(inner), "}".repeat(inner));
        format!(
            r#"{{"apiVersion":"mainstay.dev/v1alpha1","kind":"ToolRegistry",
            "metadata":{{"name":"deep","managedFields":[{{"fieldsV1":{open}1{close}}}]}},
            "spec":{{"tools":[{{"name":"t","http":{{"url":"http://127.0.0.1:9/",
            "method":"POST","body":{{"b":{open}1{close}}}}}}}]}}}}"#
        )
    }

    fn read(json: &str) -> Value {
        shallow(&mut serde_json::Deserializer::from_str(json)).expect("JSON")
    }

    fn problems(object: &Value) -> Vec<String> {
        let parsed = crate::parse(&[document(object)]);
        let problems = parsed.err().map(|problems| problems.0).unwrap_or_default();
        problems.into_iter().map(|it| it.message).collect()
    }

    #[test]
    fn what_a_manifest_may_hold_is_read_as_it_is() {
        for levels in [7, DEEPEST] {
            let mut whole: Value = serde_json::from_str(&registry(levels)).expect("JSON");
            whole["metadata"]
                .as_object_mut()
                .map(|it| it.remove("managedFields"));
            assert_eq!(read(&registry(levels)), whole);
            assert_eq!(problems(&whole), Vec::<String>::new(), "{levels}");
        }
        let scalars = r#"[null,true,-1,18446744073709551615,1.5,"a\u0000",{},[]]"#;
        let plain: Value = serde_json::from_str(scalars).expect("JSON");
        assert_eq!(read(scalars), plain);
    }

    #[test]
    fn what_is_too_deep_is_cut_and_refused_and_nothing_beside_it_is() {
        for levels in [DEEPEST + 1, 200, 5_000] {
            let object = read(&registry(levels));
            assert_eq!(object["metadata"]["name"], "deep");
            assert_eq!(problems(&object), ["nested deeper than 64 levels"]);
            assert!(object.to_string().len() < 2_000, "{levels}");
        }
    }

    #[test]
    fn text_that_ends_too_early_is_no_object() {
        let whole = registry(5_000);
        for end in [whole.len() / 2, whole.len() - 1] {
            assert!(shallow(&mut serde_json::Deserializer::from_str(&whole[..end])).is_err());
        }
    }
}
