//! A namespace's objects as one fleet, made anew when one of them changed.
//!
//! A set is resolved as a whole, because objects refer to each other; one that is malformed stops
//! nothing but what needs it. Changes come in bursts (ten thousand agents applied one by one), so
//! the next resolution waits a multiple of what the last one took.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::fleet::{Agent, Credential, Tool, ToolKind};
use api::kubernetes::{Lenient, Refused, resolve_lenient};
use api::{Document, Fleet, Kind, Knowledge};

use crate::world::{Key, World, Written};

/// What a set waits for more of a burst.
const BURST: Duration = Duration::from_millis(50);
/// How many times as long as the last resolution took.
const REST: u32 = 4;

/// A namespace's objects, resolved.
pub(crate) struct Set {
    /// Everything but its agents.
    pub(crate) fleet: Fleet,
    pub(crate) agents: BTreeMap<String, Arc<Agent>>,
    /// The Secrets that it names.
    pub(crate) secrets: BTreeSet<String>,
    /// The tools that its agents use.
    used: BTreeSet<String>,
    refused: BTreeMap<(Kind, String), Refused>,
    made_of: BTreeMap<(Kind, String), Seen>,
    /// Those of them that others depend on.
    shared: BTreeSet<(Kind, String)>,
}

/// What of an object a set was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    uid: String,
    generation: i64,
    sent: Option<Box<str>>,
}

impl Seen {
    fn of(written: &Written) -> Self {
        Self {
            uid: written.uid.clone(),
            generation: written.generation,
            sent: written.sent.clone(),
        }
    }

    fn is_no_older(&self, written: &Written) -> bool {
        self.uid == written.uid
            && (self.generation > written.generation || *self == Self::of(written))
    }
}

impl Set {
    pub(crate) fn is_refused(&self, object: &(Kind, String)) -> bool {
        self.refused.contains_key(object)
    }

    pub(crate) fn refused(&self, kind: Kind, name: &str) -> Option<&Refused> {
        self.refused.get(&(kind, name.to_owned()))
    }

    /// Whether something is refused and nothing is in its place: the hub may know more of it, if it
    /// has seen one that was right.
    pub(crate) fn is_partial(&self) -> bool {
        self.refused.values().any(|refused| !refused.kept)
    }

    /// The tools of a registry that some agent uses.
    pub(crate) fn used_tools(&self, registry: &str) -> BTreeMap<String, Tool> {
        let tools = self.fleet.tools.iter();
        tools
            .filter(|(name, tool)| tool.registry == registry && self.used.contains(*name))
            .map(|(name, tool)| (name.clone(), tool.clone()))
            .collect()
    }

    /// Whether it was made of this very object.
    pub(crate) fn knows(&self, kind: Kind, name: &str, written: &Written) -> bool {
        let seen = self.made_of.get(&(kind, name.to_owned()));
        seen.is_some_and(|seen| seen.is_no_older(written))
    }

    /// The objects for which it means something else than `before`.
    fn changed(&self, before: Option<&Self>) -> Vec<(Kind, String)> {
        let Some(before) = before else {
            return self.made_of.keys().cloned().collect();
        };
        let differs = |object: &(Kind, String)| {
            self.made_of.get(object) != before.made_of.get(object)
                || self.refused.get(object) != before.refused.get(object)
                || !self.means_the_same(object, before)
        };
        let objects = self.made_of.keys();
        objects.filter(|object| differs(object)).cloned().collect()
    }

    /// Whether what is built for an object is what was built for it before.
    fn means_the_same(&self, (kind, name): &(Kind, String), before: &Self) -> bool {
        // What was left because of that is no longer to be left.
        let leaves_the_same = self.is_partial() == before.is_partial();
        match kind {
            Kind::Agent => self.agents.get(name) == before.agents.get(name),
            Kind::ToolRegistry => {
                leaves_the_same && self.used_tools(name) == before.used_tools(name)
            }
            // Its policies and its hub's rights depend on all of them.
            Kind::Workspace => {
                leaves_the_same && self.fleet == before.fleet && self.secrets == before.secrets
            }
            Kind::Provider | Kind::PromptPack => true,
        }
    }

    /// Whether what others depend on is what it was.
    fn shares_the_same(&self, before: &Self) -> bool {
        let is_same = |object| self.made_of.get(object) == before.made_of.get(object);
        self.shared == before.shared && self.shared.iter().all(is_same)
    }

    /// Takes in what was made of some objects.
    fn take(&mut self, lenient: Lenient, wanted: impl Fn(&(Kind, String)) -> bool) {
        let agents = lenient.resolved.fleet.agents.into_iter();
        self.agents.extend(
            agents
                .filter(|(name, _)| wanted(&(Kind::Agent, name.clone())))
                .map(|(name, agent)| (name, Arc::new(agent))),
        );
        let refused = lenient.refused.into_iter();
        self.refused.extend(
            refused
                .map(|refused| ((refused.kind, refused.name.clone()), refused))
                .filter(|(object, _)| wanted(object)),
        );
    }

    /// What follows from all of it.
    fn finish(mut self) -> Self {
        let agents = self.agents.values();
        let tools = agents.flat_map(|agent| agent.tools.iter());
        self.used = tools.map(|tool| tool.tool.clone()).collect();
        self.secrets = secrets(&self.fleet, &self.agents);
        self
    }
}

/// The Secrets that a fleet names.
fn secrets(fleet: &Fleet, agents: &BTreeMap<String, Arc<Agent>>) -> BTreeSet<String> {
    let of_tool = |kind: &ToolKind| match kind {
        ToolKind::McpHttp { credential, .. } | ToolKind::Http { credential, .. } => {
            credential.clone()
        }
        ToolKind::McpStdio { .. } | ToolKind::Agent { .. } => None,
    };
    let providers = fleet.providers.values();
    let providers = providers.filter_map(|provider| provider.credential.clone());
    let tools = fleet.tools.values().filter_map(|tool| of_tool(&tool.kind));
    let credentials = providers
        .chain(tools)
        .filter_map(|credential| match credential {
            Credential::SecretRef(secret) => Some(secret.name),
            Credential::Env { .. } | Credential::File { .. } => None,
        });
    let agents = agents.values().flat_map(|agent| agent.secret_env.values());
    credentials
        .chain(agents.map(|secret| secret.name.clone()))
        .collect()
}

/// So many agents are resolved at once: what is held for a moment is a multiple of their texts.
const AT_ONCE: usize = 200;

/// Resolves the objects of a namespace, with what is still true of `before`.
///
/// Theory: an agent depends on everything but agents, and on agents that tools call. Nothing
/// depends on the others, so they are resolved a few at a time, and only those that changed.
pub(crate) fn resolve(
    namespace: &str,
    objects: &[(Key, Arc<Written>)],
    before: Option<&Set>,
    checks: Knowledge,
) -> Set {
    let objects: BTreeMap<(Kind, String), &Written> = objects
        .iter()
        .filter(|(_, written)| !written.deleting)
        .map(|(key, written)| ((key.kind, key.name.clone()), written.as_ref()))
        .collect();
    let called = called(&objects);
    let is_shared =
        |(kind, name): &(Kind, String)| *kind != Kind::Agent || called.contains(name.as_str());
    let mut set = Set {
        fleet: Fleet::empty(namespace),
        agents: BTreeMap::new(),
        secrets: BTreeSet::new(),
        used: BTreeSet::new(),
        refused: BTreeMap::new(),
        made_of: objects
            .iter()
            .map(|(object, written)| (object.clone(), Seen::of(written)))
            .collect(),
        shared: objects
            .keys()
            .filter(|object| is_shared(object))
            .cloned()
            .collect(),
    };
    let before = before.filter(|before| set.shares_the_same(before));
    let shared: Vec<&(Kind, String)> = set.shared.iter().collect();
    let shared = documents(&objects, &shared);
    match before {
        Some(before) => set.keep(before),
        None => {
            let lenient = lenient(&shared, &objects, checks);
            let mut fleet = lenient.resolved.fleet.clone();
            fleet.agents.clear();
            namespace.clone_into(&mut fleet.workspace);
            set.fleet = fleet;
            set.take(lenient, is_shared);
        }
    }
    let rest: Vec<&(Kind, String)> = objects
        .keys()
        .filter(|object| !is_shared(object) && !set.has(object))
        .collect();
    for some in rest.chunks(AT_ONCE) {
        let all = [shared.clone(), documents(&objects, some)].concat();
        let lenient = lenient(&all, &objects, checks);
        set.take(lenient, |object| some.contains(&object));
    }
    set.finish()
}

impl Set {
    /// What `before` says of objects that are as they were.
    fn keep(&mut self, before: &Self) {
        self.fleet = before.fleet.clone();
        let made_of = &self.made_of;
        let is_same = |object: &(Kind, String)| made_of.get(object) == before.made_of.get(object);
        let agents = before.agents.iter();
        let agents = agents.filter(|(name, _)| is_same(&(Kind::Agent, (*name).clone())));
        self.agents = agents
            .map(|(name, agent)| (name.clone(), Arc::clone(agent)))
            .collect();
        let refused = before.refused.iter().filter(|(object, _)| is_same(object));
        self.refused = refused
            .map(|(object, refused)| (object.clone(), refused.clone()))
            .collect();
    }

    fn has(&self, object: &(Kind, String)) -> bool {
        self.agents.contains_key(&object.1) || self.refused.contains_key(object)
    }
}

/// The agents that tools call.
fn called(objects: &BTreeMap<(Kind, String), &Written>) -> BTreeSet<String> {
    let registries = objects
        .iter()
        .filter(|((kind, _), _)| *kind == Kind::ToolRegistry);
    registries
        .flat_map(|(_, written)| {
            let tools = written.manifest()["spec"]["tools"].as_array().cloned();
            tools.unwrap_or_default()
        })
        .filter_map(|tool| tool["agent"].as_str().map(str::to_owned))
        .collect()
}

fn documents(
    objects: &BTreeMap<(Kind, String), &Written>,
    some: &[&(Kind, String)],
) -> Vec<Document> {
    let written = some.iter().filter_map(|object| objects.get(*object));
    written.map(|written| written.document()).collect()
}

fn lenient(
    documents: &[Document],
    objects: &BTreeMap<(Kind, String), &Written>,
    checks: Knowledge,
) -> Lenient {
    let facts = checks.on_kubernetes();
    let last_good = |kind: Kind, name: &str| objects.get(&(kind, name.to_owned()))?.last_good();
    resolve_lenient(documents, &facts, &last_good)
}

/// When which namespace is resolved next.
#[derive(Default)]
pub(crate) struct Pace {
    due: HashMap<String, Instant>,
    took: HashMap<String, (Instant, Duration)>,
}

impl Pace {
    /// Something of it changed.
    pub(crate) fn changed(&mut self, namespace: &str, now: Instant) {
        if self.due.contains_key(namespace) {
            return;
        }
        let rested = self
            .took
            .get(namespace)
            .map_or(now, |(ended, took)| *ended + took.saturating_mul(REST));
        self.due
            .insert(namespace.to_owned(), rested.max(now + BURST));
    }

    /// One that is due, taken off.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<String> {
        let mut due = self.due.iter().filter(|(_, when)| **when <= now);
        let namespace = due.next().map(|(namespace, _)| namespace.clone())?;
        self.due.remove(&namespace);
        Some(namespace)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    pub(crate) fn took(&mut self, namespace: &str, now: Instant, took: Duration) {
        self.took.insert(namespace.to_owned(), (now, took));
    }
}

/// Resolves a namespace and says which objects it changed something for.
pub(crate) fn renew(world: &World, namespace: &str, checks: Knowledge) -> Vec<Key> {
    let objects = world.all_written(namespace);
    let before = world.set(namespace);
    let set = Arc::new(resolve(namespace, &objects, before.as_deref(), checks));
    let changed = set.changed(before.as_deref());
    world.put_set(namespace, set);
    changed
        .into_iter()
        .map(|(kind, name)| match kind {
            Kind::Workspace => Key::workspace(&name),
            kind => Key::new(kind, namespace, &name),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(
        kind: Kind,
        name: &str,
        generation: i64,
        spec: serde_json::Value,
    ) -> (Key, Arc<Written>) {
        let object = serde_json::json!({
            "metadata": {"name": name, "namespace": "n", "uid": name, "generation": generation},
            "spec": spec,
        });
        let object = serde_json::from_value(object).unwrap();
        (
            Key::new(kind, "n", name),
            Arc::new(Written::read(kind, &object)),
        )
    }

    fn checks() -> Knowledge {
        Knowledge::nothing()
    }

    #[test]
    fn an_agent_that_changed_is_resolved_and_the_others_are_kept() {
        let provider = |generation, name| {
            written(
                Kind::Provider,
                name,
                generation,
                serde_json::json!({"type": "openai", "baseUrl": "http://127.0.0.1:9"}),
            )
        };
        let agent = |generation, name, model: &str| {
            written(
                Kind::Agent,
                name,
                generation,
                serde_json::json!({"models": [model]}),
            )
        };
        let first = [
            provider(1, "fake"),
            agent(1, "a", "fake/m"),
            agent(1, "b", "gone/m"),
        ];
        let before = resolve("n", &first, None, checks());
        assert!(before.refused(Kind::Agent, "b").is_some());
        assert_eq!(before.agents.len(), 1);
        let second = [
            provider(1, "fake"),
            agent(1, "a", "fake/m"),
            agent(2, "b", "fake/n"),
        ];
        let after = resolve("n", &second, Some(&before), checks());
        assert!(Arc::ptr_eq(&before.agents["a"], &after.agents["a"]));
        assert_eq!(
            after.changed(Some(&before)),
            [(Kind::Agent, "b".to_owned())]
        );
        // What all depend on changed: nothing is kept.
        let third = [
            provider(1, "gone"),
            agent(1, "a", "fake/m"),
            agent(2, "b", "fake/n"),
        ];
        let last = resolve("n", &third, Some(&after), checks());
        assert!(last.agents.is_empty());
        assert_eq!(last.refused.len(), 2);
    }

    #[test]
    fn while_an_object_is_refused_with_nothing_in_its_place_a_set_is_partial() {
        let tools = serde_json::json!({"tools": []});
        let registry = written(Kind::ToolRegistry, "desk", 1, tools);
        let workspace = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n", "uid": "n", "generation": 1}, "spec": {},
        }));
        let workspace = Written::read(Kind::Workspace, &workspace.unwrap());
        let workspace = (Key::workspace("n"), Arc::new(workspace));
        let agent = written(Kind::Agent, "a", 1, serde_json::json!({"replicas": "many"}));
        let rest = [registry, workspace];
        let all: Vec<_> = rest.iter().cloned().chain([agent]).collect();
        let before = resolve("n", &all, None, checks());
        assert!(before.is_partial());
        // Once it isn't, what was left because of that is looked at again.
        let after = resolve("n", &rest, Some(&before), checks());
        assert!(!after.is_partial());
        let changed = after.changed(Some(&before));
        let changed: Vec<Kind> = changed.into_iter().map(|(kind, _)| kind).collect();
        assert!(changed.contains(&Kind::ToolRegistry), "{changed:?}");
        assert!(changed.contains(&Kind::Workspace), "{changed:?}");
    }

    #[test]
    fn a_burst_is_resolved_once_and_a_slow_set_seldom() {
        let now = Instant::now();
        let mut pace = Pace::default();
        pace.changed("a", now);
        pace.changed("a", now + BURST / 2);
        assert_eq!(pace.pop(now), None);
        assert_eq!(pace.next(), Some(now + BURST));
        assert_eq!(pace.pop(now + BURST).as_deref(), Some("a"));
        let ended = now + Duration::from_secs(1);
        pace.took("a", ended, Duration::from_secs(1));
        pace.changed("a", ended);
        assert_eq!(pace.next(), Some(ended + Duration::from_secs(4)));
    }
}
