//! The pod of an agent or of a stdio MCP server: the shim as its first process, the program around
//! it, and nothing that leads anywhere but to the hub.

use std::collections::BTreeMap;

use api::fleet::Resources;
use api::kubernetes::{HUB_CA, MANAGED_BY};
use contract::pod::{
    AUDIENCE, CA_FILE, IMAGE_PROGRAM, POD_ENV, PROBE_PORT, PROGRAM, Pod, SOURCE_DIR, STATE_DIR,
    TOKEN_FILE,
};
use serde_json::{Value, json};

use super::{SOURCE_CONTAINER, USER};
use crate::object::MANAGER;

/// How long a token is good; the kubelet renews it long before.
const TOKEN_SECONDS: u32 = 3600;
/// What the pod has beyond its program's own grace.
const GRACE_EXTRA_SECONDS: u64 = 10;
/// A node that is gone keeps its pods this long: their work has gone on elsewhere by then.
const LOST_NODE_SECONDS: u32 = 3;

/// A pod's content and place.
#[derive(Clone, Debug)]
pub(super) struct PodInput<'a> {
    pub(super) pod: &'a Pod,
    pub(super) component: &'a str,
    pub(super) labels: &'a [(&'a str, &'a str)],
    /// What the program runs in.
    pub(super) image: &'a str,
    /// Mainstay's own, from which the shim is copied.
    pub(super) own_image: &'a str,
    pub(super) account: &'a str,
    pub(super) resources: &'a Resources,
    pub(super) node_selector: &'a BTreeMap<String, String>,
    pub(super) tolerations: &'a [Value],
    /// Whether names can be looked up.
    pub(super) has_dns: bool,
}

/// The labels that select its pods.
pub(super) fn selector(input: &PodInput<'_>) -> Value {
    let mut labels = json!({api::kubernetes::COMPONENT: input.component});
    for (label, value) in input.labels {
        labels[*label] = Value::from(*value);
    }
    labels
}

/// A pod template.
pub(super) fn template(input: &PodInput<'_>) -> Value {
    let mut labels = selector(input);
    labels[MANAGED_BY] = Value::from(MANAGER);
    json!({
        "metadata": {
            "labels": labels,
            "annotations": {"kubectl.kubernetes.io/default-container": input.component},
        },
        "spec": spec(input),
    })
}

fn spec(input: &PodInput<'_>) -> Value {
    let grace = input.pod.grace_ms.div_ceil(1000) + GRACE_EXTRA_SECONDS;
    let mut tolerations = lost_node_tolerations();
    tolerations.extend(input.tolerations.iter().cloned());
    let mut spec = json!({
        "serviceAccountName": input.account,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": grace,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": init_containers(input),
        "containers": [container(input)],
        "tolerations": tolerations,
        "topologySpreadConstraints": spread(&selector(input)),
        "affinity": apart(&selector(input)),
        "volumes": volumes(input),
    });
    if !input.node_selector.is_empty() {
        spec["nodeSelector"] = json!(input.node_selector);
    }
    if !input.has_dns {
        // Nothing answers there: a name that an agent looks up fails at once and leaks nowhere.
        spec["dnsPolicy"] = Value::from("None");
        spec["dnsConfig"] = json!({"nameservers": ["127.0.0.1"], "options": [
            {"name": "timeout", "value": "1"}, {"name": "attempts", "value": "1"},
        ]});
    }
    spec
}

/// Over nodes alone: the scheduler passes over every node that lacks the label of any constraint, and
/// many clusters have no zones.
fn spread(selector: &Value) -> Value {
    json!([{
        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector},
    }])
}

/// Apart by zones too, where there are any.
fn apart(selector: &Value) -> Value {
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {
            "topologyKey": "topology.kubernetes.io/zone",
            "labelSelector": {"matchLabels": selector},
        },
    }]}})
}

/// How long pods stay bound to a node that doesn't answer.
pub(super) fn lost_node_tolerations() -> Vec<Value> {
    [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    .map(|key| {
        json!({
            "key": key, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": LOST_NODE_SECONDS,
        })
    })
    .to_vec()
}

fn init_containers(input: &PodInput<'_>) -> Vec<Value> {
    let mut containers = vec![copier(input)];
    containers.extend(input.pod.source.as_ref().map(|_| fetcher(input)));
    containers
}

/// Brings the agent's code, which the agent then can't change.
fn fetcher(input: &PodInput<'_>) -> Value {
    json!({
        "name": SOURCE_CONTAINER,
        "image": input.own_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [IMAGE_PROGRAM, "shim", "--fetch-source"],
        "env": environment(input),
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "128Mi"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": confined(true),
        "volumeMounts": [
            {"name": "source", "mountPath": SOURCE_DIR},
            {"name": "ca", "mountPath": parent(CA_FILE), "readOnly": true},
            {"name": "token", "mountPath": parent(TOKEN_FILE), "readOnly": true},
        ],
    })
}

/// Puts the program where any image can run it.
fn copier(input: &PodInput<'_>) -> Value {
    json!({
        "name": "mainstay",
        "image": input.own_image,
        "imagePullPolicy": "IfNotPresent",
        "command": [IMAGE_PROGRAM, "shim", "--copy-to", PROGRAM],
        "resources": {
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"memory": "64Mi"},
        },
        "securityContext": confined(true),
        "volumeMounts": [{"name": "bin", "mountPath": parent(PROGRAM)}],
    })
}

/// What a pod's shim is told.
fn environment(input: &PodInput<'_>) -> Value {
    let of_pod = |field: &str| json!({"fieldRef": {"fieldPath": field}});
    // A pod is made of strings and numbers, which always are JSON.
    let pod = serde_json::to_string(input.pod).unwrap_or_default();
    json!([
        {"name": POD_ENV, "value": escaped(&pod)},
        {"name": "POD_NAME", "valueFrom": of_pod("metadata.name")},
        {"name": "POD_NAMESPACE", "valueFrom": of_pod("metadata.namespace")},
    ])
}

fn container(input: &PodInput<'_>) -> Value {
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": PROBE_PORT},
            "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures,
        })
    };
    let mut container = json!({
        "name": input.component,
        "image": input.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [PROGRAM, "shim"],
        "env": environment(input),
        "ports": [{"name": "probe", "containerPort": PROBE_PORT}],
        "readinessProbe": probe("/readyz", 2, 2),
        "livenessProbe": probe("/livez", 10, 6),
        "resources": resources(input.resources),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": confined(false),
        "volumeMounts": mounts(input),
    });
    // Whoever built the image may have made it for another directory than the root.
    if input.pod.command.is_empty() {
        container["workingDir"] = Value::from("/");
    }
    container
}

/// Kubernetes expands `$(NAME)` in values and reads `$$` as a dollar: every dollar is written so,
/// because of `$$(NAME)` no rule by what follows it would be right.
fn escaped(value: &str) -> String {
    value.replace('$', "$$")
}

fn confined(read_only: bool) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
    })
}

/// What is written is requested and the limit; what isn't has room and no promise.
fn resources(resources: &Resources) -> Value {
    let memory = resources.memory_bytes.map(|bytes| bytes.to_string());
    let cpu = resources.cpu_millis.map(|millis| format!("{millis}m"));
    let mut value = json!({
        "requests": {
            "cpu": cpu.clone().unwrap_or_else(|| "50m".to_owned()),
            "memory": memory.clone().unwrap_or_else(|| "128Mi".to_owned()),
        },
        "limits": {"memory": memory.unwrap_or_else(|| "512Mi".to_owned())},
    });
    if let Some(cpu) = cpu {
        value["limits"]["cpu"] = Value::from(cpu);
    }
    value
}

/// Each with an end: what is written there is the node's disk.
fn volumes(input: &PodInput<'_>) -> Vec<Value> {
    let mut volumes = vec![
        json!({"name": "bin", "emptyDir": {"sizeLimit": "256Mi"}}),
        json!({"name": "state", "emptyDir": {"sizeLimit": "1Gi"}}),
        json!({"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}),
        json!({"name": "ca", "configMap": {"name": HUB_CA}}),
        json!({"name": "token", "projected": {"sources": [{"serviceAccountToken": {
            "audience": AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": file(TOKEN_FILE),
        }}]}}),
    ];
    if input.pod.source.is_some() {
        // A source has 1 GiB, and its files' names.
        volumes.push(json!({"name": "source", "emptyDir": {"sizeLimit": "1100Mi"}}));
    }
    volumes
}

fn mounts(input: &PodInput<'_>) -> Value {
    let mut mounts = vec![
        json!({"name": "bin", "mountPath": parent(PROGRAM), "readOnly": true}),
        json!({"name": "state", "mountPath": STATE_DIR}),
        json!({"name": "tmp", "mountPath": "/tmp"}),
        json!({"name": "ca", "mountPath": parent(CA_FILE), "readOnly": true}),
        json!({"name": "token", "mountPath": parent(TOKEN_FILE), "readOnly": true}),
    ];
    if input.pod.source.is_some() {
        mounts.push(json!({"name": "source", "mountPath": SOURCE_DIR, "readOnly": true}));
    }
    if let Some(path) = &input.pod.volume {
        mounts.push(json!({"name": "volume", "mountPath": path}));
    }
    Value::from(mounts)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("/", |(parent, _)| parent)
}

fn file(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, file)| file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kubelet reads a value: a pair of dollars is one, a reference is what it refers to.
    fn expanded(value: &str) -> String {
        let (mut read, mut rest) = (String::new(), value);
        while let Some(at) = rest.find('$') {
            read.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                read.push('$');
                rest = after;
            } else if let Some(end) = rest.find(')').filter(|_| rest.starts_with('(')) {
                read.push_str("EXPANDED");
                rest = &rest[end + 1..];
            } else {
                read.push('$');
            }
        }
        read + rest
    }

    #[test]
    fn a_value_arrives_as_it_was_written() {
        for value in ["$(HOST)", "$$(HOST)", "$$$(HOST) $", "a$b $$ $(", "none"] {
            assert_eq!(expanded(&escaped(value)), value);
        }
        assert_ne!(expanded("$(HOST)"), "$(HOST)");
    }

    #[test]
    fn no_volume_fills_its_node() {
        let pod = r#"{"workspace": "w", "owner": "a", "kind": "exec", "command": [], "env": {},
            "source": "0", "graceMs": 1000, "hub": "127.0.0.1:1", "template": "t"}"#;
        let volumes = volumes(&PodInput {
            pod: &serde_json::from_str(pod).unwrap(),
            component: "agent",
            labels: &[],
            image: "a:1",
            own_image: "mainstay:1",
            account: "a",
            resources: &Resources::default(),
            node_selector: &BTreeMap::new(),
            tolerations: &[],
            has_dns: false,
        });
        let volumes = volumes.iter();
        let empty: Vec<&Value> = volumes
            .filter_map(|volume| volume.get("emptyDir"))
            .collect();
        assert_eq!(empty.len(), 4);
        assert!(empty.iter().all(|volume| volume["sizeLimit"].is_string()));
    }
}
