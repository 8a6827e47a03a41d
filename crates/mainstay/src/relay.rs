//! `mainstay relay`: the process between a pod and its hub, with the descriptors it was started with.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use contract::pod::ROOT;

use crate::exit::{Exit, Failure, Outcome};

/// What the pod's first process passes on.
const GATEWAY: i32 = 3;
const PROBES: i32 = 4;
const SUPERVISOR: i32 = 5;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mainstay shim    # starts it, and starts it again when it dies"
)]
pub struct RelayArgs {
    /// Where everything of ours lies in the pod
    #[arg(long, value_name = "DIR", default_value = ROOT)]
    root: PathBuf,
}

pub fn relay(args: RelayArgs) -> Outcome {
    let kernel = |error| {
        Failure::new(Exit::Failed, "the kernel refuses what the relay needs").because(error)
    };
    sandbox::process::hide_memory().map_err(kernel)?;
    sandbox::process::raise_open_files().map_err(kernel)?;
    crate::hub::log_to_stderr();
    let pod = crate::shim::pod()?;
    let ended = relay::run(relay::Options {
        pod,
        root: args.root,
        gateway: inherited(GATEWAY)?.into(),
        probes: inherited(PROBES)?.into(),
        supervisor: inherited(SUPERVISOR)?.into(),
    });
    ended
        .map(|()| Exit::Done)
        .map_err(|error| Failure::new(Exit::Failed, "the relay ended").because(error))
}

fn inherited(number: i32) -> Result<OwnedFd, Failure> {
    sandbox::descriptors::inherited(number)
        .map_err(|error| Failure::usage("`relay` is started by `mainstay shim`").because(error))
}
