//! What an installation must be, whatever its options: objects that Kubernetes knows field by
//! field, rights that reach no further than said.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::*;

fn several() -> Options {
    Options {
        replicas: 2,
        authority: Some(Authority::generate().unwrap()),
        ..Options::new(image(None))
    }
}

/// A field that the type doesn't know is lost on the way through it.
fn through<T: DeserializeOwned + Serialize>(object: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(object.clone()).unwrap()).unwrap()
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for object in objects(&several(), Vec::new()) {
        let kind = object["kind"].as_str().unwrap();
        let known = match kind {
            "Namespace" => through::<Namespace>(&object),
            "ServiceAccount" => through::<ServiceAccount>(&object),
            "ClusterRole" => through::<ClusterRole>(&object),
            "ClusterRoleBinding" => through::<ClusterRoleBinding>(&object),
            "Role" => through::<Role>(&object),
            "RoleBinding" => through::<RoleBinding>(&object),
            "Deployment" => through::<Deployment>(&object),
            "PodDisruptionBudget" => through::<PodDisruptionBudget>(&object),
            "ValidatingAdmissionPolicy" => through::<ValidatingAdmissionPolicy>(&object),
            "ValidatingAdmissionPolicyBinding" => {
                through::<ValidatingAdmissionPolicyBinding>(&object)
            }
            "Secret" => through::<Secret>(&object),
            "Service" => through::<Service>(&object),
            "ValidatingWebhookConfiguration" => through::<ValidatingWebhookConfiguration>(&object),
            "Workspace" => continue,
            other => panic!("{other} is not looked at"),
        };
        assert_eq!(known, object, "{kind} {}", object["metadata"]["name"]);
    }
}

#[test]
fn no_right_is_a_wildcard_and_what_reaches_further_waits_for_a_workspace() {
    for object in objects(&several(), Vec::new()) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        for rule in object["rules"].as_array().into_iter().flatten() {
            let holds = |field: &str, word: &str| {
                rule[field]
                    .as_array()
                    .is_some_and(|all| all.contains(&word.into()))
            };
            for field in ["apiGroups", "resources", "verbs"] {
                assert!(!holds(field, "*"), "{name}: {rule}");
            }
            assert!(!holds("verbs", "impersonate"), "{name}: {rule}");
            if holds("resources", "secrets") || holds("verbs", "escalate") {
                assert_eq!(name, IN_WORKSPACE_ROLE, "{rule}");
            }
            if holds("verbs", "bind") {
                assert!(rule["resourceNames"].is_array(), "{name}: {rule}");
            }
        }
    }
}

#[test]
fn the_webhook_holds_nobody_up_and_the_operator_can_not_change_it() {
    let objects = objects(&several(), Vec::new());
    let webhook = objects
        .iter()
        .find(|it| it["kind"] == "ValidatingWebhookConfiguration");
    for asked in webhook.unwrap()["webhooks"].as_array().unwrap() {
        assert_eq!(asked["failurePolicy"], "Ignore");
        assert_eq!(asked["timeoutSeconds"], 2);
        assert_eq!(asked["rules"][0]["apiGroups"], json!(["mainstay.dev"]));
    }
    let rights = objects.iter().filter(|object| object["rules"].is_array());
    for role in rights {
        let rules = role["rules"].to_string();
        assert!(!rules.contains("webhookconfigurations"), "{rules}");
    }
}

#[test]
fn the_operators_certificate_is_its_services() {
    let authority = Authority::generate().unwrap();
    let (chain, key) = authority.sign("home").unwrap();
    assert!(chain.len() == 1 && !key.is_empty());
    let certificate = String::from_utf8_lossy(&chain[0]).into_owned();
    assert!(certificate.contains("mainstay-operator.home.svc"));
    assert!(certificate.contains("Mainstay admission"));
}

#[test]
fn nothing_binds_the_workspaces_role_beforehand() {
    for object in objects(&several(), Vec::new()) {
        assert_ne!(object["roleRef"]["name"], IN_WORKSPACE_ROLE);
    }
}

#[test]
fn definitions_come_before_what_needs_them_and_after_the_namespace() {
    let crd = json!({"kind": "CustomResourceDefinition"});
    let kinds: Vec<String> = objects(&Options::new(image(None)), vec![crd])
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds[..2], ["Namespace", "CustomResourceDefinition"]);
    assert_eq!(kinds.last().unwrap(), "Workspace");
}

#[test]
fn a_single_operator_has_no_budget_that_would_block_a_drain() {
    let of = |options: &Options| {
        let objects = objects(options, Vec::new());
        objects
            .iter()
            .any(|object| object["kind"] == "PodDisruptionBudget")
    };
    assert!(of(&several()));
    assert!(!of(&Options::new(image(None))));
}

#[test]
fn without_a_default_workspace_the_namespace_default_is_left_alone() {
    let options = Options {
        default_workspace: false,
        ..several()
    };
    let named = |object: &Value| object["metadata"]["name"] == DEFAULT_WORKSPACE;
    assert!(!objects(&options, Vec::new()).iter().any(named));
}

#[test]
fn a_prefix_stands_before_the_image() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(None), format!("mainstay:{version}"));
    assert_eq!(
        image(Some("registry.example/team/")),
        format!("registry.example/team/mainstay:{version}")
    );
}

/// What a policy demands, in one text.
fn demands(policy: &str) -> String {
    let objects = objects(&several(), Vec::new());
    let mut policies = objects
        .iter()
        .filter(|it| it["kind"] == "ValidatingAdmissionPolicy");
    let policy = policies
        .find(|it| it["metadata"]["name"] == policy)
        .unwrap();
    policy["spec"].to_string()
}

#[test]
fn the_operator_is_held_when_it_makes_namespaces_too() {
    let demands = demands("mainstay-operator-adoption");
    for part in [
        "CREATE",
        "UPDATE",
        "enforce",
        "enforce-version",
        "restricted",
    ] {
        assert!(demands.contains(part), "{part}: {demands}");
    }
}

#[test]
fn what_the_operator_runs_and_gives_is_bounded_wherever_it_is() {
    let workloads = demands("mainstay-operator-workloads");
    for part in ["hostNetwork", "hostPID", "privileged", "initContainers"] {
        assert!(workloads.contains(part), "{part}: {workloads}");
    }
    let rights = demands("mainstay-operator-rights");
    assert!(rights.contains("'/pods': ['delete', 'get', 'list', 'watch']"));
    assert!(!rights.contains("'*'"), "{rights}");
    assert!(rights.contains("s.namespace == 'mainstay-system'"));
    let cluster = demands("mainstay-operator-cluster-rights");
    let own = "'mainstay.dev/workspaces': ['get', 'list', 'watch'], \
               'mainstay.dev/workspaces/status': ['patch']}";
    assert!(cluster.contains(own), "{cluster}");
    assert!(!cluster.contains("secrets"), "{cluster}");
}

#[test]
fn nothing_of_the_operators_draws_what_is_meant_for_others() {
    let services = demands("mainstay-operator-services");
    assert!(services.contains("externalIPs"), "{services}");
    let monitors = demands("mainstay-operator-monitors");
    for part in ["namespaceSelector", "bearerTokenFile", "caFile", "keyFile"] {
        assert!(monitors.contains(part), "{part}: {monitors}");
    }
}

#[test]
fn a_hub_is_held_to_pods_of_ours_by_its_account() {
    let demands = demands("mainstay-hub-pods");
    assert!(demands.contains("request.namespace + ':mainstay-hub'"));
    assert!(
        demands.contains("app.kubernetes.io/managed-by"),
        "{demands}"
    );
}

#[test]
fn a_clients_token_is_of_its_hub_its_user_and_his_groups() {
    let demands = demands("mainstay-clients");
    for part in [
        "serviceaccounts/token",
        "request.name == 'mainstay-clients'",
        "'mainstay-hub.' + request.namespace",
        "'user:' + request.userInfo.username",
        "a.substring(6) in request.userInfo",
        "<= 3600",
    ] {
        assert!(demands.contains(part), "{part}: {demands}");
    }
}
