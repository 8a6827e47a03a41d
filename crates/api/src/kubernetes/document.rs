//! A custom resource, as the API server returns it, read as the manifest that somebody applied.
//!
//! What the API server keeps beside it (status, uid, managed fields) is dropped, so that the same
//! manifest is the same text whatever happened to the object since.

use crate::manifest::Document;
use serde_json::{Map, Value};

/// What `kubectl apply` keeps for itself: the whole manifest once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The document of an object, at path `KIND/NAME`. Never fails: what is malformed in the object is
/// malformed in the document, and `resolve` says so.
pub fn document(object: &Value) -> Document {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let path = format!(
        "{}/{}",
        text(&object["kind"]),
        text(&object["metadata"]["name"])
    );
    let mut manifest = only(object, &["apiVersion", "kind"]);
    let metadata = &object["metadata"];
    let mut kept = only(metadata, &["name", "namespace", "labels", "annotations"]);
    if let Some(Value::Object(annotations)) = kept.get_mut("annotations") {
        annotations.shift_remove(LAST_APPLIED);
        if annotations.is_empty() {
            kept.shift_remove("annotations");
        }
    }
    manifest.insert("metadata".to_owned(), Value::Object(kept));
    manifest.append(&mut only(object, &["spec"]));
    Document::named(path, yaml_safe(&format!("{:#}", Value::Object(manifest))))
}

fn only(object: &Value, names: &[&str]) -> Map<String, Value> {
    let fields = names.iter().map(|name| (*name, &object[*name]));
    fields
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
}

/// JSON leaves characters as they are that YAML has only escaped.
fn yaml_safe(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        match u32::from(character) {
            code @ (0x7f..=0x9f | 0x2028 | 0x2029 | 0xfeff | 0xfffe | 0xffff) => {
                safe.push_str(&format!("\\u{code:04x}"));
            }
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::document;
    use serde_json::json;

    #[test]
    fn only_what_somebody_applied_is_left() {
        let object = json!({
            "apiVersion": "mainstay.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {
                "name": "helper", "namespace": "acme", "uid": "1", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x"], "managedFields": [{}],
                "labels": {"team": "red"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            },
            "spec": {"models": ["openai/gpt-5.1"], "instructions": "a\u{7f}\u{85}\u{2028}\u{1}\u{1f600}"},
            "status": {"conditions": []},
        });
        let document = document(&object);
        assert_eq!(document.path, "Agent/helper");
        let read: serde_json::Value = serde_json::from_str(&document.text).expect("JSON");
        assert_eq!(
            read,
            json!({
                "apiVersion": "mainstay.dev/v1alpha1",
                "kind": "Agent",
                "metadata": {"name": "helper", "namespace": "acme", "labels": {"team": "red"}},
                "spec": object["spec"],
            })
        );
        let objects = crate::parse(&[document]).expect("a manifest");
        assert_eq!(
            objects[0].to_json()["spec"]["instructions"],
            object["spec"]["instructions"]
        );
    }

    #[test]
    fn what_is_no_object_is_a_document_with_a_problem() {
        for object in [
            json!(null),
            json!([]),
            json!({"kind": 7}),
            json!({"kind": "Agent", "metadata": "x"}),
        ] {
            assert!(crate::parse(&[document(&object)]).is_err(), "{object}");
        }
    }
}
