//! A volume's size is said once: Kubernetes refuses a StatefulSet whose claim asks for another than
//! it did. So what is there keeps its size, its owner is told so, and everything else goes on.

use api::quantity::Quantity;
use serde_json::Value;

use crate::object::{Object, Resource};
use crate::world::World;

const STORAGE: &str = "/spec/volumeClaimTemplates/0/spec/resources/requests/storage";

/// Gives the StatefulSet among the objects the size that it has in the cluster. If that isn't what
/// the field says, returns what its owner is told.
pub(super) fn keep_size(world: &World, objects: &mut [Object], field: &str) -> Option<String> {
    let mut sets = objects.iter_mut();
    let set = sets.find(|object| object.resource == Resource::StatefulSet)?;
    let namespace = set.namespace.clone()?;
    let there = world.owned(&namespace, set.resource, &set.name)?;
    let there = there.workload?.claim_bytes?;
    let wanted = Quantity::parse(set.body.pointer(STORAGE)?.as_str()?)?.bytes;
    if there == wanted {
        return None;
    }
    set.change(|body| {
        if let Some(storage) = body.pointer_mut(STORAGE) {
            *storage = Value::from(there.to_string());
        }
    });
    let (there, wanted) = (Quantity::from_bytes(there), Quantity::from_bytes(wanted));
    Some(format!(
        "{field} says {wanted}, and the volume keeps the {there} that it was made with: Kubernetes changes no claim of a StatefulSet; write {there}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{APPLIED, Owner, Place};
    use crate::world::Owned;
    use serde_json::json;

    fn set(storage: &str) -> Object {
        let owner = Owner {
            kind: api::Kind::Agent,
            name: "a".to_owned(),
            uid: "1".to_owned(),
        };
        let place = Place {
            namespace: Some("acme"),
            component: "agent",
            owner: &owner,
        };
        let claim = json!({"spec": {"resources": {"requests": {"storage": storage}}}});
        let content = json!({"spec": {"template": {}, "volumeClaimTemplates": [claim]}});
        place.object(Resource::StatefulSet, "a", &[], content)
    }

    #[test]
    fn a_volume_keeps_the_size_it_was_made_with_and_its_owner_is_told() {
        let world = World::default();
        let keep = |objects: &mut [Object]| keep_size(&world, objects, "spec.volume.size");
        let mut first = [set("1073741824")];
        assert_eq!(keep(&mut first), None, "nothing is there");
        // As the API server writes it.
        let there = Owned::read(&kube::core::ObjectMeta::default(), &set("1Gi").body);
        world.put_owned("acme", Resource::StatefulSet, "a", there);
        assert_eq!(keep(&mut first), None, "it is the same");
        assert_eq!(first[0], set("1073741824"));
        let mut later = [set("2147483648")];
        let told = keep(&mut later).unwrap();
        assert!(
            told.starts_with("spec.volume.size says 2Gi, and") && told.contains("1Gi"),
            "{told}"
        );
        let [later] = later;
        assert_eq!(later, set("1073741824"));
        assert_eq!(later.body["metadata"]["annotations"][APPLIED], later.hash);
    }
}
