//! `cargo xtask cluster`: a real Kubernetes on this machine, for tests and for a look: one control
//! plane and two nodes, each node in namespaces of its own (network, mounts, processes, host name),
//! so that it is a machine to Kubernetes and one process tree to us.
//!
//! Everything of a cluster lies in one folder, its state; `down` leaves nothing of it. Everything
//! that's only built (Kubernetes itself, images) lies in the cache and is used again. Nothing here
//! knows Mainstay: tests bring it into the cluster as a person would, with kubectl.

mod build;
mod cgroup;
mod client;
mod control_plane;
mod documents;
mod down;
mod fail;
mod fake;
mod health;
mod keda;
mod layout;
mod missing;
mod network;
mod node;
mod process;
mod record;
mod smoke;
mod status;
mod storage;
mod test;
mod up;

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Subcommand;

use layout::Layout;

pub use test::{Building, evaluator};

/// Whether `test` runs the cluster's tests, and not `cluster test` alone.
const ARE_OF_TEST: bool = false;

/// What the command line says of `cluster`.
#[derive(clap::Args)]
pub struct Arguments {
    /// The cluster's folder; another than the default is for a test of the testbed itself, since
    /// the addresses allow one cluster per machine.
    #[arg(long, global = true)]
    state: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Build the programs and images only; `up` does it too.
    Build {
        /// KEDA, which its own test wants and which takes as long as all the others.
        #[arg(long)]
        keda: bool,
    },
    /// Start a cluster, or whatever of it is not running, and wait until it's ready.
    Up {
        /// Nodes that exist in the API only, run by KWOK: up to thousands.
        #[arg(long, default_value_t = 0)]
        fake_nodes: u32,
        /// What a fake node has besides processors and memory, as in nvidia.com/mig-1g.10gb=7.
        #[arg(long = "fake-resource")]
        fake_resources: Vec<String>,
    },
    /// End it and remove everything that it made, its state included.
    Down,
    /// Nodes and components, whether they are ready and what memory they hold.
    Status,
    /// Lines for a shell: KUBECONFIG, and a PATH with this cluster's kubectl and helm.
    Env,
    /// Import a docker-archive into every node.
    Load { archive: PathBuf },
    /// Take something from a node, or from `control-plane`, until the next `up`.
    Fail {
        node: String,
        #[arg(long)]
        loss: fail::Loss,
    },
    /// The tests of the second home: in the cluster that is up, or in one that goes with them.
    Test {
        /// Only those whose name contains this.
        only: Option<String>,
    },
    /// Try the cluster: pods on both nodes that talk, and a node that is lost.
    Smoke {
        /// An image for the pods of a cluster that isn't ours, where none can be imported: a
        /// server on port 8080 without arguments.
        #[arg(long)]
        image: Option<String>,
    },
}

/// Starts to build what the tests in a cluster need, or says why there can't be one here.
pub fn for_tests() -> Result<Building> {
    if !ARE_OF_TEST {
        bail!("`cargo xtask cluster test` runs them");
    }
    let layout = Layout::new(None)?;
    test::why_not(&layout)?;
    Building::start(&layout)
}

/// Waits until everything is built, and runs them.
pub fn test(building: Building) -> Result<()> {
    building.finish()?;
    test::test(&Layout::new(None)?, None)
}

/// Does what the command line says.
pub fn cluster(arguments: Arguments) -> Result<()> {
    let layout = Layout::new(arguments.state)?;
    match arguments.what {
        What::Build { keda: true } => keda::build(&layout),
        What::Build { keda: false } => build::build(&layout),
        What::Up {
            fake_nodes,
            fake_resources,
        } => up::up(layout, &fake::Fleet::new(fake_nodes, &fake_resources)?),
        What::Down => down::down(layout),
        What::Status => status::status(&layout),
        What::Env => up::environment(&layout),
        What::Load { archive } => up::load(layout, &archive),
        What::Fail { node, loss } => fail::fail(layout, &node, loss),
        What::Test { only } => test::test(&layout, only.as_deref()),
        What::Smoke { image } => smoke::smoke(&layout, image),
    }
}
