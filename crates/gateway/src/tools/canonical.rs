//! What a tool step is matched by: the name that the agent sees, and the arguments with their
//! keys sorted. A model's proposal of the call is written the same way, so that the two meet.

use serde_json::Value;

/// The bytes to digest.
#[must_use]
pub fn canonical(exposed_name: &str, arguments: &Value) -> Vec<u8> {
    // No tool's name holds a zero byte.
    format!("tool\0{exposed_name}\0{}", sorted(arguments)).into_bytes()
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort_unstable();
            Value::Object(
                names
                    .into_iter()
                    .map(|name| (name.clone(), sorted(&fields[name])))
                    .collect(),
            )
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_counts_nowhere_and_the_order_of_items_everywhere() {
        let one = json!({"b": [{"y": 1, "x": 2}], "a": 1});
        let other = json!({"a": 1, "b": [{"x": 2, "y": 1}]});
        assert_eq!(canonical("t", &one), canonical("t", &other));
        assert_ne!(
            canonical("t", &json!([1, 2])),
            canonical("t", &json!([2, 1]))
        );
        assert_ne!(canonical("t", &one), canonical("u", &one));
    }
}
