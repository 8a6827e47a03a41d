//! Looking at the fleet and running it: agents, instances, the log, secrets, applies.
//!
//! What an operator does beside tasks. Changes of the fleet are put to the keeper, which alone makes
//! generations; whoever asks waits a minute for it at most. A secret's value goes in here and never
//! comes out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::fleet::{Agent, ProviderKind, Runtime};
use contract::keeper::{Document, InstanceKind, ToKeeper};
use serde_json::Value;

use crate::projection;
use crate::shared::{lock, read};
use crate::state::{InstanceState, State};
use crate::view::{
    self, AgentView, ApplyView, EntryView, HeadView, InstanceView, Page, PayloadView,
};
use crate::{Code, Hub, HubError};

static REQUESTS: AtomicU64 = AtomicU64::new(1);
/// Copying and hashing sources takes time; a keeper that says nothing for this long has a problem.
const APPLY_WAIT: Duration = Duration::from_secs(60);

impl Hub {
    /// All agents.
    pub async fn agent_list(&self) -> Result<Page<AgentView>, HubError> {
        let items = self.writer.run(|tx| agents(tx.state)).await?;
        Ok(Page { items, next: None })
    }

    /// One agent.
    pub async fn agent_get(&self, name: &str) -> Result<AgentView, HubError> {
        let (wanted, missing) = (name.to_owned(), name.to_owned());
        let (found, hint) = self
            .writer
            .run(move |tx| {
                (
                    agents(tx.state)
                        .into_iter()
                        .find(|agent| agent.name == wanted),
                    tx.state.nearest(&wanted),
                )
            })
            .await?;
        found.ok_or_else(|| HubError::new(Code::NotFound, format!("no agent {missing}{hint}")))
    }

    /// All instances.
    pub async fn instance_list(&self) -> Result<Page<InstanceView>, HubError> {
        let items = self
            .writer
            .run(|tx| {
                tx.state
                    .instances
                    .values()
                    .map(|state| instance(tx.state, state))
                    .collect()
            })
            .await?;
        Ok(Page { items, next: None })
    }

    /// Runs a stopped agent or instance again.
    pub async fn agent_start(&self, target: &str) -> Result<(), HubError> {
        let target = target.to_owned();
        self.writer
            .run(move |tx| tx.set_stopped(&target, false))
            .await?
    }

    /// Stops an agent, or one instance: the processes end, the tasks wait or go to another instance.
    pub async fn agent_stop(&self, target: &str) -> Result<(), HubError> {
        let target = target.to_owned();
        self.writer
            .run(move |tx| tx.set_stopped(&target, true))
            .await?
    }

    /// Ends and starts the processes of an agent or one instance.
    pub async fn agent_restart(&self, target: &str) -> Result<(), HubError> {
        let target = target.to_owned();
        self.writer
            .run(move |tx| tx.restart_target(&target))
            .await?
    }

    /// The newest signed head of the workspace's log.
    pub async fn log_head(&self) -> Result<HeadView, HubError> {
        self.writer
            .run(|tx| {
                let head = tx.state.log.last_head();
                let reader = tx.state.log.read();
                HeadView {
                    origin: head.head.origin.clone(),
                    size: head.head.size,
                    root: hex::encode(head.head.root),
                    text: head.to_text(),
                    key: reader.public_key().to_text(),
                }
            })
            .await
    }

    /// Log entries from a sequence on.
    pub async fn log_entries(&self, from: u64, limit: usize) -> Result<Page<EntryView>, HubError> {
        let limit = if limit == 0 { 50 } else { limit.min(1000) };
        self.read_entries(move |reader| {
            let entries = reader.entries(from, limit + 1)?;
            let next = (entries.len() > limit)
                .then(|| entries.get(limit).map(|entry| entry.seq.to_string()))
                .flatten();
            let mut items = Vec::new();
            for entry in entries.into_iter().take(limit) {
                items.push(shown(reader, entry)?);
            }
            Ok(Page { items, next })
        })
        .await
    }

    /// Applies documents through the keeper. Problems come back rendered; nothing is applied then.
    pub async fn apply(
        &self,
        documents: Vec<Document>,
        dry_run: bool,
    ) -> Result<ApplyView, HubError> {
        self.ask_keeper(|request| ToKeeper::Apply {
            request,
            documents,
            dry_run,
        })
        .await
    }

    /// Deletes objects, named by kind and name.
    pub async fn delete(
        &self,
        objects: Vec<(String, String)>,
        dry_run: bool,
    ) -> Result<ApplyView, HubError> {
        self.ask_keeper(|request| ToKeeper::Delete {
            request,
            objects,
            dry_run,
        })
        .await
    }

    async fn ask_keeper(
        &self,
        message: impl FnOnce(u64) -> ToKeeper,
    ) -> Result<ApplyView, HubError> {
        let request = REQUESTS.fetch_add(1, Ordering::SeqCst);
        let (reply, answer) = tokio::sync::oneshot::channel();
        lock(&self.shared.applies).insert(request, reply);
        let _ = self.shared.keeper.send(message(request));
        let answer = tokio::time::timeout(APPLY_WAIT, answer).await;
        lock(&self.shared.applies).remove(&request);
        match answer {
            Ok(Ok(view)) => Ok(view),
            _ => Err(HubError::new(
                Code::Unavailable,
                "the keeper did not answer within a minute; see its log",
            )),
        }
    }

    /// Stores a secret.
    pub async fn secret_set(&self, name: &str, key: &str, value: String) -> Result<(), HubError> {
        self.shared
            .secrets
            .set(&self.shared.keys, name, key, &value)
    }

    /// Names and keys, never values.
    pub async fn secret_list(&self) -> Result<Vec<(String, String)>, HubError> {
        self.shared.secrets.list()
    }

    /// Removes a secret.
    pub async fn secret_remove(&self, name: &str, key: &str) -> Result<(), HubError> {
        self.shared.secrets.remove(name, key)
    }

    /// All metrics in the OpenMetrics text format.
    pub async fn metrics_text(&self) -> Result<String, HubError> {
        let (queued, instances) = self
            .writer
            .run(|tx| (queued(tx.state), counted(tx.state)))
            .await?;
        let connections = self.conversations();
        Ok(self.shared.metrics.text(&queued, &instances, &connections))
    }

    /// Does this process descend from an instance? Such a peer is refused at the control socket.
    #[must_use]
    pub fn is_instance_process(&self, pid: i32) -> bool {
        let shims = read(&self.shared.shim_pids).clone();
        let mut at = u32::try_from(pid).unwrap_or(0);
        // Bounded: a tree is never this deep, and /proc may change underneath.
        for _ in 0..256 {
            if shims.contains(&at) {
                return true;
            }
            match parent_of(at) {
                Some(parent) if parent > 1 => at = parent,
                _ => return false,
            }
        }
        true
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command may hold spaces and brackets: fields begin after the last bracket.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}

fn to_json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).unwrap_or(Value::Null)
}

fn shown(reader: &store::Reader, entry: store::Entry) -> Result<EntryView, store::StoreError> {
    let mut payloads = Vec::new();
    for payload in &entry.payloads {
        let erased = !reader.has_payload(entry.seq, &payload.name)?;
        payloads.push(PayloadView {
            name: payload.name.clone(),
            bytes: payload.length,
            erased,
        });
    }
    let data =
        projection::decode::<mainstay_core::event::Event>(&entry.data).map(|event| to_json(&event));
    Ok(EntryView {
        seq: entry.seq,
        time: view::rfc3339(entry.time_ms),
        kind: entry.kind,
        version: entry.version,
        subject: entry.subject,
        author: entry.author,
        data: data.unwrap_or(Value::Null),
        payloads,
    })
}

pub(crate) fn agents(state: &State) -> Vec<AgentView> {
    let Some(generation) = &state.generation else {
        return Vec::new();
    };
    let Some(fleet) = state.fleets.get(&generation.number) else {
        return Vec::new();
    };
    fleet
        .agents
        .values()
        .map(|agent| shown_agent(state, fleet, agent, generation.number))
        .collect()
}

fn shown_agent(
    state: &State,
    fleet: &api::fleet::Fleet,
    agent: &Agent,
    generation: u64,
) -> AgentView {
    let ready = state
        .instances
        .values()
        .filter(|known| known.instance.owner == agent.name)
        .filter(|known| instance_state(state, known) != "starting")
        .count();
    let working = state
        .tasks
        .values()
        .filter(|open| {
            open.record.task.agent == agent.name
                && open.record.task.lease.is_some()
                && !open.record.task.ambient
        })
        .count();
    let is_script = |model: &api::fleet::ModelRef| {
        fleet
            .providers
            .get(&model.provider)
            .is_some_and(|provider| provider.kind == ProviderKind::Script)
    };
    AgentView {
        name: agent.name.clone(),
        runtime: match agent.runtime {
            Runtime::Builtin => "builtin",
            Runtime::Exec { .. } => "exec",
            Runtime::Service { .. } => "service",
        },
        state: if state.stopped.contains(&agent.name) {
            "stopped"
        } else {
            "running"
        },
        models: agent.models.iter().map(ToString::to_string).collect(),
        scripted: agent.models.iter().any(is_script),
        tools: agent.tools.iter().map(|tool| tool.tool.clone()).collect(),
        replicas: agent.replicas,
        ready: u32::try_from(ready).unwrap_or(u32::MAX),
        queued: state
            .queues
            .get(&agent.name)
            .map_or(0, |queue| queue.len() as u64),
        working: working as u64,
        generation: Some(generation),
        exposed_secrets: agent.secret_env.keys().cloned().collect(),
    }
}

fn instance_state(state: &State, known: &InstanceState) -> &'static str {
    let busy = state
        .leases
        .get(&known.instance.name)
        .is_some_and(|leased| !leased.is_empty());
    let up = match known.instance.kind {
        InstanceKind::Exec => known.linked,
        InstanceKind::Service => {
            known.attached || known.service.as_ref().is_some_and(|service| service.ready)
        }
        InstanceKind::Mcp => known.linked && known.service.is_some(),
    };
    match (up, busy) {
        (false, _) => "starting",
        (true, true) => "working",
        (true, false) => "ready",
    }
}

fn instance(state: &State, known: &InstanceState) -> InstanceView {
    InstanceView {
        name: known.instance.name.clone(),
        agent: known.instance.owner.clone(),
        pid: known.pid,
        state: instance_state(state, known),
        isolation: known.instance.isolation.clone(),
        restarts: known.restarts,
        last_error: known
            .last_exit
            .as_ref()
            .filter(|exit| !exit.asked && exit.code != Some(0))
            .map(crate::ending::why_it_ended),
        task: state
            .leases
            .get(&known.instance.name)
            .and_then(|leased| leased.first().cloned()),
        gateway_port: known.instance.gateway_port,
        shim_pid: known.instance.shim_pid,
    }
}

/// Of each agent of the fleet, and of those that are gone but have tasks: a series that comes and
/// goes is no help to an alert.
fn queued(state: &State) -> Vec<(String, i64)> {
    let today = state.generation.as_ref();
    let fleet = today.and_then(|today| state.fleets.get(&today.number));
    let agents = fleet.iter().flat_map(|fleet| fleet.agents.keys());
    let mut counts: std::collections::BTreeMap<String, i64> =
        agents.map(|agent| (agent.clone(), 0)).collect();
    for (agent, queue) in &state.queues {
        if !queue.is_empty() || counts.contains_key(agent) {
            let count = i64::try_from(queue.len()).unwrap_or(i64::MAX);
            counts.insert(agent.clone(), count);
        }
    }
    counts.into_iter().collect()
}

fn counted(state: &State) -> Vec<(String, &'static str, i64)> {
    let mut counts = std::collections::BTreeMap::new();
    for known in state.instances.values() {
        *counts
            .entry((known.instance.owner.clone(), instance_state(state, known)))
            .or_insert(0) += 1;
    }
    counts
        .into_iter()
        .map(|((agent, word), count)| (agent, word, count))
        .collect()
}
