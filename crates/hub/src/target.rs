//! Start, stop and restart: an operator's hand on an agent or one instance of it.
//!
//! What is stopped is a row of the system log, so that it stays stopped over restarts: `AGENT`, or
//! `AGENT/INSTANCE`. An agent that is started starts whole.

use contract::keeper::ToKeeper;

use crate::action::Action;
use crate::projection;
use crate::tx::Tx;
use crate::{Code, HubError};

/// What an operator names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Agent(String),
    Instance { owner: String, name: String },
}

impl Target {
    /// As it stands among what is stopped.
    fn key(&self) -> String {
        match self {
            Self::Agent(agent) => agent.clone(),
            Self::Instance { owner, name } => format!("{owner}/{name}"),
        }
    }

    fn holds(&self, owner: &str, instance: &str) -> bool {
        match self {
            Self::Agent(agent) => agent == owner,
            Self::Instance { name, .. } => name == instance,
        }
    }
}

impl Tx<'_> {
    /// `AGENT`, `INSTANCE` or `AGENT/INSTANCE`.
    fn target(&self, text: &str) -> Result<Target, HubError> {
        if self.state.agent(text).is_some() {
            return Ok(Target::Agent(text.to_owned()));
        }
        let (agent, wanted) = text
            .rsplit_once('/')
            .map_or((None, text), |(agent, instance)| (Some(agent), instance));
        let running = self.state.instances.get(wanted);
        let running = running.map(|known| known.instance.owner.as_str());
        let stopped = self.state.stopped.iter().filter_map(|key| {
            let (owner, name) = key.rsplit_once('/')?;
            (name == wanted).then_some(owner)
        });
        let owner = running
            .into_iter()
            .chain(stopped)
            .find(|owner| agent.is_none_or(|agent| agent == *owner));
        owner
            .map(|owner| Target::Instance {
                owner: owner.to_owned(),
                name: wanted.to_owned(),
            })
            .ok_or_else(|| self.no_target(agent, wanted))
    }

    fn no_target(&self, agent: Option<&str>, wanted: &str) -> HubError {
        let known = agent.filter(|agent| self.state.agent(agent).is_some());
        let text = match known {
            None => {
                let name = agent.unwrap_or(wanted);
                format!("no agent or instance {name}{}", self.state.nearest(name))
            }
            Some(agent) if self.state.stopped.contains(agent) => {
                format!("agent {agent} is stopped with all its instances: mainstay start {agent}")
            }
            Some(agent) => format!("agent {agent} has no instance {wanted}"),
        };
        HubError::new(Code::NotFound, text)
    }

    pub(crate) fn set_stopped(&mut self, target: &str, stop: bool) -> Result<(), HubError> {
        let target = self.target(target)?;
        let mut keys = vec![target.key()];
        if let (Target::Agent(agent), false) = (&target, stop) {
            let own = format!("{agent}/");
            let alone = self.state.stopped.iter();
            keys.extend(alone.filter(|key| key.starts_with(&own)).cloned());
        }
        keys.retain(|key| self.state.stopped.contains(key) != stop);
        if keys.is_empty() {
            return Ok(());
        }
        for key in keys {
            self.record_stopped(key, stop);
        }
        let agents = self.state.stopped.iter().cloned().collect();
        self.after(Action::Keeper(ToKeeper::Stopped { agents }));
        self.dispatch();
        Ok(())
    }

    fn record_stopped(&mut self, key: String, stop: bool) {
        let body = projection::encode(&key);
        let (kind, row) = if stop {
            self.state.stopped.insert(key.clone());
            let row = store::StateRow {
                kind: "stopped".into(),
                key: key.clone(),
                body: body.clone(),
            };
            ("agent.stopped", store::Row::State(row))
        } else {
            self.state.stopped.remove(&key);
            let row = store::RowKey::State {
                kind: "stopped".into(),
                key: key.clone(),
            };
            ("agent.started", store::Row::Delete(row))
        };
        self.system(kind, &key, body, row);
    }

    pub(crate) fn restart_target(&mut self, target: &str) -> Result<(), HubError> {
        let target = self.target(target)?;
        let instances = self.state.instances.values();
        let names: Vec<String> = instances
            .filter(|known| target.holds(&known.instance.owner, &known.instance.name))
            .map(|known| known.instance.name.clone())
            .collect();
        if names.is_empty() {
            let key = target.key();
            let text = match self.state.stopped.contains(&key) {
                true => format!("{key} is stopped: mainstay start {key}"),
                false => format!("no instance of {key} runs"),
            };
            return Err(HubError::new(Code::Conflict, text));
        }
        for instance in names {
            self.after(Action::Keeper(ToKeeper::Restart { instance }));
        }
        Ok(())
    }
}
