//! What a service does outside any task belongs to its ambient task: metered, budgeted and logged,
//! not replayed. There is one at a time for each incarnation, closed when it has grown long or its
//! process has ended.

use mainstay_core::event::Event;
use mainstay_core::step::StepKind;
use serde_json::json;

use crate::keys;
use crate::shared::write;
use crate::tx::{Tx, unread};
use crate::{Code, HubError};

/// Steps after which an ambient task is closed and a new one begun.
const AMBIENT_STEPS: usize = 500;

impl Tx<'_> {
    /// The ambient task of a service's incarnation: the one that is open, or a new one.
    pub(crate) fn ambient_begin(
        &mut self,
        instance: &str,
        agent: &str,
        incarnation: u32,
    ) -> Result<String, HubError> {
        let mut round = 0_u32;
        let id = loop {
            let id = self.ambient_id(instance, incarnation, round);
            match self.is_open(&id)? {
                Some(true) => {
                    self.load(&id);
                    self.note_ambient(instance, &id);
                    return Ok(id);
                }
                Some(false) => round = round.saturating_add(1),
                None => break id,
            }
        };
        self.ambient_open(&id, instance, agent)?;
        self.note_ambient(instance, &id);
        Ok(id)
    }

    fn ambient_id(&self, instance: &str, incarnation: u32, round: u32) -> String {
        self.shared.keys.derived_id(&[
            b"ambient",
            instance.as_bytes(),
            &incarnation.to_be_bytes(),
            &round.to_be_bytes(),
        ])
    }

    /// Whether a task is open; `None` if there is none of this id.
    pub(crate) fn is_open(&self, id: &str) -> Result<Option<bool>, HubError> {
        if let Some(open) = self.state.tasks.get(id) {
            return Ok(Some(!open.record.task.state.is_terminal()));
        }
        let row = self.state.log.read().task(id).map_err(unread)?;
        Ok(row.map(|row| !store::TERMINAL_STATES.contains(&row.state.as_str())))
    }

    fn note_ambient(&self, instance: &str, id: &str) {
        if let Some(identity) = write(&self.shared.services).get_mut(instance) {
            identity.ambient = Some(id.to_owned());
        }
    }

    fn ambient_open(&mut self, id: &str, instance: &str, agent: &str) -> Result<(), HubError> {
        let generation = self
            .state
            .generation
            .as_ref()
            .map(|generation| generation.number);
        let generation = generation
            .ok_or_else(|| HubError::new(Code::Unavailable, "no generation is applied yet"))?;
        let key = keys::random_key(self.shared.ground.as_ref())?;
        let event = Event::TaskSubmitted {
            agent: agent.to_owned(),
            session: format!("ambient-{instance}"),
            deadline_ms: None,
            parent: None,
            idempotency: None,
            ambient: true,
        };
        let mut recorded = event.with("input", json!("").to_string().into_bytes());
        recorded.payloads.push(mainstay_core::event::Payload {
            name: "key".into(),
            bytes: key.to_vec(),
        });
        self.create(id, "hub", None, recorded, key, "".into());
        self.emit(
            id,
            "hub",
            Event::AttemptStarted {
                attempt: 1,
                instance: instance.to_owned(),
                generation,
            },
        );
        Ok(())
    }

    /// An ambient task that has grown long is closed; the next call opens another.
    pub(crate) fn roll_ambient(&mut self, id: &str) {
        let long = self.state.tasks.get(id).is_some_and(|open| {
            let steps = &open.record.steps;
            let idle = || {
                !steps.iter().any(|step| {
                    step.kind != StepKind::Local
                        && step.state == mainstay_core::step::StepState::InFlight
                })
            };
            // One that is never idle is closed all the same: its calls are still recorded.
            open.record.task.ambient
                && (steps.len() >= 4 * AMBIENT_STEPS || steps.len() >= AMBIENT_STEPS && idle())
        });
        if long {
            self.emit(id, "hub", Event::TaskCanceled);
        }
    }

    pub(crate) fn close_ambient(&mut self, name: &str) {
        let open: Vec<String> = self
            .state
            .tasks
            .values()
            .map(|open| &open.record.task)
            .filter(|task| {
                task.ambient
                    && task
                        .lease
                        .as_ref()
                        .is_some_and(|lease| lease.instance == name)
            })
            .map(|task| task.id.clone())
            .collect();
        for id in open {
            self.emit(&id, "hub", Event::TaskCanceled);
        }
    }

    /// Ambient tasks of instances that are no more.
    pub(crate) fn close_ambient_of_none(&mut self) {
        let tasks = self.state.tasks.values().map(|open| &open.record.task);
        let names: std::collections::BTreeSet<String> = tasks
            .filter(|task| task.ambient)
            .filter_map(|task| Some(task.lease.as_ref()?.instance.clone()))
            .filter(|name| !self.state.instances.contains_key(name))
            .collect();
        for name in names {
            self.close_ambient(&name);
        }
    }
}
