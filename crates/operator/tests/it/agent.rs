//! Agents: what they become, what is changed back, and what goes.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::space::{Space, agents, apps, core, with_space};

const MODEL: &str = "fake/m";

#[tokio::test]
async fn an_agent_is_a_deployment_until_it_keeps_a_volume() {
    with_space(async |space| {
        space.with_agent("helper", json!({"models": [MODEL]})).await;
        let deployment = space
            .there(&apps("Deployment", "deployments"), "helper")
            .await;
        assert_eq!(deployment.data["spec"]["replicas"], 1);
        let spec = json!({"models": [MODEL], "volume": {"size": "10Mi"}});
        space.write_agent("helper", spec).await;
        space
            .there(&apps("StatefulSet", "statefulsets"), "helper")
            .await;
        space
            .gone(&apps("Deployment", "deployments"), "helper")
            .await;
    })
    .await;
}

#[tokio::test]
async fn what_somebody_changes_is_changed_back_and_then_nothing_is_written() {
    with_space(async |space| {
        space
            .with_agent("helper", json!({"models": [MODEL], "replicas": 2}))
            .await;
        let deployments = apps("Deployment", "deployments");
        space.there(&deployments, "helper").await;
        let patch = json!({"spec": {"replicas": 7}});
        let by_hand = PatchParams::default();
        let api = space.api(&deployments);
        api.patch("helper", &by_hand, &Patch::Merge(patch))
            .await
            .unwrap();
        space
            .when(&deployments, "helper", |it| {
                it.data["spec"]["replicas"] == 2
            })
            .await;
        let budgets = kube::core::ApiResource {
            group: "policy".to_owned(),
            version: "v1".to_owned(),
            api_version: "policy/v1".to_owned(),
            kind: "PodDisruptionBudget".to_owned(),
            plural: "poddisruptionbudgets".to_owned(),
        };
        let made = space.there(&budgets, "helper").await;
        space
            .api(&budgets)
            .delete("helper", &DeleteParams::default())
            .await
            .unwrap();
        let uid = made.metadata.uid;
        space
            .when(&budgets, "helper", |it| it.metadata.uid != uid)
            .await;
        quiet(&space).await;
    })
    .await;
}

/// What the operator makes stays at its version for five seconds, once.
async fn quiet(space: &Space) {
    let mut before = versions(space).await;
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = versions(space).await;
        if before == after {
            return;
        }
        before = after;
    }
    panic!("something is written again and again");
}

async fn versions(space: &Space) -> BTreeMap<String, Option<String>> {
    let kinds = [
        core("ConfigMap", "configmaps"),
        core("Service", "services"),
        core("ServiceAccount", "serviceaccounts"),
        apps("Deployment", "deployments"),
        apps("StatefulSet", "statefulsets"),
        agents(),
    ];
    let mut versions = BTreeMap::new();
    for kind in kinds {
        for object in space.api(&kind).list(&ListParams::default()).await.unwrap() {
            let name = object.metadata.name.unwrap_or_default();
            versions.insert(
                format!("{}/{name}", kind.kind),
                object.metadata.resource_version,
            );
        }
    }
    versions
}

#[tokio::test]
async fn an_edit_to_nonsense_leaves_what_runs_and_says_why() {
    with_space(async |space| {
        space
            .with_agent("helper", json!({"models": [MODEL], "env": {"A": "1"}}))
            .await;
        let before = space
            .there(&apps("Deployment", "deployments"), "helper")
            .await;
        space
            .write_agent("helper", json!({"models": ["gone/m"], "env": {"A": "2"}}))
            .await;
        let condition = space.reason(&agents(), "helper", "Invalid").await;
        let message = condition["message"].as_str().unwrap();
        assert!(message.contains("there is no Provider `gone`"), "{message}");
        let after = space
            .there(&apps("Deployment", "deployments"), "helper")
            .await;
        assert_eq!(before.data["spec"], after.data["spec"]);
        space
            .write_agent("helper", json!({"models": [MODEL], "env": {"A": "3"}}))
            .await;
        space
            .when(&apps("Deployment", "deployments"), "helper", |it| {
                it.data["spec"]["template"] != before.data["spec"]["template"]
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_deployment_of_its_name_that_is_somebody_elses_is_left_alone() {
    with_space(async |space| {
        space
            .make_namespace(json!({"mainstay.dev/workspace": space.name}))
            .await;
        let theirs = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "helper"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
                "template": {"metadata": {"labels": {"a": "b"}},
                    "spec": {"containers": [{"name": "x", "image": "localhost/none:1"}]}}}});
        let deployments = apps("Deployment", "deployments");
        let object = serde_json::from_value(theirs).unwrap();
        let made = space
            .api(&deployments)
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        space.with_agent("helper", json!({"models": [MODEL]})).await;
        space.reason(&agents(), "helper", "NameTaken").await;
        let accounts = core("ServiceAccount", "serviceaccounts");
        let account = space
            .api(&accounts)
            .get_opt("mainstay-agent-helper")
            .await
            .unwrap();
        assert!(account.is_none(), "nothing is made by halves");
        let after = space.there(&deployments, "helper").await;
        assert_eq!(made.metadata.generation, after.metadata.generation);
        space
            .api(&deployments)
            .delete("helper", &DeleteParams::default())
            .await
            .unwrap();
        space
            .when(&deployments, "helper", |it| {
                it.metadata.uid != made.metadata.uid
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_is_made_again_under_its_name_gets_pods_again() {
    with_space(async |space| {
        let spec = json!({"models": [MODEL]});
        space.with_agent("helper", spec.clone()).await;
        space
            .there(&apps("Deployment", "deployments"), "helper")
            .await;
        space
            .api(&agents())
            .delete("helper", &DeleteParams::default())
            .await
            .unwrap();
        space.write_agent("helper", spec).await;
        let agent = space.there(&agents(), "helper").await;
        space
            .when(&apps("Deployment", "deployments"), "helper", |it| {
                let owners = it.metadata.owner_references.iter().flatten();
                let mut owners = owners.map(|owner| Some(&owner.uid));
                it.metadata.deletion_timestamp.is_none()
                    && owners.all(|uid| uid == agent.metadata.uid.as_ref())
            })
            .await;
    })
    .await;
}
