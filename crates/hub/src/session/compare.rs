//! Holds a file's tasks against those of the log: which are new here, which left from here and come
//! back with more, and which can't be one with what is here.
//!
//! Two histories of one task are never made one. What is the same in both is compared byte for
//! byte, content included.

use std::collections::BTreeMap;

use mainstay_core::event::Event;
use store::{Reader, StoreError};

use super::check::{Exported, Session};
use super::file::Proven;
use super::gather::Gathered;
use crate::{Code, HubError, projection};

/// How a task of the file stands here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    New,
    /// It left from here; entries of the file from this one on are new. The last one here.
    Away {
        from: usize,
        last: u64,
    },
    /// This file, or one that says the same of it, was imported before.
    Known,
}

pub(super) type Standings = BTreeMap<String, Standing>;

/// Holds what is in the file against what is here.
pub(super) fn compared(
    reader: &Reader,
    session: &Session,
) -> Result<Result<Standings, HubError>, StoreError> {
    let mut standings = Standings::new();
    let mut known = Vec::new();
    for id in session.tasks.keys() {
        if reader.task(id)?.is_some() {
            known.push(id.as_str());
        } else {
            standings.insert(id.clone(), Standing::New);
        }
    }
    if known.is_empty() {
        return Ok(Ok(standings));
    }
    let mut here = Gathered::of_tasks(known.into_iter());
    here.walk(reader, reader.size()?)?;
    for (id, entries) in &here.tasks {
        match standing(reader, session, id, entries)? {
            Ok(standing) => standings.insert(id.clone(), standing),
            Err(why) => {
                let message = format!("task {id} {why}");
                return Ok(Err(HubError::new(Code::Conflict, message)));
            }
        };
    }
    Ok(Ok(standings))
}

const FORKED: &str = "went on both here and where the file comes from, or is another task of that id: nothing is imported, for one of both would be lost";

fn standing(
    reader: &Reader,
    session: &Session,
    id: &str,
    here: &[u64],
) -> Result<Result<Standing, &'static str>, StoreError> {
    let Some(task) = session.tasks.get(id) else {
        return Ok(Err(FORKED));
    };
    for (seq, at) in here.iter().zip(&task.entries) {
        let there = session.entries.get(*at).map(|(proven, _)| proven);
        if !there.is_some_and(|there| is_same(reader, *seq, there).unwrap_or(false)) {
            return Ok(Err(FORKED));
        }
    }
    let event = |seq: Option<&u64>| -> Result<Option<Event>, StoreError> {
        let Some(seq) = seq else { return Ok(None) };
        let entry = reader.entry(*seq)?;
        Ok(entry.and_then(|entry| projection::decode(&entry.data)))
    };
    if let Some(beyond) = here.get(task.entries.len()) {
        return Ok(match event(Some(beyond))? {
            Some(imported) if is_of(&imported, session, task) => Ok(Standing::Known),
            _ => {
                Err("has more behind it here than in the file: the file is older than what is here")
            }
        });
    }
    Ok(match (event(here.last())?, here.last()) {
        (Some(Event::TaskMoved { .. }), Some(last)) => Ok(Standing::Away {
            from: here.len(),
            last: *last,
        }),
        _ => Err("is here and has not left: export its session first"),
    })
}

/// The entry says that this very file was imported, or one with the same of this task.
fn is_of(event: &Event, session: &Session, task: &Exported) -> bool {
    let last = task.entries.last().and_then(|at| session.entries.get(*at));
    matches!(event, Event::TaskImported { origin, seq, .. }
        if *origin == session.header.origin
            && last.is_some_and(|(proven, _)| proven.entry.seq == *seq))
}

/// The same fact, wherever it stands: place, author and salts are a log's own. A payload that was
/// erased in one of both is left out there or named without being there.
fn is_same(reader: &Reader, seq: u64, there: &Proven) -> Result<bool, StoreError> {
    let Some(here) = reader.entry(seq)? else {
        return Ok(false);
    };
    let entry = &there.entry;
    let is_alike = here.kind == entry.kind
        && here.version == entry.version
        && here.time_ms == entry.time_ms
        && here.traceparent == entry.traceparent
        && here.data == entry.data;
    if !is_alike {
        return Ok(false);
    }
    for named in &here.payloads {
        let bytes = reader.payload(seq, &named.name)?;
        let other = there.payloads.iter().find(|(name, _)| *name == named.name);
        let other_length = entry.payloads.iter().find(|other| other.name == named.name);
        let fits = match (bytes, other) {
            (Some(bytes), Some((_, other))) => bytes == *other,
            (Some(_), None) => other_length.is_none_or(|other| other.length == named.length),
            (None, _) => other_length.is_none_or(|other| other.length == named.length),
        };
        if !fits {
            return Ok(false);
        }
    }
    let is_named = |name: &String| here.payloads.iter().any(|named| named.name == *name);
    Ok(there.payloads.iter().all(|(name, _)| is_named(name)))
}
