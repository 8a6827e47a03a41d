//! What a workspace's members may do in its namespace, with `kubectl` and so with Mainstay: a hub
//! asks the API server for the same rights (`cluster::reviews`).

use std::collections::BTreeMap;

use api::fleet::{Member, Role};
use api::kubernetes::{CLIENTS, GROUP, HUB, HUB_CA, TASKS};
use serde_json::{Value, json};

use crate::object::{Object, Owner, Place, Resource};
use crate::rbac::{IN_NAMESPACES, READ, named, rule};

/// The Role in the namespace that a member's role is.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Viewer => "mainstay-viewer",
        Role::User => "mainstay-user",
        Role::Operator => "mainstay-operator",
        Role::Owner => "mainstay-owner",
    }
}

/// To reach the hub: its one pod through the API server, its certificate's authority, and a token
/// that says who asks. What the hub then allows is what its caller's rights allow.
pub(crate) fn reach() -> Vec<Value> {
    vec![
        // Over a WebSocket it is `get`, and newer API servers ask for both.
        named(
            "",
            "pods/portforward",
            &[&format!("{HUB}-0")],
            &["get", "create"],
        ),
        named("", "configmaps", &[HUB_CA], &["get"]),
        named("", "serviceaccounts/token", &[CLIENTS], &["create"]),
    ]
}

/// To do that with tasks.
pub(crate) fn on_tasks(verbs: &[&str]) -> Value {
    rule(&[GROUP], &[&format!("agents/{TASKS}")], verbs)
}

/// What a role has beyond the one before it.
fn own_rules(role: Role) -> Vec<Value> {
    match role {
        Role::Viewer => {
            let mut rules = vec![
                rule(&[GROUP], &IN_NAMESPACES, &READ),
                rule(&[GROUP], &["agents/scale"], &["get"]),
                on_tasks(&["get"]),
                rule(&[""], &["pods", "pods/log", "services", "events"], &READ),
                rule(&["apps"], &["deployments", "statefulsets"], &READ),
            ];
            rules.extend(reach());
            rules
        }
        Role::User => vec![on_tasks(&["create", "delete"])],
        Role::Operator => vec![
            rule(
                &[GROUP],
                &IN_NAMESPACES,
                &["create", "update", "patch", "delete"],
            ),
            rule(&[GROUP], &["agents/scale"], &["update", "patch"]),
            on_tasks(&["update"]),
            rule(&[""], &["pods"], &["delete"]),
        ],
        Role::Owner => vec![rule(
            &[""],
            &["secrets"],
            &[
                "get", "list", "watch", "create", "update", "patch", "delete",
            ],
        )],
    }
}

/// All four.
pub const ROLES: [Role; 4] = [Role::Viewer, Role::User, Role::Operator, Role::Owner];

/// The rules of a role, with those before it.
pub fn rights(role: Role) -> Vec<Value> {
    let roles = ROLES.into_iter().filter(|lesser| *lesser <= role);
    roles.flat_map(own_rules).collect()
}

/// A Role and a RoleBinding for each role that somebody has. Subjects were
/// validated; one that is none is passed over.
pub fn members(namespace: &str, owner: &Owner, members: &[Member]) -> Vec<Object> {
    let place = Place {
        namespace: Some(namespace),
        component: "tenancy",
        owner,
    };
    let mut by_role: BTreeMap<Role, Vec<Value>> = BTreeMap::new();
    for member in members {
        let subjects = by_role.entry(member.role).or_default();
        subjects.extend(subject(&member.subject));
    }
    by_role
        .into_iter()
        .flat_map(|(role, subjects)| {
            let name = role_name(role);
            let binding = json!({
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                "subjects": subjects,
            });
            [
                place.object(Resource::Role, name, &[], json!({"rules": rights(role)})),
                place.object(Resource::RoleBinding, name, &[], binding),
            ]
        })
        .collect()
}

/// `group:NAME`, `user:NAME` or `serviceAccount:NAMESPACE/NAME`.
fn subject(text: &str) -> Option<Value> {
    let (kind, name) = text.split_once(':')?;
    let group = "rbac.authorization.k8s.io";
    match kind {
        "group" => Some(json!({"kind": "Group", "name": name, "apiGroup": group})),
        "user" => Some(json!({"kind": "User", "name": name, "apiGroup": group})),
        "serviceAccount" => {
            let (namespace, name) = name.split_once('/')?;
            Some(json!({"kind": "ServiceAccount", "name": name, "namespace": namespace}))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_bound_to_the_role_that_they_have() {
        let owner = Owner {
            kind: api::Kind::Workspace,
            name: "acme".to_owned(),
            uid: "1".to_owned(),
        };
        let written = [
            ("group:platform", Role::Operator),
            ("serviceAccount:ci/bot", Role::Operator),
            ("user:ada", Role::Viewer),
        ]
        .map(|(subject, role)| Member {
            subject: subject.to_owned(),
            role,
        });
        let objects = members("acme", &owner, &written);
        let names: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "mainstay-viewer",
                "mainstay-viewer",
                "mainstay-operator",
                "mainstay-operator"
            ]
        );
        assert_eq!(objects[3].body["subjects"][1]["namespace"], "ci");
    }

    #[test]
    fn a_port_is_forwarded_to_the_hubs_pod_alone() {
        let rules = rights(Role::Owner);
        let forward = json!("pods/portforward");
        let mut forwards = rules.iter().filter(|rule| {
            let mut resources = rule["resources"].as_array().into_iter().flatten();
            resources.any(|resource| *resource == forward)
        });
        let rule = forwards.next().unwrap();
        assert_eq!(rule["resourceNames"], json!(["mainstay-hub-0"]));
        assert_eq!(rule["verbs"], json!(["get", "create"]), "either protocol's");
        assert_eq!(forwards.next(), None);
    }

    #[test]
    fn only_an_owner_sees_secrets() {
        let has = |role| Value::from(rights(role)).to_string().contains("secrets");
        assert!(!has(Role::Operator) && has(Role::Owner));
        let changes = |role| Value::from(rights(role)).to_string().contains("update");
        assert!(!changes(Role::User) && changes(Role::Operator));
    }

    #[test]
    fn who_sees_tasks_runs_none() {
        let on_tasks = |role| -> Vec<Value> {
            let rules = rights(role).into_iter();
            rules
                .filter(|rule| rule["resources"] == json!(["agents/tasks"]))
                .map(|rule| rule["verbs"].clone())
                .collect()
        };
        assert_eq!(on_tasks(Role::Viewer), [json!(["get"])]);
        assert_eq!(
            on_tasks(Role::Operator),
            [
                json!(["get"]),
                json!(["create", "delete"]),
                json!(["update"])
            ]
        );
    }
}
