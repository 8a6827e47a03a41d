//! How much each agent has to do, for whoever decides how many instances it should have.
//!
//! What is counted is work: a task that waits, is worked on or asks a person, a call of a service
//! outside any task, a conversation that is open. A task that rests for its provider, or whose agent
//! somebody stopped, needs no instance until it goes on; one that moved goes on elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use mainstay_core::scale::Load;
use tokio::sync::watch;

use crate::shared::{lock, read};
use crate::state::State;
use crate::{Hub, HubError};

/// Conversations that are open, by agent.
#[derive(Debug, Default)]
pub(crate) struct Conversations(Mutex<HashMap<String, u32>>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Conversing {
    all: Arc<Conversations>,
    agent: String,
}

impl Drop for Conversing {
    fn drop(&mut self) {
        let mut counts = lock(&self.all.0);
        if let Some(count) = counts.get_mut(&self.agent) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.agent);
            }
        }
    }
}

impl Hub {
    /// Counts a client's open conversation with an agent.
    #[must_use]
    pub fn converse(&self, agent: &str) -> Conversing {
        let all = Arc::clone(&self.shared.conversations);
        *lock(&all.0).entry(agent.to_owned()).or_insert(0) += 1;
        Conversing {
            all,
            agent: agent.to_owned(),
        }
    }

    /// How many conversations each agent has open.
    pub(crate) fn conversations(&self) -> HashMap<String, u32> {
        lock(&self.shared.conversations.0).clone()
    }

    /// The load of every agent of today's fleet; how many instances it has is not filled in.
    pub async fn loads(&self) -> Result<BTreeMap<String, Load>, HubError> {
        let conversations = self.conversations();
        self.writer
            .run(move |tx| {
                let today = Arc::clone(&read(&tx.shared.today));
                let mut loads = tx.state.loads(today.agents.keys());
                for (agent, count) in conversations {
                    if let Some(load) = loads.get_mut(&agent) {
                        load.connections = count;
                    }
                }
                loads
            })
            .await
    }

    /// Changes whenever the log does: the load may have.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.streams.sizes()
    }
}

impl State {
    fn loads<'a>(&self, agents: impl Iterator<Item = &'a String>) -> BTreeMap<String, Load> {
        let mut loads: BTreeMap<String, Load> = agents
            .map(|agent| (agent.clone(), Load::default()))
            .collect();
        for open in self.tasks.values() {
            let task = &open.record.task;
            if task.moved.is_some() {
                continue;
            }
            let Some(load) = loads.get_mut(&task.agent) else {
                continue;
            };
            if task.lease.is_some() || task.ambient && open.has_calls() {
                load.working += 1;
            } else if task.state.is_parked() {
                load.asking += 1;
            } else if open.is_waiting()
                && open.rests_until.is_none()
                && !self.stopped.contains(&task.agent)
                && !self.session_is_busy(&open.record)
            {
                load.waiting += 1;
            }
        }
        for (instance, leased) in &self.leases {
            let known = self.instances.get(instance);
            let agent = known.map(|known| known.instance.owner.as_str());
            if let Some(load) = agent.and_then(|agent| loads.get_mut(agent))
                && !leased.is_empty()
            {
                load.busy_instances += 1;
            }
        }
        loads
    }
}
