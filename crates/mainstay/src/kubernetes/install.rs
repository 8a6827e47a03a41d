//! `mainstay kubernetes install`: shows what it will do, does it, and waits until the operator works.
//!
//! Run again it brings an installation up to this version; an installation that is right is left
//! alone. Nothing is done by halves that a second run can't finish.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use operator::install::{AUTHORITY, Authority, FIELD_MANAGER, OPERATOR, OPERATOR_ROLE, Options};
use serde_json::Value;

use super::cluster::{Cluster, Reference, wait_until};
use super::plan::{Change, Plan};
use super::{confirmed, namespace};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{printable, write_out};
use crate::place::PlaceArgs;

/// A definition is served well before that.
const DEFINITIONS: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mainstay kubernetes install --dry-run\n  \
    mainstay kubernetes install --image-prefix registry.example/team --yes")]
pub struct InstallArgs {
    #[command(flatten)]
    choices: ChoiceArgs,
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
    /// How many seconds to wait until the operator is ready
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
}

/// What can be chosen; the same for `render`.
#[derive(Debug, clap::Args)]
pub struct ChoiceArgs {
    /// Where images are pulled from that nobody names: PREFIX/mainstay:VERSION, PREFIX/python:3.12-slim
    #[arg(long, value_name = "PREFIX")]
    image_prefix: Option<String>,
    /// Mainstay's own image, with its tag, wherever others are pulled from
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// How many operators; one of them leads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=5))]
    replicas: u32,
    /// Make no workspace of the namespace `default`
    #[arg(long)]
    no_default_workspace: bool,
}

impl ChoiceArgs {
    /// All that any choice can have put there.
    pub fn everything(namespace: &str) -> Options {
        Options {
            namespace: namespace.to_owned(),
            replicas: 2,
            // Only what the objects are called is looked at.
            authority: Some(Authority {
                certificate: String::new(),
                key: String::new(),
            }),
            ..Options::new(operator::install::image(None))
        }
    }

    pub fn options(&self, namespace: &str) -> Options {
        let image = self
            .image
            .clone()
            .unwrap_or_else(|| operator::install::image(self.image_prefix.as_deref()));
        Options {
            namespace: namespace.to_owned(),
            image_prefix: self.image_prefix.clone(),
            replicas: self.replicas,
            default_workspace: !self.no_default_workspace,
            ..Options::new(image)
        }
    }
}

pub async fn install(place: &PlaceArgs, args: InstallArgs) -> Outcome {
    let cluster = Cluster::connect(&place.cluster()).await?;
    let mut options = args.choices.options(&namespace(place));
    refuse_second(&cluster, &options).await?;
    options.authority = Some(authority(&cluster, &options.namespace).await?);
    let objects = operator::install::objects(&options, api::crd::all());
    let plan = Plan::of(&cluster, objects, FIELD_MANAGER).await?;
    eprintln!("In the cluster at {}:", cluster.address);
    write_out(plan.render().as_bytes())?;
    if args.dry_run {
        return Ok(Exit::Done);
    }
    if !plan.changes_nothing() {
        confirmed("Go on?", args.yes)?;
        apply(&cluster, &plan).await?;
    }
    wait_for_operator(&cluster, &options, Duration::from_secs(args.timeout)).await?;
    eprint!("{}", next(&options));
    Ok(Exit::Done)
}

/// That of the installation that is there, else a new one.
async fn authority(cluster: &Cluster, namespace: &str) -> Result<Authority, Failure> {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let secret = secrets.get_opt(AUTHORITY).await;
    let secret =
        secret.map_err(|error| cluster.failed("read", &format!("Secret {AUTHORITY}"), error))?;
    let mut data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let mut kept = |name: &str| String::from_utf8(data.remove(name)?.0).ok();
    if let (Some(certificate), Some(key)) = (kept("ca.crt"), kept("ca.key")) {
        return Ok(Authority { certificate, key });
    }
    Authority::generate()
        .map_err(|error| Failure::new(Exit::Failed, "failed to make an authority").because(error))
}

/// Kinds and rights are the cluster's, so there is one installation in it.
async fn refuse_second(cluster: &Cluster, options: &Options) -> Result<(), Failure> {
    let of = Reference {
        api_version: "rbac.authorization.k8s.io/v1".into(),
        kind: "ClusterRoleBinding".into(),
        namespace: None,
        name: OPERATOR_ROLE.into(),
    };
    let binding = cluster.get(&of).await?;
    let there = binding
        .as_ref()
        .and_then(|binding| binding.pointer("/subjects/0/namespace"));
    match there.and_then(Value::as_str) {
        Some(there) if there != options.namespace => {
            let message = format!("Mainstay is installed in namespace {there} of this cluster");
            Err(Failure::new(Exit::Failed, message)
                .with_hint(format!("say -n {there}, or uninstall that one first")))
        }
        _ => Ok(()),
    }
}

async fn apply(cluster: &Cluster, plan: &Plan) -> Result<(), Failure> {
    let (mut defined, mut waited) = (Vec::new(), false);
    for step in &plan.steps {
        let of = Reference::of(&step.object);
        if of.kind == "CustomResourceDefinition" {
            defined.push(of);
        } else if of.api_version == api::API_VERSION && !waited {
            wait_for_definitions(cluster, &defined).await?;
            waited = true;
        }
        // What would stay is applied too: its fields are ours from now on.
        cluster.apply(&step.object, FIELD_MANAGER, false).await?;
    }
    let changed = plan
        .steps
        .iter()
        .filter(|step| step.change != Change::Nothing);
    eprintln!("applied {} objects", changed.count());
    wait_for_definitions(cluster, &defined).await
}

async fn wait_for_definitions(cluster: &Cluster, defined: &[Reference]) -> Result<(), Failure> {
    for of in defined {
        let served = wait_until(DEFINITIONS, async || {
            let found = cluster.get(of).await?;
            Ok(found.filter(|found| condition(found, "Established").is_some_and(is_true)))
        });
        if served.await?.is_none() {
            let message = format!("{of} was applied and is not served");
            return Err(Failure::new(Exit::Failed, message)
                .with_hint(format!("kubectl describe crd {}", of.name)));
        }
    }
    Ok(())
}

async fn wait_for_operator(
    cluster: &Cluster,
    options: &Options,
    at_most: Duration,
) -> Result<(), Failure> {
    let of = Reference {
        api_version: "apps/v1".into(),
        kind: "Deployment".into(),
        namespace: Some(options.namespace.clone()),
        name: OPERATOR.into(),
    };
    eprintln!("waiting for the operator");
    let ready = wait_until(at_most, async || {
        let found = cluster.get(&of).await?;
        Ok(found.filter(is_rolled_out))
    });
    if ready.await?.is_some() {
        return Ok(());
    }
    let why = trouble(cluster, &options.namespace).await?;
    let why = why.unwrap_or_else(|| "its pods are not ready".to_owned());
    Err(Failure::new(
        Exit::Failed,
        format!(
            "the operator was installed and does not work: {}",
            printable(&why)
        ),
    )
    .with_hint(format!(
        "kubectl -n {} describe pods; kubectl -n {} logs deployment/{OPERATOR}",
        options.namespace, options.namespace
    )))
}

/// Every pod is of the present template and ready.
pub fn is_rolled_out(deployment: &Value) -> bool {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_u64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    number("/status/observedGeneration") >= number("/metadata/generation")
        && number("/status/updatedReplicas").unwrap_or(0) >= wanted
        && number("/status/availableReplicas").unwrap_or(0) >= wanted
        && number("/status/replicas").unwrap_or(0) <= wanted.max(1)
}

/// Why the operator's pods don't run, in the words of whoever refused.
pub async fn trouble(cluster: &Cluster, namespace: &str) -> Result<Option<String>, Failure> {
    let selector = format!("app.kubernetes.io/name={OPERATOR}");
    let pods = cluster
        .list(("v1", "Pod"), Some(namespace), &selector)
        .await?;
    if let Some(why) = pods.iter().find_map(pod_trouble) {
        return Ok(Some(why));
    }
    let kind = ("apps/v1", "Deployment");
    let deployments = cluster.list(kind, Some(namespace), &selector).await?;
    let failure = deployments
        .iter()
        .find_map(|deployment| condition(deployment, "ReplicaFailure").map(message));
    Ok(failure)
}

fn pod_trouble(pod: &Value) -> Option<String> {
    let containers = pod
        .pointer("/status/containerStatuses")
        .and_then(Value::as_array);
    let waiting = containers.into_iter().flatten().find_map(|container| {
        let waiting = container.pointer("/state/waiting")?;
        let reason = waiting.get("reason").and_then(Value::as_str)?;
        (reason != "ContainerCreating").then(|| format!("{reason}: {}", message(waiting)))
    });
    let unscheduled = || {
        let scheduled = condition(pod, "PodScheduled")?;
        (!is_true(scheduled)).then(|| message(scheduled))
    };
    waiting.or_else(unscheduled)
}

/// A condition of an object, by its type.
pub fn condition<'object>(object: &'object Value, of_type: &str) -> Option<&'object Value> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    conditions
        .iter()
        .find(|condition| condition.get("type").and_then(Value::as_str) == Some(of_type))
}

pub fn is_true(condition: &Value) -> bool {
    condition.get("status").and_then(Value::as_str) == Some("True")
}

fn message(of: &Value) -> String {
    let text = of.get("message").and_then(Value::as_str);
    text.unwrap_or("it doesn't say why").to_owned()
}

fn next(options: &Options) -> String {
    let workspace = if options.default_workspace {
        "The namespace `default` is a workspace; another is an object of kind Workspace with the name of its namespace."
    } else {
        "A workspace is an object of kind Workspace with the name of its namespace."
    };
    format!(
        "The operator is ready.\n{workspace}\nNext:\n  \
         kubectl apply -f fleet.yaml\n  \
         kubectl get agents\n  \
         mainstay -n default run AGENT 'a question'\n  \
         mainstay kubernetes status\n"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(generation: u64, available: u64, replicas: u64) -> Value {
        json!({
            "metadata": {"generation": 2}, "spec": {"replicas": 2},
            "status": {
                "observedGeneration": generation, "replicas": replicas,
                "updatedReplicas": 2, "availableReplicas": available,
            },
        })
    }

    #[test]
    fn an_operator_works_once_all_its_pods_are_new_and_ready() {
        assert!(is_rolled_out(&deployment(2, 2, 2)));
        assert!(!is_rolled_out(&deployment(1, 2, 2)), "not yet looked at");
        assert!(!is_rolled_out(&deployment(2, 1, 2)), "one isn't ready");
        assert!(!is_rolled_out(&deployment(2, 2, 3)), "an old one is left");
        assert!(!is_rolled_out(&json!({})), "no status yet");
    }

    #[test]
    fn a_pod_says_what_keeps_it() {
        let pod = json!({"status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}},
        ]}});
        assert_eq!(pod_trouble(&pod).unwrap(), "ErrImagePull: no such image");
        let pod = json!({"status": {"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/2 nodes are available"},
        ]}});
        assert_eq!(pod_trouble(&pod).unwrap(), "0/2 nodes are available");
        let starting = json!({"status": {"containerStatuses": [
            {"state": {"waiting": {"reason": "ContainerCreating"}}},
        ]}});
        assert_eq!(pod_trouble(&starting), None);
    }
}
