//! What applying objects to a cluster would do, object by object, found out without doing it.
//!
//! The API server itself says so: a dry run gives the object as it would be, and what differs from
//! the object as it is is the change. What it keeps for itself (managed fields, versions) is none.

use std::fmt::Write;

use serde_json::Value;

use super::cluster::{Cluster, Reference};
use crate::exit::Failure;

/// How many fields of one object are named.
const NAMED_FIELDS: usize = 6;
const FIELD_DEPTH: u32 = 5;

/// Objects, and what would become of each.
pub struct Plan {
    pub steps: Vec<Step>,
}

pub struct Step {
    pub object: Value,
    pub change: Change,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    Create,
    /// The fields that would differ.
    Alter(Vec<String>),
    Nothing,
}

impl Plan {
    pub async fn of(
        cluster: &Cluster,
        objects: Vec<Value>,
        manager: &str,
    ) -> Result<Self, Failure> {
        let mut steps = Vec::with_capacity(objects.len());
        for object in objects {
            let change = match cluster.get(&Reference::of(&object)).await? {
                None => Change::Create,
                Some(present) => {
                    let wanted = cluster.apply(&object, manager, true).await?;
                    Change::between(&present, &wanted)
                }
            };
            steps.push(Step { object, change });
        }
        Ok(Self { steps })
    }

    pub fn changes_nothing(&self) -> bool {
        self.steps.iter().all(|step| step.change == Change::Nothing)
    }

    /// A line per object that changes, as `apply` and `diff` write them.
    pub fn lines(&self) -> Vec<String> {
        let line = |step: &Step| {
            let of = Reference::of(&step.object);
            match &step.change {
                Change::Create => Some(format!("+ {of}")),
                Change::Alter(fields) => Some(format!("~ {of} ({})", fields.join(", "))),
                Change::Nothing => None,
            }
        };
        self.steps.iter().filter_map(line).collect()
    }

    /// The same, and how many stay.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for line in self.lines() {
            let _infallible = writeln!(text, "{line}");
        }
        let unchanged = self
            .steps
            .iter()
            .filter(|step| step.change == Change::Nothing)
            .count();
        let _infallible = match unchanged {
            0 => Ok(()),
            1 => writeln!(text, "1 object stays as it is"),
            more => writeln!(text, "{more} objects stay as they are"),
        };
        text
    }
}

impl Change {
    fn between(present: &Value, wanted: &Value) -> Self {
        let mut fields = Vec::new();
        differences(&told(present), &told(wanted), "", FIELD_DEPTH, &mut fields);
        if fields.is_empty() {
            return Self::Nothing;
        }
        let more = fields.len().saturating_sub(NAMED_FIELDS);
        fields.truncate(NAMED_FIELDS);
        if more > 0 {
            fields.push(format!("and {more} more"));
        }
        Self::Alter(fields)
    }
}

/// Without what the API server keeps beside what it was told.
fn told(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for kept in [
            "managedFields",
            "resourceVersion",
            "generation",
            "uid",
            "creationTimestamp",
        ] {
            metadata.remove(kept);
        }
    }
    object
}

fn differences(old: &Value, new: &Value, at: &str, depth: u32, fields: &mut Vec<String>) {
    if old == new {
        return;
    }
    let below = |name: &str| match at {
        "" => name.to_owned(),
        _ => format!("{at}.{name}"),
    };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) if depth > 0 => {
            let added = new.keys().filter(|name| !old.contains_key(*name));
            for name in old.keys().chain(added) {
                let of = |object: &serde_json::Map<String, Value>| {
                    object.get(name).cloned().unwrap_or_default()
                };
                differences(&of(old), &of(new), &below(name), depth - 1, fields);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() && depth > 0 => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                differences(old, new, &format!("{at}[{index}]"), depth, fields);
            }
        }
        _ => fields.push(at.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(image: &str, version: &str) -> Value {
        json!({
            "metadata": {"name": "a", "resourceVersion": version, "managedFields": [version]},
            "spec": {"template": {"spec": {"containers": [{"name": "a", "image": image}]}}},
            "status": {"replicas": version},
        })
    }

    #[test]
    fn what_the_server_keeps_for_itself_is_no_change() {
        let change = Change::between(&deployment("x:1", "7"), &deployment("x:1", "8"));
        assert_eq!(change, Change::Nothing);
    }

    #[test]
    fn a_change_names_the_field() {
        let change = Change::between(&deployment("x:1", "7"), &deployment("x:2", "7"));
        let field = "spec.template.spec.containers[0].image".to_owned();
        assert_eq!(change, Change::Alter(vec![field]));
    }

    #[test]
    fn many_changes_are_counted() {
        let old = json!({});
        let new: serde_json::Map<String, Value> =
            (0..9).map(|n| (format!("f{n}"), json!(n))).collect();
        let Change::Alter(fields) = Change::between(&old, &Value::Object(new)) else {
            panic!("no change");
        };
        assert_eq!(fields.len(), NAMED_FIELDS + 1);
        assert_eq!(fields[NAMED_FIELDS], "and 3 more");
    }

    #[test]
    fn a_plan_is_a_line_for_each_change() {
        let step = |name: &str, change| Step {
            object: json!({"kind": "Role", "metadata": {"name": name, "namespace": "n"}}),
            change,
        };
        let plan = Plan {
            steps: vec![
                step("a", Change::Create),
                step("b", Change::Alter(vec!["rules".into()])),
                step("c", Change::Nothing),
            ],
        };
        assert_eq!(
            plan.render(),
            "+ Role n/a\n~ Role n/b (rules)\n1 object stays as it is\n"
        );
        assert!(!plan.changes_nothing());
    }
}
