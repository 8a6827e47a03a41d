//! Custom resources into generations: resolved together, written, proposed, switched by the hub.
//!
//! One object that is wrong stands back (`api::kubernetes::resolve_lenient`) and stops nothing. A
//! set that comes to the fleet that is current already is not proposed again, and one that the hub
//! refused isn't either: what runs stays.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::kubernetes::{Refused, resolve_lenient};
use api::{Document, Fleet, Kind, Knowledge};
use contract::keeper::GenerationRef;
use hub::artifact::Artifacts;
use serde_json::Value;
use tokio::sync::watch;

use crate::generation::{self, Generation};

/// The documents of objects by what they are.
type Documents = BTreeMap<(Kind, String), Document>;

/// Makes generations of one workspace.
#[derive(Debug)]
pub(crate) struct Fleets {
    workspace: String,
    state_dir: PathBuf,
    knowledge: Knowledge,
    /// What the hub's log says.
    current: Option<GenerationRef>,
    pins: BTreeSet<u64>,
    /// What was proposed last, and whether the hub has answered.
    proposed: Option<(Generation, bool)>,
    /// The documents of the last set: what an object that goes wrong stands back for.
    good: Documents,
    refused: Vec<String>,
    today: watch::Sender<Arc<Fleet>>,
    artifacts: Artifacts,
}

impl Fleets {
    pub(crate) fn new(
        workspace: &str,
        state_dir: PathBuf,
        knowledge: Knowledge,
        artifacts: Artifacts,
    ) -> Self {
        Self {
            workspace: workspace.to_owned(),
            state_dir,
            knowledge,
            current: None,
            pins: BTreeSet::new(),
            proposed: None,
            good: Documents::new(),
            refused: Vec::new(),
            today: watch::channel(Arc::new(Fleet::empty(workspace))).0,
            artifacts,
        }
    }

    /// The fleet that is current.
    pub(crate) fn today(&self) -> watch::Receiver<Arc<Fleet>> {
        self.today.subscribe()
    }

    pub(crate) fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// The hub's log is open: it says what is current. That generation is on disk.
    pub(crate) fn begin(&mut self, current: Option<GenerationRef>) {
        if let Some(current) = &current {
            self.good = generation::documents(&self.state_dir, current.number)
                .into_iter()
                .collect();
            self.switch(current.number);
        }
        self.current = current;
    }

    /// What the hub is to be asked to take, if these objects come to anything new.
    pub(crate) fn propose(&mut self, objects: &[Value]) -> io::Result<Option<Generation>> {
        let (fleet, documents) = self.resolve(objects);
        let hash = fleet.hash();
        let is_current = self
            .current
            .as_ref()
            .is_some_and(|known| known.hash == hash);
        match &self.proposed {
            Some((known, _)) if known.hash == hash => return Ok(None),
            // What is being decided on may become current yet.
            Some((_, false)) => {}
            _ if is_current => {
                self.proposed = None;
                return Ok(None);
            }
            _ => {}
        }
        let used: Vec<Document> = documents.values().cloned().collect();
        let current = self.current.as_ref().map_or(0, |current| current.number);
        let written = generation::write(&self.state_dir, &fleet, &used, current)?;
        self.good = documents;
        self.proposed = Some((written.clone(), false));
        Ok(Some(written))
    }

    fn resolve(&mut self, objects: &[Value]) -> (Fleet, Documents) {
        let facts = self.knowledge.on_kubernetes();
        let documents: Vec<Document> = objects.iter().map(api::kubernetes::document).collect();
        let good = &self.good;
        let last_good = |kind: Kind, name: &str| good.get(&(kind, name.to_owned())).cloned();
        let lenient = resolve_lenient(&documents, &facts, &last_good);
        let used = used(&documents, &lenient.refused, good);
        self.tell(&lenient.refused);
        let mut fleet = lenient.resolved.fleet;
        for agent in fleet.agents.values_mut() {
            // A number that changes with the load is no new generation.
            if let Some(scale) = &agent.scale {
                agent.replicas = scale.min;
            }
        }
        // Its own object names it, and may be away.
        fleet.workspace.clone_from(&self.workspace);
        (fleet, used)
    }

    /// Says what is refused, once for as long as it stays so.
    fn tell(&mut self, refused: &[Refused]) {
        let said: Vec<String> = refused.iter().map(sentence).collect();
        for line in said.iter().filter(|line| !self.refused.contains(line)) {
            tracing::warn!("{line}");
        }
        self.refused = said;
    }

    /// The hub's log has it: what runs follows.
    pub(crate) fn committed(&mut self, number: u64) {
        self.answered(number);
        if let Some((proposed, _)) = &self.proposed
            && proposed.number == number
        {
            self.current = Some(GenerationRef {
                number,
                hash: proposed.hash.clone(),
            });
        }
        self.switch(number);
        self.tidy();
    }

    /// The hub has decided on it.
    pub(crate) fn answered(&mut self, number: u64) {
        if let Some((known, is_answered)) = &mut self.proposed {
            *is_answered |= known.number == number;
        }
    }

    /// Generations that open tasks need.
    pub(crate) fn pinned(&mut self, pins: Vec<u64>) {
        self.pins = pins.into_iter().collect();
        self.tidy();
    }

    fn switch(&self, number: u64) {
        match generation::load(&self.state_dir, number) {
            Some(fleet) => {
                self.today.send_replace(Arc::new(fleet));
            }
            None => tracing::error!(number, "the current generation can't be read"),
        }
    }

    fn tidy(&self) {
        let Some(current) = &self.current else { return };
        let tidied = generation::tidy(&self.state_dir, current.number, &self.pins)
            .and_then(|()| generation::artifacts(&self.state_dir))
            .and_then(|named| match named {
                Some(named) => self.artifacts.tidy(&named),
                // It may name any of them, if only to a newer program.
                None => Ok(()),
            });
        if let Err(error) = tidied {
            tracing::warn!(%error, "old generations and artifacts can't be removed");
        }
    }
}

/// The documents that a set was resolved from.
fn used(documents: &[Document], refused: &[Refused], good: &Documents) -> Documents {
    let mut used = Documents::new();
    for document in documents {
        let parts = document.path.split_once('/');
        let key = parts.and_then(|(kind, name)| Some((Kind::parse(kind)?, name.to_owned())));
        let Some(key) = key else { continue };
        let stands_back = refused
            .iter()
            .find(|refused| refused.kind == key.0 && refused.name == key.1);
        let document = match stands_back {
            None => Some(document),
            Some(refused) if refused.kept => good.get(&key),
            Some(_) => None,
        };
        if let Some(document) = document {
            used.insert(key, document.clone());
        }
    }
    used
}

fn sentence(refused: &Refused) -> String {
    let what = match refused.kept {
        true => "its last good version stays",
        false => "it is left out",
    };
    let problems: Vec<String> = refused
        .problems
        .iter()
        .map(|problem| problem.message.clone())
        .collect();
    format!(
        "{} {}: {what}: {}",
        refused.kind,
        refused.name,
        problems.join("; ")
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, name: &str, spec: Value) -> Value {
        json!({"apiVersion": "mainstay.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": "acme"}, "spec": spec})
    }

    fn agent(name: &str, command: &str) -> Value {
        object(
            "Agent",
            name,
            json!({"runtime": {"exec": {"command": [command]}}, "image": "example.org/a"}),
        )
    }

    fn fleets(state: &Path) -> Fleets {
        let knowledge = Knowledge {
            model: |_, _| None,
            check_expression: |_| Ok(()),
            check_schema: |_| Ok(()),
            check_script: |_| Ok(()),
        };
        let artifacts = Artifacts::open(state).unwrap();
        Fleets::new("acme", state.to_owned(), knowledge, artifacts)
    }

    #[test]
    fn a_change_is_proposed_once_and_current_when_the_hub_says_so() {
        let state = tempfile::tempdir().unwrap();
        let mut fleets = fleets(state.path());
        let today = fleets.today();
        fleets.begin(None);
        let objects = [agent("a", "one")];
        let first = fleets.propose(&objects).unwrap().unwrap();
        assert!(today.borrow().agents.is_empty());
        fleets.committed(first.number);
        assert_eq!(today.borrow().workspace, "acme");
        assert!(today.borrow().agents.contains_key("a"));
        assert!(fleets.propose(&objects).unwrap().is_none());
        let second = fleets.propose(&[agent("a", "two")]).unwrap().unwrap();
        // Refused: what runs stays, and it isn't asked again until the objects change.
        fleets.answered(second.number);
        assert!(fleets.propose(&[agent("a", "two")]).unwrap().is_none());
        assert!(fleets.propose(&objects).unwrap().is_none());
        // What is being decided on may become current: then the old has to be asked for.
        let third = fleets.propose(&[agent("a", "three")]).unwrap().unwrap();
        let back = fleets.propose(&objects).unwrap().unwrap();
        assert_eq!(back.number, third.number + 1);
    }

    #[test]
    fn one_that_goes_wrong_keeps_its_last_good_version_over_a_restart() {
        let state = tempfile::tempdir().unwrap();
        let mut before = fleets(state.path());
        before.begin(None);
        let first = before
            .propose(&[agent("a", "one"), agent("b", "one")])
            .unwrap()
            .unwrap();
        let mut after = fleets(state.path());
        after.begin(Some(GenerationRef {
            number: first.number,
            hash: first.hash,
        }));
        let nonsense = object("Agent", "a", json!({"runtime": 7}));
        let new = object("Agent", "c", json!({"nothing": true}));
        let second = after
            .propose(&[nonsense, agent("b", "two"), new])
            .unwrap()
            .unwrap();
        let fleet = generation::load(state.path(), second.number).unwrap();
        let names: Vec<&String> = fleet.agents.keys().collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_file_that_this_home_cannot_read_leaves_its_object_out() {
        let state = tempfile::tempdir().unwrap();
        let mut fleets = fleets(state.path());
        fleets.begin(None);
        let provider = |name: &str, credential: Value| {
            object(
                "Provider",
                name,
                json!({"type": "openai", "baseUrl": "https://models.example", "credential": credential}),
            )
        };
        let objects = [
            provider("env", json!({"env": "KEY"})),
            provider("file", json!({"file": "/etc/key"})),
            provider(
                "secret",
                json!({"secretRef": {"name": "keys", "key": "it"}}),
            ),
            object(
                "Provider",
                "script",
                json!({"type": "script", "script": "./x.yaml"}),
            ),
        ];
        let made = fleets.propose(&objects).unwrap().unwrap();
        let fleet = generation::load(state.path(), made.number).unwrap();
        let names: Vec<&String> = fleet.providers.keys().collect();
        assert_eq!(names, ["secret"]);
        assert!(
            fleets
                .refused
                .iter()
                .any(|line| line.contains("credential")),
            "{:?}",
            fleets.refused
        );
    }
}
