//! How the rows of each log follow from its entries, for `log rebuild`.
//!
//! The hub owns the meaning of entries; here its code is fitted to the store's walk.

use std::error::Error;

use hub::projection::Rebuild;
use store::{Entry, Fold, KIND_CREATED, KIND_ERASED, Reader, Row, RowKey, StateRow};

/// The fold of a log by its name.
pub fn of_log(name: &str) -> Box<dyn Fold> {
    if name == "system" {
        Box::new(SystemFold)
    } else {
        Box::<WorkspaceFold>::default()
    }
}

/// Tasks, steps and sessions. A task's row is written again by each of its entries, so all rows are
/// handed over once, at the end.
#[derive(Default)]
struct WorkspaceFold {
    rebuild: Rebuild,
}

impl Fold for WorkspaceFold {
    fn apply(
        &mut self,
        entry: &Entry,
        _log: &Reader,
    ) -> Result<Vec<Row>, Box<dyn Error + Send + Sync>> {
        if entry.kind != KIND_CREATED && entry.kind != KIND_ERASED {
            self.rebuild
                .entry(entry.seq, entry.time_ms, &entry.subject, &entry.data)?;
        }
        Ok(Vec::new())
    }

    fn rest(&mut self) -> Vec<Row> {
        self.rebuild.rows()
    }
}

/// Generations, prompts, stopped agents, hubs and jumps of the clock: a row holds what its newest entry says.
struct SystemFold;

impl Fold for SystemFold {
    fn apply(
        &mut self,
        entry: &Entry,
        _log: &Reader,
    ) -> Result<Vec<Row>, Box<dyn Error + Send + Sync>> {
        let row = |kind: &str, key: &str| {
            Row::State(StateRow {
                kind: kind.to_owned(),
                key: key.to_owned(),
                body: entry.data.clone(),
            })
        };
        Ok(match entry.kind.as_str() {
            "hub.started" => vec![row("hub", "incarnation")],
            "clock.jumped" => vec![row("clock", "jumped")],
            "generation.applied" => vec![row("generation", "current")],
            "prompt.kept" => vec![row("prompt", &entry.subject)],
            "agent.stopped" => vec![row("stopped", &entry.subject)],
            "agent.started" => vec![Row::Delete(RowKey::State {
                kind: "stopped".into(),
                key: entry.subject.clone(),
            })],
            KIND_CREATED | KIND_ERASED => Vec::new(),
            other => {
                return Err(format!("this program knows no system entry of kind {other}").into());
            }
        })
    }
}
