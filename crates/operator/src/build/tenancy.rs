//! What a workspace's namespace is held to, beyond who reaches whom: how much it may use, what a
//! container gets that asks for nothing, and that no pod has a token by accident.

use api::fleet::Quota;
use serde_json::{Map, Value, json};

use crate::object::{Object, Owner, Place, Resource};

/// Quota, limits and the default account.
pub fn tenancy(namespace: &str, owner: &Owner, quota: &Quota) -> Vec<Object> {
    let place = Place {
        namespace: Some(namespace),
        component: "tenancy",
        owner,
    };
    let limits = json!({"spec": {"limits": [{
        "type": "Container",
        "defaultRequest": {"cpu": "50m", "memory": "128Mi", "ephemeral-storage": "32Mi"},
        "default": {"memory": "512Mi", "ephemeral-storage": "4Gi"},
    }]}});
    let unmounted = json!({"automountServiceAccountToken": false});
    let mut objects = vec![
        place.object(Resource::LimitRange, "mainstay", &[], limits),
        place.object(Resource::ServiceAccount, "default", &[], unmounted),
    ];
    let hard = hard(quota);
    if !hard.is_empty() {
        let content = json!({"spec": {"hard": hard}});
        objects.push(place.object(Resource::ResourceQuota, "mainstay", &[], content));
    }
    objects
}

/// Requests are what is counted: those of agents are their limits too.
fn hard(quota: &Quota) -> Map<String, Value> {
    let agents = format!("count/agents.{}", api::kubernetes::GROUP);
    [
        (
            agents.as_str(),
            quota.agents.map(|agents| agents.to_string()),
        ),
        (
            "requests.cpu",
            quota.cpu_millis.map(|millis| format!("{millis}m")),
        ),
        (
            "requests.memory",
            quota.memory_bytes.map(|bytes| bytes.to_string()),
        ),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_asks_for_nothing_has_an_end_to_what_it_may_use() {
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        };
        let objects = tenancy("acme", &owner, &Quota::default());
        let limits = &objects[0].body["spec"]["limits"][0];
        for resource in ["memory", "ephemeral-storage"] {
            assert!(limits["default"][resource].is_string(), "{resource}");
            // Without one, what is requested would be the limit.
            assert!(limits["defaultRequest"][resource].is_string(), "{resource}");
        }
    }

    #[test]
    fn a_quota_is_there_when_one_is_written() {
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        };
        assert_eq!(tenancy("acme", &owner, &Quota::default()).len(), 2);
        let quota = Quota {
            agents: Some(20),
            cpu_millis: Some(8000),
            memory_bytes: None,
        };
        let objects = tenancy("acme", &owner, &quota);
        assert_eq!(
            objects[2].body["spec"]["hard"],
            json!({"count/agents.mainstay.dev": "20", "requests.cpu": "8000m"})
        );
    }
}
