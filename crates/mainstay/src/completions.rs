//! `mainstay completions`: a script for a shell.

use clap::CommandFactory;

use crate::cli::Cli;
use crate::exit::{Exit, Outcome};
use crate::output::write_out;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mainstay completions bash > ~/.local/share/bash-completion/completions/mainstay"
)]
pub struct CompletionsArgs {
    shell: clap_complete::Shell,
}

pub fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mainstay", &mut script);
    write_out(&script)?;
    Ok(Exit::Done)
}
