//! The hub's part of status: what only it knows of agents, providers and tools, and what agents' pods
//! found of the workspace's network.
//!
//! Server-side apply on the status subresource under a manager of its own: fields of the operator
//! stay the operator's. Written when it changed, and not more often than every ten seconds.

mod content;
mod isolation;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::kubernetes::CREDENTIALS_VALID;
use api::{Fleet, Kind};
use hub::Hub;
use hub::tally::Tally;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use isolation::Isolation;

use super::keys::{Verdict, Verdicts};
use crate::clock::now_seconds;
use crate::objects::Objects;
use crate::pods::Pods;
use custom_resource::{CustomResource, resource};

/// The field manager.
const MANAGER: &str = "mainstay-hub";
/// Between two looks.
const PACE: Duration = Duration::from_secs(10);
/// What the API server has for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// A condition's message may have 32 KiB; nobody reads more than this.
const MAX_MESSAGE: usize = 1024;

/// Statuses by kind and name.
type Written = BTreeMap<(Kind, String), Value>;

/// The writer.
pub(super) struct Status {
    client: Client,
    namespace: String,
    pods: Pods,
    objects: Objects,
    /// What was written last, and to which object: one that was made anew has no status.
    written: BTreeMap<(Kind, String), (String, Value)>,
    /// When a condition became what it is.
    since: BTreeMap<(Kind, String), (Value, String)>,
    /// What was found last, and since when.
    isolation: Option<(Isolation, String)>,
}

impl Status {
    pub(super) fn new(client: Client, namespace: &str, pods: Pods, objects: Objects) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            pods,
            objects,
            written: BTreeMap::new(),
            since: BTreeMap::new(),
            isolation: None,
        }
    }

    pub(super) async fn keep(
        mut self,
        hub: Hub,
        today: watch::Receiver<Arc<Fleet>>,
        verdicts: watch::Receiver<Verdicts>,
    ) {
        let mut tally = Tally::default();
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            pace.tick().await;
            let Ok(agents) = hub.agent_list().await else {
                continue;
            };
            if let Ok(counted) = hub.tally(tally.clone()).await {
                tally = counted;
            }
            let seen = content::Seen {
                fleet: &today.borrow().clone(),
                agents: &agents.items,
                tally: &tally,
                pods: &self.pods.content(),
            };
            let mut wanted = content::statuses(&seen);
            self.judge(&mut wanted, &verdicts.borrow().clone());
            wanted.extend(self.workspace());
            // An object that is gone and comes back has no status.
            self.written.retain(|object, _| wanted.contains_key(object));
            for (object, status) in wanted {
                self.write(object, status).await;
            }
        }
    }

    /// Adds to each provider what it says of its key, and to each agent what it lacks.
    fn judge(&mut self, wanted: &mut Written, verdicts: &Verdicts) {
        let providers = verdicts.providers.iter().map(|(name, verdict)| {
            let object = (Kind::Provider, name.clone());
            (object, condition("CredentialValid", verdict))
        });
        let agents = verdicts.lacking.iter().map(|(name, why)| {
            let verdict = Verdict::Missing(why.clone());
            let object = (Kind::Agent, name.clone());
            (object, condition(CREDENTIALS_VALID, &verdict))
        });
        let mut since = BTreeMap::new();
        for (object, mut condition) in providers.chain(agents) {
            let Some(status) = wanted.get_mut(&object) else {
                continue;
            };
            let known = self.since.remove(&object);
            let when = match known.filter(|(before, _)| *before == condition) {
                Some((_, when)) => when,
                None => rfc3339(now_seconds()),
            };
            since.insert(object, (condition.clone(), when.clone()));
            condition["lastTransitionTime"] = when.into();
            status["conditions"] = json!([condition]);
        }
        self.since = since;
    }

    /// What its own Workspace says of the network, which bears the namespace's name; what was found
    /// stays until something else is.
    fn workspace(&mut self) -> Option<((Kind, String), Value)> {
        if let Some(found) = Isolation::of(self.pods.networks())
            && self
                .isolation
                .as_ref()
                .is_none_or(|(known, _)| *known != found)
        {
            self.isolation = Some((found, rfc3339(now_seconds())));
        }
        let (found, since) = self.isolation.as_ref()?;
        let status = json!({"conditions": [found.condition(since)]});
        Some(((Kind::Workspace, self.namespace.clone()), status))
    }

    async fn write(&mut self, object: (Kind, String), status: Value) {
        let (kind, name) = &object;
        let Some(uid) = self.objects.uid(*kind, name) else {
            return;
        };
        let content = (uid, status);
        if self.written.get(&object) == Some(&content) {
            return;
        }
        let status = &content.1;
        let resource = resource(*kind);
        let client = self.client.clone();
        let api: Api<CustomResource> = match kind {
            Kind::Workspace => Api::all_with(client, &resource),
            _ => Api::namespaced_with(client, &self.namespace, &resource),
        };
        let body = json!({
            "apiVersion": api::API_VERSION, "kind": kind.name(),
            "metadata": {"name": name}, "status": status,
        });
        let parameters = PatchParams::apply(MANAGER).force();
        let patch = Patch::Apply(&body);
        let written = tokio::time::timeout(ANSWER, api.patch_status(name, &parameters, &patch));
        match written.await {
            Ok(Ok(_)) => {
                self.written.insert(object, content);
            }
            Ok(Err(error)) => {
                let error = custom_resource::said::answer(&error);
                tracing::debug!(error, kind = kind.name(), name, "a status was not written");
            }
            Err(_) => tracing::debug!(kind = kind.name(), name, "a status was not written in time"),
        }
    }
}

fn condition(kind: &str, verdict: &Verdict) -> Value {
    let (status, reason, message) = match verdict {
        Verdict::Taken => ("True", "Taken", "the provider takes its key"),
        Verdict::Refused(why) => ("False", "Refused", why.as_str()),
        Verdict::Missing(why) => ("False", "Missing", why.as_str()),
        Verdict::Unknown => (
            "Unknown",
            "NoAnswer",
            "the provider said nothing about its key",
        ),
    };
    let message: String = message.chars().take(MAX_MESSAGE).collect();
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

fn rfc3339(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |at| at.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_changes_with_the_verdict() {
        let refused = condition("CredentialValid", &Verdict::Refused("401: no".into()));
        assert_eq!(refused["status"], "False");
        assert_eq!(refused["message"], "401: no");
        assert_eq!(
            condition("CredentialValid", &Verdict::Taken)["status"],
            "True"
        );
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
