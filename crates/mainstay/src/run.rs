//! `mainstay run`: give an agent a task and wait for what becomes of it.
//!
//! A task outlives everything here. The command submits under a key of its own, so that sending
//! again after a broken connection is the same task; then it asks for the task until it is settled.
//! While a hub restarts it waits, within bounds. Ctrl-C lets go of the task and leaves it running.

mod waiting;

use std::io::{IsTerminal, Read};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{CallError, Client, LONGEST_WAIT, encoded};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{OutputArgs, cell, for_terminal, plain, print, printable, write_out};
use crate::place::PlaceArgs;
use crate::task;

/// How long the hub may be away while a task waits.
const PATIENCE: Duration = Duration::from_secs(120);
/// The same before anything was reached: a hub that starts is there within this.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);
/// For a last look at a task that is let go.
const LAST_LOOK: Duration = Duration::from_secs(2);
const MAX_INPUT_BYTES: u64 = 32 * 1024 * 1024;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mainstay run helper 'How warm is it in Paris?'\n  \
    git diff | mainstay run reviewer - -o json"
)]
pub struct RunArgs {
    agent: String,
    /// The task; `-` reads it from standard input
    #[arg(value_name = "INPUT|-", allow_hyphen_values = false)]
    input: Option<String>,
    /// Continue the session of this name, or begin it
    #[arg(long, value_name = "NAME")]
    session: Option<String>,
    /// Don't wait for the answer
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn run(place: &PlaceArgs, args: RunArgs) -> Outcome {
    let client = Client::new(place)?;
    let input = read_input(args.input)?;
    let mut body = json!({"input": input});
    if let Some(session) = args.session {
        body["session"] = Value::String(session);
    }
    let submission = Submission::new(&args.agent, body);
    let show_progress = !args.output.is_data() && std::io::stderr().is_terminal();
    let task = submission.submit(&client).await?;
    if args.detach {
        print(args.output, &task, |task| format!("{}\n", cell(task, "id")))?;
        return Ok(Exit::Done);
    }
    let id = cell(&task, "id");
    let begun = task.clone();
    let settled = tokio::select! {
        settled = settle(&client, &submission, task) => settled,
        // Shows what happens meanwhile; it ends with the wait.
        _never = progress(&client, &id, show_progress) => return Ok(Exit::Failed),
        () = waiting::tell(&client, &id, &args.agent) => return Ok(Exit::Failed),
        _signal = tokio::signal::ctrl_c() => {
            eprintln!("\nlet go of task {id}; it goes on: mainstay task show {id}");
            let_go(&client, begun, args.output).await?;
            return Ok(Exit::Interrupted);
        }
    };
    match settled {
        Ok(task) => report(&task, args.output),
        Err(failure) => {
            let_go(&client, begun, args.output).await?;
            Err(failure)
        }
    }
}

/// Who asked for data gets the task, whatever came of the wait: as it stands, or as it began.
async fn let_go(client: &Client, begun: Value, output: OutputArgs) -> Result<(), Failure> {
    if !output.is_data() {
        return Ok(());
    }
    let path = task::path(&cell(&begun, "id"), "");
    let newer = tokio::time::timeout(LAST_LOOK, client.get(&path)).await;
    let task = newer.ok().and_then(Result::ok).unwrap_or(begun);
    print(output, &task, |_| String::new())
}

fn read_input(input: Option<String>) -> Result<String, Failure> {
    match input.as_deref() {
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin()
                .lock()
                .take(MAX_INPUT_BYTES + 1)
                .read_to_string(&mut text);
            read.map_err(|error| {
                Failure::usage("failed to read the task from standard input").because(error)
            })?;
            if text.len() as u64 > MAX_INPUT_BYTES {
                return Err(Failure::usage(format!(
                    "the task is larger than {MAX_INPUT_BYTES} bytes"
                )));
            }
            Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
        }
        Some(text) => Ok(text.to_owned()),
        None => Ok(String::new()),
    }
}

/// A task on its way to the hub; sending it twice is sending it once.
#[derive(Debug)]
pub struct Submission {
    pub agent: String,
    pub body: Value,
    pub key: String,
}

impl Submission {
    pub fn new(agent: &str, body: Value) -> Self {
        Self {
            agent: agent.to_owned(),
            body,
            key: uuid::Uuid::now_v7().to_string(),
        }
    }

    /// Sends until the hub has it or time is up, and returns the task as it begins.
    pub async fn submit(&self, client: &Client) -> Result<Value, Failure> {
        let patience = if keeper_runs(client) {
            FIRST_PATIENCE
        } else {
            Duration::ZERO
        };
        let give_up = Instant::now() + patience;
        loop {
            match self.send(client, None).await {
                Ok(task) => return Ok(task),
                Err(CallError::Lost(_)) if Instant::now() < give_up => {
                    tokio::time::sleep(PAUSE).await
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends, and has the hub answer when the task is settled or `wait` is over.
    async fn send(&self, client: &Client, wait: Option<Duration>) -> Result<Value, CallError> {
        let path = format!("/api/v1/agents/{}/tasks", encoded(&self.agent));
        let prefer = format!("wait={}", wait.unwrap_or_default().as_secs());
        let mut headers = vec![("idempotency-key", self.key.as_str())];
        headers.extend(wait.map(|_| ("prefer", prefer.as_str())));
        client
            .call(Method::POST, &path, Some(&self.body), &headers)
            .await
    }
}

/// A hub that is away while its keeper lives comes back.
fn keeper_runs(client: &Client) -> bool {
    let file = client
        .socket()
        .and_then(|socket| socket.parent())
        .map(|run| run.join("keeper.process"));
    let text = file.and_then(|path| std::fs::read(path).ok());
    let keeper: Option<sandbox::process::Identity> =
        text.and_then(|text| serde_json::from_slice(&text).ok());
    keeper.is_some_and(sandbox::process::is_alive)
}

/// Waits until nothing more happens by itself. Waiting is submitting again: under the same key the
/// hub answers with the task it has, and a hub that died before it had the task gets it now.
pub async fn settle(
    client: &Client,
    submission: &Submission,
    task: Value,
) -> Result<Value, Failure> {
    let mut task = task;
    let mut lost_since: Option<Instant> = None;
    while !task::is_settled(&task) {
        match submission.send(client, Some(LONGEST_WAIT)).await {
            Ok(newer) => {
                lost_since = None;
                task = newer;
            }
            Err(CallError::Lost(failure)) => {
                let since = *lost_since.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    return Err(failure.with_hint(format!(
                        "the task is kept: mainstay task show {}",
                        cell(&task, "id")
                    )));
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(CallError::Refused(failure)) => return Err(failure),
        }
    }
    Ok(task)
}

/// Tells a person what the agent does. Never returns: the wait decides when it is over.
async fn progress(client: &Client, id: &str, wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let mut last: Option<String> = None;
    loop {
        let headers: Vec<(&str, &str)> = last
            .iter()
            .map(|id| ("last-event-id", id.as_str()))
            .collect();
        if let Ok(mut frames) = client.text(&task::path(id, "/events"), &headers).await {
            while let Ok(Some(event)) = frames.next_event().await {
                last = event.id.or(last);
                if let Some(line) = serde_json::from_str(&event.data)
                    .ok()
                    .and_then(|frame| progress_line(&frame))
                {
                    eprintln!("{line}");
                }
            }
        }
        tokio::time::sleep(PAUSE * 5).await;
    }
}

/// One frame of a task's stream for a person; `None` for what is not worth a line.
pub fn progress_line(frame: &Value) -> Option<String> {
    let text = |field: &str| printable(&cell(frame, field)).replace('\n', " ");
    match frame.get("type").and_then(Value::as_str)? {
        "tool_call" => {
            let arguments: String = text("arguments").chars().take(80).collect();
            Some(format!("  {} {arguments}", text("name")))
        }
        "tool_result" if frame.get("isError") == Some(&Value::Bool(true)) => {
            Some(format!("  {} failed", text("name")))
        }
        "restart" => Some("  a new attempt goes on where the last one ended".into()),
        "question" => Some(format!("  waits for a person: {}", text("text"))),
        _ => None,
    }
}

fn report(task: &Value, output: OutputArgs) -> Outcome {
    let exit = task::exit_of(task);
    print(output, task, |_| String::new())?;
    if output.is_data() {
        return Ok(exit);
    }
    if let Some(answer) = task.get("output").filter(|answer| !answer.is_null()) {
        let answer = for_terminal(&plain(answer));
        write_out(answer.as_bytes())?;
        if !answer.ends_with('\n') {
            write_out(b"\n")?;
        }
    }
    if exit != Exit::Done {
        eprint!("{}", why(task));
    }
    Ok(exit)
}

/// Why a task has no answer, and what to do.
pub fn why(task: &Value) -> String {
    let mut text = format!("task {} is {}", cell(task, "id"), cell(task, "state"));
    if let Some(reason) = task.get("reason").and_then(Value::as_str) {
        text.push_str(&format!(" ({reason})"));
    }
    if let Some(message) = task.pointer("/error/message").and_then(Value::as_str) {
        text.push_str(&format!(": {message}"));
    }
    text.push('\n');
    if let Some(hint) = task::next_move(task) {
        text.push_str(&format!("hint: {hint}\n"));
    }
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_shows_calls_and_nothing_an_agent_could_draw_with() {
        let frame = json!({"type": "tool_call", "name": "save", "arguments": {"a": "\u{1b}[2J"}});
        assert_eq!(
            progress_line(&frame).unwrap(),
            "  save {\"a\":\"\\u001b[2J\"}"
        );
        assert_eq!(progress_line(&json!({"type": "chunk", "text": "x"})), None);
    }

    #[test]
    fn a_task_without_an_answer_says_why() {
        let task = json!({"id": "t", "state": "failed", "reason": "budget", "error": {"code": "budget", "message": "20 steps are used up"}});
        assert_eq!(
            why(&task),
            "task t is failed (budget): 20 steps are used up\n"
        );
    }
}
