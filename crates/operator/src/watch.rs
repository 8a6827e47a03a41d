//! What happens in the cluster, put into the world, and who has to be looked at because of it.
//!
//! Theory: every watch is a list followed by changes, begun again whenever it breaks. What was
//! known and isn't in the new list is gone. An object is decoded without its meaning (any JSON
//! object will do, however deep), so that one malformed object can't stop a watch.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, pin_mut};
use kube::api::Api;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;

use api::Kind;
use api::kubernetes::{HUB, MANAGED_BY, WORKSPACE_LABEL};

use crate::context::Context;
use crate::object::{MANAGER, Resource, resource};
use crate::world::{Key, Listed, Owned, Pod, PodOwner, Written};
use custom_resource::{CustomResource, PAGE};

/// What takes in what a watch sees.
trait Sink {
    type Object;
    /// As metrics and logs call it.
    fn name(&self) -> String;
    /// How the object is known; `put` and `remove` are told it.
    fn key(&self, object: &Self::Object) -> String;
    fn put(&self, key: &str, object: Self::Object);
    /// It is gone; where the watch itself saw that, it says how it was.
    fn remove(&self, key: &str, last: Option<Self::Object>);
    fn known(&self) -> Vec<String>;
    /// The list is complete.
    fn listed(&self) {}
}

async fn follow<S: Sink>(
    context: &Context,
    sink: S,
    stream: impl Stream<Item = watcher::Result<Event<S::Object>>>,
) {
    let stream = stream.default_backoff();
    pin_mut!(stream);
    let mut seen = BTreeSet::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => seen.clear(),
            Ok(Event::InitApply(object)) => {
                let key = sink.key(&object);
                sink.put(&key, object);
                seen.insert(key);
            }
            Ok(Event::InitDone) => {
                let known = sink.known();
                for key in known.iter().filter(|key| !seen.contains(*key)) {
                    sink.remove(key, None);
                }
                seen.clear();
                sink.listed();
            }
            Ok(Event::Apply(object)) => sink.put(&sink.key(&object), object),
            Ok(Event::Delete(object)) => sink.remove(&sink.key(&object), Some(object)),
            Err(error) => {
                context.metrics.watch_broke(&sink.name());
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    kind = sink.name(),
                    error,
                    "a watch broke and is begun again"
                );
            }
        }
    }
}

/// Follows one of the five kinds, everywhere.
pub(crate) async fn written(context: Arc<Context>, kind: Kind) {
    let api: Api<CustomResource> =
        Api::all_with(context.client.clone(), &custom_resource::resource(kind));
    let sink = WrittenSink {
        context: &context,
        kind,
    };
    let config = Config::default().page_size(PAGE);
    follow(&context, sink, watcher(api, config)).await;
}

struct WrittenSink<'a> {
    context: &'a Context,
    kind: Kind,
}

impl WrittenSink<'_> {
    fn of(&self, key: &str) -> Key {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        Key::new(self.kind, namespace, name)
    }
}

impl Sink for WrittenSink<'_> {
    type Object = CustomResource;

    fn name(&self) -> String {
        self.kind.name().to_owned()
    }

    fn key(&self, object: &CustomResource) -> String {
        let namespace = object.0.metadata.namespace.as_deref().unwrap_or_default();
        let name = object.0.metadata.name.as_deref().unwrap_or_default();
        format!("{namespace}/{name}")
    }

    fn put(&self, key: &str, object: CustomResource) {
        let key = self.of(key);
        let written = Written::read(self.kind, &object.0);
        let before = self.context.world.written(&key);
        let is_same = before.is_some_and(|before| before.says_the_same(&written));
        self.context.world.put_written(&key, written);
        // A status alone changes no fleet; it may be one that somebody else wrote over ours.
        if !is_same {
            self.context.set_changed(key.home());
        }
        self.context.push(key);
    }

    fn remove(&self, key: &str, _: Option<CustomResource>) {
        let key = self.of(key);
        self.context.world.remove_written(&key);
        self.context.set_changed(key.home());
        self.context.push(key);
    }

    fn known(&self) -> Vec<String> {
        let keys = self.context.world.keys(self.kind);
        keys.iter()
            .map(|key| format!("{}/{}", key.namespace, key.name))
            .collect()
    }

    fn listed(&self) {
        self.context.world.kind_listed(self.kind);
        self.context.changed.notify_one();
    }
}

/// Follows a kind of object that the operator makes, in one namespace.
pub(crate) async fn owned(context: Arc<Context>, namespace: String, resource: Resource) {
    let kind = resource.api_resource();
    let config = Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let sink = OwnedSink {
        context: &context,
        namespace: &namespace,
        resource,
    };
    let client = context.client.clone();
    if resource.is_read_whole() {
        let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &kind);
        follow(&context, sink, watcher(api, config)).await;
    } else {
        let api: Api<Metadata> = Api::namespaced_with(client, &namespace, &kind);
        let stream = watcher(api, config).map(|event| event.map(whole));
        follow(&context, sink, stream).await;
    }
}

/// An object of which nothing but metadata is asked for.
type Metadata = PartialObjectMeta<DynamicObject>;

/// An event about an object's metadata as one about the object.
fn whole(event: Event<Metadata>) -> Event<DynamicObject> {
    let whole = |object: Metadata| DynamicObject {
        types: None,
        metadata: object.metadata,
        data: Value::Null,
    };
    match event {
        Event::Apply(object) => Event::Apply(whole(object)),
        Event::Delete(object) => Event::Delete(whole(object)),
        Event::InitApply(object) => Event::InitApply(whole(object)),
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
    }
}

struct OwnedSink<'a> {
    context: &'a Context,
    namespace: &'a str,
    resource: Resource,
}

impl OwnedSink<'_> {
    fn push_owner(&self, object: &DynamicObject) {
        let owners = object.metadata.owner_references.iter().flatten();
        for owner in owners.filter(|owner| owner.controller == Some(true)) {
            let kind = Kind::ALL.into_iter().find(|kind| kind.name() == owner.kind);
            match kind {
                Some(Kind::Workspace) => self.context.push(Key::workspace(&owner.name)),
                Some(kind) => self
                    .context
                    .push(Key::new(kind, self.namespace, &owner.name)),
                None => {}
            }
        }
    }
}

impl Sink for OwnedSink<'_> {
    type Object = DynamicObject;

    fn name(&self) -> String {
        self.resource.kind().to_owned()
    }

    fn key(&self, object: &DynamicObject) -> String {
        object.metadata.name.clone().unwrap_or_default()
    }

    fn put(&self, key: &str, object: DynamicObject) {
        let world = &self.context.world;
        let owned = Owned::read(&object.metadata, &object.data);
        let is_hub = self.resource == Resource::Service && key == HUB;
        let before = world.owned(self.namespace, self.resource, key);
        let has_moved = is_hub && before.is_none_or(|before| before.cluster_ip != owned.cluster_ip);
        world.put_owned(self.namespace, self.resource, key, owned);
        self.push_owner(&object);
        if has_moved {
            self.context.push_all(self.namespace);
        }
    }

    fn remove(&self, key: &str, last: Option<DynamicObject>) {
        let world = &self.context.world;
        let removed = world.owned(self.namespace, self.resource, key);
        world.remove_owned(self.namespace, self.resource, key);
        if let Some(last) = last {
            self.push_owner(&last);
            return;
        }
        let owner = removed.and_then(|removed| removed.owner_uid);
        let objects = world.all_written(self.namespace);
        let of_owner = objects
            .into_iter()
            .filter(|(_, written)| Some(&written.uid) == owner.as_ref());
        for (key, _) in of_owner {
            self.context.push(key);
        }
    }

    fn known(&self) -> Vec<String> {
        self.context
            .world
            .owned_names(self.namespace, self.resource)
    }

    fn listed(&self) {
        listed(self.context, self.namespace, Listed::Owned(self.resource));
    }
}

fn listed(context: &Context, namespace: &str, what: Listed) {
    let was_known = context.world.is_known(namespace);
    context.world.listed(namespace, what);
    if !was_known && context.world.is_known(namespace) {
        context.push_all(namespace);
    }
}

/// Follows the pods of one namespace.
pub(crate) async fn pods(context: Arc<Context>, namespace: String) {
    let kind = resource("", "v1", "Pod", "pods");
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &kind);
    let config = Config::default().labels(&format!("{MANAGED_BY}={MANAGER}"));
    let sink = PodSink {
        context: &context,
        namespace: &namespace,
    };
    follow(&context, sink, watcher(api, config)).await;
}

struct PodSink<'a> {
    context: &'a Context,
    namespace: &'a str,
}

impl PodSink<'_> {
    fn push_owner(&self, pod: &Pod) {
        self.context.push(match &pod.owner {
            PodOwner::Hub => Key::workspace(self.namespace),
            PodOwner::Agent(agent) => Key::new(Kind::Agent, self.namespace, agent),
            PodOwner::Tool(registry, _) => Key::new(Kind::ToolRegistry, self.namespace, registry),
        });
    }
}

impl Sink for PodSink<'_> {
    type Object = DynamicObject;

    fn name(&self) -> String {
        "Pod".to_owned()
    }

    fn key(&self, object: &DynamicObject) -> String {
        object.metadata.name.clone().unwrap_or_default()
    }

    fn put(&self, key: &str, object: DynamicObject) {
        let Some(pod) = Pod::read(&object) else {
            return;
        };
        self.push_owner(&pod);
        self.context.world.put_pod(self.namespace, key, pod);
    }

    fn remove(&self, key: &str, _: Option<DynamicObject>) {
        if let Some(pod) = self.context.world.remove_pod(self.namespace, key) {
            self.push_owner(&pod);
        }
    }

    fn known(&self) -> Vec<String> {
        self.context.world.pod_names(self.namespace)
    }

    fn listed(&self) {
        listed(self.context, self.namespace, Listed::Pods);
    }
}

/// Follows namespaces that are labelled for a workspace.
pub(crate) async fn namespaces(context: Arc<Context>) {
    let kind = resource("", "v1", "Namespace", "namespaces");
    let api: Api<Metadata> = Api::all_with(context.client.clone(), &kind);
    let config = Config::default().labels(WORKSPACE_LABEL);
    let stream = watcher(api, config).map(|event| event.map(whole));
    follow(&context, NamespaceSink { context: &context }, stream).await;
}

struct NamespaceSink<'a> {
    context: &'a Context,
}

impl Sink for NamespaceSink<'_> {
    type Object = DynamicObject;

    fn name(&self) -> String {
        "Namespace".to_owned()
    }

    fn key(&self, object: &DynamicObject) -> String {
        object.metadata.name.clone().unwrap_or_default()
    }

    fn put(&self, key: &str, _: DynamicObject) {
        self.context.push(Key::workspace(key));
    }

    fn remove(&self, key: &str, _: Option<DynamicObject>) {
        self.context.homes.leave(self.context, key);
        self.context.push(Key::workspace(key));
    }

    /// Nothing of them is kept.
    fn known(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Follows where the API server is: hubs may reach it there.
pub(crate) async fn api_server(context: Arc<Context>) {
    let kind = resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), "default", &kind);
    let config = Config::default().fields("metadata.name=kubernetes");
    follow(
        &context,
        ApiServerSink { context: &context },
        watcher(api, config),
    )
    .await;
}

struct ApiServerSink<'a> {
    context: &'a Context,
}

impl Sink for ApiServerSink<'_> {
    type Object = DynamicObject;

    fn name(&self) -> String {
        "EndpointSlice".to_owned()
    }

    fn key(&self, object: &DynamicObject) -> String {
        object.metadata.name.clone().unwrap_or_default()
    }

    fn put(&self, _: &str, object: DynamicObject) {
        if self.context.world.put_api_server(addresses(&object.data)) {
            for key in self.context.world.keys(Kind::Workspace) {
                self.context.push(key);
            }
        }
    }

    /// It can't really be gone: we are talking to it.
    fn remove(&self, _: &str, _: Option<DynamicObject>) {}

    fn known(&self) -> Vec<String> {
        Vec::new()
    }
}

fn addresses(slice: &Value) -> Vec<(String, u16)> {
    let list = |name: &str| slice[name].as_array().cloned().unwrap_or_default();
    let ports: Vec<u16> = list("ports")
        .iter()
        .filter_map(|port| u16::try_from(port["port"].as_u64()?).ok())
        .collect();
    let endpoints = list("endpoints");
    let mut addresses: Vec<(String, u16)> = endpoints
        .iter()
        .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
        .flat_map(|address| ports.iter().map(|port| (address.to_owned(), *port)))
        .collect();
    addresses.sort();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_api_server_is_where_its_slice_says() {
        let slice = json!({
            "endpoints": [{"addresses": ["10.0.0.2", "10.0.0.1"]}],
            "ports": [{"port": 6443}],
        });
        assert_eq!(
            addresses(&slice),
            [("10.0.0.1".to_owned(), 6443), ("10.0.0.2".to_owned(), 6443)]
        );
        assert!(addresses(&json!({})).is_empty());
    }
}
