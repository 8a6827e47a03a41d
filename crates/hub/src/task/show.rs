//! Reading tasks. What is open is read from the writer's memory, everything else from the store,
//! whose rows the writer brings up to date first.

use mainstay_core::task::TaskRecord;

use super::TaskFilter;
use crate::projection;
use crate::queue::Waits;
use crate::view::{self, CostView, ErrorView, Page, StepView, TaskView};
use crate::{Code, Hub, HubError};

impl Hub {
    /// One task.
    pub async fn task_get(&self, id: &str) -> Result<TaskView, HubError> {
        let (record, waits) = self.found(id).await?;
        let mut view = self
            .read_entries(move |reader| view_of(reader, &record))
            .await?;
        view.show_waits(waits);
        Ok(view)
    }

    /// The record: from the writer's memory while it is open, else from the store.
    pub(crate) async fn record(&self, id: &str) -> Result<TaskRecord, HubError> {
        Ok(self.found(id).await?.0)
    }

    async fn found(&self, id: &str) -> Result<(TaskRecord, Option<Waits>), HubError> {
        let wanted = id.to_owned();
        let open = self
            .writer
            .run(move |tx| {
                let open = tx.state.tasks.get(&wanted)?;
                Some((open.record.clone(), tx.state.waits(&wanted)))
            })
            .await?;
        if let Some(found) = open {
            return Ok(found);
        }
        let wanted = id.to_owned();
        let found = self
            .read(move |reader| projection::load(reader, &wanted))
            .await?;
        found
            .map(|(record, _)| (record, None))
            .ok_or_else(|| HubError::new(Code::NotFound, format!("no task {id}")))
    }

    /// The entry that changed the task last.
    pub(crate) async fn task_seq(&self, id: &str) -> Result<u64, HubError> {
        let wanted = id.to_owned();
        let row = self.read(move |reader| reader.task(&wanted)).await?;
        row.map(|row| row.updated_seq)
            .ok_or_else(|| HubError::new(Code::NotFound, format!("no task {id}")))
    }

    /// Tasks, newest first. Ambient tasks are listed only when asked for by id.
    pub async fn task_list(&self, filter: TaskFilter) -> Result<Page<TaskView>, HubError> {
        let limit = if filter.limit == 0 {
            50
        } else {
            filter.limit.min(200)
        };
        if let Some(state) = &filter.state
            && !STATES.contains(&state.as_str())
        {
            return Err(HubError::new(
                Code::Invalid,
                format!("no state {state}: it is one of {}", STATES.join(", ")),
            ));
        }
        let before = filter.cursor.as_deref().map(cursor_parse).transpose()?;
        let wanted = store::TaskFilter {
            agent: filter.agent,
            session: None,
            state: filter.state,
            before,
        };
        let listed = self.read(move |reader| {
            let rows = reader.tasks(&wanted, limit + 1)?;
            let next = (rows.len() > limit)
                .then(|| rows.get(limit - 1).map(cursor_text))
                .flatten();
            let mut items = Vec::new();
            for row in rows.iter().take(limit) {
                if let Some((record, _)) = projection::load(reader, &row.id)?
                    && !record.task.ambient
                {
                    items.push(view_of(reader, &record)?);
                }
            }
            Ok(Page { items, next })
        });
        let mut page = listed.await?;
        self.show_waits(&mut page.items).await?;
        Ok(page)
    }

    /// The steps of a task in intent order.
    pub async fn task_steps(&self, id: &str) -> Result<Page<StepView>, HubError> {
        let record = self.record(id).await?;
        Ok(Page {
            items: view::steps(&record),
            next: None,
        })
    }
}

const STATES: [&str; 8] = [
    "submitted",
    "working",
    "input-required",
    "auth-required",
    "completed",
    "failed",
    "canceled",
    "rejected",
];

fn cursor_text(row: &store::TaskRow) -> String {
    format!("{}.{}", row.created_ms, row.id)
}

fn cursor_parse(text: &str) -> Result<store::TaskCursor, HubError> {
    let bad = || {
        HubError::new(
            Code::Invalid,
            "cursor is not one that a list gave as `next`",
        )
    };
    let (created_ms, id) = text.split_once('.').ok_or_else(bad)?;
    Ok(store::TaskCursor {
        created_ms: created_ms.parse().map_err(|_| bad())?,
        id: id.to_owned(),
    })
}

/// A task as it is printed.
pub(crate) fn view_of(
    reader: &store::Reader,
    record: &TaskRecord,
) -> Result<TaskView, store::StoreError> {
    let task = &record.task;
    let (delivered, replayed) = if task.state.is_terminal() {
        (task.delivered, task.replayed)
    } else {
        record.counts(false)
    };
    let error = task.error_code.clone().map(|code| ErrorView {
        code,
        message: task.error_message.clone().unwrap_or_default(),
    });
    Ok(TaskView {
        id: task.id.clone(),
        agent: task.agent.clone(),
        session: task.session.clone(),
        state: task.state.word().to_owned(),
        output: crate::input::output(reader, task)?,
        attempts: task.attempt,
        steps: delivered,
        replayed,
        repeated: task.repeated,
        diverged_at: task.diverged_at,
        usage: task.usage.into(),
        cost: CostView {
            usd: task.cost.usd(),
        },
        reason: task.reason.map(|reason| reason.word().to_owned()),
        error,
        input: crate::input::payload_json(reader, task.input_seq, "input")?,
        created: view::rfc3339(task.created_ms),
        updated: view::rfc3339(task.updated_ms),
        generation: task.generation,
        asked_step: task.asked_step,
        parent: task.parent.as_ref().map(|parent| parent.task.clone()),
    })
}
