//! `session export` and `session import`: one session's way to another home, as a file.
//!
//! A file is made before the hub is asked, so that nothing leaves which can't be written; it is for
//! its owner's eyes, for the session's whole content is in it. What came is checked here as the
//! other home will check it.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hub::session::file::{self, MAX_FILE_BYTES};
use hub::session::{ExportedSession, check};
use serde_json::{Value, json};

use crate::client::{Client, encoded};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{Columns, OutputArgs, cell, print, write_out};
use crate::place::PlaceArgs;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Its open tasks are parked here and can't be tried again here; where the file is imported they go on at their step.\n\nExamples:\n  mainstay session export order-4711\n  mainstay session export order-4711 -o - | MAINSTAY_URL=https://hub.example:7080 mainstay session import -"
)]
pub struct ExportArgs {
    id: String,
    /// The file, which must not be there yet; `-` for standard output [default: ID.session]
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mainstay session import order-4711.session\n  mainstay session import order-4711.session --check --key mainstay.dev/log/default/…"
)]
pub struct ImportArgs {
    /// The file; `-` for standard input
    file: PathBuf,
    /// Check the file and say what is in it; no hub is asked
    #[arg(long)]
    check: bool,
    /// The key of the log that it comes from, as `mainstay log head -o json` prints it there
    #[arg(long)]
    key: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn export(place: &PlaceArgs, args: ExportArgs) -> Outcome {
    let path = args
        .file
        .unwrap_or_else(|| PathBuf::from(format!("{}.session", args.id)));
    let client = Client::new(place)?;
    let route = format!("/api/v1/sessions/{}/export", encoded(&args.id));
    if path == Path::new("-") {
        if std::io::stdout().is_terminal() {
            return Err(Failure::usage("a session is not written to a terminal")
                .with_hint("name a file with -o, or send it on with a pipe"));
        }
        let bytes = client.download(&route, MAX_FILE_BYTES).await?;
        let session = checked(&bytes, None)?;
        write_out(&bytes)?;
        eprint!("{}", told(&session, "standard output"));
        return Ok(Exit::Done);
    }
    let mut written = NewFile::create(&path)?;
    let bytes = client.download(&route, MAX_FILE_BYTES).await?;
    let session = checked(&bytes, None)?;
    written.keep(&bytes)?;
    eprint!("{}", told(&session, &path.display().to_string()));
    Ok(Exit::Done)
}

pub async fn import(place: &PlaceArgs, args: ImportArgs) -> Outcome {
    let bytes = contents(&args.file)?;
    let key = args.key.as_deref().map(|key| {
        store::PublicKey::parse(key.trim())
            .map_err(|error| Failure::usage("--key is not the key of a log").because(error))
    });
    let key = key.transpose()?;
    // A wrong file is told from here, before any of it is sent.
    let session = checked(&bytes, key.as_ref())?;
    if args.check {
        print(args.output, &summary(&session, key.is_some()), view)?;
        return Ok(Exit::Done);
    }
    let imported = Client::new(place)?
        .upload("/api/v1/sessions", bytes)
        .await?;
    print(args.output, &imported, view)?;
    Ok(Exit::Done)
}

fn checked(bytes: &[u8], key: Option<&store::PublicKey>) -> Result<ExportedSession, Failure> {
    file::read(bytes, key)
        .and_then(check)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// A file that goes again unless something whole was written to it.
struct NewFile {
    path: PathBuf,
    file: File,
    is_kept: bool,
}

impl NewFile {
    fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| failed("write", path, error))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            is_kept: false,
        })
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        written
            .and_then(|()| self.file.sync_all())
            .map_err(|error| failed("write", &self.path, error))?;
        self.is_kept = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // An export is asked for again and makes the same file.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Failure {
    let exit = match error.kind() {
        std::io::ErrorKind::NotFound => Exit::NotFound,
        std::io::ErrorKind::PermissionDenied => Exit::NotAllowed,
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("failed to {what} {}", path.display())).because(error)
}

fn contents(path: &Path) -> Result<Vec<u8>, Failure> {
    let source: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| failed("read", path, error))?)
    };
    let mut bytes = Vec::new();
    source
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed("read", path, error))?;
    Ok(bytes)
}

/// What is in a file, in the words of an import.
fn summary(session: &ExportedSession, is_authentic: bool) -> Value {
    let tasks = session.tasks.iter().map(|(id, task)| {
        let task = &task.record.task;
        json!({
            "id": id,
            "agent": task.agent,
            "session": task.session,
            "state": task.state.word(),
            "reason": task.reason.map(mainstay_core::task::Reason::word),
        })
    });
    json!({
        "session": session.header.session,
        "agent": session.header.agent,
        "origin": session.header.origin,
        "key": session.header.key,
        "authentic": is_authentic,
        "entries": session.entries.len(),
        "erased": session.tasks.values().map(|task| task.erased).sum::<usize>(),
        "tasks": tasks.collect::<Vec<_>>(),
    })
}

fn view(imported: &Value) -> String {
    let mut columns = Columns::new(&["TASK", "AGENT", "STATE", "REASON", "CHANGE"]);
    let tasks = imported.get("tasks").and_then(Value::as_array);
    for task in tasks.into_iter().flatten() {
        columns.row(
            ["id", "agent", "state", "reason", "change"]
                .map(|field| cell(task, field))
                .to_vec(),
        );
    }
    let mut text = format!(
        "session {} of agent {}: {} entries from {}\n{}",
        cell(imported, "session"),
        cell(imported, "agent"),
        cell(imported, "entries"),
        cell(imported, "origin"),
        columns.render()
    );
    match imported.get("authentic").and_then(Value::as_bool) {
        Some(true) => text.push_str("whole, and signed by the key given\n"),
        Some(false) => text.push_str(
            "whole; who signed it is not shown: compare its key with --key, from that home's log head\n",
        ),
        None => {}
    }
    text
}

/// What left, and what to do with it.
fn told(session: &ExportedSession, place: &str) -> String {
    let open = session.tasks.values().filter(|task| task.is_open()).count();
    let mut text = format!(
        "session {}: {} tasks, {open} of them open, in {place}\n",
        session.header.session,
        session.tasks.len()
    );
    if open > 0 {
        text.push_str(
            "what is open goes on where this is imported: mainstay session import FILE, then mainstay task retry ID\n",
        );
    }
    text
}
