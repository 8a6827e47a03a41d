//! `mainstay operator`: wires Kubernetes' controllers to a cluster, in it or from outside.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::exit::{Exit, Failure, Outcome};
use crate::kubernetes::Cluster;
use crate::place::{KubeAddress, PlaceArgs};
use crate::{hub, up};

/// Two cores carry ten thousand agents; more threads cost memory.
const WORKERS: usize = 2;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mainstay operator --image registry.example/mainstay:1    # against the cluster of KUBECONFIG"
)]
pub struct OperatorArgs {
    /// Mainstay's own image, for hubs, shims and built-in agents
    #[arg(long, env = "MAINSTAY_IMAGE", value_name = "IMAGE")]
    image: String,
    /// Where images are pulled from that no manifest names: PREFIX/python:3.12-slim
    #[arg(long, env = "MAINSTAY_IMAGE_PREFIX", value_name = "PREFIX")]
    image_prefix: Option<String>,
    /// The operator's own namespace, where its lease is
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = operator::install::NAMESPACE)]
    namespace: String,
    /// Who it is among several operators; left out: the host's name and the process
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    name: Option<String>,
    /// Its own port, for probes and metrics
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Where the API server asks about objects before they are written
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    admission: SocketAddr,
    /// The folder with the authority that the API server trusts for that
    #[arg(long, value_name = "DIR", default_value = operator::install::AUTHORITY_FOLDER)]
    authority: PathBuf,
}

pub fn operator(place: &PlaceArgs, args: OperatorArgs) -> Outcome {
    hub::log_to_stderr();
    // Fails only if one is chosen already, which then is this one.
    let _chosen = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("operator")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, "failed to start").because(error))?;
    let ended = runtime.block_on(serve(&place.cluster(), args));
    runtime.shutdown_background();
    ended.map(|()| Exit::Done)
}

async fn serve(cluster: &KubeAddress, args: OperatorArgs) -> Result<(), Failure> {
    let options = operator::Options {
        client: Cluster::connect(cluster).await?.client,
        image: args.image,
        image_prefix: args.image_prefix.filter(|prefix| !prefix.is_empty()),
        namespace: args.namespace,
        name: args.name.unwrap_or_else(own_name),
        listen: args.listen,
        admission: args.admission,
        authority: args.authority,
        checks: up::knowledge(),
    };
    operator::run(options, told_to_end())
        .await
        .map_err(|error| Failure::new(Exit::Failed, "the operator ended").because(error))
}

fn own_name() -> String {
    let host = std::fs::read_to_string(PathBuf::from("/proc/sys/kernel/hostname"));
    let host = host.unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}

async fn told_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        // Without a handler the signal itself ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
