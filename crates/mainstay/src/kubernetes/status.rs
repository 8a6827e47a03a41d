//! `mainstay kubernetes status`: what runs of Mainstay in a cluster, and what isn't ready.
//!
//! Read from objects alone, so that it works while operator and hubs don't. Exit 1 says that
//! something isn't ready, 4 that nothing is installed.

use api::kubernetes::{GROUP, HUB, VERSION};
use operator::install::{OPERATOR, VERSION_LABEL};
use serde_json::{Value, json};

use super::cluster::{Cluster, Reference};
use super::install::{condition, is_rolled_out, is_true, trouble};
use super::namespace;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Columns, OutputArgs, cell, print, printable};
use crate::place::PlaceArgs;

/// Kinds whose objects lie in a workspace's namespace.
pub const IN_NAMESPACES: [&str; 4] = ["Agent", "ToolRegistry", "PromptPack", "Provider"];

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay kubernetes status --kube-context staging")]
pub struct StatusArgs {
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn status(place: &PlaceArgs, args: StatusArgs) -> Outcome {
    let cluster = Cluster::connect(&place.cluster()).await?;
    let namespace = &namespace(place);
    let of = Reference {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        namespace: Some(namespace.clone()),
        name: OPERATOR.into(),
    };
    let Some(deployment) = cluster.get(&of).await? else {
        let message = format!(
            "no operator in namespace {namespace} of {}",
            cluster.address
        );
        return Err(Failure::new(Exit::NotFound, message)
            .with_hint("`mainstay kubernetes install` puts one there, -n names another place"));
    };
    let fleet = fleet(&cluster).await?;
    let status = json!({
        "cluster": cluster.address,
        "versions": versions(&cluster, &deployment).await?,
        "operator": operator_state(&cluster, &deployment, namespace).await?,
        "workspaces": workspaces(&cluster, &fleet).await?,
        "notReady": not_ready(&fleet),
    });
    print(args.output, &status, view)?;
    Ok(if is_well(&status) {
        Exit::Done
    } else {
        Exit::Failed
    })
}

async fn versions(cluster: &Cluster, deployment: &Value) -> Result<Value, Failure> {
    let label = format!("/metadata/labels/{}", VERSION_LABEL.replace('/', "~1"));
    Ok(json!({
        "mainstay": env!("CARGO_PKG_VERSION"),
        "installed": deployment.pointer(&label),
        "image": deployment.pointer("/spec/template/spec/containers/0/image"),
        "kubernetes": cluster.version().await?,
    }))
}

async fn operator_state(
    cluster: &Cluster,
    deployment: &Value,
    namespace: &str,
) -> Result<Value, Failure> {
    let ready = is_rolled_out(deployment);
    let why = if ready {
        None
    } else {
        trouble(cluster, namespace).await?
    };
    Ok(json!({
        "namespace": namespace,
        "ready": ready,
        "replicas": deployment.pointer("/spec/replicas"),
        "available": deployment.pointer("/status/availableReplicas").unwrap_or(&json!(0)),
        "reason": why,
    }))
}

/// The objects of every workspace.
async fn fleet(cluster: &Cluster) -> Result<Vec<Value>, Failure> {
    let kind = format!("{GROUP}/{VERSION}");
    let mut found = Vec::new();
    for name in IN_NAMESPACES {
        found.extend(cluster.list((&kind, name), None, "").await?);
    }
    Ok(found)
}

async fn workspaces(cluster: &Cluster, fleet: &[Value]) -> Result<Vec<Value>, Failure> {
    let kind = format!("{GROUP}/{VERSION}");
    let mut found = Vec::new();
    for workspace in cluster.list((&kind, "Workspace"), None, "").await? {
        let name = Reference::of(&workspace).name;
        let hub = Reference {
            api_version: "apps/v1".into(),
            kind: "StatefulSet".into(),
            namespace: Some(name.clone()),
            name: HUB.into(),
        };
        let hub = cluster.get(&hub).await?;
        let ready = hub
            .as_ref()
            .and_then(|hub| hub.pointer("/status/readyReplicas"))
            .and_then(Value::as_u64)
            .is_some_and(|ready| ready > 0);
        let is_agent_here = |object: &&Value| {
            object["kind"] == "Agent" && object["metadata"]["namespace"] == name.as_str()
        };
        let agents = fleet.iter().filter(is_agent_here);
        found.push(json!({
            "name": name, "hubReady": ready, "agents": agents.count(),
            "reason": reason(&workspace),
            "isolation": isolation(&workspace),
        }));
    }
    Ok(found)
}

fn not_ready(fleet: &[Value]) -> Vec<Value> {
    let unready = fleet.iter().filter_map(|object| {
        let reason = reason(object)?;
        let of = Reference::of(object);
        Some(json!({
            "kind": of.kind, "workspace": of.namespace, "name": of.name, "reason": reason,
        }))
    });
    unready.collect()
}

/// Why an object isn't ready; `None` if it is.
fn reason(object: &Value) -> Option<String> {
    let Some(ready) = condition(object, "Ready") else {
        return Some("nobody has looked at it yet".to_owned());
    };
    if is_true(ready) && is_current(object, ready) {
        return None;
    }
    if is_true(ready) {
        return Some("its last change has not been looked at yet".to_owned());
    }
    let text = |field: &str| ready.get(field).and_then(Value::as_str).unwrap_or_default();
    Some(printable(&format!(
        "{}: {}",
        text("reason"),
        text("message")
    )))
}

/// What was found of a workspace's network, and what to do where nothing enforces its policies.
fn isolation(workspace: &Value) -> Value {
    let Some(found) = condition(workspace, "IsolationUnenforced") else {
        return json!({"enforced": null, "message": null});
    };
    json!({"enforced": !is_true(found), "message": found.get("message")})
}

/// Whether the condition is about the object as it is now.
fn is_current(object: &Value, ready: &Value) -> bool {
    let generation = object
        .pointer("/metadata/generation")
        .and_then(Value::as_i64);
    let observed = ready.get("observedGeneration").and_then(Value::as_i64);
    observed.is_none() || observed >= generation
}

/// An agent that isn't ready may have a wrong manifest; operator and hubs are Mainstay's own.
fn is_well(status: &Value) -> bool {
    let workspaces = status["workspaces"].as_array();
    status["operator"]["ready"] == true
        && workspaces
            .into_iter()
            .flatten()
            .all(|workspace| workspace["hubReady"] == true)
        && status["notReady"].as_array().is_some_and(Vec::is_empty)
}

fn view(status: &Value) -> String {
    let versions = &status["versions"];
    let operator = &status["operator"];
    let mut text = format!(
        "cluster   {}, Kubernetes {}\noperator  {}, {} of {} ready in {}\nimage     {}\n",
        cell(status, "cluster"),
        cell(versions, "kubernetes"),
        cell(versions, "installed"),
        cell(operator, "available"),
        cell(operator, "replicas"),
        cell(operator, "namespace"),
        cell(versions, "image"),
    );
    if let Some(reason) = operator["reason"].as_str() {
        text.push_str(&format!("          {}\n", printable(reason)));
    }
    if versions["installed"] != versions["mainstay"] {
        let mine = cell(versions, "mainstay");
        text.push_str(&format!(
            "          this program is {mine}: `mainstay kubernetes install` brings it there\n"
        ));
    }
    let mut workspaces =
        Columns::new(&["WORKSPACE", "HUB", "AGENTS", "POLICIES", "REASON"]).with_widest_cell(160);
    for workspace in status["workspaces"].as_array().into_iter().flatten() {
        let hub = if workspace["hubReady"] == true {
            "ready"
        } else {
            "not ready"
        };
        workspaces.row(vec![
            cell(workspace, "name"),
            hub.to_owned(),
            cell(workspace, "agents"),
            policies(workspace).to_owned(),
            cell(workspace, "reason"),
        ]);
    }
    text.push_str(&format!("\n{}", workspaces.render()));
    text.push_str(&unenforced(status));
    let unready = status["notReady"]
        .as_array()
        .filter(|unready| !unready.is_empty());
    if let Some(unready) = unready {
        let mut objects = Columns::new(&["NOT READY", "NAME", "REASON"]).with_widest_cell(160);
        for object in unready {
            let name = format!("{}/{}", cell(object, "workspace"), cell(object, "name"));
            objects.row(vec![cell(object, "kind"), name, cell(object, "reason")]);
        }
        text.push_str(&format!("\n{}", objects.render()));
    }
    text
}

/// Whether the network enforces a workspace's policies, as its agents' pods found.
fn policies(workspace: &Value) -> &'static str {
    match workspace["isolation"]["enforced"].as_bool() {
        Some(true) => "enforced",
        Some(false) => "not enforced",
        None => "not tried",
    }
}

/// What to do about networks that enforce nothing; once, as all workspaces have one network.
fn unenforced(status: &Value) -> String {
    let workspaces = status["workspaces"].as_array().into_iter().flatten();
    let mut open = workspaces.filter(|workspace| workspace["isolation"]["enforced"] == false);
    let message = open.find_map(|workspace| workspace["isolation"]["message"].as_str());
    message.map_or_else(String::new, |message| format!("\n{}\n", printable(message)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(status: &str, observed: i64) -> Value {
        json!({"metadata": {"generation": 2}, "status": {"conditions": [{
            "type": "Ready", "status": status, "reason": "SecretMissing",
            "message": "there is no Secret k", "observedGeneration": observed,
        }]}})
    }

    #[test]
    fn only_what_was_looked_at_as_it_is_now_is_ready() {
        assert_eq!(reason(&agent("True", 2)), None);
        assert!(reason(&agent("True", 1)).is_some());
        assert!(reason(&json!({})).is_some());
        assert_eq!(
            reason(&agent("False", 2)).unwrap(),
            "SecretMissing: there is no Secret k"
        );
    }

    #[test]
    fn a_hub_that_is_not_ready_shows_and_is_not_well() {
        let mut status = json!({
            "cluster": "https://c/", "operator": {"ready": true, "available": 1, "replicas": 1, "namespace": "n"},
            "versions": {"mainstay": "1", "installed": "1", "kubernetes": "v1.35", "image": "mainstay:1"},
            "workspaces": [{"name": "acme", "hubReady": false, "agents": 2, "reason": null}],
            "notReady": [],
        });
        assert!(!is_well(&status));
        assert!(
            view(&status).contains("acme       not ready  2       not tried"),
            "{}",
            view(&status)
        );
        status["workspaces"][0]["hubReady"] = true.into();
        assert!(is_well(&status));
        let open = json!({"status": {"conditions": [{
            "type": "IsolationUnenforced", "status": "True", "reason": "Reached", "message": "install one",
        }]}});
        status["workspaces"][0]["isolation"] = isolation(&open);
        let told = view(&status);
        assert!(
            told.contains("not enforced") && told.contains("\ninstall one\n"),
            "{told}"
        );
    }
}
