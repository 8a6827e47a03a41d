//! The second step of an agent: whether it can run here, by the set that it is part of and by what
//! this home has.

use std::sync::Arc;

use api::fleet::{Agent, Runtime};

use super::super::refusal;
use super::{Runnable, Validated};
use crate::build;
use crate::dereference::{Dereferenced, Home};
use crate::verdict::Verdict;

pub(super) fn validate(found: Dereferenced) -> Validated {
    let outcome = runnable(&found);
    Validated { found, outcome }
}

fn runnable(found: &Dereferenced) -> Result<Runnable, Verdict> {
    if let Some(refusal) = refusal(found) {
        return Err(refusal);
    }
    let Some(agent) = found.set.agents.get(&found.key.name) else {
        return Err(Verdict::waiting(
            "Resolving",
            "its workspace is being resolved",
        ));
    };
    let is_builtin_written = found.written.manifest()["spec"]["runtime"]["builtin"].is_object();
    if let Some(problem) = unrunnable(agent, is_builtin_written) {
        return Err(problem);
    }
    let Home::Of { hub: Some(hub) } = &found.home else {
        return Err(Verdict::waiting(
            "HubStarting",
            "the workspace's hub has no address yet",
        ));
    };
    Ok(Runnable {
        agent: Arc::clone(agent),
        hub: hub.clone(),
    })
}

/// What Mainstay's own objects are called, and so no Deployment of an agent.
const RESERVED: &str = "mainstay-";

/// What a fleet may say that pods can't do.
fn unrunnable(agent: &Agent, is_builtin_written: bool) -> Option<Verdict> {
    if agent.name.starts_with(RESERVED) {
        return Some(Verdict::problem(
            "NameTaken",
            format!(
                "metadata.name: names that begin with {RESERVED} are those of Mainstay's own objects on Kubernetes: give this agent another name"
            ),
        ));
    }
    if agent
        .source
        .as_ref()
        .is_some_and(|source| source.hash.is_none())
    {
        return Some(Verdict::problem(
            "SourceNotHere",
            "spec.source names files of another machine: send them with `mainstay -n NAMESPACE apply FILE`, or put the code into an image, name that in spec.image, and leave spec.source out",
        ));
    }
    match (&agent.runtime, &agent.image) {
        (Runtime::Builtin, Some(_)) if !is_builtin_written => Some(Verdict::problem(
            "CommandUnknown",
            "spec.image is there and no command: write what the image runs in spec.runtime.exec.command or spec.runtime.service.command, or spec.runtime.builtin: {} for the built-in loop",
        )),
        (Runtime::Exec { .. }, None) if !build::has_image(agent) => Some(no_image("exec")),
        (Runtime::Service { .. }, None) if !build::has_image(agent) => Some(no_image("service")),
        _ => None,
    }
}

fn no_image(runtime: &str) -> Verdict {
    Verdict::problem(
        "ImageMissing",
        format!(
            "spec.image is missing: spec.runtime.{runtime}.command runs in an image on Kubernetes (only python and node with a spec.source have one by default)"
        ),
    )
}

#[cfg(test)]
mod tests;
