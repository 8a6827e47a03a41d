//! An agent: its account, its Deployment, or its StatefulSet where it keeps a volume, and a budget
//! for disruptions where there are several of it.

use std::collections::BTreeMap;

use api::fleet::{Agent, Runtime, ServiceProtocol};
use api::kubernetes::{AGENT_LABEL, agent_account, default_image};
use contract::keeper::InstanceKind;
use contract::pod::Pod;
use serde_json::{Value, json};

use super::pod::{PodInput, selector, template};
use crate::object::{Object, Owner, Place, Resource};

/// Where a volume is mounted if nobody says otherwise.
const VOLUME: &str = "/workspace";
/// How large it is then.
const VOLUME_BYTES: u64 = 1 << 30;

/// What an agent's pods depend on.
#[derive(Clone, Debug)]
pub struct AgentInput<'a> {
    pub namespace: &'a str,
    pub owner: &'a Owner,
    pub agent: &'a Agent,
    /// What it runs in.
    pub image: &'a str,
    /// Mainstay's own image.
    pub own_image: &'a str,
    /// `ADDRESS:PORT` of the hub's pod door.
    pub hub: &'a str,
}

/// Everything an agent is made of.
pub fn agent(input: &AgentInput<'_>) -> Vec<Object> {
    let agent = input.agent;
    let name = agent.name.as_str();
    let place = Place {
        namespace: Some(input.namespace),
        component: "agent",
        owner: input.owner,
    };
    let labels = [(AGENT_LABEL, name)];
    let account = agent_account(name);
    let pod = pod(input);
    let tolerations = tolerations(agent);
    let input = PodInput {
        pod: &pod,
        component: "agent",
        labels: &labels,
        image: input.image,
        own_image: input.own_image,
        account: &account,
        resources: &agent.resources,
        node_selector: &agent.placement.node_selector,
        tolerations: &tolerations,
        has_dns: false,
    };
    let unmounted = json!({"automountServiceAccountToken": false});
    let mut objects = vec![place.object(Resource::ServiceAccount, &account, &labels, unmounted)];
    let workload = match &agent.volume {
        None => {
            let spec = deployment(agent.replicas, &input);
            place.object(Resource::Deployment, name, &labels, spec)
        }
        Some(volume) => {
            let service = json!({"spec": {
                "clusterIP": "None", "selector": selector(&input), "publishNotReadyAddresses": true,
            }});
            objects.push(place.object(Resource::Service, name, &labels, service));
            let bytes = volume.size_bytes.unwrap_or(VOLUME_BYTES);
            let spec = stateful_set(agent.replicas, bytes, &input);
            place.object(Resource::StatefulSet, name, &labels, spec)
        }
    };
    objects.push(workload);
    if may_be_several(agent) {
        let budget = json!({"spec": {
            "maxUnavailable": 1, "selector": {"matchLabels": selector(&input)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        }});
        objects.push(place.object(Resource::PodDisruptionBudget, name, &labels, budget));
    }
    objects
}

/// Whether there is an image that its command runs in.
pub(crate) fn has_image(agent: &Agent) -> bool {
    agent.image.is_some() || default_of(agent).is_some()
}

/// What it runs in: the image that it names, one that is known to run its source, or Mainstay's own.
pub(crate) fn image_of(agent: &Agent, own: &str, prefix: Option<&str>) -> String {
    match (&agent.image, default_of(agent), prefix) {
        (Some(image), _, _) => image.clone(),
        (None, Some(image), Some(prefix)) => format!("{}/{image}", prefix.trim_end_matches('/')),
        (None, Some(image), None) => image.to_owned(),
        (None, None, _) => own.to_owned(),
    }
}

fn default_of(agent: &Agent) -> Option<&'static str> {
    let (Runtime::Exec { command } | Runtime::Service { command, .. }) = &agent.runtime else {
        return None;
    };
    agent.source.as_ref().and(default_image(command))
}

/// With one of it a budget would only stop nodes from being drained.
fn may_be_several(agent: &Agent) -> bool {
    agent.replicas > 1
}

/// The selector of its pods, as `kubectl` and autoscalers write it.
pub(crate) fn selector_text(agent: &str) -> String {
    format!("{AGENT_LABEL}={agent}")
}

fn deployment(replicas: u32, input: &PodInput<'_>) -> Value {
    json!({"spec": {
        "replicas": replicas,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": selector(input)},
        "template": template(input),
    }})
}

fn stateful_set(replicas: u32, volume_bytes: u64, input: &PodInput<'_>) -> Value {
    let service = input.labels.first().map_or("", |(_, name)| name);
    json!({"spec": {
        "replicas": replicas,
        "revisionHistoryLimit": 2,
        "serviceName": service,
        // Each is an instance of its own; none waits for another.
        "podManagementPolicy": "Parallel",
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": selector(input)},
        "template": template(input),
        "volumeClaimTemplates": [{
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "volume"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": volume_bytes.to_string()}},
            },
        }],
    }})
}

fn tolerations(agent: &Agent) -> Vec<Value> {
    let tolerations = agent.placement.tolerations.iter();
    // They were read from JSON and are written as it again.
    tolerations
        .filter_map(|it| serde_json::to_value(it).ok())
        .collect()
}

/// What its shim is told.
fn pod(input: &AgentInput<'_>) -> Pod {
    let agent = input.agent;
    let (kind, command, serves, port) = match &agent.runtime {
        Runtime::Builtin => (InstanceKind::Exec, Vec::new(), false, None),
        Runtime::Exec { command } => (InstanceKind::Exec, command.clone(), false, None),
        Runtime::Service {
            command,
            protocol,
            port,
        } => {
            let serves = *protocol != ServiceProtocol::Attach || port.is_some();
            (InstanceKind::Service, command.clone(), serves, *port)
        }
    };
    let secrets: BTreeMap<String, String> = agent
        .secret_env
        .iter()
        .map(|(name, secret)| (name.clone(), format!("{}/{}", secret.name, secret.key)))
        .collect();
    let volume = agent.volume.as_ref();
    Pod {
        workspace: input.namespace.to_owned(),
        owner: agent.name.clone(),
        kind,
        command,
        source: agent.source.as_ref().and_then(|source| source.hash.clone()),
        env: agent.env.clone(),
        secrets,
        grace_ms: agent.grace_ms,
        volume: volume.map(|volume| volume.path.clone().unwrap_or_else(|| VOLUME.to_owned())),
        serves,
        port,
        hub: input.hub.to_owned(),
        template: api::kubernetes::agent_template(agent),
    }
}

#[cfg(test)]
mod tests;
