//! Every chore of the repository as a subcommand: `cargo xtask <chore>`.
//!
//! A chore here is what a person, CI and a release run, so that there is one way to do each. It
//! drives `cargo` and a few programs that every Debian has; nothing of Mainstay is linked in, so
//! that a broken room can't keep its own checks from running.

mod bench;
mod chart;
mod ci;
mod cluster;
mod dist;
mod docs;
mod figures;
mod fuzz;
mod image;
mod metadata;
mod peers;
mod rooms;
mod run;
mod sdk;
mod setup;
mod soak;
mod test;
mod tools;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "xtask", about = "Mainstay's chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// What CI runs: formatting, rooms, bans, lints, and all of `test`.
    Ci,
    /// Build and run every test, with the official SDKs in a virtual environment of the checkout.
    Test,
    /// Check the arrows between rooms and the banned dependencies.
    Rooms,
    /// The kill sweeps; by the hundred, their result is written into docs/benchmarks.md.
    Soak {
        /// Tasks per sweep.
        #[arg(long, default_value_t = 100)]
        tasks: u32,
        /// Only the sweeps whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Fuzz what parses bytes from outside; needs a nightly tool chain and cargo-fuzz.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 300)]
        seconds: u32,
        /// Only the targets whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// Measure, beside the peers that are installed, and write docs/benchmarks.md.
    Bench {
        /// Only the sections whose name contains this.
        #[arg(long)]
        only: Option<String>,
    },
    /// A static tarball, a .deb, checksums and an SBOM in target/dist.
    Dist,
    /// Mainstay's container image, made without an engine: a docker-archive and OCI layout in one.
    Image(image::mainstay::Arguments),
    /// Regenerate docs/reference from the program.
    Docs,
    /// Install the system packages that the testbed needs; without root, say which.
    Setup,
    /// A real Kubernetes on this machine: see docs/how-to/run-a-cluster-here.md.
    Cluster(cluster::Arguments),
}

fn main() -> ExitCode {
    match chore(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn chore(chore: Chore) -> Result<()> {
    std::env::set_current_dir(run::root())?;
    match chore {
        Chore::Ci => ci::ci(),
        Chore::Test => test::test(test::Sdks::WhereInstalled, cluster::for_tests()),
        Chore::Rooms => rooms::check(),
        Chore::Soak { tasks, only } => soak::soak(tasks, only.as_deref()),
        Chore::Fuzz { seconds, only } => fuzz::fuzz(seconds, only.as_deref()),
        Chore::Bench { only } => bench::bench(only.as_deref()),
        Chore::Dist => dist::dist(),
        Chore::Image(arguments) => image::mainstay::image(arguments),
        Chore::Docs => docs::docs(),
        Chore::Setup => setup::setup(),
        Chore::Cluster(arguments) => cluster::cluster(arguments),
    }
}
