//! `mainstay apply`, `diff` and `delete`: objects kept in the state beside those of `up`'s files.
//!
//! A directory given to `up` owns its objects: changing one of them here would be undone by its
//! next save, so it is refused with the file's name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use api::{Document, Kind};
use contract::keeper::ToHub;
use serde::{Deserialize, Serialize};

use super::watch::Seen;
use super::{Keeper, UpError};
use crate::generation;
use crate::manifest::{self, Key};
use crate::state::{State, at, write_atomically};

/// An applied object: where it was written, and what it says.
#[derive(Debug, Serialize, Deserialize)]
struct Applied {
    path: String,
    object: serde_json::Value,
}

/// What a request comes to.
#[derive(Debug, Default)]
struct Outcome {
    /// What was proposed for it: it is answered when the hub has taken or refused that.
    generation: Option<u64>,
    problems: Vec<String>,
    summary: Vec<String>,
    undo: Vec<Before>,
}

/// A file of an applied object as it was before a request.
#[derive(Debug)]
struct Before {
    path: PathBuf,
    text: Option<Vec<u8>>,
}

/// A request whose generation the hub has not taken yet.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// `None` when the hub that asked is gone.
    request: Option<u64>,
    number: u64,
    outcome: Outcome,
}

/// The documents of all applied objects, less those of files that `up` was given since.
pub(super) fn stored(state: &State, own: &[Document]) -> Vec<Document> {
    beside(load(state), own)
}

fn beside(applied: BTreeMap<String, Applied>, own: &[Document]) -> Vec<Document> {
    let files: BTreeSet<&str> = own.iter().map(|document| document.path.as_str()).collect();
    applied
        .into_values()
        .filter(|applied| !files.contains(applied.path.as_str()))
        .map(|applied| Document::named(applied.path, applied.object.to_string()))
        .collect()
}

fn file_name((kind, workspace, name): &Key) -> String {
    format!("{}-{workspace}-{name}.json", kind.name())
}

fn load(state: &State) -> BTreeMap<String, Applied> {
    let entries = std::fs::read_dir(state.root.join("applied"));
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let text = std::fs::read(entry.path()).ok()?;
            Some((name, serde_json::from_slice(&text).ok()?))
        })
        .collect()
}

impl Keeper {
    pub(super) fn apply(
        &mut self,
        request: u64,
        documents: Vec<contract::keeper::Document>,
        dry_run: bool,
    ) -> Result<(), UpError> {
        let documents: Vec<Document> = documents
            .into_iter()
            .map(|document| Document::named(document.path, document.text))
            .collect();
        let outcome = match api::parse(&documents) {
            Err(problems) => Outcome::refused(problems.0.iter().map(ToString::to_string)),
            Ok(objects) => {
                let objects = objects.iter().map(|object| {
                    let key = (
                        object.kind(),
                        object.workspace().to_owned(),
                        object.name().to_owned(),
                    );
                    let path = object.place.path.clone();
                    (
                        key,
                        Some(Applied {
                            path,
                            object: object.to_json(),
                        }),
                    )
                });
                let objects = objects.collect();
                self.change(objects, documents, dry_run)?
            }
        };
        self.answer(request, outcome);
        Ok(())
    }

    pub(super) fn delete(
        &mut self,
        request: u64,
        objects: Vec<(String, String)>,
        dry_run: bool,
    ) -> Result<(), UpError> {
        let (mut changes, mut problems) = (BTreeMap::new(), Vec::new());
        for (kind, name) in objects {
            let known = Kind::parse(&kind).and_then(|kind| {
                let present = self.desired.as_ref()?.objects.keys();
                present
                    .into_iter()
                    .find(|key| key.0 == kind && key.2 == name)
            });
            match known {
                Some(key) => {
                    changes.insert(key.clone(), None);
                }
                None => problems.push(format!("there is no {kind} {name}")),
            }
        }
        let outcome = if problems.is_empty() {
            self.change(changes, Vec::new(), dry_run)?
        } else {
            Outcome::refused(problems.into_iter())
        };
        self.answer(request, outcome);
        Ok(())
    }

    /// Puts objects in or takes them out, if the whole set stays right. `as_written` are the
    /// documents that the objects to put in stand in: problems show these.
    fn change(
        &mut self,
        changes: BTreeMap<Key, Option<Applied>>,
        as_written: Vec<Document>,
        dry_run: bool,
    ) -> Result<Outcome, UpError> {
        let mut seen = Seen::look_at_manifests(&self.options, &self.state);
        let own = match manifest::collect(&self.options.manifests, &self.state.root) {
            Ok(own) => own,
            Err(problems) => {
                return Ok(Outcome::refused(problems.0.iter().map(ToString::to_string)));
            }
        };
        let owned = self.owned(&own, changes.keys());
        if !owned.is_empty() {
            return Ok(Outcome::refused(owned.into_iter()));
        }
        let mut applied = load(&self.state);
        let (mut texts, mut removed) = (Vec::new(), Vec::new());
        for (key, change) in changes {
            let name = file_name(&key);
            applied.remove(&name);
            match change.map(|object| serde_json::to_vec(&object)) {
                Some(Ok(text)) => texts.push((name, text)),
                Some(Err(error)) => return Ok(Outcome::refused([error.to_string()].into_iter())),
                None => removed.push(name),
            }
        }
        let stored = beside(applied, &own);
        let documents = own.into_iter().chain(as_written).chain(stored);
        let resolved = manifest::resolve(documents.collect(), &self.options.knowledge);
        let stored = resolved.and_then(|mut set| {
            if !dry_run {
                seen.look_at_sources(&set, &self.state);
                generation::store_sources(&self.state, &mut set)?;
            }
            Ok(set)
        });
        let set = match stored {
            Ok(set) => set,
            Err(problems) => {
                return Ok(Outcome::refused(problems.0.iter().map(ToString::to_string)));
            }
        };
        let before = self.desired.as_ref().map(|set| set.objects.clone());
        let summary = manifest::summary(&before.unwrap_or_default(), &set.objects);
        if dry_run {
            return Ok(Outcome {
                summary,
                ..Outcome::default()
            });
        }
        let undo = self.store(&texts, &removed)?;
        self.take_set(Some(set), seen);
        Ok(Outcome {
            generation: self.proposed.last().map(|proposed| proposed.number),
            summary,
            problems: Vec::new(),
            undo,
        })
    }

    /// Which of these objects a file of `up`'s owns, in words.
    fn owned<'a>(&self, own: &[Document], keys: impl Iterator<Item = &'a Key>) -> Vec<String> {
        let files: BTreeSet<&str> = own.iter().map(|document| document.path.as_str()).collect();
        let Some(set) = &self.desired else {
            return Vec::new();
        };
        keys.filter_map(|key| {
            let (_, file) = set.objects.get(key)?;
            files.contains(file.as_str()).then(|| {
                let (kind, _, name) = key;
                format!(
                    "{} {name} belongs to {file}: edit that file, up follows it",
                    kind.name()
                )
            })
        })
        .collect()
    }

    /// Returns what stood there before.
    fn store(
        &self,
        texts: &[(String, Vec<u8>)],
        removed: &[String],
    ) -> Result<Vec<Before>, UpError> {
        let directory = self.state.root.join("applied");
        let mut undo = Vec::new();
        let written = texts.iter().map(|(name, text)| (name, Some(text)));
        for (name, text) in written.chain(removed.iter().map(|name| (name, None))) {
            let path = directory.join(name);
            let before = std::fs::read(&path).ok();
            put(&path, text.map(Vec::as_slice))?;
            undo.push(Before { path, text: before });
        }
        Ok(undo)
    }

    /// The hub has journaled a generation: who asked for it, or for one that it holds, is told.
    pub(super) fn answer_taken(&mut self, number: u64) {
        for waiting in self.take_unanswered(|of| of <= number) {
            self.send_outcome(waiting.request, waiting.outcome);
        }
    }

    /// The hub takes no such generation. What was applied for it is taken back: left there, it
    /// would have every later set refused with it. Returns whether it was applied.
    pub(super) fn take_back(&mut self, number: u64, problems: &[String]) -> Result<bool, UpError> {
        let refused = self.take_unanswered(|of| of == number);
        let was_applied = !refused.is_empty();
        for waiting in refused {
            for before in waiting.outcome.undo.iter().rev() {
                put(&before.path, before.text.as_deref())?;
            }
            self.send_outcome(waiting.request, Outcome::refused(problems.iter().cloned()));
        }
        if was_applied {
            self.read_again();
        }
        Ok(was_applied)
    }

    fn take_unanswered(&mut self, is_meant: impl Fn(u64) -> bool) -> Vec<Unanswered> {
        let (meant, left) = std::mem::take(&mut self.unanswered)
            .into_iter()
            .partition(|waiting| is_meant(waiting.number));
        self.unanswered = left;
        meant
    }

    /// Nobody waits for these answers any more.
    pub(super) fn forget_requests(&mut self) {
        for waiting in &mut self.unanswered {
            waiting.request = None;
        }
    }

    fn answer(&mut self, request: u64, outcome: Outcome) {
        let request = Some(request);
        match outcome.generation {
            Some(number) => self.unanswered.push(Unanswered {
                request,
                number,
                outcome,
            }),
            None => self.send_outcome(request, outcome),
        }
    }

    fn send_outcome(&mut self, request: Option<u64>, outcome: Outcome) {
        let Some(request) = request else { return };
        let Outcome {
            generation,
            problems,
            summary,
            undo: _,
        } = outcome;
        let message = ToHub::Applied {
            request,
            generation,
            problems,
            summary,
        };
        self.hub.send(&message, Vec::new());
    }
}

impl Outcome {
    fn refused(problems: impl Iterator<Item = String>) -> Self {
        Self {
            problems: problems.collect(),
            ..Self::default()
        }
    }
}

/// Writes a file, or removes it.
fn put(path: &Path, text: Option<&[u8]>) -> Result<(), UpError> {
    match text {
        Some(text) => Ok(write_atomically(path, text, 0o600).map_err(at("write", path))?),
        None => std::fs::remove_file(path).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(at("remove", path)(error).into()),
        }),
    }
}
