//! Mainstay leaves a cluster and comes back, with a fleet in it: by its own command line and by
//! Helm. What stays is the data, and whoever comes back finds it.

use std::path::Path;

use serde_json::Value;
use testkit::cluster::{Cluster, OPERATOR, Pod, Workspace};
use testkit::until;

use crate::world::{BOUND, TALKER, World, completed, submit};

const RELEASE: &str = "mainstay";

#[test]
fn who_leaves_and_comes_back_finds_the_data_and_only_the_data() {
    let Some(cluster) = Cluster::find("leaving a cluster") else {
        return;
    };
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/mainstay");
    let chart = chart.to_str().unwrap();
    let Some(tag) = cluster.image.strip_prefix("localhost/mainstay:") else {
        eprintln!("leaving a cluster is left out: the image is not the testbed's");
        return;
    };
    if !cluster.is_ours("leaving a cluster") {
        return;
    }
    let _return = Return(cluster);
    let world = World::start(cluster, std::time::Duration::ZERO);
    let workspace = Workspace::start(cluster, "leave");
    world.in_cluster(&workspace, 1);
    let client = workspace.client();
    let first = submit(&client, TALKER, "2 before");
    let _ = completed(&client, &first, "2 before");

    let said = cluster.mainstay(&["kubernetes", "uninstall", "--yes"]);
    let said = said.expect_code(0).stdout;
    let claim = "data-mainstay-hub-0";
    let key = format!("Secret {}/mainstay-hub", workspace.name());
    for data in [claim, &key] {
        let stays = said.lines().any(|line| line.contains(data));
        assert!(stays, "{data} isn't named:\n{said}");
    }
    assert_eq!(left(cluster, workspace.name()), Vec::<String>::new());
    assert!(workspace.get(&["persistentvolumeclaim", claim]).is_some());

    let tag = format!("image.tag={tag}");
    let values = ["--set", "image.prefix=localhost", "--set", &tag];
    let helm = |verb: &[&str]| {
        let _ = cluster
            .helm(
                &[
                    verb,
                    &[RELEASE, chart, OPERATOR, "--wait", "--timeout=120s"],
                    &values,
                ]
                .concat(),
            )
            .expect_code(0);
    };
    let _ = cluster.helm(&["lint", chart]).expect_code(0);
    helm(&["install", "--create-namespace"]);
    cluster.run(&[
        "label",
        "namespace",
        workspace.name(),
        &format!("mainstay.dev/workspace={}", workspace.name()),
    ]);
    workspace.again();
    world.in_cluster(&workspace, 1);
    let client = workspace.client();
    let known = client.task(&first).unwrap();
    assert_eq!(known["state"], "completed", "{known}");

    let pods = |workspace: &Workspace| -> Vec<Pod> {
        let mut pods = workspace.pods(TALKER);
        pods.push(workspace.hub_pod());
        pods
    };
    let before = pods(&workspace);
    helm(&["upgrade", "--set", "replicas=2"]);
    let budget = ["poddisruptionbudget", "mainstay-operator", OPERATOR];
    assert!(cluster.get(&budget).is_some());
    assert_eq!(pods(&workspace), before, "an upgrade restarts no pod");
    let _ = cluster
        .helm(&["rollback", RELEASE, OPERATOR, "--wait"])
        .expect_code(0);
    until("one operator is left", BOUND, || {
        let deployment = cluster.get(&["deployment", "mainstay-operator", OPERATOR])?;
        (deployment["spec"]["replicas"] == 1).then_some(())
    });

    // Fleets outlive the release, and work on.
    let _ = cluster
        .helm(&["uninstall", RELEASE, OPERATOR, "--wait"])
        .expect_code(0);
    assert!(
        cluster
            .get(&["deployment", "mainstay-operator", OPERATOR])
            .is_none()
    );
    let second = submit(&client, TALKER, "2 between");
    let _ = completed(&client, &second, "2 between");
    helm(&["install"]);
    let _ = cluster
        .helm(&["uninstall", RELEASE, OPERATOR, "--wait"])
        .expect_code(0);
    let _ = cluster
        .mainstay(&["kubernetes", "uninstall", "--yes"])
        .expect_code(0);
    assert_eq!(left(cluster, workspace.name()), Vec::<String>::new());
}

/// What of Mainstay is in the cluster, but for the data.
fn left(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let mut left = Vec::new();
    let kinds = "customresourcedefinitions,clusterroles,clusterrolebindings,\
                 validatingadmissionpolicies,validatingadmissionpolicybindings,\
                 validatingwebhookconfigurations,apiservices";
    let objects = cluster.run(&["get", kinds, "--output=name"]);
    left.extend(
        objects
            .lines()
            .filter(|name| name.contains("mainstay"))
            .map(str::to_owned),
    );
    let kinds = "deployments,statefulsets,services,pods,networkpolicies,roles,rolebindings,\
                 serviceaccounts,resourcequotas,limitranges,poddisruptionbudgets";
    for namespace in [namespace, "mainstay-system"] {
        let arguments = ["get", kinds, "--output=json", "--namespace", namespace];
        let listed: Value = serde_json::from_str(&cluster.run(&arguments)).unwrap();
        for object in listed["items"].as_array().unwrap() {
            let name = object["metadata"]["name"].as_str().unwrap();
            let is_going = !object["metadata"]["deletionTimestamp"].is_null();
            if name != "default" && !is_going {
                left.push(format!("{namespace}: {} {name}", object["kind"]));
            }
        }
    }
    left
}

/// Installs again for the tests that follow, whatever became of this one.
struct Return(&'static Cluster);

impl Drop for Return {
    fn drop(&mut self) {
        self.0.install();
    }
}
