//! Rules between the fields of one object, in CEL: one table for both homes.
//!
//! The custom resource definitions carry each rule where it holds (`x-kubernetes-validations`), and
//! `resolve` evaluates the same text on manifests. Rules that take the names of the user's own
//! things into their sentence are `worded`: there the box says it in Rust, with better words, and a
//! test holds both against the same cases. Rules between objects are `resolve`'s.
//!
//! On Kubernetes a rule's estimated cost is bounded, so what a rule goes over has a bound in its schema.

mod table;

use crate::manifest::Kind;
use cel::{Context, Program, Value as Cel};
use serde_json::Value;
use std::sync::OnceLock;

pub use table::TABLE;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    pub kind: Kind,
    /// Where it holds: `spec.tools[]` is every tool; empty is the whole object.
    pub path: &'static str,
    /// The field at fault, below the path; empty is what the path names.
    pub field: &'static str,
    /// True where all is well; `self` is what the path names, defaults filled in.
    pub cel: &'static str,
    /// Completes a sentence that begins with the field.
    pub message: &'static str,
    /// What to do next.
    pub hint: Option<&'static str>,
    /// Whether the box has words of its own for it.
    pub worded: bool,
}

/// A rule that an object breaks.
#[derive(Debug)]
pub struct Broken {
    pub rule: &'static Rule,
    /// The field at fault, with its positions: `spec.tools[2].key`.
    pub field: String,
}

/// What an object, as `Object::to_json` gives it, breaks.
pub fn broken(kind: Kind, object: &Value) -> Vec<Broken> {
    // What CEL knows by itself is much to set up, and the same for all.
    thread_local! {
        static CONTEXT: Context<'static, 'static> = Context::default();
    }
    let mut broken = Vec::new();
    CONTEXT.with(|context| {
        for (rule, program) in programs().iter().filter(|(rule, _)| rule.kind == kind) {
            for (path, node) in nodes(object, rule.path) {
                if !holds(program, node, context) {
                    let field = join(&path, rule.field);
                    broken.push(Broken { rule, field });
                }
            }
        }
    });
    broken
}

fn programs() -> &'static [(&'static Rule, Program)] {
    static PROGRAMS: OnceLock<Vec<(&Rule, Program)>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let compiled = TABLE.iter().map(|rule| {
            let program = Program::compile(rule.cel).expect("a rule of the table is CEL");
            (rule, program)
        });
        compiled.collect()
    })
}

/// What can't be evaluated is refused, as the API server does.
fn holds(program: &Program, node: &Value, context: &Context<'_, '_>) -> bool {
    let mut scope = context.new_inner_scope();
    let told = scope.add_variable("self", node);
    told.is_ok() && matches!(program.execute(&scope), Ok(Cel::Bool(true)))
}

/// All that a path of the table names in an object, each with its own path.
fn nodes<'v>(object: &'v Value, path: &str) -> Vec<(String, &'v Value)> {
    let mut nodes = vec![(String::new(), object)];
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let (name, is_list) = match name.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (name, false),
        };
        let below = nodes.iter().filter_map(|(path, value)| {
            let value = value.get(name)?;
            Some((join(path, name), value))
        });
        nodes = below.collect();
        if is_list {
            let items = nodes.iter().flat_map(|(path, list)| {
                let items = list.as_array().into_iter().flatten().enumerate();
                items.map(move |(index, item)| (format!("{path}[{index}]"), item))
            });
            nodes = items.collect();
        }
    }
    nodes
}

fn join(path: &str, name: &str) -> String {
    match (path, name) {
        (path, "") => path.to_owned(),
        ("", name) => name.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{TABLE, nodes};
    use crate::resolve::{GATEWAY_ENV, STANDARD_ENV};
    use serde_json::json;

    #[test]
    fn a_path_names_every_item() {
        let object = json!({"spec": {"tools": [{"key": 1}, {}, {"key": 2}]}});
        let found: Vec<String> = nodes(&object, "spec.tools[].key")
            .into_iter()
            .map(|(path, value)| format!("{path}={value}"))
            .collect();
        assert_eq!(found, ["spec.tools[0].key=1", "spec.tools[2].key=2"]);
        assert_eq!(nodes(&object, "").len(), 1);
        assert!(nodes(&object, "spec.models[]").is_empty());
    }

    #[test]
    fn the_rules_know_every_variable_that_mainstay_sets() {
        let rules = TABLE
            .iter()
            .filter(|rule| rule.path.ends_with("nv") && rule.worded);
        for rule in rules {
            let gateway = GATEWAY_ENV.iter().filter(|_| !rule.path.contains("mcp"));
            for name in STANDARD_ENV.iter().chain(gateway) {
                assert!(
                    rule.cel.contains(&format!("'{name}'")),
                    "{}: {name}",
                    rule.path
                );
            }
        }
    }
}
