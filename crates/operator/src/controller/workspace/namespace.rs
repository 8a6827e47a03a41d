//! Whose namespace it is, and making it the workspace's.

use api::kubernetes::{MANAGED_BY, WORKSPACE_LABEL};
use kube::api::{Api, Patch, PatchParams};
use kube::core::{DynamicObject, PartialObjectMeta};
use serde_json::{Value, json};

use crate::FIELD_MANAGER;
use crate::context::Context;
use crate::error::Error;
use crate::object::{MANAGER, Owner, resource};
use crate::verdict::Verdict;

const ENFORCE: &str = "pod-security.kubernetes.io/enforce";
const RESTRICTED: &str = "restricted";

/// A namespace that is there.
pub(super) struct Namespace {
    metadata: PartialObjectMeta<DynamicObject>,
}

fn api(context: &Context) -> Api<DynamicObject> {
    Api::all_with(
        context.client.clone(),
        &resource("", "v1", "Namespace", "namespaces"),
    )
}

pub(super) async fn read(context: &Context, name: &str) -> Result<Option<Namespace>, Error> {
    let found = api(context).get_metadata_opt(name).await;
    let found = found.map_err(|source| Error::Read {
        resource: "Namespace".to_owned(),
        name: name.to_owned(),
        source,
    })?;
    Ok(found.map(|metadata| Namespace { metadata }))
}

impl Namespace {
    pub(super) fn is_going(&self) -> bool {
        self.metadata.metadata.deletion_timestamp.is_some()
    }

    /// Whether it was given to the workspace of its name, and stays.
    pub(super) fn is_given(&self, name: &str) -> bool {
        !self.is_going() && self.label(WORKSPACE_LABEL) == Some(name)
    }

    fn label(&self, name: &str) -> Option<&str> {
        let labels = self.metadata.metadata.labels.as_ref()?;
        labels.get(name).map(String::as_str)
    }

    /// Made for this Workspace: it goes with it.
    pub(super) fn is_owned_by(&self, uid: &str) -> bool {
        let owners = self.metadata.metadata.owner_references.iter().flatten();
        owners.into_iter().any(|owner| owner.uid == uid)
    }
}

/// Why the workspace can't have it.
pub(super) fn refusal(name: &str, namespace: Option<&Namespace>) -> Option<Verdict> {
    let namespace = namespace?;
    if namespace.is_going() {
        let message = format!("namespace {name} is being deleted");
        return Some(Verdict::waiting("NamespaceTerminating", message));
    }
    match namespace.is_given(name) {
        true => None,
        false => Some(Verdict::problem(
            "NamespaceNotOurs",
            format!(
                "namespace {name} was there before: to let this Workspace have it, run kubectl label namespace {name} {WORKSPACE_LABEL}={name}"
            ),
        )),
    }
}

/// Makes it, or labels what is missing.
pub(super) async fn write(
    context: &Context,
    owner: &Owner,
    before: Option<&Namespace>,
) -> Result<(), Error> {
    let Some(wanted) = wanted(owner, before) else {
        return Ok(());
    };
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api(context)
        .patch(&owner.name, &parameters, &Patch::Apply(&wanted))
        .await
        .map_err(|source| Error::Namespace {
            name: owner.name.clone(),
            source,
        })?;
    context.metrics.wrote("Namespace");
    Ok(())
}

/// None if it is so already. Who adopted a namespace with another level of pod security keeps that.
fn wanted(owner: &Owner, before: Option<&Namespace>) -> Option<Value> {
    let mut labels = json!({WORKSPACE_LABEL: owner.name, ENFORCE: RESTRICTED});
    let is_owned = before.is_none_or(|before| before.is_owned_by(&owner.uid));
    if is_owned {
        labels[MANAGED_BY] = Value::from(MANAGER);
    }
    if let Some(before) = before {
        let is_as_wanted =
            |(label, value): (&String, &Value)| before.label(label) == value.as_str();
        let chosen = before
            .label(ENFORCE)
            .is_some_and(|level| level != RESTRICTED);
        if chosen && !is_owned {
            labels.as_object_mut()?.shift_remove(ENFORCE);
        }
        if labels.as_object()?.iter().all(is_as_wanted) {
            return None;
        }
    }
    let mut metadata = json!({"name": owner.name, "labels": labels});
    if is_owned {
        metadata["ownerReferences"] = json!([owner.reference()]);
    }
    Some(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(labels: Value, owner: Option<&str>) -> Namespace {
        let owners: Vec<Value> = owner
            .map(|uid| json!({"apiVersion": "x/v1", "kind": "Workspace", "name": "acme", "uid": uid}))
            .into_iter()
            .collect();
        let metadata = json!({"metadata": {
            "name": "acme", "labels": labels, "ownerReferences": owners,
        }});
        Namespace {
            metadata: serde_json::from_value(metadata).unwrap(),
        }
    }

    fn owner() -> Owner {
        Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        }
    }

    #[test]
    fn a_namespace_that_nobody_labelled_is_not_taken() {
        let found = namespace(json!({}), None);
        let refusal = refusal("acme", Some(&found)).unwrap();
        assert_eq!(refusal.reason, "NamespaceNotOurs");
        assert!(
            refusal.message.contains("mainstay.dev/workspace=acme"),
            "{refusal:?}"
        );
        let found = namespace(json!({WORKSPACE_LABEL: "other"}), None);
        assert!(super::refusal("acme", Some(&found)).is_some());
    }

    #[test]
    fn an_adopted_namespace_keeps_its_own_level_and_is_not_owned() {
        let found = namespace(json!({WORKSPACE_LABEL: "acme", ENFORCE: "baseline"}), None);
        assert_eq!(wanted(&owner(), Some(&found)), None);
        let found = namespace(json!({WORKSPACE_LABEL: "acme"}), None);
        let wanted = wanted(&owner(), Some(&found)).unwrap();
        assert_eq!(wanted["metadata"]["labels"][ENFORCE], RESTRICTED);
        assert!(wanted["metadata"].get("ownerReferences").is_none());
    }

    #[test]
    fn a_namespace_that_we_make_goes_with_its_workspace() {
        let wanted = wanted(&owner(), None).unwrap();
        assert_eq!(wanted["metadata"]["ownerReferences"][0]["uid"], "1");
        let made = namespace(wanted["metadata"]["labels"].clone(), Some("1"));
        assert_eq!(super::wanted(&owner(), Some(&made)), None);
    }
}
