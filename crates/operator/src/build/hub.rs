//! A workspace's hub: one process with a volume, a Service and the Secret that makes it itself.

use std::collections::BTreeSet;

use api::kubernetes::{CLIENTS, COMPONENT, HUB, HUB_CA};
use contract::pod::{FACADE_PORT, IMAGE_PROGRAM, POD_DOOR_PORT};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::{Keys, USER};
use crate::object::{Object, Owner, Place, Resource};
use crate::rbac::{IN_NAMESPACES, READ, identify, rule};

/// What a hub may take to end: it drains for two minutes.
const GRACE_SECONDS: u32 = 150;
const DATA: &str = "/var/lib/mainstay";
const ETC: &str = "/etc/mainstay";

/// What a hub depends on.
#[derive(Clone, Debug)]
pub struct HubInput<'a> {
    pub namespace: &'a str,
    pub owner: &'a Owner,
    /// Mainstay's own image.
    pub image: &'a str,
    /// Of its volume.
    pub store_bytes: u64,
    /// Names of the Secrets that the fleet refers to.
    pub secrets: BTreeSet<String>,
    /// The authority's certificate, as PEM.
    pub authority: &'a str,
}

/// All but its Secret.
pub fn hub(input: &HubInput<'_>) -> Vec<Object> {
    let place = place(input.namespace, input.owner);
    let account = json!({"automountServiceAccountToken": false});
    vec![
        place.object(
            Resource::ConfigMap,
            HUB_CA,
            &[],
            json!({"data": {"ca.crt": input.authority}}),
        ),
        place.object(Resource::ServiceAccount, HUB, &[], account.clone()),
        // Nobody runs as it: people get tokens of it that say who they are.
        place.object(Resource::ServiceAccount, CLIENTS, &[], account),
        place.object(
            Resource::Role,
            HUB,
            &[],
            json!({"rules": hub_rules(&input.secrets)}),
        ),
        place.object(
            Resource::RoleBinding,
            HUB,
            &[],
            binding("Role", HUB, input.namespace),
        ),
        place.object(Resource::Service, HUB, &[], service()),
        place.object(Resource::StatefulSet, HUB, &[], stateful_set(input)),
    ]
    .into_iter()
    .chain(beyond(input))
    .collect()
}

/// The Secret; written once and never again.
pub fn hub_keys(namespace: &str, owner: &Owner, keys: &Keys) -> Object {
    let encode = |bytes: &[u8]| {
        // The one form that Kubernetes has for bytes.
        serde_json::to_value(ByteString(bytes.to_vec())).unwrap_or_default()
    };
    let data = json!({
        "state-key": encode(&keys.state_key),
        "ca.crt": encode(keys.authority.as_bytes()),
        "tls.crt": encode(keys.certificate.as_bytes()),
        "tls.key": encode(keys.private_key.as_bytes()),
    });
    let content = json!({"type": "Opaque", "data": data});
    let mut secret = place(namespace, owner).object(Resource::Secret, HUB, &[], content);
    // It stays as long as the volume, which is closed without it.
    if let Some(metadata) = secret.body["metadata"].as_object_mut() {
        metadata.shift_remove("ownerReferences");
    }
    secret
}

/// What lies outside the namespace: its own Workspace and its status, and how to check its pods' tokens.
fn beyond(input: &HubInput<'_>) -> [Object; 2] {
    let place = Place {
        namespace: None,
        ..place(input.namespace, input.owner)
    };
    let name = format!("{HUB}:{}", input.namespace);
    let rules = hub_cluster_rules(input.namespace);
    [
        place.object(Resource::ClusterRole, &name, &[], json!({"rules": rules})),
        place.object(
            Resource::ClusterRoleBinding,
            &name,
            &[],
            binding("ClusterRole", &name, input.namespace),
        ),
    ]
}

/// What a hub may do with the cluster's own.
pub fn hub_cluster_rules(workspace: &str) -> Vec<Value> {
    let mut rules = vec![
        json!({
            "apiGroups": [api::kubernetes::GROUP], "resources": ["workspaces"],
            "resourceNames": [workspace], "verbs": ["get", "list", "watch"],
        }),
        // Whether anything enforces its policies is what its pods find.
        json!({
            "apiGroups": [api::kubernetes::GROUP], "resources": ["workspaces/status"],
            "resourceNames": [workspace], "verbs": ["patch"],
        }),
        json!({
            "nonResourceURLs": ["/openid/v1/jwks", "/.well-known/openid-configuration"],
            "verbs": ["get"],
        }),
    ];
    rules.extend(identify());
    rules
}

fn place<'a>(namespace: &'a str, owner: &'a Owner) -> Place<'a> {
    Place {
        namespace: Some(namespace),
        component: "hub",
        owner,
    }
}

fn binding(kind: &str, role: &str, namespace: &str) -> Value {
    json!({
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": HUB, "namespace": namespace}],
    })
}

/// A hub reads its workspace's objects, says what became of them, scales agents, reads the Secrets
/// that the fleet names, and asks what its callers may do there.
pub fn hub_rules(secrets: &BTreeSet<String>) -> Vec<Value> {
    let group = api::kubernetes::GROUP;
    let status = IN_NAMESPACES.map(|kind| format!("{kind}/status"));
    let mut rules = vec![
        rule(&[group], &IN_NAMESPACES, &READ),
        json!({"apiGroups": [group], "resources": status, "verbs": ["get", "patch"]}),
        json!({"apiGroups": [group], "resources": ["agents/scale"], "verbs": ["get", "patch"]}),
        // An instance is restarted by ending its pod: Kubernetes starts another.
        json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]}),
        rule(
            &["authorization.k8s.io"],
            &["localsubjectaccessreviews"],
            &["create"],
        ),
    ];
    if !secrets.is_empty() {
        rules.push(json!({
            "apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get"],
        }));
    }
    rules
}

fn service() -> Value {
    let port = |name: &str, port: u16| json!({"name": name, "port": port, "targetPort": name, "protocol": "TCP"});
    json!({"spec": {
        "type": "ClusterIP",
        "selector": {COMPONENT: "hub"},
        "ports": [port("facade", FACADE_PORT), port("pods", POD_DOOR_PORT)],
        // Pods dial in before the hub is ready, and that is what makes it ready to give work.
        "publishNotReadyAddresses": true,
    }})
}

fn stateful_set(input: &HubInput<'_>) -> Value {
    let labels = json!({
        api::kubernetes::MANAGED_BY: crate::object::MANAGER, COMPONENT: "hub",
    });
    json!({"spec": {
        "replicas": 1,
        "serviceName": HUB,
        "podManagementPolicy": "Parallel",
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": {COMPONENT: "hub"}},
        "template": {
            "metadata": {
                "labels": labels,
                "annotations": {"kubectl.kubernetes.io/default-container": "hub"},
            },
            "spec": pod(input),
        },
        "volumeClaimTemplates": [{
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": input.store_bytes.to_string()}},
            },
        }],
    }})
}

fn pod(input: &HubInput<'_>) -> Value {
    json!({
        "serviceAccountName": HUB,
        // The one pod of a workspace that speaks to the API server.
        "automountServiceAccountToken": true,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(input)],
        "tolerations": super::pod::lost_node_tolerations(),
        "volumes": [
            {"name": "keys", "secret": {"secretName": HUB, "defaultMode": 0o440, "items": [
                {"key": "state-key", "path": "state-key"},
                {"key": "tls.crt", "path": "tls.crt"},
                {"key": "tls.key", "path": "tls.key"},
            ]}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    })
}

fn container(input: &HubInput<'_>) -> Value {
    let of_pod = |field: &str| json!({"fieldRef": {"fieldPath": field}});
    let probe = |path: &str, period: u32, failures: u32| {
        json!({
            "httpGet": {"path": path, "port": "facade", "scheme": "HTTPS"},
            "periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures,
        })
    };
    json!({
        "name": "hub",
        "image": input.image,
        "imagePullPolicy": "IfNotPresent",
        "command": [IMAGE_PROGRAM],
        "args": [
            "hub", "--kubernetes", "--workspace", input.namespace, "--state", DATA,
            "--key-file", format!("{ETC}/state-key"),
            "--tls-cert", format!("{ETC}/tls.crt"), "--tls-key", format!("{ETC}/tls.key"),
            "--listen", format!("0.0.0.0:{FACADE_PORT}"), "--pods", format!("0.0.0.0:{POD_DOOR_PORT}"),
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": of_pod("metadata.name")},
            {"name": "POD_NAMESPACE", "valueFrom": of_pod("metadata.namespace")},
        ],
        "ports": [
            {"name": "facade", "containerPort": FACADE_PORT},
            {"name": "pods", "containerPort": POD_DOOR_PORT},
        ],
        "readinessProbe": probe("/readyz", 2, 3),
        "startupProbe": probe("/healthz", 2, 150),
        "livenessProbe": probe("/healthz", 10, 6),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "data", "mountPath": DATA},
            {"name": "keys", "mountPath": ETC, "readOnly": true},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(secrets: &[&str]) -> Vec<Object> {
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        };
        hub(&HubInput {
            namespace: "acme",
            owner: &owner,
            image: "mainstay:1",
            store_bytes: 5 << 30,
            secrets: secrets.iter().map(|name| (*name).to_owned()).collect(),
            authority: "PEM",
        })
    }

    fn role(secrets: &[&str]) -> String {
        let objects = built(secrets);
        let role = objects
            .iter()
            .find(|object| object.resource == Resource::Role);
        role.unwrap().body["rules"].to_string()
    }

    #[test]
    fn a_hub_may_read_the_secrets_that_the_fleet_names_and_no_others() {
        assert!(!role(&[]).contains("secrets"), "{}", role(&[]));
        assert!(role(&["a", "b"]).contains(r#""resourceNames":["a","b"]"#));
    }

    #[test]
    fn a_hub_keeps_its_volume_and_runs_as_nobody() {
        let objects = built(&[]);
        let set = objects
            .iter()
            .find(|object| object.resource == Resource::StatefulSet);
        let spec = &set.unwrap().body["spec"];
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"]["whenDeleted"],
            "Retain"
        );
        assert_eq!(
            spec["template"]["spec"]["securityContext"]["runAsNonRoot"],
            true
        );
        let claim = &spec["volumeClaimTemplates"][0]["spec"];
        assert_eq!(
            claim["resources"]["requests"]["storage"],
            (5u64 << 30).to_string()
        );
    }

    #[test]
    fn keys_are_written_as_kubernetes_writes_bytes() {
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        };
        let keys = Keys {
            state_key: [0; 32],
            authority: "abc".to_owned(),
            certificate: String::new(),
            private_key: String::new(),
        };
        let secret = hub_keys("acme", &owner, &keys);
        assert_eq!(secret.body["data"]["ca.crt"], "YWJj");
        assert!(secret.body["metadata"].get("ownerReferences").is_none());
    }
}
