//! `mainstay shim`: the first process of an agent's pod, told what only the binary knows.
//!
//! Like `up` it forks without exec, so nothing here starts a runtime or a thread; `source` may, for
//! it is a process of its own that forks nothing.

mod source;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use contract::pod::{POD_ENV, PROBE_PORT, Pod, ROOT};
use keeper::pod::Sockets;

use crate::exit::{Exit, Failure, Outcome};

/// The pod's name, by the downward API. A host name may be a shorter one.
const NAME_ENV: &str = "POD_NAME";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mainstay shim --copy-to /mainstay/bin/mainstay    # an init container\n  \
    mainstay shim --fetch-source                      # another one, where the agent has a source\n  \
    mainstay shim                                     # the agent's container, with MAINSTAY_POD"
)]
pub struct ShimArgs {
    /// Copy this program to a path and end
    #[arg(long, value_name = "PATH")]
    copy_to: Option<PathBuf>,
    /// Bring the agent's source from the hub and end
    #[arg(long, conflicts_with = "copy_to")]
    fetch_source: bool,
    /// Where everything of ours lies in the pod
    #[arg(long, value_name = "DIR", default_value = ROOT)]
    root: PathBuf,
    /// Where the kubelet's probes are answered
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PROBE_PORT)))]
    probes: SocketAddr,
    /// The file that Kubernetes shows the reason of an end from
    #[arg(long, value_name = "PATH", default_value = "/dev/termination-log")]
    termination_log: PathBuf,
}

pub fn shim(args: ShimArgs) -> Outcome {
    if let Some(to) = &args.copy_to {
        let copied = keeper::pod::copy_program(to);
        let failed = format!("failed to copy the program to {}", to.display());
        return copied
            .map(|()| Exit::Done)
            .map_err(|error| Failure::new(Exit::Failed, failed).because(error));
    }
    let pod = pod()?;
    if args.fetch_source {
        crate::hub::log_to_stderr();
        return source::fetch(&pod, &args.root);
    }
    let program = std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, "failed to find this program's own file").because(error)
    })?;
    crate::hub::log_to_stderr();
    let instance = std::env::var(NAME_ENV).unwrap_or_else(|_| {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    });
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let ended = keeper::pod::run(keeper::pod::Options {
        pod,
        instance,
        root: args.root,
        program,
        environment: environment.collect(),
        probes: args.probes,
        relay,
        termination_log: args.termination_log,
    });
    ended
        .map(|()| Exit::Done)
        .map_err(|error| Failure::new(Exit::Failed, "failed to run the pod").because(error))
}

/// What the operator wrote into the pod's template.
fn pod() -> Result<Pod, Failure> {
    let missing = format!("this command runs in an agent's pod, where {POD_ENV} says what to run");
    let text = std::env::var(POD_ENV).map_err(|error| Failure::usage(missing).because(error))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::usage(format!("{POD_ENV} is no pod of ours")).because(error))
}

/// The relay's process, which alone has a runtime.
fn relay(pod: &Pod, root: &Path, sockets: Sockets) -> i32 {
    if let Err(error) = sandbox::process::raise_open_files() {
        tracing::warn!(%error, "the relay may have few open files");
    }
    let ended = relay::run(relay::Options {
        pod: pod.clone(),
        root: root.to_owned(),
        gateway: sockets.gateway.into(),
        probes: sockets.probes.into(),
        supervisor: sockets.supervisor.into(),
        settled: || {
            // Nothing but memory is lost without it.
            let _kept = sandbox::pages::let_go_of_program();
        },
    });
    match ended {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the relay ended");
            1
        }
    }
}
