//! A whole set of objects into a `Fleet`: references, rules between fields, rules between objects, defaults that depend on
//! other things.
//!
//! The order of the steps matters only where a later one reads what an earlier one built; each reports all it finds.
//! Nothing that a broken or unread document might explain is reported a second time.

mod agent;
mod agent_tools;
mod budget;
mod circle;
mod home;
mod http_tool;
mod knowledge;
mod mcp_tool;
mod model;
mod prompt;
mod provider;
mod tool;
mod workspace;

use crate::credential::{CredentialSpec, SecretKey};
use crate::fleet::{Credential, Fleet, ModelFacts, SecretRef};
use crate::manifest::{Document, Kind, Object, Parsed, parse_all};
use crate::nearest::did_you_mean;
use crate::problem::{Problem, Problems, quoted};
use crate::rule::Broken;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What resolution needs to know beyond the documents. All of it is asked for, so that this crate does no I/O.
pub struct Facts<'a> {
    /// What the built-in table says about a model: by the provider's type and the model's name.
    pub model: &'a dyn Fn(&str, &str) -> Option<ModelFacts>,
    /// The text of a file that a manifest names; the path is joined with the manifest's directory. The error is a
    /// fragment such as "no such file".
    pub read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// Whether a text is a CEL expression.
    pub check_expression: &'a dyn Fn(&str) -> Result<(), String>,
    /// Whether a value is a JSON Schema.
    pub check_schema: &'a dyn Fn(&serde_json::Value) -> Result<(), String>,
    /// Whether a text is a transcript that type script can play.
    pub check_script: &'a dyn Fn(&str) -> Result<(), String>,
    /// Where the fleet is meant to run.
    pub home: Home,
}

impl<'a> Facts<'a> {
    /// With the two that every fleet needs. Expressions, schemas and scripts are then taken as they are.
    pub fn new(
        model: &'a dyn Fn(&str, &str) -> Option<ModelFacts>,
        read: &'a dyn Fn(&Path) -> Result<String, String>,
    ) -> Self {
        Self {
            model,
            read,
            check_expression: &|_| Ok(()),
            check_schema: &|_| Ok(()),
            check_script: &|_| Ok(()),
            home: Home::Box,
        }
    }
}

/// A set with more problems between its objects is not looked at further.
const MOST_PROBLEMS: usize = 1000;

/// A set without a problem.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub fleet: Fleet,
    /// What is probably not meant, but can run.
    pub warnings: Vec<Problem>,
    pub objects: Vec<Object>,
}

/// Validates the whole set and resolves it; or says everything that is wrong with it.
pub fn resolve(documents: &[Document], facts: &Facts<'_>) -> Result<Resolved, Problems> {
    resolved(documents, facts, None)
}

/// The same for objects that an API server holds, which had to do without some of them: a reference to one of those
/// says so. What nobody wrote is filled in there, so that it is present says nothing.
pub(crate) fn resolve_without(
    documents: &[Document],
    facts: &Facts<'_>,
    left_out: &BTreeSet<(Kind, String)>,
) -> Result<Resolved, Problems> {
    resolved(documents, facts, Some(left_out))
}

/// The same for one object by itself: what it refers to may be written later, so that it is missing is no problem.
pub(crate) fn resolve_alone(document: &Document, facts: &Facts<'_>) -> Result<Resolved, Problems> {
    let documents = std::slice::from_ref(document);
    let mut parsed = parse_all(documents);
    parsed.incomplete = true;
    of_parsed(parsed, documents, facts, Some(&BTreeSet::new()))
}

fn resolved(
    documents: &[Document],
    facts: &Facts<'_>,
    left_out: Option<&BTreeSet<(Kind, String)>>,
) -> Result<Resolved, Problems> {
    of_parsed(parse_all(documents), documents, facts, left_out)
}

fn of_parsed(
    parsed: Parsed,
    documents: &[Document],
    facts: &Facts<'_>,
    left_out: Option<&BTreeSet<(Kind, String)>>,
) -> Result<Resolved, Problems> {
    let none = BTreeSet::new();
    let mut resolver = Resolver::new(&parsed, facts, left_out.unwrap_or(&none));
    resolver.rules();
    if left_out.is_none() {
        resolver.replicas_beside_scale();
    }
    resolver.workspace();
    resolver.providers();
    resolver.prompt_packs();
    resolver.tools();
    resolver.agents();
    resolver.circles();
    resolver.model_facts();
    resolver.budgets();
    let Resolver {
        fleet,
        mut problems,
        mut warnings,
        ..
    } = resolver;
    let Parsed {
        objects,
        problems: mut found,
        ..
    } = parsed;
    // A field that can't be read is left out: that it is missing then is no news.
    let told: BTreeSet<_> = found.iter().map(Problem::subject).collect();
    problems.retain(|problem| !told.contains(&problem.subject()));
    found.append(&mut problems);
    let order: BTreeMap<&str, usize> = documents
        .iter()
        .enumerate()
        .map(|(index, document)| (document.path.as_str(), index))
        .rev()
        .collect();
    let by_place = |problem: &Problem| {
        (
            order.get(problem.path.as_str()).copied(),
            problem.line,
            problem.column,
        )
    };
    found.sort_by_key(by_place);
    found.dedup();
    warnings.sort_by_key(by_place);
    warnings.dedup();
    if found.is_empty() {
        Ok(Resolved {
            fleet,
            warnings,
            objects,
        })
    } else {
        Err(Problems(found))
    }
}

pub use agent::{GATEWAY_ENV, STANDARD_ENV};
pub use home::Home;
pub use knowledge::Knowledge;

struct Resolver<'a> {
    facts: &'a Facts<'a>,
    /// The first of each kind and name.
    objects: BTreeMap<(Kind, &'a str), &'a Object>,
    /// In the order they were written, duplicates included.
    written: &'a [Object],
    /// Objects that are there but can't be used, here or since they were read.
    broken: BTreeSet<(Kind, String)>,
    /// Objects that there are, but not in this set.
    left_out: &'a BTreeSet<(Kind, String)>,
    incomplete: bool,
    fleet: Fleet,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    fn new(
        parsed: &'a Parsed,
        facts: &'a Facts<'a>,
        left_out: &'a BTreeSet<(Kind, String)>,
    ) -> Self {
        let mut resolver = Self {
            facts,
            objects: BTreeMap::new(),
            written: &parsed.objects,
            broken: parsed.broken.clone(),
            left_out,
            incomplete: parsed.incomplete,
            fleet: Fleet::empty(crate::manifest::DEFAULT_NAMESPACE),
            problems: Vec::new(),
            warnings: Vec::new(),
        };
        for object in &parsed.objects {
            resolver.index(object);
        }
        resolver
    }

    fn index(&mut self, object: &'a Object) {
        let Some(first) = self.objects.get(&(object.kind(), object.name())) else {
            self.objects.insert((object.kind(), object.name()), object);
            return;
        };
        let place = first.place_of("metadata.name");
        let message = format!(
            "{} {} is written twice; the first is at {place}",
            object.kind(),
            quoted(object.name())
        );
        self.problems.push(object.problem("metadata.name", message));
    }

    /// The rules between the fields of each object.
    fn rules(&mut self) {
        for object in self.written {
            let broken = crate::rule::broken(object.kind(), &object.to_json());
            for Broken { rule, field } in broken.into_iter().filter(|one| !one.rule.worded) {
                let message = format!("`{field}` {}", rule.message);
                match rule.hint {
                    Some(hint) => self.hinted(object, &field, message, hint),
                    None => self.problem(object, &field, message),
                }
            }
        }
    }

    /// All objects of a kind, by name, without duplicates.
    fn of_kind(&self, kind: Kind) -> Vec<&'a Object> {
        self.objects
            .values()
            .copied()
            .filter(|object| object.kind() == kind)
            .collect()
    }

    /// Reports a reference to an object that isn't there.
    fn missing(&mut self, object: &Object, field: &str, kind: Kind, name: &str) {
        if self.is_full() || self.incomplete || self.broken.contains(&(kind, name.to_owned())) {
            return;
        }
        if self.left_out.contains(&(kind, name.to_owned())) {
            let message = format!("{kind} {} can't be used now", quoted(name));
            let hint = format!("see what is wrong with {kind} {}", quoted(name));
            self.hinted(object, field, message, hint);
            return;
        }
        let names: Vec<&str> = self.of_kind(kind).into_iter().map(Object::name).collect();
        let hint = did_you_mean(name, names.iter().copied()).or_else(|| match names.as_slice() {
            // One that can't be used may be there.
            [] if self.broken.iter().any(|(broken, _)| *broken == kind) => None,
            [] => Some(format!("the set has no {kind}")),
            names => Some(format!("there is {}", listed(names.iter().copied()))),
        });
        let problem = object.problem(field, format!("there is no {kind} {}", quoted(name)));
        self.problems.push(problem.with_maybe(hint));
    }

    fn problem(&mut self, object: &Object, field: &str, message: impl Into<String>) {
        if !self.is_full() {
            self.problems.push(object.problem(field, message));
        }
    }

    fn hinted(
        &mut self,
        object: &Object,
        field: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if !self.is_full() {
            self.problems
                .push(object.problem(field, message).with_hint(hint));
        }
    }

    fn warning(&mut self, object: &Object, field: &str, message: impl Into<String>) {
        if self.warnings.len() < MOST_PROBLEMS {
            self.warnings.push(object.problem(field, message));
        }
    }

    /// So many problems that one more helps nobody, and only costs time.
    fn is_full(&self) -> bool {
        self.problems.len() >= MOST_PROBLEMS
    }

    fn set_aside(&mut self, object: &Object) {
        self.broken
            .insert((object.kind(), object.name().to_owned()));
    }
}

/// A few names in backticks, for a hint.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.map(quoted).collect();
    match names.len() {
        0..=8 => names.join(", "),
        more => format!("{} and {} more", names[..8].join(", "), more - 8),
    }
}

impl Resolver<'_> {
    fn credential(
        &mut self,
        object: &Object,
        field: &str,
        spec: Option<&CredentialSpec>,
    ) -> Option<Credential> {
        let spec = spec?;
        self.credential_is_near(object, field, spec);
        credential(spec, object)
    }
}

fn credential(spec: &CredentialSpec, object: &Object) -> Option<Credential> {
    if let Some(secret) = &spec.secret_ref {
        return Some(Credential::SecretRef(secret_ref(secret)));
    }
    if let Some(name) = &spec.env {
        return Some(Credential::Env { name: name.clone() });
    }
    spec.file.as_ref().map(|path| Credential::File {
        path: beside(object, path),
    })
}

fn secret_ref(secret: &SecretKey) -> SecretRef {
    SecretRef {
        name: secret.name.clone(),
        key: secret.key.clone(),
    }
}

/// A path of a manifest, joined with the manifest's directory.
fn beside(object: &Object, path: &str) -> String {
    let directory = Path::new(&object.place.path)
        .parent()
        .unwrap_or(Path::new(""));
    let path = path.strip_prefix("./").unwrap_or(path);
    directory.join(path).to_string_lossy().into_owned()
}
