//! `mainstay kubernetes`: put Mainstay into a cluster, look at it there, and take it away again.
//!
//! What is installed is said by `operator::install`; here is what a person sees of it: what would
//! change, a question, and an end that says what is left.

mod cluster;
mod forward;
mod install;
mod login;
mod plan;
mod status;
mod sweep;
mod uninstall;

use std::io::{BufRead, IsTerminal, Write};

pub use cluster::{Cluster, Reference, wait_until};
pub use forward::Way;
pub use install::ChoiceArgs;
pub use login::Renewed;
pub use plan::Plan;

use crate::exit::{Exit, Failure, Outcome};
use crate::place::PlaceArgs;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mainstay kubernetes install --kube-context staging\n\n\
    Without --kubeconfig: KUBECONFIG, else ~/.kube/config, else the cluster of the pod that this runs in."
)]
pub struct KubernetesArgs {
    #[command(subcommand)]
    command: KubernetesCommand,
}

#[derive(Debug, clap::Subcommand)]
enum KubernetesCommand {
    /// Put the operator and its kinds into a cluster, or bring them up to this version
    Install(install::InstallArgs),
    /// Show what runs of Mainstay in a cluster, and what isn't ready
    Status(status::StatusArgs),
    /// Take everything away but the data
    Uninstall(uninstall::UninstallArgs),
}

/// The operator's namespace.
fn namespace(place: &PlaceArgs) -> String {
    place
        .namespace()
        .unwrap_or(operator::install::NAMESPACE)
        .to_owned()
}

pub async fn kubernetes(place: &PlaceArgs, args: KubernetesArgs) -> Outcome {
    match args.command {
        KubernetesCommand::Install(args) => install::install(place, args).await,
        KubernetesCommand::Status(args) => status::status(place, args).await,
        KubernetesCommand::Uninstall(args) => uninstall::uninstall(place, args).await,
    }
}

/// Asks a person; where there is none, `--yes` must have answered.
fn confirmed(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::usage("nobody is there to say yes")
            .with_hint("say --yes, or --dry-run to see only what would be done"));
    }
    eprint!("{question} [y/N] ");
    let _flushed = std::io::stderr().flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    match read.map(|_| answer.trim().to_ascii_lowercase()) {
        Ok(answer) if answer == "y" || answer == "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, "nothing was done")),
    }
}
