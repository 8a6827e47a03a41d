//! The manifests and sources that `up` follows.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use api::Problems;

use super::{Keeper, Options, apply, say};
use crate::generation;
use crate::manifest::{self, Set};
use crate::state::State;

pub(super) const WATCH_EVERY: Duration = Duration::from_millis(500);

impl Keeper {
    /// What should run: the given manifests with what was applied; `None` if there is neither.
    pub(super) fn resolve_desired(
        options: &Options,
        state: &State,
    ) -> Result<Option<Set>, Problems> {
        let mut documents = manifest::collect(&options.manifests, &state.root)?;
        documents.extend(apply::stored(state, &documents));
        if documents.is_empty() && options.manifests.is_empty() {
            return Ok(None);
        }
        manifest::resolve(documents, &options.knowledge).map(Some)
    }

    /// The same with its sources copied, and what it was read from. Each thing was looked at before
    /// it was read: a save in between is seen by the next look.
    pub(super) fn read_desired(
        options: &Options,
        state: &State,
    ) -> (Result<Option<Set>, Problems>, Seen) {
        let mut seen = Seen::look_at_manifests(options, state);
        let read = Self::resolve_desired(options, state).and_then(|mut desired| {
            if let Some(set) = &mut desired {
                seen.look_at_sources(set, state);
                generation::store_sources(state, set)?;
            }
            Ok(desired)
        });
        (read, seen)
    }

    /// Keeps what the desired set was read from; credential files are read after this.
    pub(super) fn has_seen(&mut self, seen: Seen) {
        self.seen = seen;
        self.seen.credentials = self.credentials_now();
    }

    fn credentials_now(&self) -> String {
        let files: Vec<PathBuf> = self.credential_files.iter().map(PathBuf::from).collect();
        // As manifests are looked at: behind their links, where a mounted secret changes.
        manifest::signature(&files, &[], &self.state.root)
    }

    fn has_changed(&self) -> bool {
        let Seen {
            manifests,
            source_paths,
            sources,
            credentials,
        } = &self.seen;
        let root = &self.state.root;
        *manifests != manifest::signature(&self.options.manifests, &[], root)
            || *sources != manifest::signature(&[], source_paths, root)
            || *credentials != self.credentials_now()
    }

    /// Follows saved files; a broken save keeps what runs.
    pub(super) fn watch(&mut self) {
        let before = Instant::now();
        let has_changed = self.has_changed();
        let cost = before.elapsed();
        self.watch_at = Instant::now() + WATCH_EVERY.max(cost * 50);
        if has_changed {
            self.read_again();
        }
    }

    /// From here on this is what should run.
    pub(super) fn take_set(&mut self, desired: Option<Set>, seen: Seen) {
        self.desired = desired;
        self.look_for_credentials();
        self.has_seen(seen);
        self.pursue_if_possible();
    }

    /// Takes what the files say now; if they say something wrong, what runs stays.
    pub(super) fn read_again(&mut self) {
        let (read, seen) = Self::read_desired(&self.options, &self.state);
        match read {
            Ok(desired) => {
                if let Some(set) = &desired {
                    warn(set, &self.options.manifests);
                }
                if std::mem::take(&mut self.save_is_broken) {
                    say("mainstay: the manifests are right again");
                }
                self.take_set(desired, seen);
            }
            Err(problems) => {
                self.has_seen(seen);
                self.save_is_broken = true;
                say(&format!("{problems}\nmainstay: what runs keeps running"));
            }
        }
    }
}

/// What the manifests, the sources and the credential files looked like before they were read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    manifests: String,
    /// Those of the newest set that could be resolved, although they may not be there.
    source_paths: Vec<PathBuf>,
    sources: String,
    credentials: String,
}

impl Seen {
    pub(super) fn look_at_manifests(options: &Options, state: &State) -> Self {
        Self {
            manifests: manifest::signature(&options.manifests, &[], &state.root),
            ..Self::default()
        }
    }

    pub(super) fn look_at_sources(&mut self, set: &Set, state: &State) {
        self.source_paths = sources(set);
        self.sources = manifest::signature(&[], &self.source_paths, &state.root);
    }
}

fn sources(set: &Set) -> Vec<PathBuf> {
    let agents = set.fleet.agents.values();
    agents
        .filter_map(|agent| agent.source.as_ref())
        .map(|source| PathBuf::from(&source.path))
        .collect()
}

/// Tells the person what is probably not meant.
pub(super) fn warn(set: &Set, paths: &[PathBuf]) {
    if set.objects.is_empty() && !paths.is_empty() {
        let paths: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        say(&format!(
            "warning: no manifest in {}: nothing runs until one is saved there",
            paths.join(", ")
        ));
    }
    for warning in &set.warnings {
        say(&format!("warning: {warning}"));
    }
}
