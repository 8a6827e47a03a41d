//! `mainstay session`: conversations by name, with their turns.

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
}

pub async fn session(place: &PlaceArgs, args: SessionArgs) -> Outcome {
    let client = Client::new(place)?;
    match args.command {
        SessionCommand::List { limit, output } => {
            let sessions = pages(&client, "/api/v1/sessions", &[], limit).await?;
            print(output, &sessions, list_view)?;
        }
        SessionCommand::Show { id, output } => {
            let session = client
                .get(&format!("/api/v1/sessions/{}", encoded(&id)))
                .await?;
            print(output, &session, show_view)?;
        }
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
