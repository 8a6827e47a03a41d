//! What a task's process is given: the object of docs/reference/contract.md, and its environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::fleet::{Agent, Fleet, Runtime};
use mainstay_core::task::{Task, TaskState};
use serde_json::{Value, json};

use crate::view::rfc3339;
use crate::{Code, Hub, HubError, secret};

/// Turns of a session that are given to an agent: the newest.
const MAX_TURNS: usize = 200;

/// Everything an attempt is started with.
pub(crate) struct Work {
    pub(crate) task: Task,
    pub(crate) agent: Arc<Agent>,
    pub(crate) body: Value,
}

impl Hub {
    /// Reads input and history and builds the object.
    pub(crate) async fn work(
        &self,
        task: &str,
        attempt: u32,
        token: &str,
    ) -> Result<Work, HubError> {
        let id = task.to_owned();
        let found = self
            .writer
            .run(move |tx| {
                let open = tx.state.tasks.get(&id)?;
                let fleet = tx.state.fleet(open.record.task.generation?)?;
                let agent = fleet
                    .agents
                    .get(&open.record.task.agent)
                    .cloned()
                    .map(Arc::new)?;
                Some((open.record.task.clone(), agent, fleet))
            })
            .await?;
        let (task, agent, fleet) =
            found.ok_or_else(|| HubError::new(Code::NotFound, "the task is gone"))?;
        let for_reading = task.clone();
        let (input, history) = self
            .read(move |reader| content(reader, &for_reading))
            .await?;
        let mut body = json!({
            "task": task.id,
            "session": task.session,
            "agent": task.agent,
            "attempt": attempt,
            "input": input,
            "history": history,
            "token": token,
        });
        if matches!(agent.runtime, Runtime::Builtin) {
            builtin(&mut body, &agent, &fleet);
        }
        Ok(Work { task, agent, body })
    }
}

/// What only the built-in loop is told: an agent of one's own brings its own.
fn builtin(body: &mut Value, agent: &Agent, fleet: &Fleet) {
    let model = agent.models.first();
    let provider = model.and_then(|model| fleet.providers.get(&model.provider));
    let anthropic =
        provider.is_some_and(|provider| provider.kind == api::fleet::ProviderKind::Anthropic);
    body["instructions"] = json!(agent.instructions);
    body["model"] = json!(model.map(ToString::to_string));
    body["models"] = json!(
        agent
            .models
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    );
    body["dialect"] = json!(if anthropic { "anthropic" } else { "openai" });
}

/// The environment that depends on the attempt.
pub(crate) fn environment(hub: &Hub, work: &Work, attempt: u32) -> BTreeMap<String, String> {
    let mut env = secret::environment(&hub.shared, &work.agent);
    env.insert("MAINSTAY_TASK_ID".into(), work.task.id.clone());
    env.insert("MAINSTAY_SESSION_ID".into(), work.task.session.clone());
    env.insert("MAINSTAY_ATTEMPT".into(), attempt.to_string());
    // The task's start, the same for each attempt: an agent that dates its prompt by it replays.
    env.insert("MAINSTAY_TASK_TIME".into(), rfc3339(work.task.created_ms));
    env
}

fn content(reader: &store::Reader, task: &Task) -> Result<(Value, Vec<Value>), store::StoreError> {
    let input = payload_json(reader, task.input_seq, "input")?;
    let filter = store::TaskFilter {
        session: Some(task.session.clone()),
        before: Some(store::TaskCursor {
            created_ms: task.created_ms,
            id: task.id.clone(),
        }),
        ..Default::default()
    };
    let mut turns = Vec::new();
    for row in reader.tasks(&filter, MAX_TURNS)?.iter().rev() {
        let Some(earlier) = crate::projection::decode::<Task>(&row.body) else {
            continue;
        };
        turns.extend(turns_of(reader, &earlier)?);
    }
    Ok((input, turns))
}

/// Both sides of a turn; of one that failed only the question.
pub(crate) fn turns_of(
    reader: &store::Reader,
    task: &Task,
) -> Result<Vec<Value>, store::StoreError> {
    if task.ambient {
        return Ok(Vec::new());
    }
    let input = payload_json(reader, task.input_seq, "input")?;
    let mut turns = vec![json!({"role": "user", "content": input})];
    if task.state == TaskState::Completed {
        turns.push(json!({"role": "agent", "content": output(reader, task)?}));
    }
    Ok(turns)
}

/// A task's output: text, or JSON when the agent said so.
pub(crate) fn output(reader: &store::Reader, task: &Task) -> Result<Value, store::StoreError> {
    let Some(seq) = task.output_seq else {
        return Ok(Value::Null);
    };
    let Some(bytes) = reader.payload(seq, "output")? else {
        return Ok(Value::Null);
    };
    let is_json = task
        .output_type
        .as_deref()
        .is_some_and(|kind| kind.starts_with("application/json"));
    let parsed = if is_json {
        serde_json::from_slice(&bytes).ok()
    } else {
        None
    };
    Ok(parsed.unwrap_or_else(|| Value::String(String::from_utf8_lossy(&bytes).into_owned())))
}

/// A payload that holds JSON; `null` when it was erased.
pub(crate) fn payload_json(
    reader: &store::Reader,
    seq: u64,
    name: &str,
) -> Result<Value, store::StoreError> {
    let bytes = reader.payload(seq, name)?;
    Ok(bytes
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or(Value::Null))
}
