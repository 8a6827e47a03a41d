//! Which controller looks at which kind. Each is one file, five steps, and no state of its own.

mod agent;
mod prompt_pack;
mod provider;
mod tool_registry;
mod volume;
mod workspace;

use std::sync::Arc;
use std::time::Duration;

use api::Kind;

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
        Kind::PromptPack => prompt_pack::reconcile(context, key).await,
        Kind::Provider => provider::reconcile(context, key).await,
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
    let refused = found.set.refused(found.key.kind, &found.key.name)?;
    Some(Verdict::invalid(&refused.problems, refused.kept))
}
