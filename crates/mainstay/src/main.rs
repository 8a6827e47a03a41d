//! The binary: command line and wiring, nothing else.
//!
//! Each command group has a file of its own; what they share is how to reach the hub (`client`,
//! `place`), how to print (`output`) and how to fail (`exit`).

mod agent;
mod apply;
mod chat;
mod cli;
mod client;
mod completions;
mod demo;
mod demo_tools;
mod doctor;
mod event;
mod exit;
mod fold;
mod hub;
mod hub_link;
mod kubernetes;
mod log;
mod logs;
mod new;
mod object;
mod operator;
mod output;
mod place;
mod render;
mod run;
mod schema;
mod secret;
mod session;
mod shim;
mod store_args;
mod survey;
mod task;
mod telemetry;
mod token;
mod up;

fn main() -> std::process::ExitCode {
    cli::main()
}
