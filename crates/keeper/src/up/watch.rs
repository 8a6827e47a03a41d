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

    pub(super) fn signature(&self) -> String {
        let sources = self.desired.iter().flat_map(sources);
        let sources: Vec<PathBuf> = sources
            .chain(self.credential_files.iter().map(PathBuf::from))
            .collect();
        manifest::signature(&self.options.manifests, &sources, &self.state.root)
    }

    /// Follows saved files; a broken save keeps what runs.
    pub(super) fn watch(&mut self) {
        let before = Instant::now();
        let signature = self.signature();
        let cost = before.elapsed();
        self.watch_at = Instant::now() + WATCH_EVERY.max(cost * 50);
        if signature == self.watched {
            return;
        }
        let resolved = Self::resolve_desired(&self.options, &self.state).and_then(|mut desired| {
            if let Some(set) = &mut desired {
                generation::store_sources(&self.state, set)?;
            }
            Ok(desired)
        });
        match resolved {
            Ok(desired) => {
                if let Some(set) = &desired {
                    warn(set, &self.options.manifests);
                }
                if std::mem::take(&mut self.save_is_broken) {
                    say("mainstay: the manifests are right again");
                }
                self.desired = desired;
                self.look_for_credentials();
                self.watched = self.signature();
                self.pursue_if_possible();
            }
            Err(problems) => {
                self.watched = signature;
                self.save_is_broken = true;
                say(&format!("{problems}\nmainstay: what runs keeps running"));
            }
        }
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
