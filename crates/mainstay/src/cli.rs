//! All commands and their options, and which file performs each.
//!
//! Help texts are written for somebody who has five minutes; each ends with an example.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::exit::{Exit, Failure, Outcome};
use crate::place::PlaceArgs;
use crate::{
    agent, apply, chat, completions, demo, demo_tools, doctor, event, hub, kubernetes, log, logs,
    new, object, operator, render, run, schema, secret, session, shim, task, token, up,
};

/// Run a fleet of AI agents on one server or on Kubernetes: crash-proof, budget-proof, auditable
#[derive(Debug, Parser)]
#[command(
    name = "mainstay",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Start with:\n  mainstay demo\n  mainstay new agent helper && mainstay up .\n\n\
        Exit codes:\n  0 done   1 the work failed   2 the command is wrong   3 a manifest is wrong   4 not found\n  \
        5 not allowed   6 cannot reach the hub   7 waiting for a person   130 interrupted (the task goes on)"
)]
pub struct Cli {
    #[command(flatten)]
    place: PlaceArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See an agent killed in mid-task and nothing lost; needs no key and no network
    Demo(demo::DemoArgs),
    /// Run the fleet of these manifests in the foreground and follow their changes
    #[command(alias = "keeper")]
    Up(up::UpArgs),
    /// Write a manifest
    New(new::NewArgs),
    /// Make a running hub have what these manifests say
    Apply(apply::ApplyArgs),
    /// Show what `apply` would change
    Diff(apply::DiffArgs),
    /// Delete the objects of these manifests
    Delete(apply::DeleteArgs),
    /// List objects of a kind, or show one in a line
    Get(object::GetArgs),
    /// Show everything about an object
    Describe(object::DescribeArgs),
    /// Print the JSON Schema of manifests, for editors
    Schema(schema::SchemaArgs),
    /// Give an agent a task and wait for its answer
    Run(run::RunArgs),
    /// Talk with an agent in one session
    Chat(chat::ChatArgs),
    /// List, show, cancel, retry and resume tasks
    Task(task::TaskArgs),
    /// List and show sessions
    Session(session::SessionArgs),
    /// Print what an agent's processes wrote to standard error
    Logs(logs::LogsArgs),
    /// Print what happens, from the log
    Events(event::EventsArgs),
    /// Let a stopped agent or instance work again
    Start(agent::StartArgs),
    /// Stop an agent, or one instance, until it is started again; its tasks wait
    Stop(agent::StopArgs),
    /// End and start an agent's processes; its tasks go on
    Restart(agent::RestartArgs),
    /// Read and check the record of everything that was done
    Log(log::LogArgs),
    /// Keep secrets for providers, tools and agents
    Secret(secret::SecretArgs),
    /// Print the owner's token
    Token(token::TokenArgs),
    /// Look for what is wrong with this machine, state or agent
    Doctor(doctor::DoctorArgs),
    /// Put Mainstay into a Kubernetes cluster, look at it there, take it away
    Kubernetes(kubernetes::KubernetesArgs),
    /// Print a fleet as objects of Kubernetes, Compose or systemd
    Render(render::RenderArgs),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArgs),
    /// The hub's process; started by `up`
    #[command(hide = true)]
    Hub(hub::HubArgs),
    /// The first process of an agent's pod; started by Kubernetes
    #[command(hide = true)]
    Shim(shim::ShimArgs),
    /// Kubernetes' controllers; started by what `kubernetes install` puts there
    #[command(hide = true)]
    Operator(operator::OperatorArgs),
    /// The built-in agent loop's process; started for each task of a `builtin` agent
    #[command(hide = true)]
    Runtime(RuntimeArgs),
    /// The demo's tools, as an MCP server on standard input and output
    #[command(hide = true)]
    DemoTools(demo_tools::DemoToolsArgs),
}

/// Reads a task as JSON from standard input and prints the answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay runtime < task.json")]
struct RuntimeArgs {}

/// Parses, performs, reports.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Asked for nothing: say what there is. The parser would name what is hidden, too.
        Err(error)
            if error.kind() == ErrorKind::MissingSubcommand
                && error.to_string().starts_with("error: 'mainstay' ") =>
        {
            eprint!("{}", Cli::command().render_help());
            return Exit::Usage.into();
        }
        Err(error) => {
            let _closed = error.print();
            return if error.use_stderr() {
                Exit::Usage.into()
            } else {
                Exit::Done.into()
            };
        }
    };
    if let Command::Runtime(RuntimeArgs {}) = cli.command {
        return runtime::main();
    }
    match perform(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => failure.report(),
    }
}

fn perform(cli: Cli) -> Outcome {
    let place = cli.place;
    match cli.command {
        // These own their processes and threads.
        Command::Up(args) => up::up(&place, args),
        Command::Hub(args) => hub::hub(&place, &args),
        Command::Shim(args) => shim::shim(args),
        Command::Operator(args) => operator::operator(&place, args),
        Command::Demo(args) => demo::demo(&args),
        Command::DemoTools(args) => demo_tools::serve(&args),
        // These need no hub.
        Command::New(args) => new::new(args),
        Command::Schema(args) => schema::schema(&args),
        Command::Completions(args) => completions::completions(&args),
        Command::Kubernetes(args) => wait_for(kubernetes::kubernetes(&place, args)),
        Command::Render(args) => render::render(&place, &args),
        Command::Doctor(args) => wait_for(doctor::doctor(&place, args)),
        Command::Log(args) => wait_for(log::log(&place, args)),
        Command::Secret(args) => wait_for(secret::secret(&place, args)),
        // These are a hub's clients.
        Command::Apply(args) => wait_for(apply::apply(&place, args)),
        Command::Diff(args) => wait_for(apply::diff(&place, args)),
        Command::Delete(args) => wait_for(apply::delete(&place, args)),
        Command::Get(args) => wait_for(object::get(&place, args)),
        Command::Describe(args) => wait_for(object::describe(&place, args)),
        Command::Run(args) => wait_for(run::run(&place, args)),
        Command::Chat(args) => wait_for(chat::chat(&place, args)),
        Command::Task(args) => wait_for(task::task(&place, args)),
        Command::Session(args) => wait_for(session::session(&place, args)),
        Command::Logs(args) => wait_for(logs::logs(&place, args)),
        Command::Events(args) => wait_for(event::events(&place, args)),
        Command::Start(args) => wait_for(agent::start(&place, args)),
        Command::Stop(args) => wait_for(agent::stop(&place, args)),
        Command::Restart(args) => wait_for(agent::restart(&place, args)),
        Command::Token(args) => wait_for(token::token(&place, args)),
        Command::Runtime(RuntimeArgs {}) => Ok(Exit::Done),
    }
}

fn wait_for(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Failed, "failed to start").because(error))?;
    let outcome = runtime.block_on(command);
    // A blocked read of standard input must not keep the process.
    runtime.shutdown_background();
    outcome
}
