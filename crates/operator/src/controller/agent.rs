//! Agent: from what it says to its pods, and back to its status.

mod validate;

use std::sync::Arc;
use std::time::Duration;

use api::fleet::Agent;
use api::kubernetes::CREDENTIALS_VALID;
use serde_json::Value;

use super::volume;
use crate::apply;
use crate::build::{self, AgentInput};
use crate::context::Context;
use crate::dereference::{Dereferenced, dereference};
use crate::error::Error;
use crate::object::{Object, Resource};
use crate::status::{self, Status};
use crate::verdict::Verdict;
use crate::world::{Key, PodOwner, Workload};

pub(super) async fn reconcile(context: &Context, key: &Key) -> Result<Option<Duration>, Error> {
    let Some(found) = dereference(context, key) else {
        return Ok(None);
    };
    let validated = validate::validate(found);
    let prepared = prepare(context, validated);
    let applied = apply(context, prepared).await;
    update_status(context, applied).await?;
    Ok(None)
}

/// An agent that can run, or why it can't.
struct Validated {
    found: Dereferenced,
    outcome: Result<Runnable, Verdict>,
}

struct Runnable {
    agent: Arc<Agent>,
    hub: String,
}

/// Built, and not yet in the cluster.
struct Prepared {
    found: Dereferenced,
    outcome: Result<(Arc<Agent>, Vec<Object>), Verdict>,
    fixed: Option<String>,
}

/// In the cluster, or not, and why.
struct Applied {
    found: Dereferenced,
    outcome: Result<Arc<Agent>, Verdict>,
    fixed: Option<String>,
    failed: Result<(), Error>,
}

fn prepare(context: &Context, validated: Validated) -> Prepared {
    let Validated { found, outcome } = validated;
    let mut fixed = None;
    let outcome = outcome.map(|Runnable { agent, hub }| {
        let image = image_of(context, &agent);
        let mut objects = build::agent(&AgentInput {
            namespace: &found.key.namespace,
            owner: &found.owner,
            agent: &agent,
            image: &image,
            own_image: &context.image,
            hub: &hub,
        });
        fixed = volume::keep_size(&context.world, &mut objects, "spec.volume.size");
        (agent, objects)
    });
    Prepared {
        found,
        outcome,
        fixed,
    }
}

async fn apply(context: &Context, prepared: Prepared) -> Applied {
    let Prepared {
        found,
        outcome,
        fixed,
    } = prepared;
    let (agent, objects) = match outcome {
        Ok(built) => built,
        // What runs goes on as it is.
        Err(verdict) => {
            return Applied {
                found,
                outcome: Err(verdict),
                fixed,
                failed: Ok(()),
            };
        }
    };
    let failed = apply::objects(context, &found.key.namespace, &found.owner.uid, &objects).await;
    let outcome = match &failed {
        Ok(()) => Ok(agent),
        Err(error) => Err(Verdict::of_error(error)),
    };
    Applied {
        found,
        outcome,
        fixed,
        failed,
    }
}

async fn update_status(context: &Context, applied: Applied) -> Result<(), Error> {
    let Applied {
        found,
        outcome,
        fixed,
        failed,
    } = applied;
    let workload = workload(context, &found);
    let verdict = match outcome {
        Err(verdict) => verdict,
        Ok(agent) => {
            let owner = PodOwner::Agent(agent.name.clone());
            let pods = context.world.pods_of(&found.key.namespace, &owner);
            let image = image_of(context, &agent);
            let verdict = Verdict::of_workload(workload.as_ref(), &pods, &image);
            // What its pods ail of comes first: without them nobody needs a credential.
            match lacking(&found).filter(|_| !verdict.is_problem) {
                Some(lacking) => Verdict::problem("CredentialsMissing", lacking),
                None => verdict,
            }
        }
    };
    let mut status = Status::of(verdict);
    status.fixed = fixed;
    let workload = workload.unwrap_or_default();
    let selector = build::selector_text(&found.key.name);
    status
        .fields
        .insert("replicas".to_owned(), Value::from(workload.replicas));
    status
        .fields
        .insert("readyReplicas".to_owned(), Value::from(workload.ready));
    status
        .fields
        .insert("selector".to_owned(), Value::from(selector));
    status::update(context, &found.key, &found.written, status).await?;
    failed
}

/// What the hub says that it lacks.
fn lacking(found: &Dereferenced) -> Option<String> {
    let status = found.written.status();
    let mut conditions = status["conditions"].as_array()?.iter();
    let said = conditions.find(|condition| condition["type"] == CREDENTIALS_VALID)?;
    let message = said["message"].as_str()?.to_owned();
    (said["status"] == "False").then_some(message)
}

fn image_of(context: &Context, agent: &Agent) -> String {
    build::image_of(agent, &context.image, context.image_prefix.as_deref())
}

/// Its Deployment's, or its StatefulSet's where it keeps a volume.
fn workload(context: &Context, found: &Dereferenced) -> Option<Workload> {
    let of = |resource| {
        let owned = context
            .world
            .owned(&found.key.namespace, resource, &found.key.name)?;
        let is_own = owned.owner_uid.as_deref() == Some(found.owner.uid.as_str());
        owned.workload.filter(|_| is_own && !owned.deleting)
    };
    of(Resource::Deployment).or_else(|| of(Resource::StatefulSet))
}
