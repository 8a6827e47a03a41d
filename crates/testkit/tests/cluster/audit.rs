//! What an auditor asks: who may do what at the API server, by a table of all of it; whether anything
//! enforces the policies; and what is made of kinds that others define.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use testkit::cluster::{Cluster, PATIENCE, Workspace, condition};
use testkit::http::Request;
use testkit::until;

use crate::harm::scene;
use crate::world::{TALKER, completed, submit};

/// What each account may do beyond what every account may, `GROUP/RESOURCE NAMES VERBS`; `NS` is the
/// workspace's namespace. Whatever isn't here, nobody may.
const OPERATOR_EVERYWHERE: &str = "\
mainstay.dev/agents,promptpacks,providers,toolregistries,workspaces - get,list,watch
mainstay.dev/agents/status,promptpacks/status,providers/status,toolregistries/status,workspaces/status - get,patch
mainstay.dev/agents/finalizers,promptpacks/finalizers,providers/finalizers,toolregistries/finalizers,workspaces/finalizers - update
mainstay.dev/workspaces - patch
/namespaces - create,get,list,patch,watch
/events - create,patch
events.k8s.io/events - create,patch
discovery.k8s.io/endpointslices kubernetes get,list,watch
rbac.authorization.k8s.io/rolebindings - create,get,patch
rbac.authorization.k8s.io/clusterroles mainstay-operator-in-workspace bind
rbac.authorization.k8s.io/clusterroles,clusterrolebindings - create,delete,get,patch
authentication.k8s.io/tokenreviews - create
admissionregistration.k8s.io/validatingadmissionpolicies,validatingadmissionpolicybindings mainstay-clients get
url /.well-known/openid-configuration,/openid/v1/jwks get
";
const OPERATOR_IN_WORKSPACE: &str = "\
apps/deployments,statefulsets - create,delete,get,list,patch,watch
/configmaps,limitranges,resourcequotas,serviceaccounts,services - create,delete,get,list,patch,watch
/pods - get,list,watch
networking.k8s.io/networkpolicies - create,delete,get,list,patch,watch
policy/poddisruptionbudgets - create,delete,get,list,patch,watch
rbac.authorization.k8s.io/roles,rolebindings - create,delete,get,list,patch,watch
rbac.authorization.k8s.io/roles mainstay-hub,mainstay-operator,mainstay-owner,mainstay-user,mainstay-viewer bind,escalate
/secrets - create
/secrets mainstay-hub get
/secrets mainstay-hub-metrics delete,get,patch
monitoring.coreos.com/prometheusrules,servicemonitors - create,delete,get,list,patch,watch
cilium.io/ciliumnetworkpolicies - create,delete,get,list,patch,watch
";
const OPERATOR_AT_HOME: &str = "\
coordination.k8s.io/leases - create,get,patch,update
";
const HUB_EVERYWHERE: &str = "\
mainstay.dev/workspaces NS get,list,watch
mainstay.dev/workspaces/status NS patch
authentication.k8s.io/tokenreviews - create
admissionregistration.k8s.io/validatingadmissionpolicies,validatingadmissionpolicybindings mainstay-clients get
url /.well-known/openid-configuration,/openid/v1/jwks get
";
const HUB_IN_WORKSPACE: &str = "\
mainstay.dev/agents,promptpacks,providers,toolregistries - get,list,watch
mainstay.dev/agents/status,promptpacks/status,providers/status,toolregistries/status - get,patch
mainstay.dev/agents/scale - get,patch
/pods - delete
authorization.k8s.io/localsubjectaccessreviews - create
";

type Rights = BTreeMap<String, BTreeSet<String>>;

/// `GROUP/RESOURCE` or `url PATH`, with the names that it is for; to its verbs.
fn table(parts: &[&str], namespace: &str) -> Rights {
    let mut rights = Rights::new();
    for line in parts.iter().flat_map(|part| part.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, names, verbs] = words[..] else {
            panic!("{line}")
        };
        let verbs = verbs.split(',');
        if what == "url" {
            for path in names.split(',') {
                add(&mut rights, format!("url {path}"), verbs.clone());
            }
            continue;
        }
        let (group, resources) = what.split_once('/').unwrap();
        for resource in resources.split(',') {
            for name in names.split(',') {
                let name = if name == "NS" { namespace } else { name };
                let key = format!("{group}/{resource} {name}");
                add(&mut rights, key, verbs.clone());
            }
        }
    }
    rights
}

fn add<'a>(rights: &mut Rights, key: String, verbs: impl Iterator<Item = &'a str>) {
    let known = rights.entry(key).or_default();
    known.extend(verbs.map(str::to_owned));
}

/// What an account may do, as the API server itself lists it.
fn rights(cluster: &Cluster, account: &str, namespace: &str) -> Rights {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let who = format!("--as=system:serviceaccount:{account}");
    let arguments = ["create", "--raw", path, "--filename=-", &who];
    let answer = cluster.kubectl(&arguments, &review.to_string());
    let status = answer.expect_code(0).json()["status"].clone();
    assert_eq!(status["incomplete"], false, "{status}");
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().into_iter().flatten();
        words
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let mut rights = Rights::new();
    for rule in status["resourceRules"].as_array().unwrap() {
        let mut names = words(&rule["resourceNames"]);
        if names.is_empty() {
            names.push("-".to_owned());
        }
        let verbs = words(&rule["verbs"]);
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for name in &names {
                    let key = format!("{group}/{resource} {name}");
                    add(&mut rights, key, verbs.iter().map(String::as_str));
                }
            }
        }
    }
    for rule in status["nonResourceRules"].as_array().unwrap() {
        let verbs = words(&rule["verbs"]);
        for path in words(&rule["nonResourceURLs"]) {
            let key = format!("url {path}");
            add(&mut rights, key, verbs.iter().map(String::as_str));
        }
    }
    rights
}

/// Without what every account may.
fn beyond(all: Rights, everybody: &Rights) -> Rights {
    let beyond = all.into_iter().filter_map(|(what, verbs)| {
        let common = everybody.get(&what).cloned().unwrap_or_default();
        let own: BTreeSet<String> = verbs.difference(&common).cloned().collect();
        (!own.is_empty()).then_some((what, own))
    });
    beyond.collect()
}

#[test]
fn each_account_may_what_the_table_says_and_nothing_else() {
    let Some(cluster) = Cluster::find("audit") else {
        return;
    };
    let [workspace, other] = ["audit", "audit"].map(|label| Workspace::start(cluster, label));
    let (name, other) = (workspace.name(), other.name());
    workspace.apply(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Provider\nmetadata: {name: p}\n\
         spec: {type: openai, baseUrl: 'http://127.0.0.1:9/v1', credential: {secretRef: {name: named, key: k}}}\n",
    );
    let named = format!("{HUB_IN_WORKSPACE}/secrets named get\n");
    until(
        "the hub may read the Secret that is named",
        PATIENCE,
        || {
            let role = workspace.get(&["role", "mainstay-hub"])?;
            role.to_string().contains("\"named\"").then_some(())
        },
    );
    let system = "mainstay-system";
    let accounts = [
        (
            format!("{system}:mainstay-operator"),
            name,
            vec![OPERATOR_EVERYWHERE, OPERATOR_IN_WORKSPACE],
        ),
        (
            format!("{system}:mainstay-operator"),
            system,
            vec![OPERATOR_EVERYWHERE, OPERATOR_AT_HOME],
        ),
        (
            format!("{system}:mainstay-operator"),
            "kube-system",
            vec![OPERATOR_EVERYWHERE],
        ),
        (
            format!("{name}:mainstay-hub"),
            name,
            vec![HUB_EVERYWHERE, &named],
        ),
        (format!("{name}:mainstay-hub"), other, vec![HUB_EVERYWHERE]),
        (format!("{name}:mainstay-hub"), system, vec![HUB_EVERYWHERE]),
        (format!("{name}:default"), name, vec![]),
        (format!("{name}:mainstay-agent-talker"), name, vec![]),
    ];
    for (account, namespace, wanted) in accounts {
        // An account that nobody gave anything.
        let everybody = rights(cluster, "default:nobody", namespace);
        let may = beyond(rights(cluster, &account, namespace), &everybody);
        let wanted = beyond(table(&wanted, name), &everybody);
        assert_eq!(may, wanted, "{account} in {namespace}");
    }
}

#[test]
fn where_nothing_enforces_policies_the_workspace_says_so_and_what_to_do() {
    let Some(scene) = scene("audit", 1) else {
        return;
    };
    let (cluster, name) = (scene.workspace.cluster, scene.workspace.name());
    // The testbed's network plugin enforces none; another cluster's may.
    if !cluster.is_ours("isolation") {
        return;
    }
    let found = until("what the network enforces is known", PATIENCE, || {
        let workspace = cluster.get(&["workspace", name])?;
        condition(&workspace, "IsolationUnenforced").cloned()
    });
    assert_eq!(found["status"], "True", "{found}");
    let message = found["message"].as_str().unwrap();
    assert!(message.contains("network plugin"), "{message}");
    // Whatever else is not ready in this cluster is no matter here.
    let status = cluster.mainstay(&["kubernetes", "status"]).stdout;
    let row = status.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(row.contains("not enforced"), "{status}");
    // And what the pod found kept it from nothing.
    let input = "2 of it";
    let id = submit(&scene.client, TALKER, input);
    completed(&scene.client, &id, input);
}

/// Definitions as small as they may be; their real ones take what is written to these.
fn definition(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"), "annotations": {
            "api-approved.kubernetes.io": "unapproved, for a test",
        }},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}

/// Takes the definitions away again, whatever became of the test.
struct Defined(&'static Cluster, Vec<String>);

impl Drop for Defined {
    fn drop(&mut self) {
        for name in &self.1 {
            let gone = [
                "delete",
                "customresourcedefinition",
                name,
                "--ignore-not-found",
            ];
            let _ended = self.0.kubectl(&gone, "");
        }
    }
}

#[test]
fn kinds_of_others_are_used_while_they_are_there() {
    let Some(scene) = scene("others", 1) else {
        return;
    };
    let (cluster, workspace) = (scene.workspace.cluster, &scene.workspace);
    let kinds = [
        (
            "monitoring.coreos.com",
            "v1",
            "ServiceMonitor",
            "servicemonitors",
        ),
        (
            "monitoring.coreos.com",
            "v1",
            "PrometheusRule",
            "prometheusrules",
        ),
        (
            "cilium.io",
            "v2",
            "CiliumNetworkPolicy",
            "ciliumnetworkpolicies",
        ),
    ];
    let names = kinds.map(|(group, _, _, plural)| format!("{plural}.{group}"));
    let there = ["get", "customresourcedefinition", "--output=name"];
    let there = cluster.run(&there);
    if names.iter().any(|name| there.contains(name.as_str())) {
        eprintln!("others is left out: the cluster has such kinds of its own");
        return;
    }
    let input = "3 of it";
    let id = submit(&scene.client, TALKER, input);
    completed(&scene.client, &id, input);
    let defined = Defined(cluster, names.to_vec());
    for (group, version, kind, plural) in kinds {
        let text = definition(group, version, kind, plural).to_string();
        let _ = cluster
            .kubectl(&["apply", "--filename=-"], &text)
            .expect_code(0);
    }
    let [monitor, rules] = [
        "servicemonitor.monitoring.coreos.com",
        "prometheusrule.monitoring.coreos.com",
    ]
    .map(|kind| until(kind, PATIENCE, || workspace.get(&[kind, "mainstay-hub"])));
    let credentials = &monitor["spec"]["endpoints"][0]["authorization"]["credentials"];
    let [secret, key] = ["name", "key"].map(|field| credentials[field].as_str().unwrap());
    let template = format!("--output=go-template={{{{.data.{key} | base64decode}}}}");
    let token = workspace.kubectl(&["get", "secret", secret, &template]);
    let asked = |path: &str| {
        let request = Request::to(scene.client.endpoint.clone(), "GET", path);
        request
            .header("authorization", &format!("Bearer {token}"))
            .send()
            .unwrap()
    };
    assert_eq!(asked("/api/v1/agents").status, 401);
    let metrics = asked("/metrics");
    assert_eq!(metrics.status, 200);
    let metrics = metrics.text();
    let known: BTreeSet<&str> = metrics
        .lines()
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    for rule in rules["spec"]["groups"][0]["rules"].as_array().unwrap() {
        let expr = rule["expr"].as_str().unwrap();
        let words = expr.split(|c: char| !c.is_alphanumeric() && c != '_');
        for metric in words.filter(|word| word.starts_with("mainstay_")) {
            assert!(known.contains(metric), "{metric} of {expr}: {metrics}");
        }
    }
    // One that somebody removes is back.
    workspace.kubectl(&[
        "delete",
        "prometheusrule.monitoring.coreos.com",
        "mainstay-hub",
    ]);
    until("the rules again", PATIENCE, || {
        workspace.get(&["prometheusrule.monitoring.coreos.com", "mainstay-hub"])
    });
    // The kinds go, and nothing minds.
    drop(defined);
    let id = submit(&scene.client, TALKER, "2 of it");
    completed(&scene.client, &id, "2 of it");
    until("no token for a monitor that is gone", PATIENCE, || {
        workspace
            .get(&["secret", "mainstay-hub-metrics"])
            .is_none()
            .then_some(())
    });
    let state = cluster.get(&["workspace", workspace.name()]).unwrap();
    let ready = condition(&state, "Ready").unwrap();
    assert_eq!(ready["status"], "True", "{ready}");
}
