//! Reads documents: decides which are manifests, checks each against its kind's schema, and builds the objects.
//!
//! A document that is broken is still remembered by kind and name, so that a reference to it is not reported as missing.

use super::{Document, Kind, Metadata, Object, Place, Spec};
use crate::check::Check;
use crate::file::{File, Mark};
use crate::nearest::did_you_mean;
use crate::problem::{Problem, quoted};
use crate::schema::kind_schema;
use crate::tree::{Content, LARGEST_FILE_BYTES, MOST_PROBLEMS, Node};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What could be made of a set of documents.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    pub(crate) objects: Vec<Object>,
    pub(crate) problems: Vec<Problem>,
    /// Objects that are there, but can't be used.
    pub(crate) broken: BTreeSet<(Kind, String)>,
    /// True if some document could not even be recognised, so anything may be missing.
    pub(crate) incomplete: bool,
}

/// A set with more is refused.
const MOST_OBJECTS: usize = 10_000;

pub(crate) fn parse_all(documents: &[Document]) -> Parsed {
    let mut parsed = Parsed::default();
    let mut seen = BTreeSet::new();
    for document in documents {
        // A file named twice (a directory and a file in it) is one file. Applied objects of one
        // file come one by one, under its name.
        if !seen.insert((document.path.as_str(), document.text.as_str())) {
            continue;
        }
        parsed.read_file(document);
        if parsed.objects.len() > MOST_OBJECTS {
            let message = format!("the set has more than {MOST_OBJECTS} objects");
            parsed
                .problems
                .push(Problem::of_file(&document.path, message));
            parsed.incomplete = true;
            break;
        }
    }
    parsed
}

impl Parsed {
    fn read_file(&mut self, document: &Document) {
        if document.text.len() > LARGEST_FILE_BYTES {
            if !document.found {
                let message = format!("the file is larger than {} MiB", LARGEST_FILE_BYTES >> 20);
                self.problems
                    .push(Problem::of_file(&document.path, message));
                self.incomplete = true;
            }
            return;
        }
        let file = Arc::new(File::new(&document.path, &document.text));
        let tree = crate::tree::read(&file, &document.text);
        // A broken file that was only met is ours if it says so.
        if document.found && !tree.problems.is_empty() && !document.text.contains("mainstay.dev/") {
            return;
        }
        let problems_before = self.problems.len();
        self.problems.extend(tree.problems);
        self.incomplete |= !tree.complete;
        for node in &tree.documents {
            if node.is_null() || (document.found && !looks_like_manifest(node)) {
                continue;
            }
            self.read_document(&file, node);
            if self.problems.len() - problems_before > MOST_PROBLEMS {
                self.incomplete = true;
                self.problems.push(Problem::of_file(
                    &document.path,
                    "there are more problems in this file",
                ));
                break;
            }
        }
    }

    fn read_document(&mut self, file: &Arc<File>, node: &Node) {
        let kind = match kind_of(file, node) {
            Ok(kind) => kind,
            Err(problem) => {
                self.problems.push(problem);
                // It may be of any kind.
                self.set_aside(node, &Kind::ALL);
                return;
            }
        };
        let mut check = Check::new(file, kind);
        let value = check.value(node, kind_schema(kind), "").unwrap_or_default();
        let version = node.get("apiVersion").filter(|version| !version.is_null());
        if let Some(version) = version.filter(|version| version.text() != Some(crate::API_VERSION))
        {
            let found = version.text().unwrap_or_default();
            let message = format!(
                "`apiVersion` is {}; this version of Mainstay reads {}",
                quoted(found),
                crate::API_VERSION
            );
            check.problems.push(file.problem(version.mark, message));
        }
        // An object with problems is built, too, if enough of it is right: its references can be checked then.
        match build(file, node.mark, kind, value, &mut check) {
            Ok(object) => self.objects.push(object),
            Err(error) => {
                if check.problems.is_empty() {
                    check.problems.push(
                        file.problem(node.mark, format!("this {kind} can't be read: {error}")),
                    );
                }
                self.set_aside(node, &[kind]);
            }
        }
        self.problems.append(&mut check.problems);
    }

    /// Remembers what a document that can't be used would have been.
    fn set_aside(&mut self, node: &Node, kinds: &[Kind]) {
        let name = node
            .get("metadata")
            .and_then(|metadata| metadata.get("name"))
            .and_then(Node::text);
        match name {
            Some(name) => self
                .broken
                .extend(kinds.iter().map(|kind| (*kind, name.to_owned()))),
            None => self.incomplete = true,
        }
    }
}

/// In a directory: whether a document means to be one of ours, even if it is misspelt.
fn looks_like_manifest(node: &Node) -> bool {
    let version = node
        .get("apiVersion")
        .and_then(Node::text)
        .unwrap_or_default();
    let kind = node.get("kind").and_then(Node::text).unwrap_or_default();
    let foreign = version.contains('/') && !version.contains("mainstay");
    version.contains("mainstay") || (!foreign && Kind::ALL.iter().any(|known| known.name() == kind))
}

fn kind_of(file: &File, node: &Node) -> Result<Kind, Problem> {
    if !matches!(node.content, Content::Mapping(_)) {
        return Err(file.problem(
            node.mark,
            "a manifest is a mapping with apiVersion, kind, metadata and spec",
        ));
    }
    let names = Kind::ALL.map(Kind::name);
    let Some(kind) = node.get("kind").filter(|kind| !kind.is_null()) else {
        return Err(file.problem(
            node.mark,
            format!("`kind` is missing: one of {}", names.join(", ")),
        ));
    };
    let text = kind.text().unwrap_or_default();
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == text)
        .ok_or_else(|| {
            let message = format!(
                "`kind` is {}, which is none of {}",
                quoted(text),
                names.join(", ")
            );
            file.problem(kind.mark, message)
                .with_maybe(did_you_mean(text, names))
        })
}

fn build(
    file: &Arc<File>,
    mark: Mark,
    kind: Kind,
    mut value: Value,
    check: &mut Check<'_>,
) -> Result<Object, serde_json::Error> {
    let metadata: Metadata = serde_json::from_value(value["metadata"].take())?;
    let spec = value
        .get_mut("spec")
        .map_or_else(|| Value::Object(serde_json::Map::new()), Value::take);
    let spec = match kind {
        Kind::Provider => Spec::Provider(typed(spec)?),
        Kind::PromptPack => Spec::PromptPack(typed(spec)?),
        Kind::ToolRegistry => Spec::ToolRegistry(typed(spec)?),
        Kind::Agent => Spec::Agent(Box::new(typed(spec)?)),
        Kind::Workspace => Spec::Workspace(typed(spec)?),
    };
    let place = Place {
        path: file.path.clone(),
        line: mark.line,
        column: mark.column,
    };
    let places = Arc::new(std::mem::take(&mut check.places));
    Ok(Object {
        place,
        metadata,
        spec,
        file: Arc::clone(file),
        places,
    })
}

fn typed<T: DeserializeOwned>(spec: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(spec)
}
