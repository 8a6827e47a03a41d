//! Canonical JSON: object keys sorted, no white space. The one form that is hashed.
//!
//! Exists because free-form values (a tool's schema, a request body) keep the order in which they were
//! written, and that order must not change a hash.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256, in hex, of the value's canonical JSON.
pub(crate) fn hash(value: &Value) -> String {
    hex::encode(Sha256::digest(sorted(value).to_string().as_bytes()))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            Value::Object(
                entries
                    .into_iter()
                    .map(|(name, value)| (name.clone(), sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
