//! `mainstay hub --kubernetes`: the hub in its pod, with its home in the same process.
//!
//! It starts with what lies in its state: without the API server it runs the fleet that it ran
//! before. Started by the operator; every option is its.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::kubernetes::HUB;
use cluster::home::{Home, KedaOptions, KeyCheck, Options, Verdict};
use cluster::reviews::{Refusal, Reviews, Right};
use facade::{Access, Refused, Review};
use gateway::{KeyVerdict, Reach};
use hub::artifact::Artifacts;
use hub::{Hub, HubError};

use super::HubArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::place::PlaceArgs;
use crate::telemetry;

/// A pod that isn't heard is noticed after one to two seconds (`cluster::socket`); with this it hasn't
/// been heard for about three when its attempts are given to others.
const AWAY: Duration = Duration::from_millis(1500);

/// Tenants write URLs, and the node's own addresses give out its credentials.
const REACH: Reach = Reach::NotTheNode;

/// Where the downward API puts the namespace.
const NAMESPACE: &str = "POD_NAMESPACE";

#[derive(Debug, clap::Args)]
pub(super) struct ClusterArgs {
    /// The home is a cluster
    #[arg(long, requires_all = ["workspace", "key_file", "tls_cert", "tls_key"])]
    pub(super) kubernetes: bool,
    /// The Workspace's name
    #[arg(long, value_name = "NAME")]
    workspace: Option<String>,
    /// The 32 bytes that all keys are derived from
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Certificate of both doors, PEM
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// The clients' door
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7080")]
    listen: SocketAddr,
    /// The pods' door
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:7443")]
    pods: SocketAddr,
    /// A port of its own for monitors, without a token
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// KEDA's door
    #[arg(long, value_name = "ADDRESS", requires = "keda_client")]
    keda: Option<SocketAddr>,
    /// The certificate that KEDA shows there, PEM; it may come later
    #[arg(long, value_name = "FILE")]
    keda_client: Option<PathBuf>,
}

/// This process only starts the hub, and starts it again.
pub(super) fn hub(place: &PlaceArgs, args: &HubArgs) -> Outcome {
    // Read here first: what is wrong with it is said once, by the exit code that belongs to it.
    options(place, &args.cluster)?;
    let body = || match serve_here(place, args) {
        Ok(exit) => exit as i32,
        Err(failure) => {
            failure.report();
            failure.exit as i32
        }
    };
    let code = keeper::pod::again(&body).map_err(super::kernel)?;
    if code == 0 {
        return Ok(Exit::Done);
    }
    let what = format!("the hub's process ended with {code}");
    Err(Failure::new(Exit::Failed, what))
}

fn serve_here(place: &PlaceArgs, args: &HubArgs) -> Outcome {
    let options = options(place, &args.cluster)?;
    let namespace = options.namespace.clone();
    let door = facade::Options {
        names: names(&args.names, &namespace),
        tls: Some((options.certificate.clone(), options.key.clone())),
        ..facade::Options::default()
    };
    let server = args.store.server()?;
    super::ended(super::runtime()?, serve(options, server, door))
}

/// Every name under which the hub's Service is called.
fn names(given: &[String], namespace: &str) -> Vec<String> {
    let ends = ["", ".svc", ".svc.cluster.local"];
    let service = ends.map(|end| format!("{HUB}.{namespace}{end}"));
    let mut names = given.to_vec();
    names.push(HUB.to_owned());
    names.extend(service);
    names
}

fn options(place: &PlaceArgs, args: &ClusterArgs) -> Result<Options, Failure> {
    let workspace = given(args.workspace.clone(), "--workspace")?;
    let state_dir = place.state()?;
    let artifacts = Artifacts::open(&state_dir).map_err(|error| {
        let what = format!("failed to open the artifacts in {}", state_dir.display());
        Failure::new(Exit::Failed, what).because(error)
    })?;
    Ok(Options {
        namespace: std::env::var(NAMESPACE).unwrap_or_else(|_| workspace.clone()),
        workspace,
        state_dir,
        state_key: state_key(&given(args.key_file.clone(), "--key-file")?)?,
        certificate: given(args.tls_cert.clone(), "--tls-cert")?,
        key: given(args.tls_key.clone(), "--tls-key")?,
        listen: args.listen,
        pods: args.pods,
        metrics: args.metrics,
        keda: args
            .keda
            .zip(args.keda_client.clone())
            .map(|(listen, client)| KedaOptions { listen, client }),
        knowledge: crate::up::knowledge(),
        artifacts,
        client: None,
    })
}

fn given<T>(value: Option<T>, option: &str) -> Result<T, Failure> {
    value.ok_or_else(|| Failure::new(Exit::Usage, format!("{option} is missing")))
}

fn state_key(path: &Path) -> Result<[u8; 32], Failure> {
    let what = || format!("failed to read the state key in {}", path.display());
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(Exit::NotAllowed, what()).because(error))?;
    bytes
        .try_into()
        .map_err(|_| Failure::new(Exit::Usage, format!("{}: it is not 32 bytes long", what())))
}

async fn serve(
    mut options: Options,
    server: Option<store::Server>,
    mut door: facade::Options,
) -> Result<(), HubError> {
    options.client = client().await;
    let reviews = options.client.clone();
    let reviews = reviews.map(|client| Reviews::new(client, &options.namespace));
    door.review = reviews.map(review);
    door.artifacts = Some(options.artifacts.clone());
    let state_key = options.state_key;
    let (state_dir, workspace) = (options.state_dir.clone(), options.workspace.clone());
    let failed = |error: &dyn std::error::Error| {
        let cause = error.source().map(|cause| format!(": {cause}"));
        let text = format!("{error}{}", cause.unwrap_or_default());
        HubError::new(hub::Code::Unavailable, text)
    };
    let (home, link) = Home::open(options).await.map_err(|error| failed(&error))?;
    let workspace_dir = state_dir.join("workspaces").join(&workspace);
    let options = hub::Options {
        home: link,
        pid: std::process::id(),
        state_key,
        state_dir,
        workspace,
    };
    let (hub, service) = super::started(server, None, options).await?;
    hub.lose_after(AWAY);
    telemetry::start(&hub, &workspace_dir);
    let check = key_check(&hub).map_err(|error| failed(&error))?;
    tokio::select! {
        ended = super::with_doors(hub.clone(), service, (REACH, door)) => ended,
        () = home.run(hub, check) => Ok(()),
    }
}

/// Without one the hub runs what it has, and says so.
async fn client() -> Option<kube::Client> {
    let config = kube::Config::infer().await;
    let client = config
        .map_err(|error| error.to_string())
        .and_then(|config| kube::Client::try_from(config).map_err(|error| error.to_string()));
    client
        .inspect_err(|error| tracing::error!(error, "the API server can't be asked"))
        .ok()
}

/// What clients may do beside the owner is what they may do with `kubectl`.
fn review(reviews: Reviews) -> Review {
    let reviews = Arc::new(reviews);
    Review::new(move |bearer, access| {
        let (reviews, bearer) = (Arc::clone(&reviews), bearer.to_owned());
        Box::pin(async move {
            let answer = reviews.review(&bearer, right(access)).await;
            answer.map_err(|refusal| match refusal {
                Refusal::Unknown(why) => Refused::Unknown(why),
                Refusal::NotAllowed(why) => Refused::NotAllowed(why),
                Refusal::Unanswered(why) => Refused::Unanswered(why),
            })
        })
    })
}

fn right(access: Access) -> Right {
    match access {
        Access::Read => Right::READ,
        Access::Run => Right::RUN,
        Access::Cancel => Right::CANCEL,
        Access::Decide => Right::DECIDE,
        Access::Steer => Right::STEER,
        Access::Change => Right::CHANGE,
        Access::Own => Right::OWN,
    }
}

fn key_check(hub: &Hub) -> Result<KeyCheck, gateway::GatewayError> {
    let check = gateway::KeyCheck::new(hub, REACH)?;
    Ok(Arc::new(move |provider| {
        let check = check.clone();
        Box::pin(async move {
            match check.ask(&provider).await {
                KeyVerdict::Taken => Verdict::Taken,
                KeyVerdict::Refused(why) => Verdict::Refused(why),
                KeyVerdict::Unknown => Verdict::Unknown,
            }
        })
    }))
}
