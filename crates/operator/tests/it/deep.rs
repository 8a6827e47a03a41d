//! Objects that nest too deep to be read: each is told so, and stops nobody.
//!
//! They are written and read as text, because the client here can't read them either.

use std::time::{Duration, Instant};

use kube::api::{Api, ListParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use crate::space::{Space, apps, core, ready, with_space};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(100);

#[tokio::test]
async fn an_object_that_is_too_deep_is_invalid_and_the_others_go_on() {
    with_space(async |space| {
        let models = json!(["fake/m"]);
        space.with_agent("helper", json!({"models": models})).await;
        for (name, levels) in [("deep", 200), ("deeper", 5_000)] {
            write(&space, name, levels).await;
            let condition = condition(&space, name, "Invalid").await;
            let message = condition["message"].as_str().unwrap();
            assert!(
                message.contains("nested deeper than 64 levels"),
                "{message}"
            );
            event(&space, name).await;
        }
        write(&space, "plain", 1).await;
        condition(&space, "plain", "Valid").await;
        space
            .write_agent("helper", json!({"models": models, "replicas": 2}))
            .await;
        space
            .when(&apps("Deployment", "deployments"), "helper", |it| {
                it.data["spec"]["replicas"] == 2
            })
            .await;
    })
    .await;
}

fn path(space: &Space) -> String {
    let namespace = &space.name;
    format!("/apis/mainstay.dev/v1alpha1/namespaces/{namespace}/toolregistries")
}

/// A registry with one tool, whose body nests so many levels.
async fn write(space: &Space, name: &str, levels: usize) {
    let (open, close) = (r#"{"a":"#.repeat(levels), "}".repeat(levels));
    let body = format!(
        r#"{{"apiVersion":"{}","kind":"ToolRegistry","metadata":{{"name":"{name}"}},
        "spec":{{"tools":[{{"name":"t","description":"d","http":{{"url":"http://127.0.0.1:9/","method":"POST",
        "body":{{"b":{open}1{close}}}}}}}]}}}}"#,
        api::API_VERSION
    );
    let request = hyper::Request::post(path(space))
        .header("content-type", "application/json")
        .body(body.into_bytes())
        .unwrap();
    space.client.request_text(request).await.unwrap();
}

/// Its condition `Ready`, once that has the reason.
async fn condition(space: &Space, name: &str, reason: &str) -> Value {
    let (started, mut last) = (Instant::now(), Value::Null);
    while started.elapsed() < PATIENCE {
        let request = hyper::Request::get(format!("{}/{name}", path(space)));
        let request = request.body(Vec::new()).unwrap();
        let text = space.client.request_text(request).await.unwrap();
        let object = api::kubernetes::shallow(&mut serde_json::Deserializer::from_str(&text));
        let object: DynamicObject = serde_json::from_value(object.unwrap()).unwrap();
        last = ready(&object);
        if last["reason"] == reason {
            return last;
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("{name} isn't {reason}: {last}");
}

async fn event(space: &Space, name: &str) {
    let events: Api<DynamicObject> = space.api(&core("Event", "events"));
    let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let found = events.list(&about).await.unwrap();
        if found.items.iter().any(|it| it.data["reason"] == "Invalid") {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("no Event says that {name} is invalid");
}
