//! `mainstay task`: list, show, steps, cancel, retry, resume; and how a task looks.

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, encoded};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{
    Columns, OutputArgs, cell, dollars, is_coloured, plain, print, printable, tinted,
};
use crate::place::PlaceArgs;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay task list --in input-required")]
pub struct TaskArgs {
    #[command(subcommand)]
    command: TaskCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TaskCommand {
    /// List tasks, newest first
    #[command(after_help = "Example:\n  mainstay task list --agent helper --in failed")]
    List {
        /// Of this agent only
        #[arg(long)]
        agent: Option<String>,
        /// In this state only: submitted, working, input-required, auth-required, completed, failed, canceled, rejected
        // Not `--state`: that names the state's directory everywhere.
        #[arg(long = "in", value_name = "STATE")]
        wanted: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Show a task
    #[command(after_help = "Example:\n  mainstay task show 0198f2c6-… -o json")]
    Show {
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List a task's model and tool calls
    #[command(after_help = "Example:\n  mainstay task steps 0198f2c6-…")]
    Steps {
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// End a task without an answer
    #[command(after_help = "Example:\n  mainstay task cancel 0198f2c6-…")]
    Cancel {
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Try a failed or parked task again, under today's manifests; what is done stays done
    #[command(after_help = "Example:\n  mainstay task retry 0198f2c6-…")]
    Retry {
        id: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Say what became of a step that a task waits for
    #[command(
        after_help = "Examples:\n  mainstay task resume 0198f2c6-… --step 3 --as repeat\n  \
        mainstay task resume 0198f2c6-… --step 3 --as 'done={\"ticket\": 17}'"
    )]
    Resume {
        id: String,
        /// The step's number, as `task steps` shows it
        #[arg(long, value_name = "N")]
        step: u32,
        /// done (it happened; with =JSON its result), repeat (send it again) or fail (the agent gets an error)
        #[arg(long = "as", value_name = "done[=JSON]|repeat|fail")]
        how: String,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub async fn task(place: &PlaceArgs, args: TaskArgs) -> Outcome {
    let client = Client::new(place)?;
    match args.command {
        TaskCommand::List {
            agent,
            wanted,
            limit,
            output,
        } => list(&client, agent, wanted, limit, output).await,
        TaskCommand::Show { id, output } => show(&client.get(&path(&id, "")).await?, output),
        TaskCommand::Steps { id, output } => {
            let steps = client.get(&path(&id, "/steps")).await?;
            print(output, &steps, steps_view)?;
            Ok(Exit::Done)
        }
        TaskCommand::Cancel { id, output } => show(
            &client
                .call(Method::POST, &path(&id, "/cancel"), None, &[])
                .await?,
            output,
        ),
        TaskCommand::Retry { id, output } => show(
            &client
                .call(Method::POST, &path(&id, "/retry"), None, &[])
                .await?,
            output,
        ),
        TaskCommand::Resume {
            id,
            step,
            how,
            output,
        } => {
            let body = resume_body(step, &how)?;
            show(&client.post(&path(&id, "/resume"), &body).await?, output)
        }
    }
}

/// The API's path of a task.
pub fn path(id: &str, rest: &str) -> String {
    format!("/api/v1/tasks/{}{rest}", encoded(id))
}

fn resume_body(step: u32, how: &str) -> Result<Value, Failure> {
    let (word, result) = match how.split_once('=') {
        Some((word, json)) => (word, Some(json)),
        None => (how, None),
    };
    match (word, result) {
        ("done" | "repeat" | "fail", None) => Ok(json!({"step": step, "as": word})),
        ("done", Some(text)) => {
            let result: Value = serde_json::from_str(text).map_err(|error| {
                Failure::usage("the result after `done=` is not JSON")
                    .because(error)
                    .with_hint("text needs quotes of its own: --as 'done=\"it went through\"'")
            })?;
            Ok(json!({"step": step, "as": "done", "result": result}))
        }
        _ => Err(
            Failure::usage(format!("`{}` is not a way to resume", printable(how)))
                .with_hint("--as takes done, done=JSON, repeat or fail"),
        ),
    }
}

async fn list(
    client: &Client,
    agent: Option<String>,
    state: Option<String>,
    limit: u32,
    output: OutputArgs,
) -> Outcome {
    let mut query = Vec::new();
    query.extend(agent.map(|agent| format!("agent={}", encoded(&agent))));
    query.extend(state.map(|state| format!("state={}", encoded(&state))));
    let tasks = pages(client, "/api/v1/tasks", &query, limit).await?;
    print(output, &tasks, |tasks| list_view(tasks, output.is_wide()))?;
    Ok(Exit::Done)
}

/// A list, gathered over its pages.
pub async fn pages(
    client: &Client,
    path: &str,
    query: &[String],
    limit: u32,
) -> Result<Value, Failure> {
    let mut items = Vec::new();
    let mut cursor: Option<String> = None;
    let limit = limit as usize;
    loop {
        let mut query = query.to_vec();
        query.push(format!("limit={}", (limit - items.len()).min(200)));
        query.extend(
            cursor
                .take()
                .map(|cursor| format!("cursor={}", encoded(&cursor))),
        );
        let page = client.get(&format!("{path}?{}", query.join("&"))).await?;
        let found = page
            .get("items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let is_last = found.is_empty();
        items.extend(found);
        cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
        if is_last || cursor.is_none() || items.len() >= limit {
            items.truncate(limit);
            return Ok(json!({"items": items, "next": cursor}));
        }
    }
}

fn list_view(tasks: &Value, wide: bool) -> String {
    let mut heads = vec![
        "ID", "AGENT", "STATE", "REASON", "ATTEMPTS", "STEPS", "REPLAYED", "COST", "CREATED",
    ];
    if wide {
        heads.extend(["SESSION", "INPUT", "OUTPUT"]);
    }
    let mut columns = Columns::new(&heads);
    for task in items(tasks) {
        let mut row: Vec<String> = [
            "id", "agent", "state", "reason", "attempts", "steps", "replayed",
        ]
        .iter()
        .map(|field| cell(task, field))
        .collect();
        row.extend([dollars(task), cell(task, "created"), cell(task, "session")]);
        row.extend([cell(task, "input"), cell(task, "output")]);
        columns.row(row);
    }
    columns.render()
}

pub fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("items")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Prints a task. Showing one is done whatever became of it.
fn show(task: &Value, output: OutputArgs) -> Outcome {
    print(output, task, view)?;
    Ok(Exit::Done)
}

/// A task for a person.
pub fn view(task: &Value) -> String {
    let mut lines = Vec::new();
    let mut put = |name: &str, text: String| lines.push(format!("{name:<10} {}", printable(&text)));
    for (name, field) in [("task", "id"), ("agent", "agent"), ("session", "session")] {
        put(name, cell(task, field));
    }
    let state = cell(task, "state");
    let reason = task
        .get("reason")
        .and_then(Value::as_str)
        .map_or(String::new(), |reason| format!(" ({reason})"));
    put("attempts", cell(task, "attempts"));
    let count = |field| task.get(field).and_then(Value::as_u64).unwrap_or(0);
    put(
        "steps",
        format!(
            "{} ({} replayed, {} repeated)",
            count("steps"),
            count("replayed"),
            count("repeated")
        ),
    );
    let tokens = |field: &str| {
        task.pointer(&format!("/usage/{field}"))
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    put(
        "tokens",
        format!(
            "{} in, {} out",
            tokens("inputTokens"),
            tokens("outputTokens")
        ),
    );
    put("cost", dollars(task));
    if let Some(error) = task.get("error").filter(|error| !error.is_null()) {
        put(
            "error",
            format!("{}: {}", cell(error, "code"), cell(error, "message")),
        );
    }
    let shown = if is_coloured() { tinted(&state) } else { state };
    lines.insert(3, format!("{:<10} {shown}{}", "state", printable(&reason)));
    let mut text = lines.join("\n");
    text.push('\n');
    if let Some(output) = task.get("output").filter(|output| !output.is_null()) {
        text.push_str(&format!("\n{}\n", printable(&plain(output))));
    }
    if let Some(hint) = next_move(task) {
        text.push_str(&format!("\nnext: {hint}\n"));
    }
    text
}

fn steps_view(steps: &Value) -> String {
    let mut columns = Columns::new(&[
        "N", "KIND", "NAME", "STATE", "ATTEMPT", "REPLAYED", "REPEATED", "MODEL", "COST",
    ]);
    for step in items(steps) {
        let mut row: Vec<String> = [
            "n", "kind", "name", "state", "attempt", "replayed", "repeated", "model",
        ]
        .iter()
        .map(|field| cell(step, field))
        .collect();
        row.push(dollars(step));
        columns.row(row);
    }
    columns.render()
}

/// The code that a task's state ends a command with.
pub fn exit_of(task: &Value) -> Exit {
    match task.get("state").and_then(Value::as_str) {
        Some("completed") => Exit::Done,
        Some("input-required" | "auth-required") => Exit::Waiting,
        _ => Exit::Failed,
    }
}

/// Nothing more happens without a person, or at all.
pub fn is_settled(task: &Value) -> bool {
    let state = task
        .get("state")
        .and_then(Value::as_str)
        .unwrap_or_default();
    !matches!(state, "submitted" | "working" | "")
}

/// What a person can do about a task that waits.
pub fn next_move(task: &Value) -> Option<String> {
    if exit_of(task) != Exit::Waiting {
        return None;
    }
    let id = cell(task, "id");
    if task.get("reason").and_then(Value::as_str) == Some("parked") {
        // It goes on by itself; which task to see to stands in its error.
        return None;
    }
    match task.get("askedStep").and_then(Value::as_u64) {
        Some(step) => Some(format!(
            "mainstay task resume {id} --step {step} --as done|repeat|fail"
        )),
        None => Some(format!("mainstay task retry {id}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_says_done_with_a_result_or_without() {
        let check = |how: &str, expect: Value| assert_eq!(resume_body(3, how).unwrap(), expect);
        check("done", json!({"step": 3, "as": "done"}));
        check(
            "done={\"a\": \"b=c\"}",
            json!({"step": 3, "as": "done", "result": {"a": "b=c"}}),
        );
        check("repeat", json!({"step": 3, "as": "repeat"}));
        for wrong in ["", "done=", "done=x", "fail=1", "Done", "again"] {
            assert_eq!(
                resume_body(3, wrong).unwrap_err().exit,
                Exit::Usage,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_waiting_task_says_what_to_do() {
        let task =
            json!({"id": "t", "state": "input-required", "askedStep": 4, "cost": {"usd": null}});
        assert_eq!(exit_of(&task), Exit::Waiting);
        assert!(view(&task).contains("mainstay task resume t --step 4"));
        assert!(view(&task).contains("cost       unknown"));
    }
}
