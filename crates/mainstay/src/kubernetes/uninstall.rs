//! `mainstay kubernetes uninstall`: takes everything away but the data, and says what is left.
//!
//! In this order: the fleet's objects while the operator still runs, so that it can undo what it
//! did; the operator; workspaces and what they have; the kinds and rights. Each wait has an end,
//! and what is stuck behind a hold of ours is freed. A second run finishes what a first began.

use std::collections::{BTreeMap, BTreeSet};

use api::kubernetes::WORKSPACE_LABEL;
use kube::api::PropagationPolicy;
use operator::install::{DEFAULT_WORKSPACE, OPERATOR};
use serde_json::Value;

use super::cluster::{Cluster, Reference};
use super::install::ChoiceArgs;
use super::sweep::{self, Found};
use super::{confirmed, namespace};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{line, write_out};
use crate::place::PlaceArgs;

/// How many objects of a kind are named one by one.
const NAMED: usize = 20;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  kubectl get agents,providers,promptpacks,toolregistries,workspaces -A -o yaml > fleet.yaml\n  \
    mainstay kubernetes uninstall\n\n\
    Volumes, hubs' keys and the namespaces they lie in stay; how to remove them is printed."
)]
pub struct UninstallArgs {
    /// Only show what would be done
    #[arg(long)]
    dry_run: bool,
    /// Don't ask
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

pub async fn uninstall(place: &PlaceArgs, args: UninstallArgs) -> Outcome {
    let cluster = Cluster::connect(&place.cluster()).await?;
    let installed = present(&cluster, &namespace(place)).await?;
    let found = Found::look(&cluster).await?;
    if installed.is_empty() && found.workspaces.is_empty() && found.namespaces.is_empty() {
        let message = format!(
            "nothing of Mainstay is in the cluster at {}",
            cluster.address
        );
        return Err(Failure::new(Exit::NotFound, message));
    }
    eprintln!("In the cluster at {}:", cluster.address);
    write_out(plan(&found, &installed).as_bytes())?;
    if args.dry_run {
        return Ok(Exit::Done);
    }
    confirmed("Take all this away?", args.yes)?;
    remove(&cluster, &found, &installed).await?;
    line(&left(&found))?;
    Ok(Exit::Done)
}

/// What is there of an installation, in the order in which it was applied.
async fn present(cluster: &Cluster, namespace: &str) -> Result<Vec<Reference>, Failure> {
    let options = ChoiceArgs::everything(namespace);
    let mut present = Vec::new();
    for object in operator::install::objects(&options, api::crd::all()) {
        let of = Reference::of(&object);
        // The namespace `default` is the cluster's; workspaces are the fleet's.
        let is_fleet = of.name == DEFAULT_WORKSPACE;
        if let Some(found) = cluster.get(&of).await?
            && !is_fleet
            && is_ours(&found)
        {
            present.push(of);
        }
    }
    Ok(present)
}

/// A namespace of that name may have been there before and hold other things.
fn is_ours(object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    object["kind"] != "Namespace"
        || labels.and_then(|labels| labels.get(api::kubernetes::MANAGED_BY))
            == Some(&Value::from("mainstay"))
}

async fn remove(cluster: &Cluster, found: &Found, installed: &[Reference]) -> Result<(), Failure> {
    let freed = sweep::delete_objects(cluster, found).await?;
    for of in freed {
        eprintln!("warning: {of} was not let go by the operator in time and went without it");
    }
    let (operators, rest): (Vec<_>, Vec<_>) = installed
        .iter()
        .cloned()
        .partition(|of| of.kind == "Deployment" && of.name == OPERATOR);
    for of in &operators {
        cluster.delete(of, PropagationPolicy::Foreground).await?;
    }
    all_gone(cluster, &operators).await?;
    sweep::delete_workspaces(cluster, found).await?;
    for namespace in &found.namespaces {
        sweep::sweep(cluster, namespace, &found.data).await?;
    }
    sweep::sweep_cluster(cluster).await?;
    for of in rest.iter().rev() {
        cluster.delete(of, PropagationPolicy::Background).await?;
    }
    all_gone(cluster, &rest).await
}

async fn all_gone(cluster: &Cluster, going: &[Reference]) -> Result<(), Failure> {
    let stuck = sweep::wait_gone(cluster, going).await?;
    if stuck.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = stuck.iter().map(ToString::to_string).collect();
    let message = format!("still there after the wait: {}", names.join(", "));
    Err(Failure::new(Exit::Failed, message)
        .with_hint("what holds them is in their metadata.finalizers; run this again afterwards"))
}

fn plan(found: &Found, installed: &[Reference]) -> String {
    let mut by_kind: BTreeMap<&str, Vec<&Reference>> = BTreeMap::new();
    let going = found
        .objects
        .iter()
        .chain(&found.workspaces)
        .chain(installed);
    for of in going {
        by_kind.entry(&of.kind).or_default().push(of);
    }
    let mut text = String::new();
    for (kind, all) in by_kind {
        if all.len() > NAMED {
            text.push_str(&format!("- {} of kind {kind}\n", all.len()));
            continue;
        }
        text.extend(all.iter().map(|of| format!("- {of}\n")));
    }
    for namespace in &found.namespaces {
        text.push_str(&format!(
            "- what the operator made in namespace {namespace}\n"
        ));
    }
    text.extend(found.data.iter().map(|of| format!("= {of} stays\n")));
    text
}

fn left(found: &Found) -> String {
    if found.data.is_empty() {
        return "Mainstay is gone, and there was no data.".to_owned();
    }
    let mut text = "Mainstay is gone. Its data stay:\n".to_owned();
    text.extend(found.data.iter().map(|of| format!("  {of}\n")));
    text.push_str("To remove them for good:\n");
    for of in &found.data {
        let namespace = of.namespace.as_deref().unwrap_or_default();
        let kind = of.kind.to_lowercase();
        text.push_str(&format!(
            "  kubectl -n {namespace} delete {kind} {}\n",
            of.name
        ));
    }
    let namespaces: BTreeSet<&str> = found
        .data
        .iter()
        .filter_map(|of| of.namespace.as_deref())
        .collect();
    text.push_str("To have them back: install, label the namespaces and apply the manifests:\n");
    for namespace in namespaces {
        text.push_str(&format!(
            "  kubectl label namespace {namespace} {WORKSPACE_LABEL}={namespace}\n"
        ));
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, name: &str) -> Reference {
        Reference {
            api_version: "v1".into(),
            kind: kind.into(),
            namespace: Some("acme".into()),
            name: name.into(),
        }
    }

    fn found(agents: usize) -> Found {
        Found {
            objects: (0..agents).map(|n| of("Agent", &format!("a{n}"))).collect(),
            workspaces: Vec::new(),
            namespaces: vec!["acme".into()],
            data: vec![of("PersistentVolumeClaim", "data-mainstay-hub-0")],
        }
    }

    #[test]
    fn a_plan_says_what_goes_and_what_stays() {
        let text = plan(&found(1), &[of("Deployment", "mainstay-operator")]);
        assert_eq!(
            text,
            "- Agent acme/a0\n- Deployment acme/mainstay-operator\n\
             - what the operator made in namespace acme\n\
             = PersistentVolumeClaim acme/data-mainstay-hub-0 stays\n"
        );
        assert!(plan(&found(21), &[]).starts_with("- 21 of kind Agent\n"));
    }

    #[test]
    fn what_is_left_is_named_with_the_way_to_remove_it() {
        let text = left(&found(0));
        assert!(
            text.contains("kubectl -n acme delete persistentvolumeclaim data-mainstay-hub-0"),
            "{text}"
        );
        let none = Found {
            data: Vec::new(),
            ..found(0)
        };
        assert_eq!(left(&none), "Mainstay is gone, and there was no data.");
    }

    #[test]
    fn a_namespace_that_somebody_else_made_is_not_ours() {
        use serde_json::json;
        let label = json!({"app.kubernetes.io/managed-by": "mainstay"});
        assert!(is_ours(
            &json!({"kind": "Namespace", "metadata": {"labels": label}})
        ));
        assert!(!is_ours(&json!({"kind": "Namespace", "metadata": {}})));
        assert!(is_ours(&json!({"kind": "ClusterRole", "metadata": {}})));
    }
}
