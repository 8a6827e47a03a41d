//! What `smoke` gives to Kubernetes.

use serde_json::{Value, json};

pub fn pod_name(node: &str) -> String {
    format!("probe-{node}")
}

/// A pod that serves on a node.
pub fn pod(node: &str, image: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": pod_name(node), "labels": { "app": "probe" } },
        "spec": {
            "nodeSelector": { "kubernetes.io/hostname": node },
            "terminationGracePeriodSeconds": 1,
            "containers": [container(image)],
        },
    })
}

fn container(image: &str) -> Value {
    json!({
        "name": "probe",
        "image": image,
        "args": ["serve", ":8080"],
        "imagePullPolicy": "IfNotPresent",
        "readinessProbe": { "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 },
    })
}

/// All of them by one name.
pub fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "probe" },
        "spec": { "selector": { "app": "probe" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
    })
}

/// One pod that would rather be on that node, and leaves it three seconds after it's given up.
pub fn mover(node: &str, image: &str) -> Value {
    let labels = json!({ "app": "mover" });
    let here = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] });
    let leave = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3 });
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "mover" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "affinity": { "nodeAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            { "weight": 100, "preference": { "matchExpressions": [here] } },
                        ],
                    } },
                    "tolerations": [
                        leave("node.kubernetes.io/unreachable"),
                        leave("node.kubernetes.io/not-ready"),
                    ],
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container(image)],
                },
            },
        },
    })
}
