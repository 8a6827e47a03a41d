//! ToolRegistry: a pod for each stdio MCP server that an agent uses; the other tools are the hub's
//! own to call.

use std::time::Duration;

use api::fleet::{Tool, ToolKind};

use super::refusal;
use crate::apply;
use crate::build::{self, ToolInput};
use crate::context::Context;
use crate::dereference::{Dereferenced, Home, dereference};
use crate::error::Error;
use crate::object::{Object, Resource};
use crate::status::{self, Status};
use crate::verdict::Verdict;
use crate::world::{Key, PodOwner};

pub(super) async fn reconcile(context: &Context, key: &Key) -> Result<Option<Duration>, Error> {
    let Some(found) = dereference(context, key) else {
        return Ok(None);
    };
    let validated = validate(found);
    let prepared = prepare(context, validated);
    let applied = apply(context, prepared).await;
    update_status(context, applied).await?;
    Ok(None)
}

/// Servers that can run, and what keeps others or all from it.
struct Validated {
    found: Dereferenced,
    servers: Vec<Server>,
    hub: Option<String>,
    refusal: Option<Verdict>,
    /// Whether what runs is to be left as it is.
    is_left: bool,
}

struct Server {
    /// `registry/tool`.
    tool: String,
    content: Tool,
    image: String,
}

struct Prepared {
    found: Dereferenced,
    servers: Vec<Server>,
    objects: Option<Vec<Object>>,
    refusal: Option<Verdict>,
}

struct Applied {
    found: Dereferenced,
    servers: Vec<Server>,
    refusal: Option<Verdict>,
    failed: Result<(), Error>,
}

fn validate(found: Dereferenced) -> Validated {
    if let Some(refusal) = refusal(&found) {
        return Validated {
            found,
            servers: Vec::new(),
            hub: None,
            refusal: Some(refusal),
            is_left: true,
        };
    }
    let (mut servers, mut refusal) = (Vec::new(), None);
    for (name, tool) in found.set.used_tools(&found.key.name) {
        match &tool.kind {
            ToolKind::McpStdio {
                image: Some(image), ..
            } => servers.push(Server {
                tool: name.clone(),
                content: tool.clone(),
                image: image.clone(),
            }),
            ToolKind::McpStdio { image: None, .. } => {
                refusal = Some(Verdict::problem(
                    "ImageMissing",
                    format!(
                        "spec.tools: {} has no mcp.image: an MCP server's command runs in an image on Kubernetes",
                        tool.name
                    ),
                ));
            }
            ToolKind::McpHttp { .. } | ToolKind::Http { .. } | ToolKind::Agent { .. } => {}
        }
    }
    let hub = match &found.home {
        Home::Of { hub } => hub.clone(),
        Home::None | Home::NotReady => None,
    };
    if hub.is_none() && !servers.is_empty() {
        refusal = Some(Verdict::waiting(
            "HubStarting",
            "the workspace's hub has no address yet",
        ));
    }
    Validated {
        is_left: hub.is_none(),
        found,
        servers,
        hub,
        refusal,
    }
}

fn prepare(context: &Context, validated: Validated) -> Prepared {
    let Validated {
        found,
        servers,
        hub,
        refusal,
        is_left,
    } = validated;
    let hub = hub.unwrap_or_default();
    let objects = servers.iter().flat_map(|server| {
        let ToolKind::McpStdio { command, env, .. } = &server.content.kind else {
            return Vec::new();
        };
        build::tool(&ToolInput {
            namespace: &found.key.namespace,
            owner: &found.owner,
            tool: &server.tool,
            registry: &found.key.name,
            image: &server.image,
            command,
            env,
            own_image: &context.image,
            hub: &hub,
        })
    });
    let objects = (!is_left).then(|| objects.collect());
    Prepared {
        found,
        servers,
        objects,
        refusal,
    }
}

async fn apply(context: &Context, prepared: Prepared) -> Applied {
    let Prepared {
        found,
        servers,
        objects,
        refusal,
    } = prepared;
    let failed = match objects {
        // An agent that can't be read may use more of it.
        Some(objects) if found.set.is_partial() => apply::beside(context, &objects).await,
        Some(objects) => {
            apply::objects(context, &found.key.namespace, &found.owner.uid, &objects).await
        }
        None => Ok(()),
    };
    Applied {
        found,
        servers,
        refusal,
        failed,
    }
}

async fn update_status(context: &Context, applied: Applied) -> Result<(), Error> {
    let Applied {
        found,
        servers,
        refusal,
        failed,
    } = applied;
    let verdict = match (&failed, refusal) {
        (Err(error), _) => Verdict::of_error(error),
        (Ok(()), Some(refusal)) => refusal,
        (Ok(()), None) => of_servers(context, &found, &servers),
    };
    status::update(context, &found.key, &found.written, Status::of(verdict)).await?;
    failed
}

/// The first server that isn't ready, or that all are.
fn of_servers(context: &Context, found: &Dereferenced, servers: &[Server]) -> Verdict {
    let namespace = &found.key.namespace;
    for server in servers {
        let name = api::kubernetes::tool_account(&server.tool);
        let owned = context.world.owned(namespace, Resource::Deployment, &name);
        let workload = owned.and_then(|owned| owned.workload);
        let id = api::kubernetes::tool_id(&server.tool);
        let owner = PodOwner::Tool(found.key.name.clone(), id);
        let pods = context.world.pods_of(namespace, &owner);
        let verdict = Verdict::of_workload(workload.as_ref(), &pods, &server.image);
        if !verdict.is_ready {
            return verdict.of_part(&server.content.name);
        }
    }
    match servers.len() {
        0 => Verdict::ready("Valid", "it can be used"),
        1 => Verdict::ready("Running", "its MCP server is ready"),
        many => Verdict::ready("Running", format!("all {many} MCP servers are ready")),
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use kube::core::DynamicObject;
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::Fake;
    use crate::resolve;
    use crate::world::{Listed, Owned, Written};

    fn put(context: &Context, key: &Key, spec: &Value) {
        let mut object = json!({
            "metadata": {"name": key.name, "uid": key.name, "generation": 1}, "spec": spec,
        });
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(key.namespace);
        }
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let written = Written::read(key.kind, &object);
        context.world.put_written(key, written);
    }

    /// The server of a tool that no agent is known to use.
    fn put_server(context: &Context) {
        let metadata = json!({
            "name": "mainstay-tool-x", "labels": {"app.kubernetes.io/managed-by": "mainstay"},
            "ownerReferences": [{"apiVersion": "mainstay.dev/v1alpha1", "kind": "ToolRegistry",
                "name": "desk", "uid": "desk", "controller": true}],
        });
        let metadata = serde_json::from_value(metadata).unwrap();
        let (world, owned) = (&context.world, Owned::read(&metadata, &Value::Null));
        world.put_owned("acme", Resource::Deployment, "mainstay-tool-x", owned);
        let metadata = kube::core::ObjectMeta::default();
        let service = json!({"spec": {"clusterIP": "198.19.0.9"}});
        let hub = Owned::read(&metadata, &service);
        world.put_owned("acme", Resource::Service, api::kubernetes::HUB, hub);
        for resource in Resource::WATCHED {
            world.listed("acme", Listed::Owned(resource));
        }
        world.listed("acme", Listed::Pods);
    }

    #[tokio::test]
    async fn a_server_that_an_unreadable_agent_may_use_is_not_removed() {
        let fake = Fake::start(|_| None).await;
        let context = fake.context();
        let registry = Key::new(Kind::ToolRegistry, "acme", "desk");
        let agent = Key::new(Kind::Agent, "acme", "a");
        put(&context, &Key::workspace("acme"), &json!({}));
        put(&context, &registry, &json!({"tools": []}));
        put(&context, &agent, &json!({"replicas": "many"}));
        put_server(&context);
        for kind in Kind::ALL {
            context.world.kind_listed(kind);
        }
        resolve::renew(&context.world, "acme", context.checks);
        reconcile(&context, &registry).await.unwrap();
        let path = "/deployments/mainstay-tool-x";
        assert_eq!(fake.count("DELETE", path), 0);
        context.world.remove_written(&agent);
        // The answer to the status had no metadata of the object's own.
        put(&context, &registry, &json!({"tools": []}));
        resolve::renew(&context.world, "acme", context.checks);
        reconcile(&context, &registry).await.unwrap();
        assert_eq!(fake.count("DELETE", path), 1, "{:?}", fake.asked());
    }
}
