//! Sessions: conversations with an agent, kept by id. One moves from home to home as a file:
//! `export` makes it, `import` takes it, `file` is its form, `check` what may stand in
//! it, `compare` what of it is here already.

mod at_most;
mod check;
mod compare;
mod export;
pub mod file;
mod gather;
mod import;

pub use check::{Exported, Session as ExportedSession, check};

use crate::projection::{self, Session};
use crate::view::{self, Page, SessionView, TurnView};
use crate::{Code, Hub, HubError};

/// Authors of entries that were brought along from another log begin with this; who wrote them there
/// stands behind it.
pub const IMPORTED: &str = "import:";
/// Turns of one session that are shown: the newest.
const MAX_TURNS: usize = 200;

impl Hub {
    /// Sessions without their turns.
    pub async fn session_list(
        &self,
        cursor: Option<String>,
        limit: usize,
    ) -> Result<Page<SessionView>, HubError> {
        let limit = if limit == 0 { 50 } else { limit.min(200) };
        self.read(move |reader| {
            let rows = reader.sessions(None, cursor.as_deref(), limit + 1)?;
            let next = (rows.len() > limit)
                .then(|| rows.get(limit - 1).map(|row| row.id.clone()))
                .flatten();
            let sessions = rows
                .iter()
                .take(limit)
                .filter_map(|row| projection::decode::<Session>(&row.body));
            let items = sessions
                .map(|session| shown(session, Vec::new(), Vec::new()))
                .collect();
            Ok(Page { items, next })
        })
        .await
    }

    /// A session with its turns.
    pub async fn session_get(&self, id: &str) -> Result<SessionView, HubError> {
        let wanted = id.to_owned();
        let found = self.read(move |reader| found(reader, &wanted)).await?;
        found.ok_or_else(|| HubError::new(Code::NotFound, format!("no session {id}")))
    }
}

fn found(reader: &store::Reader, id: &str) -> Result<Option<SessionView>, store::StoreError> {
    let Some(row) = reader.session(id)? else {
        return Ok(None);
    };
    let Some(session) = projection::decode::<Session>(&row.body) else {
        return Ok(None);
    };
    let filter = store::TaskFilter {
        session: Some(id.to_owned()),
        ..Default::default()
    };
    let (mut turns, mut tasks) = (Vec::new(), Vec::new());
    for row in reader.tasks(&filter, MAX_TURNS)?.iter().rev() {
        let Some(task) = projection::decode::<mainstay_core::task::Task>(&row.body) else {
            continue;
        };
        for turn in crate::input::turns_of(reader, &task)? {
            let role = if turn["role"] == "user" {
                "user"
            } else {
                "agent"
            };
            turns.push(TurnView {
                role,
                content: turn["content"].clone(),
            });
        }
        tasks.push(task.id);
    }
    Ok(Some(shown(session, tasks, turns)))
}

fn shown(session: Session, tasks: Vec<String>, turns: Vec<TurnView>) -> SessionView {
    SessionView {
        id: session.id,
        agent: session.agent,
        created: view::rfc3339(session.created_ms),
        updated: view::rfc3339(session.updated_ms),
        tasks,
        turns,
    }
}
