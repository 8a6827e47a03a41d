//! The manifests given to `up`, and those that `apply` left: collected, resolved, watched.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use api::{Document, Home, Kind, Knowledge, Object, Problem, Problems};
use serde_json::Value;

use crate::state::read_file;

const MAX_FILES: usize = 10_000;
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// An object's kind, workspace and name.
pub(crate) type Key = (Kind, String, String);

/// A whole set, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) documents: Vec<Document>,
    pub(crate) fleet: api::Fleet,
    pub(crate) warnings: Vec<Problem>,
    /// Each object as JSON, and the file it came from.
    pub(crate) objects: BTreeMap<Key, (Value, String)>,
    /// The same with the places of their fields, for what is found wrong with one later.
    pub(crate) written: Vec<Object>,
}

impl Set {
    /// A problem with a field of an object, shown where it was written.
    pub(crate) fn problem(&self, kind: Kind, name: &str, field: &str, message: String) -> Problem {
        let mut objects = self.written.iter();
        match objects.find(|object| object.kind() == kind && object.name() == name) {
            Some(object) => object.problem(field, message),
            None => Problem::of_file(&format!("{} {name}", kind.name()), message),
        }
    }

    /// What the hub has against a generation: `KIND NAME: REASON`, shown where it was written.
    pub(crate) fn refused(&self, text: &str) -> Option<Problem> {
        let (subject, reason) = text.split_once(": ")?;
        let (kind, name) = subject.split_once(' ')?;
        let kind = Kind::parse(kind)?;
        let field = match kind {
            Kind::Agent => "spec.prompt.version",
            _ => "spec.version",
        };
        let problem = self.problem(kind, name, field, reason.to_owned());
        let agent = self.fleet.agents.get(name);
        let prompt = agent.and_then(|agent| agent.prompt.as_ref());
        match prompt.filter(|_| kind == Kind::Agent) {
            Some(prompt) => Some(problem.with_hint(self.other_pin(&prompt.pack))),
            None => Some(problem),
        }
    }

    fn other_pin(&self, pack: &str) -> String {
        match self.fleet.prompt_packs.get(pack) {
            Some(known) => format!(
                "pin version {} of {pack}, or leave `version` out to follow it",
                known.version
            ),
            None => format!("add PromptPack {pack} of that version to the manifests"),
        }
    }
}

/// Reads the files of these paths; a directory's manifests with those of its subdirectories.
pub(crate) fn collect(paths: &[PathBuf], state_root: &Path) -> Result<Vec<Document>, Problems> {
    let (mut documents, mut problems) = (Vec::new(), Vec::new());
    let (files, unread) = files(paths, state_root);
    // What can't be looked into is not empty: taking it so would take its agents away.
    for (place, reason) in unread {
        problems.push(Problem::of_file(&place.display().to_string(), reason));
    }
    for (file, found) in files {
        let name = file.display().to_string();
        match read(&file) {
            Ok(text) if found => documents.push(Document::found(name, text)),
            Ok(text) => documents.push(Document::named(name, text)),
            Err(reason) => problems.push(Problem::of_file(&name, reason)),
        }
    }
    if problems.is_empty() {
        Ok(documents)
    } else {
        Err(Problems(problems))
    }
}

/// Reads and resolves the manifests of these paths as `up` would, for whoever runs nothing.
pub fn read_manifests(
    paths: &[PathBuf],
    home: Home,
    knowledge: &Knowledge,
) -> Result<api::Resolved, Problems> {
    let documents = collect(paths, Path::new(""))?;
    let facts = match home {
        Home::Box => knowledge.on_server(&read),
        Home::Kubernetes => knowledge.on_kubernetes(),
    };
    api::resolve(&documents, &facts)
}

/// Places that could not be read, each with the reason.
type Unread = Vec<(PathBuf, String)>;

/// Every file that counts, and whether it was met in a directory; then what could not be read,
/// and why.
fn files(paths: &[PathBuf], state_root: &Path) -> (Vec<(PathBuf, bool)>, Unread) {
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    for path in paths {
        if !path.is_dir() {
            files.push((path.clone(), false));
            continue;
        }
        let mut open = vec![path.clone()];
        let mut found = Vec::new();
        while let Some(directory) = open.pop() {
            let entries = match std::fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) => {
                    let reason = format!(
                        "{}: make the directory readable, or name the manifests one by one",
                        reason(&error)
                    );
                    unread.push((directory, reason));
                    continue;
                }
            };
            for entry in entries.flatten() {
                let (name, path) = (entry.file_name(), entry.path());
                let name = name.to_string_lossy();
                if name.starts_with('.') || name == "node_modules" {
                    continue;
                }
                let kind = entry.file_type();
                if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
                    if path.canonicalize().ok().as_deref() != Some(state_root) {
                        open.push(path);
                    }
                } else if is_manifest(&path) {
                    found.push(path);
                }
            }
            if found.len() > MAX_FILES {
                unread.push((
                    path.clone(),
                    format!("holds more than {MAX_FILES} manifests"),
                ));
                break;
            }
        }
        found.sort();
        files.extend(found.into_iter().map(|path| (path, true)));
    }
    (files, unread)
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = read_file(path, MAX_FILE_BYTES).map_err(|error| reason(&error))?;
    String::from_utf8(bytes).map_err(|_| "is no text in UTF-8".to_owned())
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::FileTooLarge => "is larger than 4 MiB".to_owned(),
        std::io::ErrorKind::InvalidInput => "is no file".to_owned(),
        _ => error.to_string(),
    }
}

/// Resolves a set of documents.
pub(crate) fn resolve(documents: Vec<Document>, knowledge: &Knowledge) -> Result<Set, Problems> {
    let resolved = api::resolve(&documents, &knowledge.on_server(&read))?;
    let objects = resolved
        .objects
        .iter()
        .map(|object| {
            let key = (
                object.kind(),
                object.workspace().to_owned(),
                object.name().to_owned(),
            );
            (key, (object.to_json(), object.place.path.clone()))
        })
        .collect();
    Ok(Set {
        documents,
        fleet: resolved.fleet,
        warnings: resolved.warnings,
        objects,
        written: resolved.objects,
    })
}

/// What changes when a manifest, a transcript or an agent's code is saved. Costs a stat per file.
pub(crate) fn signature(paths: &[PathBuf], sources: &[PathBuf], state_root: &Path) -> String {
    let (files, unread) = files(paths, state_root);
    let mut text = format!("{unread:?}\n");
    for (file, _) in files {
        let stamp = std::fs::metadata(&file)
            .map(|found| (found.mtime(), found.mtime_nsec(), found.size(), found.ino()))
            .ok();
        text.push_str(&format!("{}{stamp:?}\n", file.display()));
    }
    for source in sources {
        text.push_str(&crate::artifact::signature(source, state_root));
    }
    text
}

/// The difference between two sets, a line per object: `+ Agent helper`, `~ Agent x (spec.env)`.
pub(crate) fn summary(
    before: &BTreeMap<Key, (Value, String)>,
    after: &BTreeMap<Key, (Value, String)>,
) -> Vec<String> {
    let mut lines = Vec::new();
    let keys: std::collections::BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (kind, _, name) = key;
        let kind = kind.name();
        match (before.get(key), after.get(key)) {
            (None, Some(_)) => lines.push(format!("+ {kind} {name}")),
            (Some(_), None) => lines.push(format!("- {kind} {name}")),
            (Some((old, _)), Some((new, _))) if old != new => {
                lines.push(format!(
                    "~ {kind} {name} ({})",
                    changed(old, new).join(", ")
                ));
            }
            _ => {}
        }
    }
    lines
}

/// Paths of the fields that differ, two levels deep.
fn changed(old: &Value, new: &Value) -> Vec<String> {
    fn walk(old: &Value, new: &Value, at: &str, depth: u32, into: &mut Vec<String>) {
        if old == new {
            return;
        }
        let (Value::Object(old), Value::Object(new), true) = (old, new, depth > 0) else {
            into.push(at.to_owned());
            return;
        };
        let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        for name in names {
            let at = if at.is_empty() {
                name.clone()
            } else {
                format!("{at}.{name}")
            };
            let (old, new) = (old.get(name), new.get(name));
            walk(
                old.unwrap_or(&Value::Null),
                new.unwrap_or(&Value::Null),
                &at,
                depth - 1,
                into,
            );
        }
    }
    let mut fields = Vec::new();
    walk(old, new, "", 2, &mut fields);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_manifests_than_are_read_is_a_problem_and_not_a_smaller_fleet() {
        let directory = tempfile::tempdir().unwrap();
        let text = "apiVersion: mainstay.dev/v1alpha1\n";
        for n in 0..=MAX_FILES {
            std::fs::write(directory.path().join(format!("{n}.yaml")), text).unwrap();
        }
        let paths = [directory.path().to_owned()];
        let problems = collect(&paths, Path::new("/nowhere")).unwrap_err();
        assert!(
            problems.to_string().contains("holds more than"),
            "{problems}"
        );
        std::fs::remove_file(directory.path().join("7.yaml")).unwrap();
        assert_eq!(
            collect(&paths, Path::new("/nowhere")).unwrap().len(),
            MAX_FILES
        );
    }

    #[test]
    fn a_summary_names_what_came_went_and_changed() {
        let key = |name: &str| (Kind::Agent, "default".to_owned(), name.to_owned());
        let value = |text: &str| {
            let json = serde_json::json!({"kind": "Agent", "spec": {"instructions": text}});
            (json, "f.yaml".to_owned())
        };
        let before = [(key("a"), value("x")), (key("b"), value("x"))].into();
        let after = [(key("b"), value("y")), (key("c"), value("x"))].into();
        assert_eq!(
            summary(&before, &after),
            ["- Agent a", "~ Agent b (spec.instructions)", "+ Agent c"]
        );
    }
}
