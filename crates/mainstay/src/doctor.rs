//! `mainstay doctor`: what may be wrong with this machine, this state or one agent, with what to do.
//!
//! Looks only at this machine and asks nobody outside. Secrets show by name, never by value.

mod agents;
mod volume;

use std::net::TcpListener;
use std::path::Path;

use serde_json::{Value, json};

use crate::client::{CallError, Client};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Columns, OutputArgs, cell, print, printable};
use crate::place::PlaceArgs;

/// Below this an afternoon of work may fill the disk.
const SPACE_WARN_BYTES: u64 = 1024 * 1024 * 1024;
const DEFAULT_ADDRESS: &str = "127.0.0.1:7080";
/// A shim, its pipes and a gateway listener for each instance, and clients beside them.
const FILES_WANTED: u64 = 4096;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  mainstay doctor\n  mainstay doctor researcher")]
pub struct DoctorArgs {
    /// Look at this agent only
    agent: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// One thing that was looked at.
struct Finding {
    check: String,
    state: &'static str,
    what: String,
    hint: Option<String>,
}

impl Finding {
    fn ok(check: &str, what: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            state: "ok",
            what: what.into(),
            hint: None,
        }
    }

    fn warn(check: &str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            state: "warn",
            what: what.into(),
            hint: Some(hint.into()),
        }
    }

    fn fail(check: &str, what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            state: "failed",
            ..Self::warn(check, what, hint)
        }
    }
}

pub async fn doctor(place: &PlaceArgs, args: DoctorArgs) -> Outcome {
    let state = place.state()?;
    let mut findings = Vec::new();
    if args.agent.is_none() {
        findings.push(state_of(&state));
        findings.extend(space(&state));
        findings.push(kernel());
        findings.push(files());
    }
    let client = Client::of_state(&state)?;
    let hub = hub(&client).await;
    if args.agent.is_none() {
        if hub.state != "ok" {
            findings.extend(port());
        }
        findings.push(hub);
    }
    findings.extend(agents::look(&state, &client, args.agent.as_deref()).await?);
    show(&findings, args.output)
}

fn show(findings: &[Finding], output: OutputArgs) -> Outcome {
    let items: Vec<Value> = findings
        .iter()
        .map(|one| json!({"check": one.check, "state": one.state, "what": one.what, "hint": one.hint}))
        .collect();
    print(output, &json!({"items": items}), |list| {
        let mut columns = Columns::new(&["STATE", "CHECK", "WHAT"]).with_widest_cell(200);
        let mut hints = String::new();
        for one in crate::task::items(list) {
            columns.row(vec![
                cell(one, "state"),
                cell(one, "check"),
                cell(one, "what"),
            ]);
            if let Some(hint) = one.get("hint").and_then(Value::as_str) {
                hints.push_str(&format!(
                    "hint: {}: {}\n",
                    cell(one, "check"),
                    printable(hint)
                ));
            }
        }
        columns.render() + &hints
    })?;
    let failed = findings.iter().any(|one| one.state == "failed");
    Ok(if failed { Exit::Failed } else { Exit::Done })
}

fn state_of(state: &Path) -> Finding {
    let shown = state.display();
    match std::fs::read_to_string(state.join("VERSION")) {
        Ok(version) if version.trim() == keeper::FORMAT.to_string() => {
            Finding::ok("state", format!("{shown}, format {}", version.trim()))
        }
        Ok(version) => Finding::fail(
            "state",
            format!(
                "{shown} has format {}, this program knows {}",
                printable(version.trim()),
                keeper::FORMAT
            ),
            "use the program that made it",
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Finding::warn(
            "state",
            format!("nothing in {shown} yet"),
            "`mainstay up` makes it; another is named by --state DIR",
        ),
        Err(error) => Finding::fail(
            "state",
            format!("{shown} can't be read: {error}"),
            "call as the user that runs `mainstay up`",
        ),
    }
}

/// The file system of the state, or of the nearest directory above it that is there.
fn space(state: &Path) -> Option<Finding> {
    let there = state.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let text = format!("{} MiB free at {}", free >> 20, there.display());
    let hint =
        "make room; records stop being accepted below the reserve, results are still written";
    Some(if free < store::RESERVE_BYTES {
        Finding::fail(
            "disk",
            format!(
                "{text}, below the reserve of {} MiB",
                store::RESERVE_BYTES >> 20
            ),
            hint,
        )
    } else if free < SPACE_WARN_BYTES {
        Finding::warn("disk", text, hint)
    } else {
        Finding::ok("disk", text)
    })
}

fn kernel() -> Finding {
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy().into_owned();
    let landlock = matches!(sandbox::confine::ruleset(&[], &[]), Ok(Some(_)));
    match (rustix::process::geteuid().is_root(), landlock) {
        (true, _) => Finding::ok(
            "isolation",
            format!("Linux {release}; as root each agent gets a user of its own"),
        ),
        (false, true) => Finding::ok(
            "isolation",
            format!("Linux {release}; Landlock keeps agents out of the state"),
        ),
        (false, false) => Finding::warn(
            "isolation",
            format!("Linux {release} without Landlock: agents run as you and can read the state"),
            "run as root, or on a kernel with Landlock (5.13 and later)",
        ),
    }
}

fn files() -> Finding {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    match limit.maximum {
        Some(maximum) if maximum < FILES_WANTED => Finding::warn(
            "open files",
            format!("at most {maximum} in a process"),
            "raise the limit (ulimit -Hn, LimitNOFILE=) for many agents or clients",
        ),
        Some(maximum) => Finding::ok("open files", format!("up to {maximum} in a process")),
        None => Finding::ok("open files", "no limit"),
    }
}

fn port() -> Option<Finding> {
    match TcpListener::bind(DEFAULT_ADDRESS) {
        Ok(_free) => Some(Finding::ok("port", format!("{DEFAULT_ADDRESS} is free"))),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Some(Finding::warn(
            "port",
            format!("{DEFAULT_ADDRESS} is taken by another program"),
            "choose another with `mainstay up --listen ADDR`",
        )),
        Err(_) => None,
    }
}

async fn hub(client: &Client) -> Finding {
    match client.get("/api/v1/log/head").await {
        Ok(head) => Finding::ok(
            "hub",
            format!("answers; {} entries in the log", cell(&head, "size")),
        ),
        Err(CallError::Lost(_)) => {
            Finding::warn("hub", "does not answer", "start one with `mainstay up`")
        }
        Err(CallError::Refused(failure)) => {
            Finding::fail("hub", failure.message, "call as root or as the hub's user")
        }
    }
}

/// A failure of the command itself.
fn no_agent(name: &str, known: &str) -> Failure {
    Failure::new(Exit::NotFound, format!("no agent `{}`", printable(name)))
        .with_hint(format!("there are: {known}"))
}
