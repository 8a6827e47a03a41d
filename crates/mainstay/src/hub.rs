//! `mainstay hub`: wires the hub's service to its home and to its two doors.
//!
//! On one server the home is the keeper at descriptor 3; on Kubernetes it is in the process
//! (`kubernetes`).
//!
//! Order matters: nobody may read this process's memory before the state key is in it, and the
//! TLS library is chosen before anything may use one. When the service ends the process does.

mod kubernetes;

use std::time::Duration;

use gateway::Reach;
use hub::{Hub, HubError};

use crate::exit::{Exit, Failure, Outcome};
use crate::hub_link::{self, LinkError};
use crate::place::PlaceArgs;
use crate::store_args::StoreArgs;
use crate::telemetry;

/// Two cores carry the figures we promise; more threads cost memory on a small server.
const WORKERS: usize = 2;
/// What connections have to end once the log is closed.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mainstay up .    # starts it, and starts it again when it dies"
)]
pub struct HubArgs {
    /// What `up` was given
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    cluster: kubernetes::ClusterArgs,
}

/// Starts the hub on its state, or on a server as soon as no other hub writes there.
async fn started(
    server: Option<store::Server>,
    address: Option<String>,
    options: hub::Options,
) -> Result<(Hub, tokio::task::JoinHandle<Result<(), HubError>>), HubError> {
    match server {
        None => Hub::start(options).await,
        Some(server) => Hub::start_on_server(&server, address, options).await,
    }
}

pub fn hub(place: &PlaceArgs, args: &HubArgs) -> Outcome {
    sandbox::process::hide_memory().map_err(kernel)?;
    sandbox::process::raise_open_files().map_err(kernel)?;
    log_to_stderr();
    // Fails only if one is chosen already, which then is this one.
    let _chosen = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if args.cluster.kubernetes {
        return kubernetes::hub(place, args);
    }
    let (hello, home) = hub_link::open().map_err(|error| {
        let exit = if matches!(error, LinkError::Missing(_)) {
            Exit::Usage
        } else {
            Exit::Failed
        };
        Failure::new(exit, "the hub has no keeper").because(error)
    })?;
    let options = hub::Options {
        home,
        pid: std::process::id(),
        state_key: hello.state_key,
        state_dir: hello.state_dir,
        workspace: hello.workspace,
    };
    let door = facade::Options {
        names: args.names.clone(),
        ..facade::Options::default()
    };
    let server = args.store.server()?;
    ended(runtime()?, serve(options, server, door))
}

fn kernel(error: std::io::Error) -> Failure {
    Failure::new(Exit::Failed, "the kernel refuses what the hub needs").because(error)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("hub")
        .enable_all()
        .build()
        .map_err(kernel)
}

/// Runs the hub to its end, which is the process's.
fn ended(
    runtime: tokio::runtime::Runtime,
    hub: impl Future<Output = Result<(), HubError>>,
) -> Outcome {
    let ended = runtime.block_on(hub);
    runtime.shutdown_background();
    ended.map(|()| Exit::Done).map_err(|error| {
        Failure::new(Exit::Failed, "the hub ended")
            .because(error)
            .with_hint("if the log is at fault, `mainstay log verify` says where")
    })
}

async fn serve(
    options: hub::Options,
    server: Option<store::Server>,
    door: facade::Options,
) -> Result<(), HubError> {
    let workspace_dir = options
        .state_dir
        .join("workspaces")
        .join(&options.workspace);
    let (hub, service) = started(server, None, options).await?;
    telemetry::start(&hub, &workspace_dir);
    with_doors(hub, service, (Reach::Anywhere, door)).await
}

/// Serves agents and clients until the hub's service has ended.
async fn with_doors(
    hub: Hub,
    mut service: tokio::task::JoinHandle<Result<(), HubError>>,
    (reach, door): (Reach, facade::Options),
) -> Result<(), HubError> {
    let doors = async {
        let (gateway, ()) = tokio::join!(
            gateway::serve(hub.clone(), reach),
            facade::serve(hub.clone(), door)
        );
        if let Err(error) = gateway {
            // Agents without their door can do nothing; the keeper starts the next hub.
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "agents have no gateway"
            );
        }
    };
    tokio::pin!(doors);
    let ended = tokio::select! {
        ended = &mut service => {
            let _cut = tokio::time::timeout(LAST_WORDS, doors).await;
            ended
        }
        () = &mut doors => service.await,
    };
    ended.unwrap_or_else(|panicked| Err(HubError::new(hub::Code::Internal, panicked.to_string())))
}

/// What the processes say to whoever looks after them: standard error, by `MAINSTAY_LOG`.
pub fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("MAINSTAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // Set once, at the start of a process.
    let _set = subscriber.try_init();
}
