//! `mainstay demo`: a fleet on real tools, an agent killed in mid-task, and proof of what became of it.
//!
//! The demo is a client like any other: it starts `mainstay up` in a directory of its own, watches
//! through the API, and checks every sentence it prints against the API, the file and the log. If
//! one isn't true it says so and ends with 1.

mod claims;
mod fleet;

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{cell, plain, printable, write_out};
use crate::run::{Submission, settle};
use crate::task::{self, items};
use claims::Claims;
use fleet::Fleet;

const QUESTION: &str = "How is this machine doing? Have a report written and saved.";
const KILL: i32 = 9;
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// All of it must end well before this.
const PATIENCE: Duration = Duration::from_secs(25);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mainstay demo\n  mainstay demo --state ./demo-state")]
pub struct DemoArgs {
    // Stands in place of every command's option, whose default is another.
    /// Directory of the state, new or empty [default: a new one in $TMPDIR, else /tmp]
    #[arg(
        long,
        env = "MAINSTAY_STATE",
        value_name = "DIR",
        hide_env_values = true
    )]
    state: Option<PathBuf>,
}

pub fn demo(args: &DemoArgs) -> Outcome {
    let mut fleet = Fleet::prepare(args.state.as_deref())?;
    say(&format!(
        "A fleet of two agents, `watch` and `writer`, with real tools that read this machine.\n\
         No key and no network: the model is a script that plays prepared turns. It thinks nothing;\n\
         the numbers come from the tools.\n\n  \
         manifests  {}\n  state      {}  (stays)",
        fleet.manifests().display(),
        fleet.state.display()
    ))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Failure::new(Exit::Failed, "failed to start").because(error))?;
    let link = fleet.start()?;
    say(&format!("  page       {link}  (while this runs)"))?;
    let told = runtime.block_on(async { tokio::time::timeout(PATIENCE, tell(&fleet)).await });
    runtime.shutdown_background();
    let mut claims = told.map_err(|_| fleet.failed("the demo takes longer than it should"))??;
    fleet.stop()?;
    claims.log(&fleet.state);
    let is_true = claims.show()?;
    say(&where_next(&fleet, &claims.task_id))?;
    if is_true {
        return Ok(Exit::Done);
    }
    Err(fleet.failed("a claim of the demo is not true"))
}

fn say(text: &str) -> Result<(), Failure> {
    write_out(format!("{text}\n").as_bytes())
}

/// The story up to the answer.
async fn tell(fleet: &Fleet) -> Result<Claims, Failure> {
    let client = Client::of_state(&fleet.state)?;
    say(&format!("\n1. `watch` is asked: {QUESTION}"))?;
    let submission = Submission::new("watch", json!({"input": QUESTION}));
    let begun = submission.submit(&client).await?;
    let id = cell(&begun, "id");
    let mut shown = 0;
    let victim = loop {
        let steps = steps(&client, &id).await?;
        shown = show_steps(&steps, shown)?;
        if let Some(victim) = after_the_report(&client, &steps).await? {
            break victim;
        }
        let task = client.get(&task::path(&id, "")).await?;
        if task::is_settled(&task) {
            return Err(fleet.failed(&format!(
                "the task ended before anything was killed: {}",
                crate::run::why(&task)
            )));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    };
    let open = steps(&client, &id)
        .await?
        .iter()
        .filter(|step| cell(step, "state") == "in-flight")
        .count();
    kill(victim)?;
    let killed = Instant::now();
    say(&format!(
        "\n2. The report is saved and {open} model call is under way: kill -9 {victim}, the process of `watch`"
    ))?;
    let successor = successor(&client, victim).await?;
    say(&format!(
        "   process {successor} took over {} ms later and asks for everything again from the start",
        killed.elapsed().as_millis()
    ))?;
    let task = settle(&client, &submission, begun).await?;
    let steps = steps(&client, &id).await?;
    show_steps(&steps, shown)?;
    say(&format!(
        "\n3. The answer ({}):\n   {}",
        cell(&task, "state"),
        printable(&task.get("output").map_or_else(String::new, plain))
    ))?;
    Claims::gather(&client, &task, &steps, fleet).await
}

async fn steps(client: &Client, id: &str) -> Result<Vec<Value>, Failure> {
    let list = client.get(&task::path(id, "/steps")).await?;
    Ok(items(&list).cloned().collect())
}

/// Shows steps that have finished since, in order.
fn show_steps(steps: &[Value], shown: usize) -> Result<usize, Failure> {
    let finished = steps
        .iter()
        .take_while(|step| cell(step, "state") == "finished")
        .count();
    for step in steps.iter().take(finished).skip(shown) {
        say(&format!(
            "   step {:>2}  {:<6} {}",
            cell(step, "n"),
            cell(step, "kind"),
            cell(step, "name")
        ))?;
    }
    Ok(finished.max(shown))
}

/// The process to kill, once the report is saved and the model is asked for the last time.
async fn after_the_report(client: &Client, steps: &[Value]) -> Result<Option<u32>, Failure> {
    let saved = steps.iter().any(|step| {
        cell(step, "name").ends_with("save_report") && cell(step, "state") == "finished"
    });
    let asking = steps
        .last()
        .is_some_and(|step| cell(step, "kind") == "model" && cell(step, "state") == "in-flight");
    if saved && asking {
        process(client).await
    } else {
        Ok(None)
    }
}

/// The process of `watch` now.
async fn process(client: &Client) -> Result<Option<u32>, Failure> {
    let list = client.get("/api/v1/instances").await?;
    let watch = items(&list).find(|instance| cell(instance, "agent") == "watch");
    let pid = watch
        .and_then(|instance| instance.get("pid"))
        .and_then(Value::as_u64);
    Ok(pid.and_then(|pid| u32::try_from(pid).ok()))
}

async fn successor(client: &Client, victim: u32) -> Result<u32, Failure> {
    loop {
        match process(client).await? {
            Some(pid) if pid != victim => return Ok(pid),
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

fn kill(pid: u32) -> Result<(), Failure> {
    let killed = sandbox::process::open(pid)
        .and_then(|process| sandbox::process::signal(process.as_fd(), KILL));
    killed.map_err(|error| {
        Failure::new(Exit::Failed, format!("failed to kill process {pid}")).because(error)
    })
}

fn where_next(fleet: &Fleet, task: &str) -> String {
    let state = shell_word(&fleet.state);
    format!(
        "\nWhere to look next\n  \
         mainstay up {} --state {state}    # run this fleet yourself; prints a link to its page\n  \
         mainstay task steps {task} --state {state}    # beside it: every call, replayed ones marked\n  \
         mainstay log verify --state {state}    # check the record, running or not\n  \
         mainstay new agent helper    # a fleet of your own, with a real model",
        shell_word(&fleet.manifests())
    )
}

fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    if plain {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
