//! One custom resource judged by itself, before it is written.
//!
//! Objects come one by one and in any order, so what one refers to may not be there yet: that is
//! told later, in its status. Everything else that is wrong with it is wrong at once.

use crate::manifest::Document;
use crate::problem::{Problem, Problems};
use crate::resolve::{Facts, resolve_alone};

/// What is probably not meant, or everything that is wrong.
pub fn alone(document: &Document, facts: &Facts<'_>) -> Result<Vec<Problem>, Problems> {
    resolve_alone(document, facts).map(|resolved| resolved.warnings)
}

#[cfg(test)]
mod tests {
    use super::alone;
    use crate::Knowledge;
    use crate::kubernetes::document;
    use serde_json::{Value, json};

    fn check(kind: &str, spec: Value) -> Result<usize, String> {
        let object = json!({
            "apiVersion": "mainstay.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "it", "namespace": "acme"}, "spec": spec,
        });
        let knowledge = Knowledge::nothing();
        let judged = alone(&document(&object), &knowledge.on_kubernetes());
        judged
            .map(|warnings| warnings.len())
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn what_it_refers_to_may_come_later() {
        let agent = json!({
            "models": ["claude/claude-sonnet-5"], "tools": ["desk/search"],
            "prompt": {"pack": "support", "name": "triage"},
        });
        assert_eq!(check("Agent", agent), Ok(0));
        let registry = json!({"tools": [
            {"name": "ask", "agent": "writer", "description": "Ask the writer."},
        ]});
        assert_eq!(check("ToolRegistry", registry), Ok(0));
    }

    #[test]
    fn what_is_wrong_in_itself_is_refused_with_the_field() {
        let unknown = json!({"models": ["a/b"], "instruction": "x"});
        let said = check("Agent", unknown).unwrap_err();
        assert!(said.contains("instruction"), "{said}");
        let file = json!({"type": "openai", "credential": {"file": "/etc/key"}});
        let said = check("Provider", file).unwrap_err();
        assert!(said.contains("spec.credential"), "{said}");
    }
}
