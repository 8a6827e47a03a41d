//! How a Workspace that adopted a namespace ends, against an API server that says what is there.

use super::*;
use crate::fake::{Answer, Asked, Fake, refused, until};

fn put(context: &Context, key: &Key) {
    let object = json!({"metadata": {
        "name": key.name, "uid": "1", "generation": 2, "finalizers": [FINALIZER],
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }, "spec": {}});
    let object = serde_json::from_value(object).unwrap();
    context
        .world
        .put_written(key, Written::read(key.kind, &object));
}

fn namespace(labels: &Value) -> impl Fn(&Asked) -> Option<Answer> + use<> {
    let namespace = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "acme", "labels": labels}});
    move |asked| {
        let is_asked = asked.is("GET", "/namespaces/acme");
        is_asked.then(|| Answer::Say(200, namespace.clone()))
    }
}

fn is_released(fake: &Fake) -> bool {
    let asked = fake.asked();
    let mut written = asked
        .iter()
        .filter(|asked| asked.is("PATCH", "/workspaces/acme"));
    written.any(|asked| asked.body["metadata"].get("finalizers").is_none())
}

#[tokio::test]
async fn a_workspace_whose_namespace_is_gone_or_taken_back_ends_at_once() {
    let key = Key::workspace("acme");
    let nowhere = Fake::start(|_| None).await;
    let taken_back = Fake::start(namespace(&json!({}))).await;
    for fake in [nowhere, taken_back] {
        let context = fake.context();
        put(&context, &key);
        assert_eq!(leave(&context, &key).await.unwrap(), None);
        assert!(is_released(&fake), "{:?}", fake.asked());
        assert_eq!(fake.count("GET", "/deployments"), 0, "nothing is watched");
    }
}

#[tokio::test]
async fn a_workspace_without_rights_takes_them_again_says_that_it_leaves_and_then_ends() {
    let key = Key::workspace("acme");
    let fake = Fake::start(namespace(&json!({"mainstay.dev/workspace": "acme"}))).await;
    let context = fake.context();
    put(&context, &key);
    // What was known of the binding is no longer so.
    let binding = crate::rbac::in_namespace("acme", &owner(&key, &of(&context, &key)), "home");
    let known = serde_json::from_value::<DynamicObject>(binding.body.clone()).unwrap();
    let known = crate::world::Owned::read(&known.metadata, &known.data);
    let world = &context.world;
    world.put_owned("acme", binding.resource, &binding.name, known);

    assert_eq!(leave(&context, &key).await.unwrap(), Some(AGAIN));
    assert!(!is_released(&fake));
    let path = format!("/rolebindings/{IN_WORKSPACE_ROLE}");
    assert_eq!(fake.count("PATCH", &path), 1, "{:?}", fake.asked());
    let ready = of(&context, &key).status()["conditions"][0].clone();
    assert_eq!(
        (&ready["status"], &ready["reason"]),
        (&json!("False"), &json!("Leaving"))
    );

    until(|| context.world.is_known("acme")).await;
    // The answer to the status had no metadata of the object's own.
    put(&context, &key);
    assert_eq!(leave(&context, &key).await.unwrap(), None);
    assert!(is_released(&fake));
}

#[tokio::test]
async fn a_workspace_that_was_deleted_meanwhile_is_not_made_anew_to_be_held() {
    // As the API server does: a uid that nothing has is a conflict, and without one it creates.
    let fake = Fake::start(|asked| {
        let is_asked = asked.is("PATCH", "/workspaces/acme");
        let has_uid = asked.body["metadata"]["uid"] == "1";
        (is_asked && has_uid).then(|| refused(409, "Conflict"))
    })
    .await;
    let context = fake.context();
    let key = Key::workspace("acme");
    assert!(!hold(&context, &key, "1").await.unwrap());
    assert!(finalizers(&context, &key, "", &[FINALIZER]).await.unwrap());
}

fn of(context: &Context, key: &Key) -> Arc<Written> {
    context.world.written(key).unwrap()
}
