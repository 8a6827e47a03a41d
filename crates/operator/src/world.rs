//! What the operator knows of the cluster: written objects, what it made of them, and their pods.
//!
//! Kept small on purpose: of ten thousand agents it holds texts and figures, not objects. Filled by
//! `watch` and by the answers to what `apply` wrote; read by every reconcile. No lock is held
//! while anybody waits.

mod owned;
mod pod;
mod written;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::Kind;

pub(crate) use owned::{Owned, Workload};
pub(crate) use pod::{Pod, PodOwner, SOURCE_UNAVAILABLE, Trouble};
pub(crate) use written::{FINALIZER, Written};

use crate::object::Resource;
use crate::resolve::Set;

/// An object of the five kinds, by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    /// Empty for a Workspace.
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// The workspace of a namespace.
    pub(crate) fn workspace(namespace: &str) -> Self {
        Self::new(Kind::Workspace, "", namespace)
    }

    /// The namespace that the object's pods would be in.
    pub(crate) fn home(&self) -> &str {
        match self.kind {
            Kind::Workspace => &self.name,
            _ => &self.namespace,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Workspace => write!(f, "Workspace/{}", self.name),
            kind => write!(f, "{kind}/{}/{}", self.namespace, self.name),
        }
    }
}

/// One namespace.
#[derive(Default)]
struct Home {
    written: BTreeMap<(Kind, String), Arc<Written>>,
    owned: BTreeMap<(Resource, String), Owned>,
    /// The same by the uid of who owns it.
    by_owner: HashMap<String, BTreeSet<(Resource, String)>>,
    pods: BTreeMap<String, Pod>,
    pods_by_owner: HashMap<PodOwner, BTreeSet<String>>,
    set: Option<Arc<Set>>,
    /// What has been listed once. Until all is, absence means nothing.
    listed: BTreeSet<Listed>,
}

impl Home {
    fn put_owned(&mut self, name: (Resource, String), owned: Owned) {
        let before = self
            .owned
            .get(&name)
            .and_then(|before| before.owner_uid.clone());
        match self.owned.get_mut(&name) {
            Some(before) => before.replace(owned),
            None => {
                self.owned.insert(name.clone(), owned);
            }
        }
        let after = self
            .owned
            .get(&name)
            .and_then(|after| after.owner_uid.clone());
        if before != after {
            self.disown(before, &name);
        }
        if let Some(owner) = after {
            self.by_owner.entry(owner).or_default().insert(name);
        }
    }

    fn remove_owned(&mut self, name: &(Resource, String)) {
        if let Some(owned) = self.owned.remove(name) {
            self.disown(owned.owner_uid, name);
        }
    }

    fn disown(&mut self, owner: Option<String>, name: &(Resource, String)) {
        let Some(owner) = owner else { return };
        if let Some(names) = self.by_owner.get_mut(&owner) {
            names.remove(name);
            if names.is_empty() {
                self.by_owner.remove(&owner);
            }
        }
    }

    fn remove_pod(&mut self, name: &str) -> Option<Pod> {
        let pod = self.pods.remove(name)?;
        if let Some(names) = self.pods_by_owner.get_mut(&pod.owner) {
            names.remove(name);
            if names.is_empty() {
                self.pods_by_owner.remove(&pod.owner);
            }
        }
        Some(pod)
    }
}

/// What is listed before a namespace's objects are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Listed {
    Owned(Resource),
    Pods,
}

impl Listed {
    /// Nothing waits for kinds that come and go.
    fn is_needed(self) -> bool {
        match self {
            Self::Owned(resource) => Resource::WATCHED.contains(&resource),
            Self::Pods => true,
        }
    }
}

#[derive(Default)]
struct Inner {
    homes: HashMap<String, Home>,
    workspaces: BTreeMap<String, Arc<Written>>,
    /// Kinds that were listed once.
    listed: BTreeSet<Kind>,
    api_server: Vec<(String, u16)>,
}

impl Inner {
    fn put_written(&mut self, key: &Key, mut written: Written) {
        if key.kind == Kind::Workspace {
            self.workspaces.insert(key.name.clone(), Arc::new(written));
            return;
        }
        let home = self.homes.entry(key.namespace.clone()).or_default();
        let name = (key.kind, key.name.clone());
        if let Some(before) = home.written.get(&name) {
            let refused = home.set.as_ref().is_some_and(|set| set.is_refused(&name));
            written.remember(before, refused);
        }
        home.written.insert(name, Arc::new(written));
    }

    fn written(&self, key: &Key) -> Option<&Arc<Written>> {
        match key.kind {
            Kind::Workspace => self.workspaces.get(&key.name),
            kind => {
                let home = self.homes.get(&key.namespace)?;
                home.written.get(&(kind, key.name.clone()))
            }
        }
    }
}

/// All of it.
#[derive(Default)]
pub(crate) struct World {
    inner: Mutex<Inner>,
}

impl World {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock panics half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn put_written(&self, key: &Key, written: Written) {
        self.inner().put_written(key, written);
    }

    /// What our own write of an object was answered. That may come after what was watched since: a
    /// later look stays, and one that is gone stays gone.
    pub(crate) fn put_answer(&self, key: &Key, answer: Written) {
        let mut inner = self.inner();
        let before = inner.written(key);
        if before.is_some_and(|before| answer.follows(before)) {
            inner.put_written(key, answer);
        }
    }

    pub(crate) fn remove_written(&self, key: &Key) {
        let mut inner = self.inner();
        if key.kind == Kind::Workspace {
            inner.workspaces.remove(&key.name);
        } else if let Some(home) = inner.homes.get_mut(&key.namespace) {
            home.written.remove(&(key.kind, key.name.clone()));
        }
    }

    pub(crate) fn written(&self, key: &Key) -> Option<Arc<Written>> {
        self.inner().written(key).cloned()
    }

    /// The objects of a namespace, and the workspace of its name.
    pub(crate) fn all_written(&self, namespace: &str) -> Vec<(Key, Arc<Written>)> {
        let inner = self.inner();
        let of_home = inner.homes.get(namespace).into_iter().flat_map(|home| {
            let objects = home.written.iter();
            objects.map(|((kind, name), written)| {
                (Key::new(*kind, namespace, name), Arc::clone(written))
            })
        });
        let workspace = inner.workspaces.get(namespace);
        let workspace = workspace.map(|written| (Key::workspace(namespace), Arc::clone(written)));
        of_home.chain(workspace).collect()
    }

    /// All objects of a kind, wherever.
    pub(crate) fn keys(&self, kind: Kind) -> Vec<Key> {
        let inner = self.inner();
        if kind == Kind::Workspace {
            return inner
                .workspaces
                .keys()
                .map(|name| Key::workspace(name))
                .collect();
        }
        let homes = inner.homes.iter();
        homes
            .flat_map(|(namespace, home)| {
                let names = home.written.keys().filter(|(own, _)| *own == kind);
                names.map(|(_, name)| Key::new(kind, namespace, name))
            })
            .collect()
    }

    pub(crate) fn kind_listed(&self, kind: Kind) {
        self.inner().listed.insert(kind);
    }

    /// Whether all five kinds were listed: until then a fleet isn't whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.inner().listed.len() == Kind::ALL.len()
    }

    pub(crate) fn set(&self, namespace: &str) -> Option<Arc<Set>> {
        self.inner().homes.get(namespace)?.set.clone()
    }

    pub(crate) fn put_set(&self, namespace: &str, set: Arc<Set>) {
        let mut inner = self.inner();
        inner.homes.entry(namespace.to_owned()).or_default().set = Some(set);
    }

    /// Takes an object in, unless a newer one is known.
    pub(crate) fn put_owned(&self, namespace: &str, resource: Resource, name: &str, owned: Owned) {
        let mut inner = self.inner();
        let home = inner.homes.entry(namespace.to_owned()).or_default();
        home.put_owned((resource, name.to_owned()), owned);
    }

    pub(crate) fn remove_owned(&self, namespace: &str, resource: Resource, name: &str) {
        if let Some(home) = self.inner().homes.get_mut(namespace) {
            home.remove_owned(&(resource, name.to_owned()));
        }
    }

    pub(crate) fn owned(&self, namespace: &str, resource: Resource, name: &str) -> Option<Owned> {
        let inner = self.inner();
        let home = inner.homes.get(namespace)?;
        home.owned.get(&(resource, name.to_owned())).cloned()
    }

    pub(crate) fn owned_names(&self, namespace: &str, resource: Resource) -> Vec<String> {
        let inner = self.inner();
        let owned = inner.homes.get(namespace).map(|home| home.owned.keys());
        let of_kind = owned
            .into_iter()
            .flatten()
            .filter(|(own, _)| *own == resource);
        of_kind.map(|(_, name)| name.clone()).collect()
    }

    /// What was made for an owner.
    pub(crate) fn owned_by(&self, namespace: &str, uid: &str) -> Vec<(Resource, String)> {
        let inner = self.inner();
        let Some(home) = inner.homes.get(namespace) else {
            return Vec::new();
        };
        let names = home.by_owner.get(uid).into_iter().flatten();
        names
            .filter(|name| home.owned.get(name).is_some_and(|owned| !owned.deleting))
            .cloned()
            .collect()
    }

    pub(crate) fn put_pod(&self, namespace: &str, name: &str, pod: Pod) {
        let mut inner = self.inner();
        let home = inner.homes.entry(namespace.to_owned()).or_default();
        home.remove_pod(name);
        let of_owner = home.pods_by_owner.entry(pod.owner.clone()).or_default();
        of_owner.insert(name.to_owned());
        home.pods.insert(name.to_owned(), pod);
    }

    pub(crate) fn remove_pod(&self, namespace: &str, name: &str) -> Option<Pod> {
        self.inner().homes.get_mut(namespace)?.remove_pod(name)
    }

    pub(crate) fn pod_names(&self, namespace: &str) -> Vec<String> {
        let inner = self.inner();
        let pods = inner.homes.get(namespace).map(|home| home.pods.keys());
        pods.into_iter().flatten().cloned().collect()
    }

    pub(crate) fn pods_of(&self, namespace: &str, owner: &PodOwner) -> Vec<Pod> {
        let inner = self.inner();
        let Some(home) = inner.homes.get(namespace) else {
            return Vec::new();
        };
        let names = home.pods_by_owner.get(owner).into_iter().flatten();
        names
            .filter_map(|name| home.pods.get(name).cloned())
            .collect()
    }

    pub(crate) fn listed(&self, namespace: &str, what: Listed) {
        let mut inner = self.inner();
        let home = inner.homes.entry(namespace.to_owned()).or_default();
        home.listed.insert(what);
    }

    /// Whether all that was made in a namespace is known.
    pub(crate) fn is_known(&self, namespace: &str) -> bool {
        let inner = self.inner();
        let home = inner.homes.get(namespace);
        let listed = home.into_iter().flat_map(|home| &home.listed);
        let needed = listed.filter(|listed| listed.is_needed());
        needed.count() == Resource::WATCHED.len() + 1
    }

    /// The namespace is no workspace's any more: what was made there is not looked at.
    pub(crate) fn forget(&self, namespace: &str) {
        if let Some(home) = self.inner().homes.get_mut(namespace) {
            home.owned.clear();
            home.by_owner.clear();
            home.pods.clear();
            home.pods_by_owner.clear();
            home.listed.clear();
        }
    }

    pub(crate) fn put_api_server(&self, addresses: Vec<(String, u16)>) -> bool {
        let mut inner = self.inner();
        let changed = inner.api_server != addresses;
        inner.api_server = addresses;
        changed
    }

    pub(crate) fn api_server(&self) -> Vec<(String, u16)> {
        self.inner().api_server.clone()
    }
}
