//! `mainstay chat`: one session with an agent, a line at a time.
//!
//! Each line is a task; its text is shown as it comes. Text that a new attempt makes void is
//! announced, since a terminal can't take it back.

use std::io::{BufRead, IsTerminal, Write};

use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{cell, for_terminal, plain, write_out};
use crate::place::PlaceArgs;
use crate::run::{Submission, progress_line, settle, why};
use crate::task;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay chat helper")]
pub struct ChatArgs {
    agent: String,
    /// Continue the session of this name, or begin it
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
}

pub async fn chat(place: &PlaceArgs, args: ChatArgs) -> Outcome {
    let client = Client::new(place)?;
    // Fails at once for an agent that isn't there, rather than after the first line.
    client
        .get(&format!(
            "/api/v1/agents/{}",
            crate::client::encoded(&args.agent)
        ))
        .await?;
    let session = args
        .session
        .unwrap_or_else(|| format!("chat-{}", uuid::Uuid::now_v7()));
    eprintln!("session {session}; an empty line or Ctrl-D ends");
    let mut lines = read_lines();
    let mut exit = Exit::Done;
    loop {
        prompt();
        let line = tokio::select! {
            line = lines.recv() => line,
            _signal = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        };
        let Some(line) = line.filter(|line| !line.trim().is_empty()) else {
            return Ok(exit);
        };
        let body = json!({"input": line, "session": session});
        let submission = Submission::new(&args.agent, body);
        exit = tokio::select! {
            turn = turn(&client, &submission) => turn?,
            _signal = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        };
    }
}

fn prompt() {
    if std::io::stdin().is_terminal() {
        eprint!("> ");
        let _closed = std::io::stderr().flush();
    }
}

/// Standard input can't be waited for without a thread; this one dies with the process.
fn read_lines() -> tokio::sync::mpsc::Receiver<String> {
    let (lines_tx, lines_rx) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines_tx.blocking_send(line).is_err() {
                break;
            }
        }
    });
    lines_rx
}

async fn turn(client: &Client, submission: &Submission) -> Result<Exit, Failure> {
    let task = submission.submit(client).await?;
    let shown = stream(client, &cell(&task, "id")).await;
    let task = settle(client, submission, task).await?;
    if let Some(answer) = task
        .get("output")
        .filter(|answer| !answer.is_null())
        .map(plain)
        && !shown.ends_with(&answer)
    {
        write_out(for_terminal(&answer).as_bytes())?;
    }
    write_out(b"\n")?;
    let exit = task::exit_of(&task);
    if exit != Exit::Done {
        eprint!("{}", why(&task));
    }
    Ok(exit)
}

/// Prints text as it comes and returns what was printed; whatever goes wrong here, `settle` has
/// the answer.
async fn stream(client: &Client, id: &str) -> String {
    let mut shown = String::new();
    let Ok(mut frames) = client.text(&task::path(id, "/events"), &[]).await else {
        return shown;
    };
    while let Ok(Some(event)) = frames.next_event().await {
        let Ok(frame) = serde_json::from_str::<Value>(&event.data) else {
            continue;
        };
        match frame.get("type").and_then(Value::as_str) {
            Some("chunk") => {
                let text = cell(&frame, "text");
                if write_out(for_terminal(&text).as_bytes()).is_err() {
                    return shown;
                }
                shown.push_str(&text);
            }
            Some("done" | "error" | "question") => return shown,
            Some("restart") => {
                eprintln!("\n(begins again)");
                shown.clear();
            }
            _ => {
                if let Some(line) = progress_line(&frame) {
                    eprintln!("{line}");
                }
            }
        }
    }
    shown
}
