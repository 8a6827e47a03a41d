//! `mainstay apply|diff|delete`: manifests handed to a running hub.
//!
//! Files are read and judged one by one here, so that a misspelt field is reported even where no
//! hub answers; whether they fit what else there is, the keeper decides. In a cluster they are
//! custom resources (`cluster`), and agents' code goes along (`source`).

mod cluster;
mod source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use api::{Document, Object};
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{OutputArgs, print, printable};
use crate::place::{Address, PlaceArgs, absolute};
use crate::task::items;

const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
const MAX_FILES: usize = 10_000;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mainstay apply fleet.yaml\n  mainstay -n acme apply fleet.yaml    # into a cluster, with the agents' sources"
)]
pub struct ApplyArgs {
    /// A file, or a directory with its subdirectories
    #[arg(required = true)]
    path: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay diff fleet.yaml")]
pub struct DiffArgs {
    /// A file, or a directory with its subdirectories
    #[arg(required = true)]
    path: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay delete fleet.yaml")]
pub struct DeleteArgs {
    /// A file, or a directory with its subdirectories
    #[arg(required = true)]
    path: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn apply(place: &PlaceArgs, args: ApplyArgs) -> Outcome {
    let manifests = Manifests::read(&args.path)?;
    if let Some(target) = in_a_cluster(place)? {
        return cluster::apply(&target, &manifests, args.output).await;
    }
    send(
        place,
        "apply",
        &json!({"documents": manifests.documents(), "dryRun": false}),
        args.output,
    )
    .await
}

pub async fn diff(place: &PlaceArgs, args: DiffArgs) -> Outcome {
    let manifests = Manifests::read(&args.path)?;
    if let Some(target) = in_a_cluster(place)? {
        return cluster::diff(&target, &manifests, args.output).await;
    }
    send(
        place,
        "apply",
        &json!({"documents": manifests.documents(), "dryRun": true}),
        args.output,
    )
    .await
}

pub async fn delete(place: &PlaceArgs, args: DeleteArgs) -> Outcome {
    let manifests = Manifests::read(&args.path)?;
    if let Some(target) = in_a_cluster(place)? {
        return cluster::delete(&target, &manifests, args.output).await;
    }
    all_there(&Client::new(place)?, &manifests.objects).await?;
    let objects: Vec<Value> = manifests
        .objects
        .iter()
        .map(|object| json!({"kind": object.kind().name(), "name": object.name()}))
        .collect();
    send(
        place,
        "delete",
        &json!({"objects": objects, "dryRun": false}),
        args.output,
    )
    .await
}

/// The cluster that manifests go to, if they go to one.
fn in_a_cluster(place: &PlaceArgs) -> Result<Option<cluster::Target>, Failure> {
    Ok(match place.address()? {
        Address::Cluster { cluster, workspace } => Some(cluster::Target {
            cluster,
            workspace,
            is_named: place.namespace().is_some(),
        }),
        Address::Socket(_) | Address::Url { .. } => None,
    })
}

/// What isn't there can't be deleted, and then nothing is.
async fn all_there(client: &Client, objects: &[Object]) -> Result<(), Failure> {
    let kinds: BTreeSet<api::Kind> = objects.iter().map(Object::kind).collect();
    let mut missing = Vec::new();
    for kind in kinds {
        let list = client
            .get(&format!("/control/objects/{}", kind.name()))
            .await?;
        let present: BTreeSet<String> = items(&list)
            .filter_map(|item| item.pointer("/metadata/name")?.as_str().map(str::to_owned))
            .collect();
        let wanted = objects.iter().filter(|object| object.kind() == kind);
        missing.extend(
            wanted
                .filter(|object| !present.contains(object.name()))
                .map(|object| format!("there is no {kind} {}", object.name())),
        );
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(Exit::NotFound, missing.join("\n")).with_hint("nothing was deleted"))
}

async fn send(place: &PlaceArgs, verb: &str, body: &Value, output: OutputArgs) -> Outcome {
    let answer = Client::new(place)?
        .post(&format!("/control/{verb}"), body)
        .await?;
    report(&answer, output)
}

/// Prints what was done, or why nothing was.
fn report(answer: &Value, output: OutputArgs) -> Outcome {
    let texts = |field: &str| -> Vec<String> {
        let items = answer.get(field).and_then(Value::as_array);
        items
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(printable)
            .collect()
    };
    let problems = texts("problems");
    if !problems.is_empty()
        && answer.get("generation").is_none_or(Value::is_null)
        && texts("summary").is_empty()
    {
        return Err(Failure::new(Exit::Manifest, problems.join("\n\n")));
    }
    // Warnings: it was done.
    for problem in &problems {
        eprintln!("warning: {problem}");
    }
    print(output, answer, |_| {
        let lines = texts("summary");
        if lines.is_empty() {
            "nothing changes\n".to_owned()
        } else {
            lines.join("\n") + "\n"
        }
    })?;
    Ok(Exit::Done)
}

/// Manifests as they lie on disk, each right in itself.
struct Manifests {
    documents: Vec<Document>,
    objects: Vec<Object>,
}

impl Manifests {
    fn read(paths: &[PathBuf]) -> Result<Self, Failure> {
        let mut documents = Vec::new();
        for path in paths {
            let path = absolute(path)?;
            collect(&path, false, &mut documents)?;
        }
        let objects = api::parse(&documents)
            .map_err(|problems| Failure::new(Exit::Manifest, problems.to_string()))?;
        if objects.is_empty() {
            let paths: Vec<String> = paths
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            return Err(Failure::new(
                Exit::Manifest,
                format!("no manifest in {}", paths.join(", ")),
            ));
        }
        Ok(Self { documents, objects })
    }

    /// Files that hold an object; transcripts and the like beside them are not the hub's business.
    fn documents(&self) -> Vec<Value> {
        let holds = |document: &&Document| {
            self.objects
                .iter()
                .any(|object| object.place.path == document.path)
        };
        self.documents
            .iter()
            .filter(holds)
            .map(|document| json!({"path": document.path, "text": document.text}))
            .collect()
    }
}

fn collect(path: &Path, found: bool, documents: &mut Vec<Document>) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let exit = match error.kind() {
            std::io::ErrorKind::NotFound => Exit::NotFound,
            std::io::ErrorKind::PermissionDenied => Exit::NotAllowed,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("failed to read {}", path.display())).because(error)
    };
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        let mut entries: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            entries.push(entry.map_err(failed)?.path());
        }
        entries.sort();
        for entry in entries {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            // Links to directories may lead in a circle.
            let is_dir = entry
                .symlink_metadata()
                .is_ok_and(|metadata| metadata.is_dir());
            if !name.starts_with('.') && name != "node_modules" && (is_dir || is_manifest(&entry)) {
                collect(&entry, true, documents)?;
            }
        }
        return Ok(());
    }
    if metadata.len() > MAX_FILE_BYTES || documents.len() >= MAX_FILES {
        return Err(Failure::new(
            Exit::Manifest,
            format!("{} is larger than a manifest may be", path.display()),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let name = path.display().to_string();
    documents.push(if found {
        Document::found(name, text)
    } else {
        Document::named(name, text)
    });
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.is_file()
        && matches!(
            path.extension().and_then(|extension| extension.to_str()),
            Some("yaml" | "yml" | "json")
        )
}
