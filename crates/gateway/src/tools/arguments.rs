//! Arguments against a tool's schema, before anything is journaled or sent.

use serde_json::Value;

/// How many faults are told at once.
const MAX_FAULTS: usize = 3;

/// Says what doesn't fit. A schema that is no schema lets everything pass: the server that wrote
/// it checks its own arguments; manifests' schemas are checked when they are applied.
pub(super) fn validate(schema: &Value, arguments: &Value) -> Result<(), String> {
    if !arguments.is_object() {
        return Err("arguments must be an object".into());
    }
    let Ok(validator) = jsonschema::validator_for(schema) else {
        return Ok(());
    };
    let faults: Vec<String> = validator
        .iter_errors(arguments)
        .take(MAX_FAULTS)
        .map(|fault| {
            let place = fault.instance_path().to_string();
            let place = if place.is_empty() {
                "/".to_owned()
            } else {
                place
            };
            mcp::message::bounded(&format!("{place}: {fault}"), 300)
        })
        .collect();
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("; "))
    }
}

/// Is this a JSON Schema?
pub fn check_schema(schema: &Value) -> Result<(), String> {
    jsonschema::validator_for(schema)
        .map(|_| ())
        .map_err(|error| mcp::message::bounded(&error.to_string(), 300))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn faults_are_named_by_their_place() {
        let schema =
            json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
        assert_eq!(validate(&schema, &json!({"n": 1})), Ok(()));
        assert!(
            validate(&schema, &json!({"n": "x"}))
                .unwrap_err()
                .starts_with("/n: ")
        );
        assert!(
            validate(&schema, &json!({}))
                .unwrap_err()
                .contains("required")
        );
        assert!(validate(&schema, &json!([1])).is_err());
        assert!(check_schema(&json!({"type": "nonsense"})).is_err());
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        for schema in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#"}]}),
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}),
            json!({"properties": {"x": {"$ref": "http://127.0.0.1:9/remote.json"}}}),
        ] {
            let _ = validate(&schema, &json!({"x": {"x": 1}}));
        }
    }
}
