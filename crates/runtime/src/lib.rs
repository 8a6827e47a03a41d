//! The built-in agent loop: a process that is given one task and asks a model until it has an answer.
//!
//! It reads the task from standard input, asks the model through the gateway, runs the tools the
//! model proposes (also through the gateway), and writes the answer to standard output. It is an
//! `exec` agent like any other: it keeps no state, so a new process replays to where the last one
//! was. For that to work its requests must depend on nothing but the task and earlier answers: no
//! clock, no randomness, no process id, tools in a fixed order.

mod assignment;
mod door;
mod failure;
mod model;
mod talk;
mod tools;

#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::process::ExitCode;

use assignment::Assignment;
use failure::Failure;

/// A task's input is bounded where it is accepted; this bounds what a broken caller can make us read.
const MAX_ASSIGNMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Runs one task. Exit 0 completes it, 78 fails it for good, anything else ends this attempt.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(answer) => write_answer(&answer),
        Err(failure) => {
            eprintln!("{}", failure::with_sources(&failure));
            failure.exit_code()
        }
    }
}

fn run() -> Result<String, Failure> {
    let mut text = String::new();
    let input = std::io::stdin().lock();
    input
        .take(MAX_ASSIGNMENT_BYTES)
        .read_to_string(&mut text)
        .map_err(Failure::ReadAssignment)?;
    let assignment: Assignment = serde_json::from_str(&text).map_err(Failure::ParseAssignment)?;
    let doors = door::Doors::from_environment(&assignment, |name| std::env::var(name).ok())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::Start)?;
    runtime.block_on(talk::to_the_end(&assignment, &doors))
}

fn write_answer(answer: &str) -> ExitCode {
    let mut output = std::io::stdout().lock();
    match output
        .write_all(answer.as_bytes())
        .and_then(|()| output.flush())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("failed to write the answer: {error}");
            ExitCode::FAILURE
        }
    }
}
