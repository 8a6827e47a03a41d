//! Agents' code on its way to the hub of their workspace: packed before anything is applied, and sent
//! before the agents that name it are.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Seek;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use api::{Object, Problem};

use crate::client::{CallError, Client};
use crate::exit::Failure;
use crate::place::{Address, KubeAddress};

/// How long a hub that doesn't answer, or breaks off, is tried again: it may be starting.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

/// A source as one file, which has no name any more.
pub(super) struct Packed {
    pub(super) name: String,
    pub(super) namespace: String,
    length: u64,
    file: File,
}

/// Packs what an agent's `spec.source` names, beside its manifest.
pub(super) fn pack(object: &Object, source: &str, namespace: &str) -> Result<Packed, Problem> {
    let manifest = Path::new(&object.place.path);
    let path = manifest.parent().unwrap_or(Path::new("")).join(source);
    let wrong = |error: &dyn std::error::Error| {
        let cause = error.source().map(|cause| format!(": {cause}"));
        let text = format!("`spec.source` {error}{}", cause.unwrap_or_default());
        object.problem("spec.source", text)
    };
    let written = |error: std::io::Error| wrong(&Unpacked(error));
    let file = scratch().map_err(written)?;
    let name =
        keeper::pack(&path, std::io::BufWriter::new(&file)).map_err(|error| wrong(&error))?;
    let length = file.metadata().map_err(written)?.len();
    Ok(Packed {
        name,
        namespace: namespace.to_owned(),
        length,
        file,
    })
}

#[derive(Debug, thiserror::Error)]
#[error("can't be packed")]
struct Unpacked(#[source] std::io::Error);

/// A file of this process alone.
fn scratch() -> std::io::Result<File> {
    let name = format!("mainstay-source-{}", uuid::Uuid::now_v7().simple());
    let path = std::env::temp_dir().join(name);
    let mut options = File::options();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Each once, by the namespace whose hub it goes to.
pub(super) fn by_namespace(packed: &[Packed]) -> BTreeMap<&str, Vec<&Packed>> {
    let mut all: BTreeMap<&str, Vec<&Packed>> = BTreeMap::new();
    for one in packed {
        let there = all.entry(&one.namespace).or_default();
        if there.iter().all(|other| other.name != one.name) {
            there.push(one);
        }
    }
    all
}

/// Sends what the hub hasn't got.
pub(super) async fn send(
    cluster: &KubeAddress,
    namespace: &str,
    packed: &[&Packed],
) -> Result<(), Failure> {
    let client = Client::patient(Address::Cluster {
        cluster: cluster.clone(),
        workspace: namespace.to_owned(),
    })?;
    for one in packed {
        let started = Instant::now();
        while let Err(error) = send_one(&client, one).await {
            match error {
                CallError::Lost(_) if started.elapsed() < PATIENCE => {
                    tokio::time::sleep(PAUSE).await;
                }
                error => return Err(error.into()),
            }
        }
    }
    Ok(())
}

async fn send_one(client: &Client, packed: &Packed) -> Result<(), CallError> {
    let path = format!("/control/sources/{}", packed.name);
    if client.has(&path).await? {
        return Ok(());
    }
    eprintln!(
        "sending {} ({} KiB)",
        &packed.name[..12],
        packed.length.div_ceil(1024)
    );
    let file = packed.file.try_clone().and_then(|mut file| {
        file.rewind()?;
        Ok(file)
    });
    client.put(&path, file, packed.length).await
}
