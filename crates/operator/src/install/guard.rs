//! What rights alone can't say: where the operator may use the right to give rights, and on what.
//!
//! To work in a workspace's namespace the operator binds a role to itself there, so it must be able
//! to write RoleBindings anywhere, and a ClusterRole for each hub. Without more that is the whole
//! cluster for whoever takes the operator over. Policies, which the API server itself evaluates, hold
//! it to the namespaces that it made or that somebody labelled for a workspace: it gives no level of
//! pod security away, runs nothing that is more than a pod of its node, draws no other traffic to
//! itself, and gives others only what `build` gives them, so that nobody does for it what it may not.
//! They don't bound what it reads in those namespaces: who runs pods there can mount what lies there.
//! One more holds the hubs, whose right to delete pods would else be to delete anybody's.

use std::collections::{BTreeMap, BTreeSet};

use api::fleet::Role;
use api::kubernetes::{HUB, MANAGED_BY, WORKSPACE_LABEL};
use serde_json::{Value, json};

use super::{IN_WORKSPACE_ROLE, OPERATOR, Options, labels};
use crate::build;
use crate::object::MANAGER;

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const ENFORCE_VERSION: &str = "pod-security.kubernetes.io/enforce-version";

pub(super) fn objects(options: &Options) -> Vec<Value> {
    let policies = [
        rights(options),
        adoption(),
        cluster_rights(),
        workloads(),
        services(),
        monitors(),
        hubs_pods(),
    ];
    policies
        .into_iter()
        .flat_map(|policy| [policy.definition(options), policy.binding()])
        .collect()
}

#[derive(Clone, Copy)]
enum Whom {
    Operator,
    /// Those of every namespace, by the account that they have.
    Hubs,
}

struct Policy {
    name: &'static str,
    whom: Whom,
    rule: Value,
    /// What has to be true, and what is said otherwise.
    validations: Vec<(String, &'static str)>,
}

fn rights(options: &Options) -> Policy {
    let named = format!(
        "namespaceObject.metadata.name == {}",
        workspace("namespaceObject")
    );
    let mut rules = build::rights(Role::Owner);
    rules.extend(build::hub_rules(&BTreeSet::from([String::new()])));
    let subject = format!(
        "s.kind == 'ServiceAccount' && s.name == '{OPERATOR}' && s.namespace == '{}'",
        options.namespace
    );
    Policy {
        name: "mainstay-operator-rights",
        whom: Whom::Operator,
        rule: json!({
            "apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["v1"],
            "resources": ["rolebindings", "roles"],
            "operations": ["CREATE", "UPDATE", "DELETE"], "scope": "Namespaced",
        }),
        validations: vec![
            (
                named,
                "the operator grants rights only in namespaces of a workspace",
            ),
            (
                format!("object == null || {}", only(&rules)),
                "the operator's Roles hold what hubs and members need, and nothing else",
            ),
            (
                // Another that had its rights would be held by none of these policies.
                format!(
                    "object == null || !has(object.roleRef) || object.roleRef.kind == 'Role' || \
                     (object.roleRef.name == '{IN_WORKSPACE_ROLE}' && \
                     object.?subjects.orValue([]).all(s, {subject}))"
                ),
                "the operator binds a ClusterRole in a namespace only to itself",
            ),
        ],
    }
}

fn adoption() -> Policy {
    let (old, new) = (workspace("oldObject"), workspace("object"));
    let level = |object: &str| label(object, ENFORCE);
    let version = |object: &str| label(object, ENFORCE_VERSION);
    Policy {
        name: "mainstay-operator-adoption",
        whom: Whom::Operator,
        rule: json!({
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["namespaces"],
            "operations": ["CREATE", "UPDATE"], "scope": "Cluster",
        }),
        validations: vec![
            (
                format!(
                    "oldObject == null ? {new} == object.metadata.name : \
                     {old} == object.metadata.name && {new} in ['', {old}]"
                ),
                "the operator makes namespaces for workspaces, changes only those that are labelled for one, and gives that label to no other",
            ),
            (
                format!(
                    "oldObject == null ? {} == 'restricted' && {} == '' : \
                     {} in ['restricted', {}] && {} == {}",
                    level("object"),
                    version("object"),
                    level("object"),
                    level("oldObject"),
                    version("object"),
                    version("oldObject"),
                ),
                "the operator sets no level of pod security but restricted",
            ),
        ],
    }
}

fn cluster_rights() -> Policy {
    let named = |object: &str| format!("{object}.metadata.name.startsWith('{HUB}:')");
    Policy {
        name: "mainstay-operator-cluster-rights",
        whom: Whom::Operator,
        rule: json!({
            "apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["v1"],
            "resources": ["clusterroles", "clusterrolebindings"],
            "operations": ["CREATE", "UPDATE", "DELETE"], "scope": "Cluster",
        }),
        validations: vec![
            (
                // What is deleted has no `object`; a role has no `roleRef`.
                format!(
                    "object == null ? {} : {} && (!has(object.roleRef) || object.roleRef.name == object.metadata.name)",
                    named("oldObject"),
                    named("object")
                ),
                "the operator gives a hub the cluster role of its own name, and nobody any other",
            ),
            (
                // The rights that it has itself it could give on otherwise.
                format!("object == null || {}", only(&build::hub_cluster_rules(""))),
                "a hub's cluster role is to read its own Workspace, to say what it found of it, and to tell whose tokens are",
            ),
        ],
    }
}

/// Where a namespace's own level of pod security is weaker than ours.
fn workloads() -> Policy {
    let pod = "object.spec.template.spec";
    let context = |of: &str| format!("!has({of}.securityContext.seLinuxOptions)");
    Policy {
        name: "mainstay-operator-workloads",
        whom: Whom::Operator,
        rule: json!({
            "apiGroups": ["apps"], "apiVersions": ["v1"],
            "resources": ["deployments", "statefulsets"],
            "operations": ["CREATE", "UPDATE"], "scope": "Namespaced",
        }),
        validations: vec![
            (
                format!(
                    "!{pod}.?hostNetwork.orValue(false) && !{pod}.?hostPID.orValue(false) && \
                     !{pod}.?hostIPC.orValue(false) && {pod}.?volumes.orValue([]).all(v, \
                     has(v.configMap) || has(v.emptyDir) || has(v.projected) || has(v.secret))"
                ),
                "the operator's pods have nothing of their node",
            ),
            (
                format!(
                    "has({pod}.securityContext) && {} && \
                     {pod}.securityContext.?runAsNonRoot.orValue(false) && \
                     ({pod}.containers + {pod}.?initContainers.orValue([])).all(c, \
                     has(c.securityContext) && {} && \
                     c.securityContext.?runAsNonRoot.orValue(true) && \
                     !c.securityContext.?privileged.orValue(false) && \
                     !c.securityContext.?allowPrivilegeEscalation.orValue(true) && \
                     c.securityContext.?capabilities.?add.orValue([]).size() == 0)",
                    context(pod),
                    context("c"),
                ),
                "the operator's pods run without privileges",
            ),
        ],
    }
}

/// A Service can draw what others send to any address.
fn services() -> Policy {
    Policy {
        name: "mainstay-operator-services",
        whom: Whom::Operator,
        rule: json!({
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["services"],
            "operations": ["CREATE", "UPDATE"], "scope": "Namespaced",
        }),
        validations: vec![(
            "object.spec.?type.orValue('ClusterIP') == 'ClusterIP' && \
             object.spec.?externalIPs.orValue([]).size() == 0"
                .to_owned(),
            "the operator's Services are of the cluster, at addresses that it gives",
        )],
    }
}

/// Who says what Prometheus reads could have it send its own token, or read everywhere.
fn monitors() -> Policy {
    Policy {
        name: "mainstay-operator-monitors",
        whom: Whom::Operator,
        rule: json!({
            "apiGroups": ["monitoring.coreos.com"], "apiVersions": ["v1"],
            "resources": ["servicemonitors"],
            "operations": ["CREATE", "UPDATE"], "scope": "Namespaced",
        }),
        validations: vec![(
            "!has(object.spec.namespaceSelector) && object.spec.endpoints.all(e, \
             !has(e.bearerTokenFile) && !has(e.proxyUrl) && !(has(e.tlsConfig) && \
             (has(e.tlsConfig.caFile) || has(e.tlsConfig.certFile) || has(e.tlsConfig.keyFile))))"
                .to_owned(),
            "the operator's ServiceMonitors read its own namespace, and nothing of Prometheus's files",
        )],
    }
}

/// A namespace that was adopted has pods of others.
fn hubs_pods() -> Policy {
    Policy {
        name: "mainstay-hub-pods",
        whom: Whom::Hubs,
        rule: json!({
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"],
            "operations": ["DELETE"], "scope": "Namespaced",
        }),
        validations: vec![(
            format!("{} == '{MANAGER}'", label("oldObject", MANAGED_BY)),
            "a hub deletes pods that are Mainstay's, and nobody else's",
        )],
    }
}

fn label(object: &str, name: &str) -> String {
    format!("{object}.metadata.?labels[?'{name}'].orValue('')")
}

/// The workspace that a namespace is for; none is the empty name.
fn workspace(object: &str) -> String {
    label(object, WORKSPACE_LABEL)
}

/// That a role holds nothing but what these rules do; whatever has no rules is no role.
fn only(rules: &[Value]) -> String {
    let words = |rule: &Value, field: &str| -> Vec<String> {
        let words = rule[field].as_array().into_iter().flatten();
        words
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect()
    };
    let mut verbs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut urls = BTreeSet::new();
    for rule in rules {
        urls.extend(words(rule, "nonResourceURLs"));
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                let of_resource = verbs.entry(format!("{group}/{resource}")).or_default();
                of_resource.extend(words(rule, "verbs"));
            }
        }
    }
    let listed = |words: &BTreeSet<String>| {
        let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        format!("[{}]", words.join(", "))
    };
    let verbs: Vec<String> = verbs
        .iter()
        .map(|(resource, verbs)| format!("'{resource}': {}", listed(verbs)))
        .collect();
    let verbs = format!("{{{}}}", verbs.join(", "));
    format!(
        "object.?rules.orValue([]).all(r, \
         r.?nonResourceURLs.orValue([]).all(u, u in {} && r.verbs == ['get']) && \
         r.?apiGroups.orValue([]).all(g, r.?resources.orValue([]).all(o, \
         r.verbs.all(v, v in {verbs}[?g + '/' + o].orValue([])))))",
        listed(&urls)
    )
}

impl Policy {
    fn definition(&self, options: &Options) -> Value {
        let (name, who) = match self.whom {
            Whom::Operator => (
                "is-the-operator",
                format!(
                    "request.userInfo.username == 'system:serviceaccount:{}:{OPERATOR}'",
                    options.namespace
                ),
            ),
            Whom::Hubs => (
                "is-a-hub",
                format!(
                    "request.userInfo.username == \
                     'system:serviceaccount:' + request.namespace + ':{HUB}'"
                ),
            ),
        };
        let validations = self.validations.iter().map(|(expression, message)| {
            json!({"expression": expression, "message": message, "reason": "Forbidden"})
        });
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": self.name, "labels": labels()},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [self.rule]},
                "matchConditions": [{"name": name, "expression": who}],
                "validations": validations.collect::<Vec<Value>>(),
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
