//! What rights alone can't say: where the operator may use the right to give rights.
//!
//! To work in a workspace's namespace the operator binds a role to itself there, so it must be able
//! to write RoleBindings anywhere, and a ClusterRole for each hub. Without more that is every Secret
//! of the cluster for whoever takes the operator over. Three policies, which the API server itself
//! evaluates, hold it to the namespaces that it made or that somebody labelled for a workspace: it
//! may write RoleBindings and Roles only there, it may not put that label on a namespace that
//! exists, and of the cluster's rights it may touch only those named after hubs.

use api::kubernetes::{HUB, WORKSPACE_LABEL};
use serde_json::{Value, json};

use super::{OPERATOR, Options, labels};

pub(super) fn objects(options: &Options) -> Vec<Value> {
    [rights(), adoption(), cluster_rights()]
        .into_iter()
        .flat_map(|policy| [policy.definition(options), policy.binding()])
        .collect()
}

struct Policy {
    name: &'static str,
    rule: Value,
    expression: String,
    message: &'static str,
}

fn rights() -> Policy {
    Policy {
        name: "mainstay-operator-rights",
        rule: json!({
            "apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["v1"],
            "resources": ["rolebindings", "roles"],
            "operations": ["CREATE", "UPDATE", "DELETE"], "scope": "Namespaced",
        }),
        expression: labelled("namespaceObject"),
        message: "the operator grants rights only in namespaces of a workspace",
    }
}

fn adoption() -> Policy {
    let (old, new) = (labelled("oldObject"), labelled("object"));
    let of = |object: &str| format!("{object}.metadata.labels['{WORKSPACE_LABEL}']");
    Policy {
        name: "mainstay-operator-adoption",
        rule: json!({
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["namespaces"],
            "operations": ["UPDATE"], "scope": "Cluster",
        }),
        expression: format!(
            "{old} && (!({new}) || {} == {})",
            of("object"),
            of("oldObject")
        ),
        message: "the operator changes only namespaces that are labelled for a workspace, and gives that label to none",
    }
}

fn cluster_rights() -> Policy {
    let named = |object: &str| format!("{object}.metadata.name.startsWith('{HUB}:')");
    Policy {
        name: "mainstay-operator-cluster-rights",
        rule: json!({
            "apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["v1"],
            "resources": ["clusterroles", "clusterrolebindings"],
            "operations": ["CREATE", "UPDATE", "DELETE"], "scope": "Cluster",
        }),
        // What is deleted has no `object`; a role has no `roleRef`.
        expression: format!(
            "object == null ? {} : {} && (!has(object.roleRef) || object.roleRef.name == object.metadata.name)",
            named("oldObject"),
            named("object")
        ),
        message: "the operator gives a hub the cluster role of its own name, and nobody any other",
    }
}

fn labelled(object: &str) -> String {
    format!("has({object}.metadata.labels) && '{WORKSPACE_LABEL}' in {object}.metadata.labels")
}

impl Policy {
    fn definition(&self, options: &Options) -> Value {
        let user = format!("system:serviceaccount:{}:{OPERATOR}", options.namespace);
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": self.name, "labels": labels()},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [self.rule]},
                "matchConditions": [{
                    "name": "is-the-operator",
                    "expression": format!("request.userInfo.username == '{user}'"),
                }],
                "validations": [{
                    "expression": self.expression, "message": self.message, "reason": "Forbidden",
                }],
            },
        })
    }

    fn binding(&self) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": self.name, "labels": labels()},
            "spec": {"policyName": self.name, "validationActions": ["Deny"]},
        })
    }
}
