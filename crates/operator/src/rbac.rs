//! What the operator may do: little everywhere, and what it needs in the namespaces of workspaces.
//!
//! It binds its second role to itself when it adopts a namespace. There it may make hubs' and
//! members' Roles by name, although it hasn't their rights itself. Of Secrets it can read the hub's
//! alone, which keeps it from others as long as it is what it was installed as; whoever took it over
//! could mount any of a workspace's namespace into a pod, or give itself a member's rights there. How
//! far that reaches is `install::guard`'s: no further than those namespaces.

use api::kubernetes::{CLIENTS, GROUP, HUB};
use serde_json::{Value, json};

use crate::build::{HUB_METRICS, ROLES, role_name};
use crate::install::{IN_WORKSPACE_ROLE, OPERATOR};
use crate::object::{Object, Owner, Place, Resource};

pub(crate) const READ: [&str; 3] = ["get", "list", "watch"];
const KEEP: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];
const RBAC: &str = "rbac.authorization.k8s.io";
const KINDS: [&str; 5] = {
    let [agents, providers, packs, registries] = IN_NAMESPACES;
    [agents, providers, packs, registries, "workspaces"]
};
/// The kinds whose objects lie in namespaces, as rights name them; Workspaces are the cluster's.
pub(crate) const IN_NAMESPACES: [&str; 4] =
    ["agents", "providers", "promptpacks", "toolregistries"];

pub(crate) fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

pub(crate) fn named(group: &str, resource: &str, names: &[&str], verbs: &[&str]) -> Value {
    json!({
        "apiGroups": [group], "resources": [resource], "resourceNames": names, "verbs": verbs,
    })
}

/// What it may do everywhere.
pub fn cluster_role() -> Vec<Value> {
    let status = KINDS.map(|kind| format!("{kind}/status"));
    let status: Vec<&str> = status.iter().map(String::as_str).collect();
    let finalizers = KINDS.map(|kind| format!("{kind}/finalizers"));
    let finalizers: Vec<&str> = finalizers.iter().map(String::as_str).collect();
    vec![
        rule(&[GROUP], &KINDS, &READ),
        rule(&[GROUP], &status, &["get", "patch"]),
        rule(&[GROUP], &finalizers, &["update"]),
        // The finalizer of one that adopted a namespace.
        rule(&[GROUP], &["workspaces"], &["patch"]),
        rule(
            &[""],
            &["namespaces"],
            &["get", "list", "watch", "create", "patch"],
        ),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch"]),
        // Where the API server is, which hubs may reach.
        named("discovery.k8s.io", "endpointslices", &["kubernetes"], &READ),
        // To adopt a namespace; `bind` is the leave for one role that it hasn't everywhere.
        rule(&[RBAC], &["rolebindings"], &["get", "create", "patch"]),
        named(RBAC, "clusterroles", &[IN_WORKSPACE_ROLE], &["bind"]),
        // A hub's right to its own Workspace: Kubernetes lets it give no right that it hasn't.
        rule(
            &[RBAC],
            &["clusterroles", "clusterrolebindings"],
            &["get", "create", "patch", "delete"],
        ),
        json!({
            "nonResourceURLs": ["/openid/v1/jwks", "/.well-known/openid-configuration"],
            "verbs": ["get"],
        }),
    ]
    .into_iter()
    .chain(identify())
    .collect()
}

/// To tell whose a token is. It is a hub's; the operator has it to be able to give it.
pub(crate) fn identify() -> [Value; 2] {
    [
        rule(&["authentication.k8s.io"], &["tokenreviews"], &["create"]),
        // That the policy is there by which tokens of `CLIENTS` say the truth.
        json!({
            "apiGroups": ["admissionregistration.k8s.io"], "resourceNames": [CLIENTS],
            "resources": ["validatingadmissionpolicies", "validatingadmissionpolicybindings"],
            "verbs": ["get"],
        }),
    ]
}

/// What it may do in the namespace of a workspace.
pub fn namespace_role() -> Vec<Value> {
    let roles: Vec<&str> = std::iter::once(HUB).chain(ROLES.map(role_name)).collect();
    vec![
        rule(&["apps"], &["deployments", "statefulsets"], &KEEP),
        rule(
            &[""],
            &[
                "configmaps",
                "limitranges",
                "resourcequotas",
                "serviceaccounts",
                "services",
            ],
            &KEEP,
        ),
        rule(&[""], &["pods"], &READ),
        rule(&["networking.k8s.io"], &["networkpolicies"], &KEEP),
        rule(&["policy"], &["poddisruptionbudgets"], &KEEP),
        rule(&[RBAC], &["roles", "rolebindings"], &KEEP),
        named(RBAC, "roles", &roles, &["bind", "escalate"]),
        // A creation has no name yet that a right could be bound to.
        rule(&[""], &["secrets"], &["create"]),
        named("", "secrets", &[HUB], &["get"]),
        // Where there is a Prometheus: what it shows to read a hub's metrics.
        named("", "secrets", &[HUB_METRICS], &["get", "patch", "delete"]),
        rule(
            &["monitoring.coreos.com"],
            &["prometheusrules", "servicemonitors"],
            &KEEP,
        ),
        rule(&["cilium.io"], &["ciliumnetworkpolicies"], &KEEP),
    ]
}

/// The binding that is made when a namespace is adopted.
pub(crate) fn in_namespace(namespace: &str, owner: &Owner, operator: &str) -> Object {
    let place = Place {
        namespace: Some(namespace),
        component: "tenancy",
        owner,
    };
    let content = json!({
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": IN_WORKSPACE_ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": OPERATOR, "namespace": operator}],
    });
    place.object(Resource::RoleBinding, IN_WORKSPACE_ROLE, &[], content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_read_but_the_hubs_own_and_only_in_a_workspace() {
        let everywhere = Value::from(cluster_role()).to_string();
        assert!(
            !everywhere.contains("secrets") && !everywhere.contains('*'),
            "{everywhere}"
        );
        let secrets = namespace_role()
            .into_iter()
            .filter(|rule| rule["resources"] == json!(["secrets"]));
        for rule in secrets {
            let reads = rule["verbs"] != json!(["create"]);
            let own = [json!([HUB]), json!([HUB_METRICS])];
            assert_eq!(reads, own.contains(&rule["resourceNames"]), "{rule}");
        }
    }
}
