//! An object of the five kinds as somebody wrote it, and the status it has.

use api::kubernetes::SOURCE;
use api::{Document, Kind};
use kube::core::{DynamicObject, ObjectMeta};
use serde_json::{Value, json};

use super::owned::version;

/// Holds a Workspace that adopted a namespace until what was made there is gone.
pub(crate) const FINALIZER: &str = "mainstay.dev/adopted";

/// What is kept of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Written {
    pub(crate) uid: String,
    resource_version: u64,
    pub(crate) generation: i64,
    /// What its source was sent as, which is no part of the generation.
    pub(crate) sent: Option<Box<str>>,
    pub(crate) deleting: bool,
    /// Whether its end waits for us.
    pub(crate) is_held: bool,
    /// The manifest, as JSON.
    text: Box<str>,
    /// The last that was right, where the present one isn't.
    good: Option<Box<str>>,
    /// As JSON; empty without one.
    status: Box<str>,
}

impl Written {
    pub(crate) fn read(kind: Kind, object: &DynamicObject) -> Self {
        let metadata = &object.metadata;
        let mut finalizers = metadata.finalizers.iter().flatten();
        let manifest = json!({
            "apiVersion": api::API_VERSION,
            "kind": kind.name(),
            "metadata": {
                "name": metadata.name,
                "namespace": metadata.namespace,
                "labels": metadata.labels,
                "annotations": sent(metadata).map(|sent| json!({SOURCE: sent})),
            },
            "spec": object.data["spec"],
        });
        let status = match &object.data["status"] {
            Value::Null => String::new(),
            status => status.to_string(),
        };
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            resource_version: version(metadata),
            generation: metadata.generation.unwrap_or_default(),
            sent: sent(metadata).map(Into::into),
            deleting: metadata.deletion_timestamp.is_some(),
            is_held: finalizers.any(|finalizer| finalizer == FINALIZER),
            text: manifest.to_string().into(),
            good: None,
            status: status.into(),
        }
    }

    /// Keeps what was right before it, as long as nobody has found it right itself.
    pub(super) fn remember(&mut self, before: &Self, before_was_refused: bool) {
        if before.uid != self.uid {
            return;
        }
        self.good = match before_was_refused || before.text == self.text {
            true => before.good.clone(),
            false => Some(before.text.clone()),
        };
    }

    /// Whether it is another look at the same object, no earlier than `before`.
    pub(super) fn follows(&self, before: &Self) -> bool {
        self.uid == before.uid && self.resource_version >= before.resource_version
    }

    /// Whether a fleet with it is another.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.uid == other.uid && self.text == other.text && self.deleting == other.deleting
    }

    pub(crate) fn document(&self) -> Document {
        document(&self.text)
    }

    pub(crate) fn last_good(&self) -> Option<Document> {
        self.good.as_deref().map(document)
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.status).unwrap_or_default()
    }

    /// The manifest as a value.
    pub(crate) fn manifest(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

fn sent(metadata: &ObjectMeta) -> Option<&str> {
    let annotations = metadata.annotations.as_ref()?;
    annotations.get(SOURCE).map(String::as_str)
}

fn document(text: &str) -> Document {
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    api::kubernetes::document(&value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Key, World};

    fn written(uid: &str, replicas: u32) -> Written {
        let object = json!({
            "apiVersion": "mainstay.dev/v1alpha1", "kind": "Agent",
            "metadata": {"name": "a", "namespace": "n", "uid": uid, "generation": 3},
            "spec": {"replicas": replicas},
            "status": {"replicas": 1},
        });
        Written::read(Kind::Agent, &serde_json::from_value(object).unwrap())
    }

    #[test]
    fn the_last_good_text_is_kept_while_the_present_one_is_refused() {
        let good = written("1", 1);
        let mut bad = written("1", 1000);
        bad.remember(&good, false);
        let mut worse = written("1", 2000);
        worse.remember(&bad, true);
        assert_eq!(worse.last_good(), Some(good.document()));
        assert_eq!(worse.status()["replicas"], 1);
        let mut another = written("2", 5);
        another.remember(&worse, true);
        assert_eq!(another.last_good(), None);
    }
    #[test]
    fn an_answer_changes_nothing_that_was_seen_after_it() {
        let key = Key::new(Kind::Agent, "n", "a");
        let look = |uid: &str, version, replicas| Written {
            resource_version: version,
            ..written(uid, replicas)
        };
        let world = World::default();
        world.put_answer(&key, look("1", 7, 1));
        assert_eq!(world.written(&key), None, "it is gone");
        world.put_written(&key, look("1", 9, 2));
        let is_there = |uid, version, replicas| {
            let there = world.written(&key);
            there.is_some_and(|there| there.says_the_same(&look(uid, version, replicas)))
        };
        world.put_answer(&key, look("1", 8, 1));
        assert!(is_there("1", 9, 2), "somebody changed it since");
        world.put_answer(&key, look("2", 10, 1));
        assert!(is_there("1", 9, 2), "it is another of its name");
        world.put_answer(&key, look("1", 10, 3));
        assert!(is_there("1", 10, 3));
    }
}
