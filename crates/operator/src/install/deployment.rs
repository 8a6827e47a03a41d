//! The operator's own workload: a Deployment, and a disruption budget where there are several.
//!
//! It runs under the restricted profile with a read-only root; the API server is all it talks to.

use serde_json::{Value, json};

use super::admission::{ADMISSION_PORT, AUTHORITY, AUTHORITY_FOLDER};
use super::{OPERATOR, Options, VERSION_LABEL, labels};

/// Where the operator answers probes and shows its metrics.
pub const HTTP_PORT: u16 = 8080;

pub(super) fn objects(options: &Options) -> Vec<Value> {
    let mut objects = vec![deployment(options)];
    if options.replicas > 1 {
        objects.push(disruption_budget(options));
    }
    objects
}

fn deployment(options: &Options) -> Value {
    let selector = json!({"app.kubernetes.io/name": OPERATOR});
    let mut versioned = labels();
    versioned[VERSION_LABEL] = env!("CARGO_PKG_VERSION").into();
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": OPERATOR, "namespace": options.namespace, "labels": versioned},
        "spec": {
            "replicas": options.replicas,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": labels(), "annotations": {
                    "kubectl.kubernetes.io/default-container": "operator",
                }},
                "spec": pod(options),
            },
        },
    })
}

fn pod(options: &Options) -> Value {
    json!({
        "serviceAccountName": OPERATOR,
        "enableServiceLinks": false,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(options)],
        // Without an authority there is no webhook.
        "volumes": [{"name": "authority", "secret": {
            "secretName": AUTHORITY, "optional": true, "defaultMode": 0o440,
        }}],
        "topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app.kubernetes.io/name": OPERATOR}},
        }],
    })
}

fn container(options: &Options) -> Value {
    let of_pod = |field: &str| json!({"fieldRef": {"fieldPath": field}});
    json!({
        "name": "operator",
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["operator"],
        "env": [
            {"name": "POD_NAME", "valueFrom": of_pod("metadata.name")},
            {"name": "POD_NAMESPACE", "valueFrom": of_pod("metadata.namespace")},
            // What hubs, shims and built-in agents run is this operator's own image.
            {"name": "MAINSTAY_IMAGE", "value": options.image},
            {"name": "MAINSTAY_IMAGE_PREFIX", "value": options.image_prefix.as_deref().unwrap_or_default()},
        ],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "admission", "containerPort": ADMISSION_PORT},
        ],
        "volumeMounts": [
            {"name": "authority", "mountPath": AUTHORITY_FOLDER, "readOnly": true},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 2},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http"},
            "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6,
        },
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    })
}

fn disruption_budget(options: &Options) -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "metadata": {"name": OPERATOR, "namespace": options.namespace, "labels": labels()},
        "spec": {
            "minAvailable": 1,
            "selector": {"matchLabels": {"app.kubernetes.io/name": OPERATOR}},
        },
    })
}
