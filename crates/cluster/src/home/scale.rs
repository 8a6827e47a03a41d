//! Writes how many instances an agent should have, where its manifest leaves that to Mainstay.
//!
//! `core::scale` decides; this looks, writes `spec.replicas` through the scale subresource, and
//! writes nothing that is so already. An agent that leaves it to another autoscaler is never
//! touched: there is one writer. Without the API server the number stays, and is written later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::{Scale, ScaleBy};
use api::{Fleet, Kind};
use hub::Hub;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use mainstay_core::scale::{self, Calm, Policy, Step};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::objects::{Objects, resource};

/// The field manager.
const MANAGER: &str = "mainstay-hub";
/// Idleness ends by time alone, and connections come without an entry.
const TICK: Duration = Duration::from_secs(1);
/// A burst of entries is looked at once in this time.
const PAUSE: Duration = Duration::from_millis(20);
/// What the API server has for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Conversations that one instance is meant to carry.
const CONNECTIONS: u32 = 100;

/// What is known of one agent's number.
#[derive(Debug, Default)]
struct Known {
    /// As its object says it.
    seen: u32,
    /// As it was written since; its object will say so.
    written: Option<u32>,
    calm: Calm,
}

/// The writer.
pub(super) struct Scaler {
    client: Client,
    namespace: String,
    objects: Objects,
    known: BTreeMap<String, Known>,
    since: Instant,
}

impl Scaler {
    pub(super) fn new(client: Client, namespace: &str, objects: Objects) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            objects,
            known: BTreeMap::new(),
            since: Instant::now(),
        }
    }

    pub(super) async fn keep(mut self, hub: Hub, today: watch::Receiver<Arc<Fleet>>) {
        let mut changes = hub.changes();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                _ = tick.tick() => {}
            }
            let fleet = today.borrow().clone();
            self.look(&hub, &fleet).await;
            sleep(PAUSE).await;
        }
    }

    async fn look(&mut self, hub: &Hub, fleet: &Fleet) {
        let scaled: BTreeMap<&str, &Scale> = fleet
            .agents
            .values()
            .filter_map(|agent| Some((agent.name.as_str(), agent.scale.as_ref()?)))
            .filter(|(_, scale)| scale.by == ScaleBy::Mainstay)
            .collect();
        self.known
            .retain(|agent, _| scaled.contains_key(agent.as_str()));
        if scaled.is_empty() {
            return;
        }
        // The hub is stopping.
        let Ok(loads) = hub.loads().await else { return };
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        for (agent, scale) in scaled {
            let Some(seen) = self.objects.replicas(agent) else {
                continue;
            };
            let mut load = loads.get(agent).copied().unwrap_or_default();
            let known = self.known.entry(agent.to_owned()).or_default();
            load.replicas = known.now(seen);
            let wanted = scale::wanted(&policy(scale), load, &mut known.calm, now_ms);
            if wanted != load.replicas && self.write(agent, wanted).await {
                self.known.entry(agent.to_owned()).or_default().written = Some(wanted);
            }
        }
    }

    async fn write(&self, agent: &str, replicas: u32) -> bool {
        let resource = resource(Kind::Agent);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let parameters = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        let written = tokio::time::timeout(ANSWER, api.patch_scale(agent, &parameters, &patch));
        match written.await {
            Ok(Ok(_)) => {
                tracing::info!(agent, replicas, "scaled");
                true
            }
            Ok(Err(error)) => {
                let error = crate::said::answer(&error);
                tracing::warn!(error, agent, replicas, "an agent was not scaled");
                false
            }
            Err(_) => {
                tracing::warn!(agent, replicas, "an agent was not scaled in time");
                false
            }
        }
    }
}

impl Known {
    /// The number there is: what was written, until its object says anything else than before.
    fn now(&mut self, seen: u32) -> u32 {
        if self.seen != seen {
            self.seen = seen;
            self.written = None;
        }
        self.written.unwrap_or(seen)
    }
}

fn policy(scale: &Scale) -> Policy {
    let step = |step: &api::fleet::ScaleStep| Step {
        up_to: step.up_to,
        replicas: step.replicas,
    };
    Policy {
        min: scale.min,
        max: scale.max,
        steps: scale.steps.iter().map(step).collect(),
        idle_after_ms: scale.idle_after_ms,
        connections_per_instance: CONNECTIONS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_counts_until_the_object_changes() {
        let mut known = Known::default();
        assert_eq!(known.now(2), 2);
        known.written = Some(5);
        assert_eq!(known.now(2), 5);
        assert_eq!(known.now(5), 5);
        assert_eq!(known.now(7), 7, "somebody else wrote");
    }
}
