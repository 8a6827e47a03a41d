//! Workspaces: whose namespace it is, what is made there, and what is left.

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::space::{apps, core, gone, network_policies, with_space};

#[tokio::test]
async fn a_workspace_gets_a_namespace_a_hub_and_its_tenancy() {
    with_space(async |space| {
        let members = json!([{"subject": "group:red", "role": "viewer"}]);
        let spec = json!({"members": members, "quota": {"agents": 3}});
        space.write_workspace(spec).await;
        space
            .there(&apps("StatefulSet", "statefulsets"), "mainstay-hub")
            .await;
        let namespace = space.namespaces().get(&space.name).await.unwrap();
        let labels = namespace.metadata.labels.unwrap();
        assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
        assert_eq!(
            namespace.metadata.owner_references.unwrap()[0].kind,
            "Workspace"
        );
        for policy in ["mainstay-agents", "mainstay-tools", "mainstay-hub"] {
            space.there(&network_policies(), policy).await;
        }
        let account = space
            .when(
                &core("ServiceAccount", "serviceaccounts"),
                "default",
                |account| account.data["automountServiceAccountToken"] == false,
            )
            .await;
        assert!(account.metadata.labels.is_some());
        let secret = space
            .there(&core("Secret", "secrets"), "mainstay-hub")
            .await;
        // A quota that isn't written any more is no quota.
        space
            .there(&core("ResourceQuota", "resourcequotas"), "mainstay")
            .await;
        space.write_workspace(json!({})).await;
        space
            .gone(&core("ResourceQuota", "resourcequotas"), "mainstay")
            .await;
        let later = space
            .there(&core("Secret", "secrets"), "mainstay-hub")
            .await;
        assert_eq!(secret.data, later.data, "keys are never made again");
    })
    .await;
}

#[tokio::test]
async fn a_namespace_that_is_there_is_taken_by_its_label_only_and_keeps_what_is_not_ours() {
    with_space(async |space| {
        space.make_namespace(json!({})).await;
        let theirs =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}});
        let config_maps = core("ConfigMap", "configmaps");
        let object = serde_json::from_value(theirs).unwrap();
        space
            .api(&config_maps)
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        space.write_workspace(json!({})).await;
        let condition = space.workspace_reason("NamespaceNotOurs").await;
        let message = condition["message"].as_str().unwrap();
        let label = format!("mainstay.dev/workspace={}", space.name);
        assert!(message.contains(&label), "{message}");
        let stateful_sets = apps("StatefulSet", "statefulsets");
        assert!(
            space
                .api(&stateful_sets)
                .get_opt("mainstay-hub")
                .await
                .unwrap()
                .is_none()
        );

        let patch = json!({"metadata": {"labels": {"mainstay.dev/workspace": space.name}}});
        let parameters = PatchParams::default();
        space
            .namespaces()
            .patch(&space.name, &parameters, &Patch::Merge(patch))
            .await
            .unwrap();
        space.there(&stateful_sets, "mainstay-hub").await;

        space
            .workspaces()
            .delete(&space.name, &DeleteParams::default())
            .await
            .unwrap();
        gone(space.workspaces(), &space.name).await;
        space.gone(&stateful_sets, "mainstay-hub").await;
        space.gone(&config_maps, "mainstay-hub-ca").await;
        space.there(&config_maps, "theirs").await;
        space
            .there(&core("Secret", "secrets"), "mainstay-hub")
            .await;
        assert!(
            space
                .namespaces()
                .get(&space.name)
                .await
                .unwrap()
                .metadata
                .deletion_timestamp
                .is_none()
        );
    })
    .await;
}

#[tokio::test]
async fn lost_keys_are_said_and_not_made_again() {
    with_space(async |space| {
        space.write_workspace(json!({})).await;
        space
            .there(&apps("StatefulSet", "statefulsets"), "mainstay-hub")
            .await;
        space
            .there(&core("ConfigMap", "configmaps"), "mainstay-hub-ca")
            .await;
        let secrets = core("Secret", "secrets");
        space
            .api(&secrets)
            .delete("mainstay-hub", &DeleteParams::default())
            .await
            .unwrap();
        space
            .write_workspace(json!({"description": "looked at again"}))
            .await;
        space.workspace_reason("KeysLost").await;
        assert!(
            space
                .api(&secrets)
                .get_opt("mainstay-hub")
                .await
                .unwrap()
                .is_none()
        );
    })
    .await;
}
