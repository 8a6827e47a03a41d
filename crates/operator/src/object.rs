//! An object as it should be: what the operator makes, before any cluster has seen it.
//!
//! Built by `build`, compared and written by `apply`. Every object carries a hash of what it says,
//! so that nothing is written that is there already.

use std::fmt;

use aws_lc_rs::digest;
use kube::core::ApiResource;
use serde_json::{Map, Value, json};

use api::kubernetes::{COMPONENT, MANAGED_BY};

/// The annotation that holds the hash of what was applied.
pub const APPLIED: &str = "mainstay.dev/applied";
/// The value of the label `MANAGED_BY`.
pub const MANAGER: &str = "mainstay";

/// The kinds of objects that the operator makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Resource {
    CiliumNetworkPolicy,
    ClusterRole,
    ClusterRoleBinding,
    ConfigMap,
    Deployment,
    LimitRange,
    NetworkPolicy,
    PodDisruptionBudget,
    PrometheusRule,
    ResourceQuota,
    Role,
    RoleBinding,
    Secret,
    Service,
    ServiceAccount,
    ServiceMonitor,
    StatefulSet,
}

impl Resource {
    /// Those that others define, in a workspace's namespace, where their definitions are there.
    pub const OPTIONAL: [Resource; 3] = [
        Self::CiliumNetworkPolicy,
        Self::PrometheusRule,
        Self::ServiceMonitor,
    ];

    /// Those that lie in a workspace's namespace and are watched there. Secrets are not: the right
    /// to watch them is the right to read them all.
    pub const WATCHED: [Resource; 11] = [
        Self::ConfigMap,
        Self::Deployment,
        Self::LimitRange,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::ResourceQuota,
        Self::Role,
        Self::RoleBinding,
        Self::Service,
        Self::ServiceAccount,
        Self::StatefulSet,
    ];

    fn names(self) -> (&'static str, &'static str, &'static str) {
        const RBAC: &str = "rbac.authorization.k8s.io";
        const PROMETHEUS: &str = "monitoring.coreos.com";
        match self {
            Self::CiliumNetworkPolicy => {
                ("cilium.io", "CiliumNetworkPolicy", "ciliumnetworkpolicies")
            }
            Self::ClusterRole => (RBAC, "ClusterRole", "clusterroles"),
            Self::ClusterRoleBinding => (RBAC, "ClusterRoleBinding", "clusterrolebindings"),
            Self::ConfigMap => ("", "ConfigMap", "configmaps"),
            Self::Deployment => ("apps", "Deployment", "deployments"),
            Self::LimitRange => ("", "LimitRange", "limitranges"),
            Self::NetworkPolicy => ("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
            Self::PodDisruptionBudget => ("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::PrometheusRule => (PROMETHEUS, "PrometheusRule", "prometheusrules"),
            Self::ResourceQuota => ("", "ResourceQuota", "resourcequotas"),
            Self::Role => (RBAC, "Role", "roles"),
            Self::RoleBinding => (RBAC, "RoleBinding", "rolebindings"),
            Self::Secret => ("", "Secret", "secrets"),
            Self::Service => ("", "Service", "services"),
            Self::ServiceAccount => ("", "ServiceAccount", "serviceaccounts"),
            Self::ServiceMonitor => (PROMETHEUS, "ServiceMonitor", "servicemonitors"),
            Self::StatefulSet => ("apps", "StatefulSet", "statefulsets"),
        }
    }

    /// As written in `kind`.
    pub fn kind(self) -> &'static str {
        self.names().1
    }

    /// Whether its status says something that the operator reads.
    pub fn is_read_whole(self) -> bool {
        matches!(self, Self::Deployment | Self::StatefulSet | Self::Service)
    }

    pub fn api_resource(self) -> ApiResource {
        let (group, kind, plural) = self.names();
        let version = match self {
            Self::CiliumNetworkPolicy => "v2",
            _ => "v1",
        };
        resource(group, version, kind, plural)
    }
}

/// How a kind is reached at the API server.
pub(crate) fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())
    }
}

/// Whom an object belongs to: it goes when its owner goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub kind: api::Kind,
    pub name: String,
    pub uid: String,
}

/// An owner by kind and name: of a namespace and the cluster there is one at a time.
pub(crate) fn title(kind: &str, name: &str) -> String {
    format!("{kind}/{name}")
}

impl Owner {
    pub(crate) fn title(&self) -> String {
        title(self.kind.name(), &self.name)
    }

    pub(crate) fn reference(&self) -> Value {
        json!({
            "apiVersion": api::API_VERSION, "kind": self.kind.name(), "name": self.name,
            "uid": self.uid, "controller": true,
        })
    }
}

/// An object as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub resource: Resource,
    /// None for what is the cluster's.
    pub namespace: Option<String>,
    pub name: String,
    /// Whose it is, as [`Owner::title`] says it.
    pub owner: String,
    /// What its annotation [`APPLIED`] says.
    pub hash: String,
    /// The whole object.
    pub body: Value,
}

impl Object {
    /// Changes what it says, and its hash with it.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Value)) {
        change(&mut self.body);
        if let Some(metadata) = self.body["metadata"].as_object_mut() {
            metadata.shift_remove("annotations");
        }
        self.hash = hash(&self.body);
        self.body["metadata"]["annotations"] = json!({APPLIED: self.hash});
    }
}

/// Where an object lies and what it is part of.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pub namespace: Option<&'a str>,
    /// `hub`, `agent`, `tool` or `tenancy`.
    pub component: &'a str,
    pub owner: &'a Owner,
}

impl Place<'_> {
    /// An object there. `content` is everything but its type and metadata; `labels` are added to
    /// those that all have.
    pub fn object(
        &self,
        resource: Resource,
        name: &str,
        labels: &[(&str, &str)],
        content: Value,
    ) -> Object {
        let mut all = json!({MANAGED_BY: MANAGER, COMPONENT: self.component});
        for (label, value) in labels {
            all[*label] = Value::from(*value);
        }
        let mut metadata = json!({
            "name": name,
            "labels": all,
            "ownerReferences": [self.owner.reference()],
        });
        if let Some(namespace) = self.namespace {
            metadata["namespace"] = Value::from(namespace);
        }
        let api = resource.api_resource();
        let mut body = Map::new();
        body.insert("apiVersion".to_owned(), Value::from(api.api_version));
        body.insert("kind".to_owned(), Value::from(api.kind));
        body.insert("metadata".to_owned(), metadata);
        if let Value::Object(mut content) = content {
            body.append(&mut content);
        }
        let mut body = Value::Object(body);
        let hash = hash(&body);
        body["metadata"]["annotations"] = json!({APPLIED: hash});
        Object {
            resource,
            namespace: self.namespace.map(str::to_owned),
            name: name.to_owned(),
            owner: self.owner.title(),
            hash,
            body,
        }
    }
}

/// Sixteen hex digits that change when anything of it does. Objects are built in one order, so the
/// order of keys is no difference.
pub(crate) fn hash(value: &Value) -> String {
    let digest = digest::digest(&digest::SHA256, value.to_string().as_bytes());
    digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_says_whose_it_is_and_what_it_says() {
        let owner = Owner {
            kind: api::Kind::Agent,
            name: "helper".to_owned(),
            uid: "1-2".to_owned(),
        };
        let place = Place {
            namespace: Some("acme"),
            component: "agent",
            owner: &owner,
        };
        let make = |replicas: u32| {
            let content = json!({"spec": {"replicas": replicas}});
            place.object(Resource::Deployment, "helper", &[("a", "b")], content)
        };
        let object = make(1);
        assert_eq!(object.body["apiVersion"], "apps/v1");
        assert_eq!(object.body["metadata"]["labels"][MANAGED_BY], MANAGER);
        assert_eq!(object.body["metadata"]["labels"]["a"], "b");
        assert_eq!(object.body["metadata"]["ownerReferences"][0]["uid"], "1-2");
        assert_eq!(object.body["metadata"]["annotations"][APPLIED], object.hash);
        assert_eq!(object.hash, make(1).hash);
        assert_ne!(object.hash, make(2).hash);
    }
}
