//! `mainstay session`: conversations by name, with their turns, and their way from home to home.

mod moving;

use serde_json::Value;

use crate::client::{Client, encoded};
use crate::exit::{Exit, Outcome};
use crate::output::{Columns, OutputArgs, cell, plain, print, printable};
use crate::place::PlaceArgs;
use crate::task::{items, pages};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay session list")]
pub struct SessionArgs {
    #[command(subcommand)]
    command: SessionCommand,
}

#[derive(Debug, clap::Subcommand)]
enum SessionCommand {
    /// List sessions
    #[command(after_help = "Example:\n  mainstay session list -o json")]
    List {
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a session's turns
    #[command(after_help = "Example:\n  mainstay session show order-4711")]
    Show {
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write a session to a file; what is open of it goes on where that is imported
    Export(moving::ExportArgs),
    /// Take a session from a file
    Import(moving::ImportArgs),
}

pub async fn session(place: &PlaceArgs, args: SessionArgs) -> Outcome {
    match args.command {
        SessionCommand::List { limit, output } => {
            let client = Client::new(place)?;
            let sessions = pages(&client, "/api/v1/sessions", &[], limit).await?;
            print(output, &sessions, list_view)?;
        }
        SessionCommand::Show { id, output } => {
            let session = Client::new(place)?
                .get(&format!("/api/v1/sessions/{}", encoded(&id)))
                .await?;
            print(output, &session, show_view)?;
        }
        SessionCommand::Export(args) => return moving::export(place, args).await,
        SessionCommand::Import(args) => return moving::import(place, args).await,
    }
    Ok(Exit::Done)
}

fn list_view(sessions: &Value) -> String {
    let mut columns = Columns::new(&["ID", "AGENT", "UPDATED"]);
    for session in items(sessions) {
        columns.row(vec![
            cell(session, "id"),
            cell(session, "agent"),
            cell(session, "updated"),
        ]);
    }
    columns.render()
}

fn show_view(session: &Value) -> String {
    let mut text = format!(
        "session {} with {}\n",
        cell(session, "id"),
        cell(session, "agent")
    );
    for turn in session
        .get("turns")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let content = turn.get("content").map_or_else(String::new, plain);
        text.push_str(&format!("\n{}:\n{content}\n", cell(turn, "role")));
    }
    printable(&text)
}
