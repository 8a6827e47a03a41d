//! `apply|diff|delete` where the hub is in a cluster: objects are custom resources, written by
//! server-side apply with the rights of whoever has the kubeconfig, and agents' code goes to the hub.
//!
//! Workspaces go first, and what lies in a namespace that one of them makes waits for it, so one
//! apply is enough. Only what is written in a file is applied: what is left out may be another's,
//! as a number of replicas is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::manifest::Spec;
use api::{Kind, Object, Problems};
use kube::api::PropagationPolicy;
use serde_json::{Value, json};

use super::source::{self, Packed};
use super::{Manifests, report};
use crate::exit::{Exit, Failure, Outcome};
use crate::kubernetes::{Cluster, Plan, Reference, wait_until};
use crate::output::OutputArgs;
use crate::place::KubeAddress;

/// Who applies. Another name than kubectl's: what a person's kubectl owns stays its own.
const FIELD_MANAGER: &str = "mainstay-apply";
/// For the operator to make a namespace.
const NAMESPACE: Duration = Duration::from_secs(60);
/// For a new workspace's hub to answer.
const HUB: Duration = Duration::from_secs(180);

/// Where manifests go.
pub(super) struct Target {
    pub(super) cluster: KubeAddress,
    /// The namespace of what names none.
    pub(super) workspace: String,
    /// Whether a person named it for this very command.
    pub(super) is_named: bool,
}

/// Objects as they are applied, and the code that some of them need.
struct Set {
    workspaces: Vec<Value>,
    others: Vec<Value>,
    packed: Vec<Packed>,
}

pub(super) async fn apply(target: &Target, manifests: &Manifests, output: OutputArgs) -> Outcome {
    let set = Set::of(target, manifests)?;
    let cluster = Cluster::connect(&target.cluster).await?;
    let mut lines = put(&cluster, &set.workspaces).await?;
    wait_for_namespaces(&cluster, &set).await?;
    for (namespace, packed) in source::by_namespace(&set.packed) {
        source::send(&target.cluster, namespace, &packed).await?;
    }
    lines.extend(put(&cluster, &set.others).await?);
    report(&json!({"summary": lines, "problems": []}), output)
}

pub(super) async fn diff(target: &Target, manifests: &Manifests, output: OutputArgs) -> Outcome {
    let set = Set::of(target, manifests)?;
    let cluster = Cluster::connect(&target.cluster).await?;
    let objects = [set.workspaces, set.others].concat();
    let plan = Plan::of(&cluster, objects, FIELD_MANAGER).await?;
    report(&json!({"summary": plan.lines(), "problems": []}), output)
}

pub(super) async fn delete(target: &Target, manifests: &Manifests, output: OutputArgs) -> Outcome {
    let cluster = Cluster::connect(&target.cluster).await?;
    let mut objects = manifests.objects.iter().collect::<Vec<_>>();
    // What a workspace's end takes along is not there any more to be deleted by name.
    objects.sort_by_key(|object| (object.kind() == Kind::Workspace, object.kind()));
    let mut references = Vec::new();
    for object in objects {
        let namespace = namespace(target, object).map_err(problem)?;
        references.push(Reference::of(&placed(object, namespace)));
    }
    let mut missing = Vec::new();
    for reference in &references {
        if cluster.get(reference).await?.is_none() {
            missing.push(format!("there is no {reference}"));
        }
    }
    if !missing.is_empty() {
        return Err(
            Failure::new(Exit::NotFound, missing.join("\n")).with_hint("nothing was deleted")
        );
    }
    let mut lines = Vec::new();
    for reference in &references {
        let background = PropagationPolicy::Background;
        cluster.delete(reference, background).await?;
        lines.push(format!("- {reference}"));
    }
    report(&json!({"summary": lines, "problems": []}), output)
}

impl Set {
    fn of(target: &Target, manifests: &Manifests) -> Result<Self, Failure> {
        let mut set = Self {
            workspaces: Vec::new(),
            others: Vec::new(),
            packed: Vec::new(),
        };
        let mut problems = Vec::new();
        let mut objects = manifests.objects.iter().collect::<Vec<_>>();
        // What others refer to comes before them.
        objects.sort_by_key(|object| object.kind());
        for object in objects {
            if let Err(problem) = set.take(target, object) {
                problems.push(problem);
            }
        }
        match problems.is_empty() {
            true => Ok(set),
            false => Err(Failure::new(Exit::Manifest, Problems(problems).to_string())),
        }
    }

    fn take(&mut self, target: &Target, object: &Object) -> Result<(), api::Problem> {
        let namespace = namespace(target, object)?;
        let mut written = placed(object, namespace);
        let (Some(namespace), Spec::Agent(spec)) = (namespace, &object.spec) else {
            let list = match namespace {
                None => &mut self.workspaces,
                Some(_) => &mut self.others,
            };
            list.push(written);
            return Ok(());
        };
        if spec.scale.is_some() && object.wrote("spec.replicas") {
            let message =
                "`spec.replicas` follows from `spec.scale` and can't be written beside it";
            let problem = object.problem("spec.replicas", message);
            return Err(problem.with_hint("leave one of them out"));
        }
        if let Some(source) = &spec.source {
            let packed = source::pack(object, source, namespace)?;
            let sent = api::kubernetes::source_annotation(&packed.name, source);
            written["metadata"]["annotations"][api::kubernetes::SOURCE] = sent.into();
            self.packed.push(packed);
        }
        self.others.push(written);
        Ok(())
    }

    /// The namespaces that a workspace of this set makes and something of it lies in.
    fn awaited(&self) -> BTreeMap<&str, bool> {
        let text = |object: &'_ Value, pointer: &str| {
            let text = object.pointer(pointer).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let used: BTreeSet<String> = self
            .others
            .iter()
            .map(|object| text(object, "/metadata/namespace"))
            .collect();
        let sent: BTreeSet<&str> = self.packed.iter().map(|it| it.namespace.as_str()).collect();
        let names = self.workspaces.iter();
        let names = names.filter_map(|object| object.pointer("/metadata/name")?.as_str());
        names
            .filter(|name| used.contains(*name))
            .map(|name| (name, sent.contains(name)))
            .collect()
    }
}

/// Where it lies; a Workspace lies nowhere.
fn namespace<'a>(target: &'a Target, object: &'a Object) -> Result<Option<&'a str>, api::Problem> {
    if object.kind() == Kind::Workspace {
        return Ok(None);
    }
    let own = object.metadata.namespace.as_deref();
    match own {
        Some(own) if target.is_named && own != target.workspace => {
            let message = format!(
                "`metadata.namespace` is {own}, and -n says {}",
                target.workspace
            );
            let problem = object.problem("metadata.namespace", message);
            Err(problem.with_hint("leave one of them out"))
        }
        own => Ok(Some(own.unwrap_or(&target.workspace))),
    }
}

fn placed(object: &Object, namespace: Option<&str>) -> Value {
    let mut written = object.as_written();
    if let Some(namespace) = namespace {
        written["metadata"]["namespace"] = namespace.into();
    }
    written
}

fn problem(problem: api::Problem) -> Failure {
    Failure::new(Exit::Manifest, Problems(vec![problem]).to_string())
}

/// Applies them in order, and says what that changed.
async fn put(cluster: &Cluster, objects: &[Value]) -> Result<Vec<String>, Failure> {
    let plan = Plan::of(cluster, objects.to_vec(), FIELD_MANAGER).await?;
    for step in &plan.steps {
        // What would stay is applied too: its fields are ours from now on.
        cluster.apply(&step.object, FIELD_MANAGER, false).await?;
    }
    Ok(plan.lines())
}

async fn wait_for_namespaces(cluster: &Cluster, set: &Set) -> Result<(), Failure> {
    for (name, needs_hub) in set.awaited() {
        let of = |api_version: &str, kind: &str| Reference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: None,
            name: name.to_owned(),
        };
        let (namespace, workspace) = (of("v1", "Namespace"), of(api::API_VERSION, "Workspace"));
        let there = wait_until(NAMESPACE, async || {
            let found = cluster.get(&namespace).await?;
            Ok(found.filter(|found| found.pointer("/status/phase") == Some(&"Active".into())))
        });
        if there.await?.is_none() {
            let message = format!("workspace {name} has no namespace yet");
            return Err(why(cluster, &workspace, message).await);
        }
        if !needs_hub {
            continue;
        }
        eprintln!("waiting for the hub of {name}");
        let ready = wait_until(HUB, async || {
            let found = cluster.get(&workspace).await?;
            Ok(found.filter(|found| ready(found).is_some_and(|it| it["status"] == "True")))
        });
        if ready.await?.is_none() {
            let message = format!("the hub of workspace {name} takes no source yet");
            return Err(why(cluster, &workspace, message).await);
        }
    }
    Ok(())
}

/// A wait that was in vain, with what the workspace says itself.
async fn why(cluster: &Cluster, workspace: &Reference, message: String) -> Failure {
    let found = cluster.get(workspace).await.ok().flatten();
    let said = found.as_ref().and_then(ready);
    let said = said.and_then(|condition| condition["message"].as_str().map(str::to_owned));
    let failure = Failure::new(Exit::Failed, message).with_hint(
        "apply it again once that is mended; `mainstay kubernetes status` looks further",
    );
    match said {
        Some(said) => failure.because(std::io::Error::other(said)),
        None => failure,
    }
}

fn ready(object: &Value) -> Option<&Value> {
    let mut conditions = object.pointer("/status/conditions")?.as_array()?.iter();
    conditions.find(|condition| condition["type"] == "Ready")
}

#[cfg(test)]
mod tests;
