//! A set of custom resources of which some may be wrong: one malformed object stops nothing.
//!
//! Files are one person's change, taken or refused as a whole. Custom resources come one by one
//! from many hands, so each that is wrong stands back: for its last good document, else it is left
//! out, and objects that can't do without it likewise. What is left resolves.

use crate::fleet::Fleet;
use crate::manifest::{DEFAULT_NAMESPACE, Document, Kind};
use crate::problem::Problem;
use crate::resolve::{Facts, Resolved, resolve_without};
use std::collections::BTreeSet;

/// What could be made of a set.
#[derive(Debug)]
pub struct Lenient {
    pub resolved: Resolved,
    /// In the order of the documents.
    pub refused: Vec<Refused>,
}

/// An object whose present document is not in the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub kind: Kind,
    pub name: String,
    /// Never empty.
    pub problems: Vec<Problem>,
    /// Whether its last good document is in the fleet instead.
    pub kept: bool,
}

/// Resolves what can be resolved of documents that `document` made, one object each. `last_good`
/// gives the document of an object that was in the fleet before.
pub fn resolve_lenient(
    documents: &[Document],
    facts: &Facts<'_>,
    last_good: &dyn Fn(Kind, &str) -> Option<Document>,
) -> Lenient {
    let mut set = Set {
        entries: documents.iter().map(Entry::new).collect(),
        facts,
    };
    // Each round moves an entry, and each entry moves twice at most.
    for _ in 0..=2 * documents.len() {
        let Err(problems) = set.resolve() else { break };
        if !set.stand_back(&problems, last_good) {
            break;
        }
    }
    set.take_back();
    // Every object with a problem stands back, so what is left has none.
    let resolved = set.resolve().unwrap_or_else(|_| Resolved {
        fleet: Fleet::empty(DEFAULT_NAMESPACE),
        warnings: Vec::new(),
        objects: Vec::new(),
    });
    let refused = set.entries.iter().filter_map(Entry::refused).collect();
    Lenient { resolved, refused }
}

/// An object and which of its documents is in use.
struct Entry<'a> {
    present: &'a Document,
    object: Option<(Kind, String)>,
    used: Used,
    problems: Vec<Problem>,
}

#[derive(Clone)]
enum Used {
    Present,
    LastGood(Document),
    Nothing,
}

impl<'a> Entry<'a> {
    fn new(present: &'a Document) -> Self {
        let object = present.path.split_once('/').and_then(|(kind, name)| {
            let kind = Kind::ALL.into_iter().find(|known| known.name() == kind)?;
            Some((kind, name.to_owned()))
        });
        Self {
            present,
            object,
            used: Used::Present,
            problems: Vec::new(),
        }
    }

    fn refused(&self) -> Option<Refused> {
        let (kind, name) = self.object.clone()?;
        let kept = match self.used {
            Used::Present => return None,
            Used::LastGood(_) => true,
            Used::Nothing => false,
        };
        Some(Refused {
            kind,
            name,
            problems: self.problems.clone(),
            kept,
        })
    }
}

struct Set<'a> {
    entries: Vec<Entry<'a>>,
    facts: &'a Facts<'a>,
}

/// So often, at most, a set is resolved once more with a refused object in it.
const MOST_TRIES: usize = 64;

impl Set<'_> {
    fn resolve(&self) -> Result<Resolved, Vec<Problem>> {
        let documents: Vec<Document> = self
            .entries
            .iter()
            .filter_map(|entry| match &entry.used {
                Used::Present => Some(entry.present.clone()),
                Used::LastGood(document) => Some(document.clone()),
                Used::Nothing => None,
            })
            .collect();
        let left_out: BTreeSet<(Kind, String)> = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.used, Used::Nothing))
            .filter_map(|entry| entry.object.clone())
            .collect();
        resolve_without(&documents, self.facts, &left_out).map_err(|problems| problems.0)
    }

    /// Every entry that has a problem uses its next worse document. False if none has.
    fn stand_back(
        &mut self,
        problems: &[Problem],
        last_good: &dyn Fn(Kind, &str) -> Option<Document>,
    ) -> bool {
        let mut moved = false;
        for entry in &mut self.entries {
            let own = of(problems, entry.present);
            if own.is_empty() || matches!(entry.used, Used::Nothing) {
                continue;
            }
            moved = true;
            let good = entry
                .object
                .as_ref()
                .filter(|_| matches!(entry.used, Used::Present))
                .and_then(|(kind, name)| last_good(*kind, name))
                .filter(|good| good.text != entry.present.text);
            if entry.problems.is_empty() {
                entry.problems = own;
            }
            entry.used = good.map_or(Used::Nothing, |good| {
                Used::LastGood(Document::named(&entry.present.path, good.text))
            });
        }
        moved
    }

    /// An object that was refused because of another's document may be right beside that other's last good one.
    /// What is refused still says what is wrong with it beside the objects that are used.
    fn take_back(&mut self) {
        let mut tries = 0;
        let mut found = true;
        while std::mem::take(&mut found) {
            for index in 0..self.entries.len() {
                if matches!(self.entries[index].used, Used::Present) {
                    continue;
                }
                tries += 1;
                if tries > MOST_TRIES {
                    return;
                }
                found |= self.taken_back(index);
            }
        }
    }

    fn taken_back(&mut self, index: usize) -> bool {
        let used = std::mem::replace(&mut self.entries[index].used, Used::Present);
        let Err(problems) = self.resolve() else {
            return true;
        };
        let entry = &mut self.entries[index];
        let own = of(&problems, entry.present);
        entry.problems = if own.is_empty() { problems } else { own };
        entry.used = used;
        false
    }
}

/// The problems of one document.
fn of(problems: &[Problem], document: &Document) -> Vec<Problem> {
    let own = problems
        .iter()
        .filter(|problem| problem.path == document.path);
    own.cloned().collect()
}
