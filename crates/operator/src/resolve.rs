//! A namespace's objects as one fleet, made anew when one of them changed.
//!
//! A set is resolved as a whole, because objects refer to each other; one that is malformed stops
//! nothing but what needs it. Changes come in bursts (ten thousand agents applied one by one), so
//! the next resolution waits a multiple of what the last one took.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::fleet::{ModelFacts, Tool};
use api::kubernetes::{Refused, resolve_lenient};
use api::{Document, Facts, Fleet, Kind};

use crate::world::{Key, World, Written};

/// What a set waits for more of a burst.
const BURST: Duration = Duration::from_millis(50);
/// How many times as long as the last resolution took.
const REST: u32 = 4;

/// What manifests are checked with, beyond themselves. Functions, so that this room links neither
/// prices nor schemas nor expressions.
#[derive(Clone, Copy)]
pub struct Checks {
    pub model: fn(&str, &str) -> Option<ModelFacts>,
    pub expression: fn(&str) -> Result<(), String>,
    pub schema: fn(&serde_json::Value) -> Result<(), String>,
    pub script: fn(&str) -> Result<(), String>,
}

/// A namespace's objects, resolved.
pub(crate) struct Set {
    pub(crate) fleet: Fleet,
    refused: BTreeMap<(Kind, String), Refused>,
    /// Which objects it was made of: their uid and generation.
    made_of: BTreeMap<(Kind, String), (String, i64)>,
}

impl Set {
    pub(crate) fn is_refused(&self, object: &(Kind, String)) -> bool {
        self.refused.contains_key(object)
    }

    pub(crate) fn refused(&self, kind: Kind, name: &str) -> Option<&Refused> {
        self.refused.get(&(kind, name.to_owned()))
    }

    /// The tools of a registry that some agent uses.
    pub(crate) fn used_tools(&self, registry: &str) -> BTreeMap<String, Tool> {
        let agents = self.fleet.agents.values();
        let used: BTreeSet<&str> = agents
            .flat_map(|agent| agent.tools.iter().map(|tool| tool.tool.as_str()))
            .collect();
        let tools = self.fleet.tools.iter();
        tools
            .filter(|(name, tool)| tool.registry == registry && used.contains(name.as_str()))
            .map(|(name, tool)| (name.clone(), tool.clone()))
            .collect()
    }

    /// Whether it was made of this very object.
    pub(crate) fn knows(&self, kind: Kind, name: &str, written: &Written) -> bool {
        let seen = self.made_of.get(&(kind, name.to_owned()));
        seen.is_some_and(|(uid, generation)| {
            *uid == written.uid && *generation >= written.generation
        })
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
        self.made_of
            .keys()
            .filter(|object| differs(object))
            .cloned()
            .collect()
    }

    /// Whether what is built for an object is what was built for it before.
    fn means_the_same(&self, (kind, name): &(Kind, String), before: &Self) -> bool {
        let (now, then) = (&self.fleet, &before.fleet);
        match kind {
            Kind::Agent => now.agents.get(name) == then.agents.get(name),
            Kind::ToolRegistry => self.used_tools(name) == before.used_tools(name),
            // Its policies and its hub's rights depend on all of them.
            Kind::Workspace => now == then,
            Kind::Provider | Kind::PromptPack => true,
        }
    }
}

/// Resolves the objects of a namespace.
pub(crate) fn resolve(namespace: &str, objects: &[(Key, Arc<Written>)], checks: Checks) -> Set {
    let live = || objects.iter().filter(|(_, written)| !written.deleting);
    let documents: Vec<Document> = live().map(|(_, written)| written.document()).collect();
    let good: HashMap<(Kind, &str), &Arc<Written>> = live()
        .map(|(key, written)| ((key.kind, key.name.as_str()), written))
        .collect();
    let nowhere = |_: &std::path::Path| Err("there are no files on Kubernetes".to_owned());
    let mut facts = Facts::new(&checks.model, &nowhere);
    facts.check_expression = &checks.expression;
    facts.check_schema = &checks.schema;
    facts.check_script = &checks.script;
    facts.home = api::Home::Kubernetes;
    let last_good = |kind: Kind, name: &str| good.get(&(kind, name))?.last_good();
    let lenient = resolve_lenient(&documents, &facts, &last_good);
    let mut fleet = lenient.resolved.fleet;
    namespace.clone_into(&mut fleet.workspace);
    Set {
        fleet,
        refused: lenient
            .refused
            .into_iter()
            .map(|refused| ((refused.kind, refused.name.clone()), refused))
            .collect(),
        made_of: live()
            .map(|(key, written)| {
                let seen = (written.uid.clone(), written.generation);
                ((key.kind, key.name.clone()), seen)
            })
            .collect(),
    }
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
pub(crate) fn renew(world: &World, namespace: &str, checks: Checks) -> Vec<Key> {
    let objects = world.all_written(namespace);
    let set = Arc::new(resolve(namespace, &objects, checks));
    let before = world.set(namespace);
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
