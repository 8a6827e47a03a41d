//! The workspace's custom resources as they are now, and a word when they changed.
//!
//! One watch for each kind. Objects are kept as JSON, whatever they hold and however deep: what an
//! object means, and whether it means anything, is `fleet`'s to find out. Until every kind was
//! listed once there is no set, so that a hub that starts takes nothing for removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Kind;
use futures_util::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::watch;

use custom_resource::{CustomResource, PAGE, resource};

/// The set. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Objects(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    set: Mutex<Set>,
    /// Counts changes.
    changes: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Set {
    by_kind: BTreeMap<Kind, BTreeMap<String, Value>>,
    /// What a listing under way has brought.
    listing: BTreeMap<Kind, BTreeMap<String, Value>>,
    listed: BTreeSet<Kind>,
    /// Which object has a name now. What was applied doesn't say so.
    uids: BTreeMap<(Kind, String), String>,
}

impl Objects {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            set: Mutex::default(),
            changes: watch::channel(0).0,
        }))
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// All objects, by kind and name; `None` until every kind was listed.
    pub(crate) fn all(&self) -> Option<Vec<Value>> {
        let set = self.lock();
        let objects = set.by_kind.values().flat_map(BTreeMap::values);
        (set.listed.len() == Kind::ALL.len()).then(|| objects.cloned().collect())
    }

    /// Which object of this name it is.
    pub(crate) fn uid(&self, kind: Kind, name: &str) -> Option<String> {
        self.lock().uids.get(&(kind, name.to_owned())).cloned()
    }

    /// How many instances an agent's object asks for.
    pub(crate) fn replicas(&self, agent: &str) -> Option<u32> {
        let set = self.lock();
        let object = set.by_kind.get(&Kind::Agent)?.get(agent)?;
        u32::try_from(object.pointer("/spec/replicas")?.as_u64()?).ok()
    }

    /// Watches every kind until it is dropped.
    pub(crate) async fn watch(self, client: Client, namespace: String, workspace: String) {
        let kinds = Kind::ALL.map(|kind| {
            self.clone()
                .watch_kind(client.clone(), kind, &namespace, &workspace)
        });
        futures_util::future::join_all(kinds).await;
    }

    async fn watch_kind(self, client: Client, kind: Kind, namespace: &str, workspace: &str) {
        let resource = resource(kind);
        let config = watcher::Config::default().page_size(PAGE);
        let (api, config): (Api<CustomResource>, _) = match kind {
            // The hub may see its own alone.
            Kind::Workspace => (
                Api::all_with(client, &resource),
                config.fields(&format!("metadata.name={workspace}")),
            ),
            _ => (Api::namespaced_with(client, namespace, &resource), config),
        };
        let mut events = std::pin::pin!(watcher::watcher(api, config).default_backoff());
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => self.seen(kind, event),
                Err(error) => {
                    let error = custom_resource::said::watch(&error);
                    tracing::warn!(error, kind = kind.name(), "objects can't be watched");
                }
            }
        }
    }

    fn seen(&self, kind: Kind, event: Event<CustomResource>) {
        let mut set = self.lock();
        let is_changed = set.take(kind, event);
        drop(set);
        if is_changed {
            self.0.changes.send_modify(|count| *count += 1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Set> {
        // Each critical section leaves it whole.
        self.0.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    fn take(&mut self, kind: Kind, event: Event<CustomResource>) -> bool {
        self.note(kind, &event);
        let known = self.by_kind.entry(kind).or_default();
        match event {
            Event::Init => {
                self.listing.insert(kind, BTreeMap::new());
                false
            }
            Event::InitApply(object) => {
                let (name, value) = plain(kind, object);
                self.listing.entry(kind).or_default().insert(name, value);
                false
            }
            Event::InitDone => {
                let listed = self.listing.remove(&kind).unwrap_or_default();
                let is_first = self.listed.insert(kind);
                let is_changed = *known != listed;
                *known = listed;
                is_first || is_changed
            }
            Event::Apply(object) => {
                let (name, value) = plain(kind, object);
                known.insert(name, value.clone()) != Some(value)
            }
            Event::Delete(object) => known
                .remove(&object.0.metadata.name.unwrap_or_default())
                .is_some(),
        }
    }
}

impl Set {
    fn note(&mut self, kind: Kind, event: &Event<CustomResource>) {
        let (Event::InitApply(object) | Event::Apply(object) | Event::Delete(object)) = event
        else {
            return;
        };
        let metadata = &object.0.metadata;
        let place = (kind, metadata.name.clone().unwrap_or_default());
        match (event, &metadata.uid) {
            (Event::Delete(_), _) | (_, None) => self.uids.remove(&place),
            (_, Some(uid)) => self.uids.insert(place, uid.clone()),
        };
    }
}

/// The object as somebody applied it: what the server and controllers write changes nothing.
fn plain(kind: Kind, CustomResource(object): CustomResource) -> (String, Value) {
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = api::API_VERSION.into();
    value["kind"] = kind.name().into();
    let document = api::kubernetes::document(&value);
    (name, serde_json::from_str(&document.text).unwrap_or(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::kubernetes::document;

    fn agent(name: &str, spec: &Value, version: &str) -> CustomResource {
        let object = serde_json::json!({
            "apiVersion": "mainstay.dev/v1alpha1", "kind": "Agent",
            "metadata": {"name": name, "resourceVersion": version}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn there_is_no_set_until_every_kind_was_listed() {
        let objects = Objects::new();
        for kind in Kind::ALL {
            assert_eq!(objects.all(), None);
            objects.seen(kind, Event::Init);
            objects.seen(kind, Event::InitDone);
        }
        assert_eq!(objects.all(), Some(Vec::new()));
    }

    #[test]
    fn only_what_somebody_changed_is_a_change() {
        let objects = Objects::new();
        let changes = objects.changes();
        let counted = || *changes.borrow();
        let spec = serde_json::json!({"instructions": "x"});
        objects.seen(Kind::Agent, Event::Apply(agent("a", &spec, "1")));
        assert_eq!(counted(), 1);
        objects.seen(Kind::Agent, Event::Apply(agent("a", &spec, "2")));
        assert_eq!(counted(), 1);
        // A listing anew brings what was missed: here, that `a` is gone.
        objects.seen(Kind::Agent, Event::Init);
        objects.seen(Kind::Agent, Event::InitDone);
        assert_eq!(counted(), 2);
    }

    #[test]
    fn an_object_that_is_made_anew_under_a_name_is_another() {
        let objects = Objects::new();
        let of = |uid: &str| {
            let mut object = agent("a", &serde_json::json!({}), "1");
            object.0.metadata.uid = Some(uid.to_owned());
            object
        };
        assert_eq!(objects.uid(Kind::Agent, "a"), None);
        objects.seen(Kind::Agent, Event::Apply(of("first")));
        assert_eq!(objects.uid(Kind::Agent, "a").as_deref(), Some("first"));
        objects.seen(Kind::Agent, Event::InitApply(of("second")));
        assert_eq!(objects.uid(Kind::Agent, "a").as_deref(), Some("second"));
        objects.seen(Kind::Agent, Event::Delete(of("second")));
        assert_eq!(objects.uid(Kind::Agent, "a"), None);
    }

    #[test]
    fn one_that_is_too_deep_is_left_out_or_as_it_was_and_the_others_go_on() {
        let facts = api::Facts::new(&|_, _| None, &|_| Err(String::new()));
        let registry = |name: &str, levels: usize| -> CustomResource {
            let (open, close) = (r#"{"a":"#.repeat(levels), "}".repeat(levels));
            let text = format!(
                r#"{{"metadata":{{"name":"{name}"}},"spec":{{"tools":[{{"name":"t","description":"d","http":{{
                "url":"http://127.0.0.1:9/","method":"POST","body":{open}1{close}}}}}]}}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        let objects = Objects::new();
        for kind in Kind::ALL {
            objects.seen(kind, Event::Init);
            if kind == Kind::ToolRegistry {
                objects.seen(kind, Event::InitApply(registry("deep", 5_000)));
                objects.seen(kind, Event::InitApply(registry("good", 1)));
            }
            objects.seen(kind, Event::InitDone);
        }
        objects.seen(Kind::ToolRegistry, Event::Apply(registry("good", 200)));
        let documents: Vec<_> = objects.all().unwrap().iter().map(document).collect();
        let good = plain(Kind::ToolRegistry, registry("good", 1)).1;
        let last_good = |_: Kind, name: &str| (name == "good").then(|| document(&good));
        let made = api::kubernetes::resolve_lenient(&documents, &facts, &last_good);
        let refused: Vec<_> = made.refused.iter().map(|it| (&*it.name, it.kept)).collect();
        assert_eq!(refused, [("deep", false), ("good", true)]);
        assert!(made.resolved.fleet.tools.contains_key("good/t"));
    }
}
