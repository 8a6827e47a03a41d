//! The operator's rights as objects, and what people's rights on the cluster mean for a fleet.
//!
//! What the operator may do is said by `crate::rbac`. What it needs inside a workspace's namespace
//! it binds to itself there, one namespace at a time, when the workspace is adopted; `guard` says
//! where it may, also if it was taken over.

use api::kubernetes::GROUP;
use serde_json::{Value, json};

use super::{OPERATOR, Options, labels};
use crate::build::{on_tasks, reach};
use crate::rbac::{IN_NAMESPACES, READ, rule};

/// What the operator may do everywhere.
pub const OPERATOR_ROLE: &str = "mainstay-operator";
/// What it may do in the namespace of a workspace.
pub const IN_WORKSPACE_ROLE: &str = "mainstay-operator-in-workspace";

pub(super) fn objects(options: &Options) -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": OPERATOR, "namespace": options.namespace, "labels": labels()},
        }),
        cluster_role(OPERATOR_ROLE, crate::rbac::cluster_role().into()),
        cluster_role(IN_WORKSPACE_ROLE, crate::rbac::namespace_role().into()),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": OPERATOR_ROLE, "labels": labels()},
            "roleRef": role_ref("ClusterRole", OPERATOR_ROLE),
            "subjects": [subject(options)],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": OPERATOR, "namespace": options.namespace, "labels": labels()},
            "rules": at_home(),
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": OPERATOR, "namespace": options.namespace, "labels": labels()},
            "roleRef": role_ref("Role", OPERATOR),
            "subjects": [subject(options)],
        }),
        for_people("view", &READ),
        for_people("edit", &["create", "update", "patch", "delete"]),
    ]
}

/// One operator leads, by a lease beside it.
fn at_home() -> Value {
    json!([rule(
        &["coordination.k8s.io"],
        &["leases"],
        &["get", "create", "update", "patch"]
    )])
}

/// Who may view or edit a namespace's workloads may do so with its agents and their tasks;
/// workspaces are the cluster's and stay with its administrators.
fn for_people(aggregate: &str, verbs: &[&str]) -> Value {
    let mut rules = vec![
        rule(&[GROUP], &IN_NAMESPACES, verbs),
        rule(&[GROUP], &["agents/scale"], scale_verbs(aggregate)),
        on_tasks(task_verbs(aggregate)),
    ];
    if aggregate == "view" {
        rules.extend(reach());
    }
    let mut role = cluster_role(&format!("mainstay-{aggregate}"), rules.into());
    let aggregates: &[&str] = match aggregate {
        "view" => &["view", "edit", "admin"],
        _ => &["edit", "admin"],
    };
    for to in aggregates {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{to}");
        role["metadata"]["labels"][label] = "true".into();
    }
    role
}

fn scale_verbs(aggregate: &str) -> &'static [&'static str] {
    match aggregate {
        "view" => &["get"],
        _ => &["update", "patch"],
    }
}

fn task_verbs(aggregate: &str) -> &'static [&'static str] {
    match aggregate {
        "view" => &["get"],
        _ => &["create", "update", "delete"],
    }
}

fn cluster_role(name: &str, rules: Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": name, "labels": labels()},
        "rules": rules,
    })
}

fn role_ref(kind: &str, name: &str) -> Value {
    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name})
}

fn subject(options: &Options) -> Value {
    json!({"kind": "ServiceAccount", "name": OPERATOR, "namespace": options.namespace})
}
