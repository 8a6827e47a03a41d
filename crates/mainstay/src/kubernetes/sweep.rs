//! What Mainstay has in a cluster beside its installation, and how it goes while the data stays.
//!
//! Data are the claims of volumes, and the Secret with a hub's key, without which its log can't be
//! signed further nor its secrets read. They never go here, and neither do the namespaces they lie
//! in. What has an owner that is deleted would go with it, so data lose their owners first.

use std::time::Duration;

use api::kubernetes::{COMPONENT, GROUP, HUB, MANAGED_BY, VERSION, WORKSPACE_LABEL};
use kube::api::PropagationPolicy;
use operator::install::FIELD_MANAGER;
use serde_json::{Value, json};

use super::cluster::{Cluster, Reference, wait_until};
use super::status::IN_NAMESPACES;
use crate::exit::Failure;

/// How long the operator has to undo what it made, and pods to end.
const PATIENCE: Duration = Duration::from_secs(90);

/// Kinds that a workspace's namespace may hold of ours, workloads first.
const MADE: [(&str, &str); 12] = [
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    ("v1", "ResourceQuota"),
    ("v1", "LimitRange"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
];

/// A fleet in a cluster.
pub struct Found {
    /// Agents, tools, prompts and providers.
    pub objects: Vec<Reference>,
    pub workspaces: Vec<Reference>,
    /// Namespaces that belong to a workspace, or did.
    pub namespaces: Vec<String>,
    /// What stays.
    pub data: Vec<Reference>,
}

impl Found {
    pub async fn look(cluster: &Cluster) -> Result<Self, Failure> {
        let kind = format!("{GROUP}/{VERSION}");
        let mut objects = Vec::new();
        for name in IN_NAMESPACES {
            objects.extend(references(&cluster.list((&kind, name), None, "").await?));
        }
        let workspaces = cluster.list((&kind, "Workspace"), None, "").await?;
        let labelled = cluster
            .list(("v1", "Namespace"), None, WORKSPACE_LABEL)
            .await?;
        let mut namespaces: Vec<String> = references(&labelled)
            .map(|namespace| namespace.name)
            .collect();
        namespaces.sort();
        let mut data = Vec::new();
        for namespace in &namespaces {
            data.extend(data_in(cluster, namespace).await?);
        }
        Ok(Self {
            objects,
            workspaces: references(&workspaces).collect(),
            namespaces,
            data,
        })
    }
}

async fn data_in(cluster: &Cluster, namespace: &str) -> Result<Vec<Reference>, Failure> {
    let claims = cluster
        .list(("v1", "PersistentVolumeClaim"), Some(namespace), "")
        .await?;
    let mut data: Vec<Reference> = references(&claims).collect();
    let key = secret(namespace);
    if !data.is_empty() && cluster.get(&key).await?.is_some() {
        data.push(key);
    }
    Ok(data)
}

fn secret(namespace: &str) -> Reference {
    Reference {
        api_version: "v1".into(),
        kind: "Secret".into(),
        namespace: Some(namespace.into()),
        name: HUB.into(),
    }
}

fn references(objects: &[Value]) -> impl Iterator<Item = Reference> {
    objects.iter().map(Reference::of)
}

/// Deletes the fleet's objects while the operator still runs, so that it can undo what it did
/// outside of the cluster; gives those that had to go without it.
pub async fn delete_objects(cluster: &Cluster, found: &Found) -> Result<Vec<Reference>, Failure> {
    for of in &found.objects {
        cluster.delete(of, PropagationPolicy::Background).await?;
    }
    gone_or_freed(cluster, &found.objects).await
}

/// Deletes workspaces once no operator runs any more. What they own is left to `sweep`.
pub async fn delete_workspaces(cluster: &Cluster, found: &Found) -> Result<(), Failure> {
    for of in &found.data {
        disown(cluster, of).await?;
    }
    for namespace in &found.namespaces {
        disown(cluster, &namespace_reference(namespace)).await?;
    }
    for of in &found.workspaces {
        // Nobody is left who could undo anything.
        free(cluster, of).await?;
        cluster.delete(of, PropagationPolicy::Orphan).await?;
    }
    gone_or_freed(cluster, &found.workspaces).await.map(drop)
}

/// Takes what the operator made in a workspace's namespace, and its marks on the namespace itself.
pub async fn sweep(cluster: &Cluster, namespace: &str, keep: &[Reference]) -> Result<(), Failure> {
    let ours = format!("{MANAGED_BY}=mainstay");
    let mut going = Vec::new();
    for kind in MADE {
        let made = cluster.list(kind, Some(namespace), &ours).await?;
        going.extend(references(&made).filter(|of| !keep.contains(of)));
    }
    for of in &going {
        cluster.delete(of, PropagationPolicy::Background).await?;
    }
    wait_gone(cluster, &going).await?;
    for manager in [operator::FIELD_MANAGER, FIELD_MANAGER] {
        // Applying nothing gives up every field that this manager alone has.
        let bare =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        cluster.apply(&bare, manager, false).await?;
    }
    Ok(())
}

/// What hubs have outside of namespaces.
pub async fn sweep_cluster(cluster: &Cluster) -> Result<(), Failure> {
    let of_hubs = format!("{MANAGED_BY}=mainstay,{COMPONENT}=hub");
    for kind in ["ClusterRoleBinding", "ClusterRole"] {
        let kind = ("rbac.authorization.k8s.io/v1", kind);
        for of in references(&cluster.list(kind, None, &of_hubs).await?) {
            cluster.delete(&of, PropagationPolicy::Background).await?;
        }
    }
    Ok(())
}

/// Waits until they are gone; those that somebody holds back too long lose what holds them, if
/// that is ours.
async fn gone_or_freed(cluster: &Cluster, all: &[Reference]) -> Result<Vec<Reference>, Failure> {
    let stuck = wait_gone(cluster, all).await?;
    for of in &stuck {
        free(cluster, of).await?;
    }
    wait_gone(cluster, &stuck).await?;
    Ok(stuck)
}

/// Gives those that are still there when the time is up.
pub async fn wait_gone(cluster: &Cluster, all: &[Reference]) -> Result<Vec<Reference>, Failure> {
    let mut left = all.to_vec();
    wait_until(PATIENCE, async || {
        let mut still = Vec::new();
        for of in &left {
            if cluster.get(of).await?.is_some() {
                still.push(of.clone());
            }
        }
        left = still;
        Ok(left.is_empty().then_some(()))
    })
    .await?;
    Ok(left)
}

/// Takes our own finalizers off an object, nobody else's.
async fn free(cluster: &Cluster, of: &Reference) -> Result<(), Failure> {
    let Some(object) = cluster.get(of).await? else {
        return Ok(());
    };
    let held = object
        .pointer("/metadata/finalizers")
        .and_then(Value::as_array);
    let held = held.map_or(&[][..], Vec::as_slice);
    let of_others: Vec<&Value> = held.iter().filter(|name| !is_ours(name)).collect();
    if of_others.len() == held.len() {
        return Ok(());
    }
    let patch = json!({"metadata": {
        "finalizers": of_others,
        "resourceVersion": object.pointer("/metadata/resourceVersion"),
    }});
    cluster.merge(of, &patch).await
}

fn is_ours(finalizer: &Value) -> bool {
    let name = finalizer.as_str().unwrap_or_default();
    name.split('/').next().is_some_and(|domain| domain == GROUP)
}

/// Takes our own kinds out of an object's owners, so that it doesn't go with them.
async fn disown(cluster: &Cluster, of: &Reference) -> Result<(), Failure> {
    let Some(object) = cluster.get(of).await? else {
        return Ok(());
    };
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let owners = owners.map_or(&[][..], Vec::as_slice);
    let of_others: Vec<&Value> = owners.iter().filter(|owner| !is_our_kind(owner)).collect();
    if of_others.len() == owners.len() {
        return Ok(());
    }
    cluster
        .merge(of, &json!({"metadata": {"ownerReferences": of_others}}))
        .await
}

fn is_our_kind(owner: &Value) -> bool {
    let api_version = owner.get("apiVersion").and_then(Value::as_str);
    api_version.is_some_and(|version| version.starts_with(&format!("{GROUP}/")))
}

fn namespace_reference(name: &str) -> Reference {
    Reference {
        api_version: "v1".into(),
        kind: "Namespace".into(),
        namespace: None,
        name: name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_holds_are_taken_off() {
        assert!(is_ours(&json!("mainstay.dev/agent")));
        assert!(!is_ours(&json!("foregroundDeletion")));
        assert!(!is_ours(&json!("not-mainstay.dev/agent")));
        assert!(is_our_kind(
            &json!({"apiVersion": "mainstay.dev/v1alpha1", "kind": "Workspace"})
        ));
        assert!(!is_our_kind(
            &json!({"apiVersion": "apps/v1", "kind": "StatefulSet"})
        ));
    }
}
