//! Which controller looks at which kind. Each is five steps and no state of its own; two kinds that
//! nothing is made of share one.

mod agent;
mod objectless;
mod tool_registry;
mod volume;
mod workspace;

use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use api::fleet::Fleet;

use crate::build;
use crate::context::Context;
use crate::dereference::{Dereferenced, Home};
use crate::error::Error;
use crate::verdict::Verdict;
use crate::world::Key;

/// Makes the cluster what the object says, as far as it can be now; looked at again after the
/// duration, if there is one.
pub(crate) async fn reconcile(
    context: &Arc<Context>,
    key: &Key,
) -> Result<Option<Duration>, Error> {
    match key.kind {
        Kind::Agent => agent::reconcile(context, key).await,
        Kind::PromptPack | Kind::Provider => objectless::reconcile(context, key).await,
        Kind::ToolRegistry => tool_registry::reconcile(context, key).await,
        Kind::Workspace => workspace::reconcile(context, key).await,
    }
}

/// What keeps any object of a namespace from being used: no workspace, or a problem with it.
fn refusal(found: &Dereferenced) -> Option<Verdict> {
    let namespace = &found.key.namespace;
    match found.home {
        Home::None => {
            return Some(Verdict::problem(
                "NoWorkspace",
                format!(
                    "namespace {namespace} belongs to no workspace: make a Workspace named {namespace}, and label the namespace {}={namespace}",
                    api::kubernetes::WORKSPACE_LABEL
                ),
            ));
        }
        Home::NotReady => {
            return Some(Verdict::waiting(
                "WorkspaceNotReady",
                format!("Workspace {namespace} isn't ready: see its conditions"),
            ));
        }
        Home::Of { .. } => {}
    }
    if let Some(refused) = found.set.refused(found.key.kind, &found.key.name) {
        return Some(Verdict::invalid(&refused.problems, refused.kept));
    }
    node_address(&found.set.fleet, &found.key)
}

/// What it would call is a node's own network, to which no way is opened.
fn node_address(fleet: &Fleet, key: &Key) -> Option<Verdict> {
    let (field, address) = match key.kind {
        Kind::Provider => {
            let provider = fleet.providers.get(&key.name)?;
            let address = build::node_address(&provider.base_url)?;
            ("spec.baseUrl".to_owned(), address)
        }
        Kind::ToolRegistry => {
            let tools = fleet.tools.values();
            let mut tools = tools.filter(|tool| tool.registry == key.name);
            tools.find_map(|tool| {
                let mut urls = build::urls(tool).into_iter();
                let address = urls.find_map(|url| build::node_address(url))?;
                Some((format!("spec.tools: {}", tool.name), address))
            })?
        }
        Kind::Agent | Kind::PromptPack | Kind::Workspace => return None,
    };
    Some(Verdict::problem(
        "Invalid",
        format!(
            "{field}: {address} is an address of the node's own network, where clouds give out the node's credentials: name another, or a Service of the cluster"
        ),
    ))
}

#[cfg(test)]
mod tests;
