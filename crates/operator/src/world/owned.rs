//! An object that the operator made, as far as it needs to know it again.

use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use serde_json::Value;

use api::kubernetes::MANAGED_BY;

use crate::FIELD_MANAGER;
use crate::object::{APPLIED, MANAGER, title};

/// What is kept of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Owned {
    pub(crate) resource_version: u64,
    pub(crate) hash: Option<String>,
    pub(crate) owner_uid: Option<String>,
    /// Its kind and name, as [`Owner::title`] writes them.
    ///
    /// [`Owner::title`]: crate::object::Owner::title
    pub(crate) owner: Option<Box<str>>,
    pub(crate) is_ours: bool,
    pub(crate) deleting: bool,
    pub(crate) generation: i64,
    /// The generation that our own last write in this process led to.
    pub(crate) applied_generation: Option<i64>,
    /// When somebody else wrote it after us, and who.
    pub(crate) foreign: Option<(Timestamp, String)>,
    /// The foreign write that has been answered.
    pub(crate) answered: Option<Timestamp>,
    /// For Deployments and StatefulSets.
    pub(crate) workload: Option<Workload>,
    /// For Services.
    pub(crate) cluster_ip: Option<String>,
}

/// How a Deployment or StatefulSet does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) wanted: i64,
    pub(crate) replicas: i64,
    pub(crate) ready: i64,
    pub(crate) updated: i64,
    /// Whether its controller has seen what was last written.
    pub(crate) is_observed: bool,
    /// What the claim of its volume asks for, if it has one.
    pub(crate) claim_bytes: Option<u64>,
    /// Why pods can't be made.
    pub(crate) failure: Option<String>,
}

impl Owned {
    pub(crate) fn read(metadata: &ObjectMeta, data: &Value) -> Self {
        let labels = metadata.labels.as_ref();
        let annotations = metadata.annotations.as_ref();
        let owners = metadata.owner_references.iter().flatten();
        let mut controllers = owners.filter(|owner| owner.controller == Some(true));
        let owner = controllers.next();
        let generation = metadata.generation.unwrap_or_default();
        let ip = data["spec"]["clusterIP"].as_str();
        Self {
            resource_version: version(metadata),
            hash: annotations.and_then(|all| all.get(APPLIED)).cloned(),
            owner_uid: owner.map(|owner| owner.uid.clone()),
            owner: owner.map(|owner| title(&owner.kind, &owner.name).into()),
            is_ours: labels
                .and_then(|all| all.get(MANAGED_BY))
                .map(String::as_str)
                == Some(MANAGER),
            deleting: metadata.deletion_timestamp.is_some(),
            generation,
            applied_generation: None,
            foreign: foreign(metadata),
            answered: None,
            workload: workload(data, generation),
            cluster_ip: ip.filter(|ip| *ip != "None").map(str::to_owned),
        }
    }

    /// A later look at it; an earlier one is passed over.
    pub(super) fn replace(&mut self, later: Self) {
        let applied_generation = later.applied_generation.or(self.applied_generation);
        let answered = later.answered.or(self.answered);
        if later.resource_version < self.resource_version {
            // The answer to our own write may come after what somebody else did next.
            self.applied_generation = applied_generation;
            self.answered = answered;
            return;
        }
        *self = Self {
            applied_generation,
            answered,
            ..later
        };
    }

    /// Whether we made it for this owner, or for none, or for one that had its name before it.
    pub(crate) fn is_for(&self, owner: &str) -> bool {
        self.is_ours && self.owner.as_deref().is_none_or(|own| own == owner)
    }

    /// Whether it isn't any more what was written: by its content, or because of somebody else.
    pub(crate) fn differs(&self, hash: &str) -> bool {
        self.hash.as_deref() != Some(hash) || self.is_meddled_with()
    }

    /// Whether somebody else wrote it since, and that hasn't been answered.
    pub(crate) fn is_meddled_with(&self) -> bool {
        let later = self
            .foreign
            .as_ref()
            .is_some_and(|(time, _)| Some(*time) != self.answered);
        let changed = self
            .applied_generation
            .is_some_and(|own| own != self.generation);
        later || changed
    }
}

/// Of two looks at an object the later has the greater.
pub(super) fn version(metadata: &ObjectMeta) -> u64 {
    let version = metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// The last write of the object itself by somebody else after our own. Kubernetes' controllers
/// write annotations of theirs, which is no meddling.
fn foreign(metadata: &ObjectMeta) -> Option<(Timestamp, String)> {
    let mut own = None;
    let mut last: Option<(Timestamp, String)> = None;
    for entry in metadata.managed_fields.iter().flatten() {
        let whole = entry.subresource.as_deref().unwrap_or_default().is_empty();
        let Some(time) = entry.time.as_ref().map(|time| time.0).filter(|_| whole) else {
            continue;
        };
        match entry.manager.as_deref().unwrap_or_default() {
            FIELD_MANAGER => own = own.max(Some(time)),
            "kube-controller-manager" => {}
            manager if last.as_ref().is_none_or(|(before, _)| *before < time) => {
                last = Some((time, manager.to_owned()));
            }
            _ => {}
        }
    }
    // Times are whole seconds: in the same one it may have been later.
    last.filter(|(time, _)| own.is_none_or(|own| own <= *time))
}

fn workload(data: &Value, generation: i64) -> Option<Workload> {
    let (spec, status) = (data.get("spec")?, &data["status"]);
    // A Deployment or StatefulSet has a template; a Service has none.
    spec.get("template")?;
    let number = |name: &str| status[name].as_i64().unwrap_or_default();
    let conditions = status["conditions"].as_array();
    let failure = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True");
    let claim = &spec["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
    let claim = claim.as_str().and_then(api::quantity::Quantity::parse);
    Some(Workload {
        claim_bytes: claim.map(|claim| claim.bytes),
        wanted: spec["replicas"].as_i64().unwrap_or(1),
        replicas: number("replicas"),
        ready: number("readyReplicas"),
        updated: number("updatedReplicas"),
        is_observed: number("observedGeneration") >= generation,
        failure: failure.map(|it| it["message"].as_str().unwrap_or_default().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(managed: Value, generation: i64) -> Owned {
        let metadata = json!({
            "name": "a", "resourceVersion": "7", "generation": generation,
            "labels": {MANAGED_BY: MANAGER}, "annotations": {APPLIED: "abc"},
            "managedFields": managed,
        });
        Owned::read(&serde_json::from_value(metadata).unwrap(), &json!({}))
    }

    fn entry(manager: &str, time: &str, subresource: &str) -> Value {
        json!({"manager": manager, "time": time, "subresource": subresource, "operation": "Update"})
    }

    #[test]
    fn a_write_by_somebody_else_after_ours_is_meddling_until_it_is_answered() {
        let ours = entry(FIELD_MANAGER, "2026-01-01T00:00:05Z", "");
        let status = entry("kubelet", "2026-01-01T00:00:09Z", "status");
        let earlier = entry("kubectl", "2026-01-01T00:00:01Z", "");
        let quiet = read(json!([ours, status, earlier]), 1);
        assert!(quiet.is_ours && !quiet.differs("abc") && quiet.differs("abd"));
        let later = entry("kubectl-edit", "2026-01-01T00:00:08Z", "");
        let mut meddled = read(json!([ours, later]), 1);
        assert!(meddled.differs("abc"));
        let (time, manager) = meddled.foreign.clone().unwrap();
        assert_eq!(manager, "kubectl-edit");
        meddled.answered = Some(time);
        assert!(!meddled.differs("abc"));
    }

    #[test]
    fn a_generation_that_our_write_did_not_make_is_meddling() {
        let mut ours = read(json!([]), 2);
        ours.applied_generation = Some(2);
        assert!(!ours.differs("abc"));
        ours.replace(Owned {
            resource_version: 9,
            ..read(json!([]), 3)
        });
        assert!(ours.differs("abc"));
        let before = ours.clone();
        ours.replace(read(json!([]), 2));
        assert_eq!(ours, before, "an earlier look is passed over");
        // Ours is answered after somebody else's write was seen.
        let mut theirs = Owned {
            resource_version: 9,
            ..read(json!([]), 3)
        };
        theirs.replace(Owned {
            applied_generation: Some(2),
            ..read(json!([]), 2)
        });
        assert!(theirs.differs("abc"));
    }

    #[test]
    fn what_was_made_for_another_is_not_for_this_owner() {
        let owned = |kind: &str, name: &str| {
            let metadata = json!({
                "name": "mainstay-hub", "labels": {MANAGED_BY: MANAGER},
                "ownerReferences": [{
                    "apiVersion": "mainstay.dev/v1alpha1", "kind": kind, "name": name, "uid": "1",
                    "controller": true,
                }],
            });
            Owned::read(&serde_json::from_value(metadata).unwrap(), &json!({}))
        };
        let of_workspace = owned("Workspace", "acme");
        assert!(of_workspace.is_for("Workspace/acme"));
        assert!(!of_workspace.is_for("Agent/acme"));
        assert!(!of_workspace.is_for("Agent/mainstay-hub"));
        assert!(!owned("ToolRegistry", "desk").is_for("ToolRegistry/other"));
        // One without an owner, as the hub's keys are.
        assert!(read(json!([]), 1).is_for("Workspace/acme"));
    }

    #[test]
    fn a_deployment_says_why_it_has_no_pods() {
        let data = json!({
            "spec": {"replicas": 3, "template": {}},
            "status": {"observedGeneration": 4, "replicas": 1, "conditions": [
                {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: tenant"},
            ]},
        });
        let workload = workload(&data, 4).unwrap();
        assert_eq!(workload.failure.as_deref(), Some("exceeded quota: tenant"));
        assert!(workload.is_observed);
        assert_eq!((workload.wanted, workload.ready), (3, 0));
    }
}
