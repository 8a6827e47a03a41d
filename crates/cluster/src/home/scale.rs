//! How many instances an agent should have, where its manifest leaves that to the load.
//!
//! `core::scale` decides; this looks, and writes `spec.replicas` through the scale subresource
//! where Mainstay is to write it, but nothing that is so already. What was decided for an agent that
//! KEDA scales is only told (`keda`): there is one writer. Without the API server the number stays,
//! and is written later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::{Scale, ScaleBy};
use api::{Fleet, Kind};
use futures_util::future::join_all;
use hub::Hub;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use mainstay_core::scale::{self, Calm, Load, Policy, Step};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::objects::Objects;
use crate::pods::Pods;
use custom_resource::resource;

/// The field manager.
const MANAGER: &str = "mainstay-hub";
/// Idleness ends by time alone, and connections come without an entry.
const TICK: Duration = Duration::from_secs(1);
/// A burst of entries is looked at once in this time.
const PAUSE: Duration = Duration::from_millis(50);
/// In this time an object says what was written.
const ECHO: Duration = Duration::from_secs(5);
/// After a refusal, doubled each time.
const REST: Duration = Duration::from_secs(1);
const MOST_REST: Duration = Duration::from_secs(30);
/// What the API server has for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Conversations that one instance is meant to carry.
const CONNECTIONS: u32 = 100;
/// How full the memory of one instance is meant to be.
const MEMORY_PERCENT: u32 = 70;

/// What was decided last, by agent; those that an autoscaler decides on are not in it.
pub(super) type Decisions = BTreeMap<String, Decision>;

/// What was decided last for an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) by: ScaleBy,
    /// Instances there should be.
    pub(super) wanted: u32,
    /// Instances that its object asks for.
    pub(super) replicas: u32,
}

/// What is known of one agent's number.
#[derive(Debug, Default)]
struct Known {
    /// As its object says it.
    seen: u32,
    /// As it was written since, and when; its object will say so.
    written: Option<(u32, Instant)>,
    calm: Calm,
    /// After a refusal: not tried again before, and how long the last wait was.
    rests: Option<(Instant, Duration)>,
}

/// The writer.
pub(super) struct Scaler {
    client: Client,
    namespace: String,
    objects: Objects,
    pods: Pods,
    known: BTreeMap<String, Known>,
    decisions: watch::Sender<Decisions>,
    since: Instant,
}

impl Scaler {
    pub(super) fn new(client: Client, namespace: &str, pods: Pods, objects: Objects) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            objects,
            pods,
            known: BTreeMap::new(),
            decisions: watch::channel(Decisions::new()).0,
            since: Instant::now(),
        }
    }

    /// What is decided, from now on.
    pub(super) fn decisions(&self) -> watch::Receiver<Decisions> {
        self.decisions.subscribe()
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
            .filter(|(_, scale)| scale.by != ScaleBy::Hpa)
            .collect();
        self.known
            .retain(|agent, _| scaled.contains_key(agent.as_str()));
        let loads = match scaled.is_empty() {
            true => BTreeMap::new(),
            // The hub is stopping.
            false => match hub.loads().await {
                Ok(loads) => loads,
                Err(_) => return,
            },
        };
        let decisions = self.decide(&scaled, &with_memory(loads, &self.pods));
        let written = self.write_all(&decisions).await;
        self.decisions.send_if_modified(|before| {
            let is_new = *before != decisions;
            *before = decisions;
            is_new
        });
        for (agent, replicas, done) in written {
            let known = self.known.entry(agent).or_default();
            known.wrote(replicas, done);
        }
    }

    fn decide(
        &mut self,
        scaled: &BTreeMap<&str, &Scale>,
        loads: &BTreeMap<String, Load>,
    ) -> Decisions {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut decisions = Decisions::new();
        for (agent, scale) in scaled {
            let Some(seen) = self.objects.replicas(agent) else {
                continue;
            };
            let mut load = loads.get(*agent).copied().unwrap_or_default();
            let known = self.known.entry((*agent).to_owned()).or_default();
            load.replicas = known.now(seen);
            let decision = Decision {
                by: scale.by,
                wanted: scale::wanted(&policy(scale), load, &mut known.calm, now_ms),
                replicas: load.replicas,
            };
            decisions.insert((*agent).to_owned(), decision);
        }
        decisions
    }

    /// Writes what is Mainstay's to write and isn't so yet; returns what came of it.
    async fn write_all(&self, decisions: &Decisions) -> Vec<(String, u32, bool)> {
        let due = decisions.iter().filter(|(agent, decision)| {
            let known = self.known.get(agent.as_str());
            decision.by == ScaleBy::Mainstay
                && decision.wanted != decision.replicas
                && known.is_some_and(Known::may_write)
        });
        let written = due.map(|(agent, decision)| async {
            let replicas = decision.wanted;
            (agent.clone(), replicas, self.write(agent, replicas).await)
        });
        join_all(written).await
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
                let error = custom_resource::said::answer(&error);
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
    /// The number there is: what was written, until its object says anything else than before. An
    /// object that still says the same after a while was written back by somebody else.
    fn now(&mut self, seen: u32) -> u32 {
        let is_late = |(_, at): &(u32, Instant)| at.elapsed() > ECHO;
        if self.seen != seen || self.written.as_ref().is_some_and(is_late) {
            self.seen = seen;
            self.written = None;
        }
        self.written.map_or(seen, |(replicas, _)| replicas)
    }

    fn may_write(&self) -> bool {
        self.rests.is_none_or(|(until, _)| Instant::now() >= until)
    }

    fn wrote(&mut self, replicas: u32, done: bool) {
        if done {
            self.written = Some((replicas, Instant::now()));
            self.rests = None;
            return;
        }
        let wait = self
            .rests
            .map_or(REST, |(_, before)| (before * 2).min(MOST_REST));
        self.rests = Some((Instant::now() + wait, wait));
    }
}

fn with_memory(mut loads: BTreeMap<String, Load>, pods: &Pods) -> BTreeMap<String, Load> {
    for (owner, percent) in pods.memory() {
        if let Some(load) = loads.get_mut(&owner) {
            load.memory_percent = percent;
        }
    }
    loads
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
        memory_percent: MEMORY_PERCENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_written_counts_until_the_object_changes() {
        let mut known = Known::default();
        assert_eq!(known.now(2), 2);
        known.wrote(5, true);
        assert_eq!(known.now(2), 5);
        assert_eq!(known.now(5), 5);
        assert_eq!(known.now(7), 7, "somebody else wrote");
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_wrote_back_at_once_is_seen_in_the_end() {
        let mut known = Known::default();
        assert_eq!(known.now(0), 0);
        known.wrote(2, true);
        assert_eq!(known.now(0), 2);
        tokio::time::advance(ECHO + TICK).await;
        assert_eq!(known.now(0), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_repeated_at_every_entry() {
        let mut known = Known::default();
        known.wrote(2, false);
        assert!(!known.may_write());
        tokio::time::advance(REST).await;
        assert!(known.may_write());
        known.wrote(2, false);
        tokio::time::advance(REST).await;
        assert!(!known.may_write());
    }
}
