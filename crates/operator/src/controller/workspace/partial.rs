//! What a hub keeps while some object of its workspace can't be read.
//!
//! An operator that has just started knows the last good document of nothing, and the hub runs it
//! still. What such a document led to is in the cluster: the Secrets that the hub may read, and
//! where its policy lets it call. So while anything is refused with nothing in its place, these only
//! grow. What somebody else put there isn't kept.

use std::collections::BTreeSet;

use api::kubernetes::HUB;
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::apply;
use crate::context::Context;
use crate::error::Error;
use crate::object::{Object, Resource};

/// The policy of the hub, as `build::policies` names it.
const POLICY: &str = "mainstay-hub";

/// The Secrets that the hub may read now.
pub(super) async fn secrets(context: &Context, namespace: &str) -> Result<BTreeSet<String>, Error> {
    let role = there(context, Resource::Role, namespace, HUB).await?;
    let rules = role["rules"].as_array().into_iter().flatten();
    let of_secrets = rules.filter(|rule| rule["resources"] == json!(["secrets"]));
    let names = of_secrets.flat_map(|rule| rule["resourceNames"].as_array().into_iter().flatten());
    Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Lets the hub go on calling where it may call now.
pub(super) async fn widen(
    context: &Context,
    namespace: &str,
    objects: &mut [Object],
) -> Result<(), Error> {
    let mut policies = objects.iter_mut();
    let is_hubs =
        |object: &&mut Object| object.resource == Resource::NetworkPolicy && object.name == POLICY;
    let Some(policy) = policies.find(is_hubs) else {
        return Ok(());
    };
    let there = there(context, policy.resource, namespace, POLICY).await?;
    let ways = there["spec"]["egress"].as_array();
    let ways: Vec<Value> = ways.into_iter().flatten().cloned().collect();
    policy.change(|body| {
        if let Some(wanted) = body["spec"]["egress"].as_array_mut() {
            for way in ways {
                if !wanted.contains(&way) {
                    wanted.push(way);
                }
            }
        }
    });
    Ok(())
}

/// The object as it is, if it is as we wrote it.
async fn there(
    context: &Context,
    resource: Resource,
    namespace: &str,
    name: &str,
) -> Result<Value, Error> {
    let owned = context.world.owned(namespace, resource, name);
    if owned.is_none_or(|owned| !owned.is_ours || owned.is_meddled_with()) {
        return Ok(Value::Null);
    }
    let found = apply::api(&context.client, resource, Some(namespace))
        .get_opt(name)
        .await
        .map_err(|source| Error::Read {
            resource: resource.to_string(),
            name: name.to_owned(),
            source,
        })?;
    Ok(found.map_or(Value::Null, |DynamicObject { data, .. }| data))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Answer, Fake};
    use crate::object::{Owner, Place};
    use crate::world::Owned;

    fn object(resource: Resource, content: Value) -> Object {
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        };
        let place = Place {
            namespace: Some("acme"),
            component: "hub",
            owner: &owner,
        };
        place.object(resource, HUB, &[], content)
    }

    fn policy(ports: &[u16]) -> Object {
        let ways = ports.iter().map(|port| json!({"ports": [{"port": port}]}));
        let ways: Vec<Value> = ways.collect();
        object(Resource::NetworkPolicy, json!({"spec": {"egress": ways}}))
    }

    #[tokio::test]
    async fn what_a_hub_may_read_and_reach_is_added_to_unless_somebody_else_wrote_it() {
        let rule = json!({"resources": ["secrets"], "resourceNames": ["old"], "verbs": ["get"]});
        let pods = json!({"resources": ["pods"], "verbs": ["delete"]});
        let role = object(Resource::Role, json!({"rules": [pods, rule]}));
        let there = [role, policy(&[1, 2])];
        let bodies = there.clone().map(|object| object.body);
        let fake = Fake::start(move |asked| {
            let [role, policy] = bodies.clone();
            match asked.path.ends_with("/networkpolicies/mainstay-hub") {
                true => Some(Answer::Say(200, policy)),
                false => Some(Answer::Say(200, role)),
            }
        })
        .await;
        let context = fake.context();
        let mut wanted = [policy(&[2, 3])];
        for object in &there {
            let found: DynamicObject = serde_json::from_value(object.body.clone()).unwrap();
            let put = |applied| {
                let mut owned = Owned::read(&found.metadata, &found.data);
                owned.applied_generation = Some(applied);
                let world = &context.world;
                world.put_owned("acme", object.resource, HUB, owned);
            };
            put(7);
            assert!(secrets(&context, "acme").await.unwrap().is_empty());
            widen(&context, "acme", &mut wanted).await.unwrap();
            assert_eq!(wanted[0], policy(&[2, 3]), "somebody else wrote it");
            put(0);
            if object.resource == Resource::Role {
                let kept = secrets(&context, "acme").await.unwrap();
                assert_eq!(kept, BTreeSet::from(["old".to_owned()]));
                context.world.remove_owned("acme", Resource::Role, HUB);
            }
        }
        widen(&context, "acme", &mut wanted).await.unwrap();
        assert_eq!(wanted[0], policy(&[2, 3, 1]));
    }
}
