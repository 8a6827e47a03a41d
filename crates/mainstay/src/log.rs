//! `mainstay log`: the record of everything that was done; reading it, and proving it.
//!
//! `verify` and `rebuild` read the state itself, whether or not somebody runs it: a hub that was
//! tampered with must not be its own witness.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use store::{
    Mismatch, Place, Reader, RebuildError, RebuildMode, Rebuilt, Report, SignedHead, VerifyError,
    VerifyOptions,
};

use crate::client::{CallError, Client};
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{OutputArgs, cell, print, printable};
use crate::place::{PlaceArgs, refuse_newer};
use crate::store_args::StoreArgs;

const MAX_HEAD_BYTES: u64 = 64 * 1024;
/// The API's largest page.
const PAGE: u64 = 200;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  mainstay log head > laptop.head\n  mainstay log verify --since laptop.head"
)]
pub struct LogArgs {
    #[command(subcommand)]
    command: LogCommand,
}

#[derive(Debug, clap::Subcommand)]
enum LogCommand {
    /// Print the newest signed head; keep it elsewhere, and `verify --since` proves what came before
    #[command(after_help = "Example:\n  mainstay log head > laptop.head")]
    Head {
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Print entries, newest last
    #[command(after_help = "Example:\n  mainstay log show --from 100 --limit 20")]
    Show {
        /// The first entry; left out: so that the newest is the last
        #[arg(long, value_name = "SEQ")]
        from: Option<u64>,
        /// At most this many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Check every entry, payload, head and table of a state, run or not
    #[command(after_help = "Example:\n  mainstay log verify --since laptop.head\n\n\
        `consistent`: everything is as the log itself says. `authentic`: it also matches a head that was kept elsewhere.")]
    Verify {
        /// A head that `log head` printed: a file, or `-` for standard input
        #[arg(long, value_name = "HEAD")]
        since: Option<PathBuf>,
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make the tables again from the entries
    #[command(after_help = "Example:\n  mainstay log rebuild --check")]
    Rebuild {
        /// Compare only, and change nothing; works beside a running hub
        #[arg(long)]
        check: bool,
        #[command(flatten)]
        store: StoreArgs,
        #[command(flatten)]
        output: OutputArgs,
    },
}

pub async fn log(place: &PlaceArgs, args: LogArgs) -> Outcome {
    match args.command {
        LogCommand::Head { output } => head(place, output).await,
        LogCommand::Show {
            from,
            limit,
            output,
        } => show(place, from, limit, output).await,
        LogCommand::Verify {
            since,
            store,
            output,
        } => aside(|| verify(place, &store, since.as_deref(), output)),
        LogCommand::Rebuild {
            check,
            store,
            output,
        } => aside(|| rebuild(place, &store, check, output)),
    }
}

/// The store waits on threads of its own.
fn aside(work: impl FnOnce() -> Outcome + Send) -> Outcome {
    let ended = std::thread::scope(|scope| scope.spawn(work).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn head(place: &PlaceArgs, output: OutputArgs) -> Outcome {
    let head = match Client::new(place)?.get("/api/v1/log/head").await {
        Ok(head) => head,
        // A state that nobody runs has a head as well.
        Err(CallError::Lost(failure)) => stored_head(place, failure)?,
        Err(error) => return Err(error.into()),
    };
    print(output, &head, |head| cell(head, "text"))?;
    Ok(Exit::Done)
}

fn stored_head(place: &PlaceArgs, failure: Failure) -> Result<Value, Failure> {
    let dir = crate::place::workspace_dir(&place.state()?);
    let Ok(reader) = Reader::open(&dir) else {
        return Err(failure);
    };
    let head = reader
        .last_head()
        .map_err(|error| Failure::new(Exit::Failed, "failed to read the log").because(error))?;
    let Some(head) = head else {
        return Err(failure);
    };
    Ok(json!({
        "origin": head.head.origin,
        "size": head.head.size,
        "root": root_of(&head),
        "text": head.to_text(),
        "key": reader.public_key().to_text(),
    }))
}

/// The root as it stands in the note: its third line.
fn root_of(head: &SignedHead) -> String {
    head.to_text().lines().nth(2).unwrap_or_default().to_owned()
}

async fn show(place: &PlaceArgs, from: Option<u64>, limit: u32, output: OutputArgs) -> Outcome {
    let client = Client::new(place)?;
    let entries = match from {
        Some(from) => entries(&client, from, u64::from(limit)).await?,
        None => newest_entries(&client, limit).await?,
    };
    print(output, &json!({"items": entries}), |list| {
        crate::task::items(list)
            .map(|entry| format!("{}\n", entry_line(entry)))
            .collect()
    })?;
    Ok(Exit::Done)
}

/// The newest entries, oldest of them first.
pub async fn newest_entries(client: &Client, count: u32) -> Result<Vec<Value>, Failure> {
    let head = client.get("/api/v1/log/head").await?;
    let size = head.get("size").and_then(Value::as_u64).unwrap_or(0);
    entries(
        client,
        size.saturating_sub(u64::from(count)),
        u64::from(count),
    )
    .await
}

async fn entries(client: &Client, from: u64, count: u64) -> Result<Vec<Value>, Failure> {
    let mut found: Vec<Value> = Vec::new();
    while (found.len() as u64) < count {
        let next = from + found.len() as u64;
        let limit = (count - found.len() as u64).min(PAGE);
        let page = client
            .get(&format!("/api/v1/log/entries?from={next}&limit={limit}"))
            .await?;
        let items = page
            .get("items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        if items.is_empty() {
            break;
        }
        found.extend(items);
    }
    Ok(found)
}

/// One entry for a person.
pub fn entry_line(entry: &Value) -> String {
    let text = format!(
        "{:>6} {} {:<18} {} by {}",
        cell(entry, "seq"),
        cell(entry, "time"),
        cell(entry, "kind"),
        cell(entry, "subject"),
        cell(entry, "author"),
    );
    printable(&text).replace('\n', " ")
}

/// The logs of a state: of each workspace, and the system's.
fn logs(place: &PlaceArgs, store: &StoreArgs) -> Result<Vec<(String, Place)>, Failure> {
    let state = place.local_state("the logs")?;
    refuse_newer(&state)?;
    let mut found = Vec::new();
    let workspaces = std::fs::read_dir(state.join("workspaces"))
        .into_iter()
        .flatten()
        .flatten();
    found.extend(workspaces.map(|entry| {
        (
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        )
    }));
    found.retain(|(_, path)| is_log(path));
    found.sort();
    found
        .extend(Some(("system".to_owned(), state.join("system"))).filter(|(_, path)| is_log(path)));
    if found.is_empty() {
        let failure = Failure::new(Exit::NotFound, format!("no log in {}", state.display()));
        return Err(failure.with_hint("name the state's directory with --state DIR"));
    }
    let placed = found.into_iter().map(|(name, dir)| {
        let place = store.place(&name, &dir)?;
        Ok((name, place))
    });
    placed.collect()
}

fn is_log(dir: &Path) -> bool {
    dir.join("log.db").exists() || dir.join("heads").exists()
}

fn verify(
    place: &PlaceArgs,
    store: &StoreArgs,
    since: Option<&Path>,
    output: OutputArgs,
) -> Outcome {
    let logs = logs(place, store)?;
    let since = since.map(read_head).transpose()?;
    let mut rows = Vec::new();
    let mut used_head = since.is_none();
    for (name, lies) in &logs {
        let mut options = VerifyOptions::default();
        if let Some((text, origin)) = &since
            && Reader::open_at(lies).is_ok_and(|reader| reader.origin() == origin)
        {
            options.since = Some(text.clone());
            used_head = true;
        }
        rows.push(match store::verify_at(lies, &options) {
            // What the entries say and the tables don't is a change too, only not of the record.
            Ok(report) => match refolded(name, lies, RebuildMode::Check)? {
                Ok(_) => verified(name, &report),
                Err(mismatch) => json!({"log": name, "result": "mismatch", "mismatch": mismatch}),
            },
            Err(VerifyError::Mismatch(mismatch)) => mismatched(name, &mismatch),
            Err(error) => return Err(unverifiable(lies, error)),
        });
    }
    let is_whole = rows
        .iter()
        .all(|row| row.get("mismatch").is_none_or(Value::is_null));
    if !used_head && is_whole {
        let (_, origin) = since.unwrap_or_default();
        let failure = Failure::new(
            Exit::Failed,
            format!("the head given is of another log: {}", printable(&origin)),
        );
        return Err(failure.with_hint(
            "a restored or imported log begins anew; its first entry names the old head",
        ));
    }
    print(output, &json!({"logs": rows}), |list| {
        list.get("logs")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(verdict_line)
            .collect()
    })?;
    if is_whole {
        return Ok(Exit::Done);
    }
    eprintln!("error: the log is not what was signed");
    Ok(Exit::Failed)
}

/// A head's text and the log it is of.
fn read_head(path: &Path) -> Result<(String, String), Failure> {
    use std::io::Read;
    let wrong = || Failure::usage(format!("{} is not a head", path.display()));
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_HEAD_BYTES)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_HEAD_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| {
        Failure::usage(format!("failed to read the head in {}", path.display())).because(error)
    })?;
    let head = SignedHead::parse(&text).map_err(|error| {
        wrong()
            .because(error)
            .with_hint("`mainstay log head` prints one; keep all of its lines")
    })?;
    Ok((text, head.head.origin))
}

fn verified(name: &str, report: &Report) -> Value {
    let result = if report.authentic_size.is_some() {
        "authentic"
    } else {
        "consistent"
    };
    json!({
        "log": name,
        "result": result,
        "size": report.size,
        "heads": report.heads,
        "payloads": report.payloads,
        "erased": report.erased,
        "root": root_of(&report.last_head),
        "authenticSize": report.authentic_size,
        "mismatch": null,
    })
}

fn mismatched(name: &str, mismatch: &Mismatch) -> Value {
    json!({"log": name, "result": "mismatch", "mismatch": chain(mismatch)})
}

fn verdict_line(row: &Value) -> String {
    let name = cell(row, "log");
    let count = |field: &str| row.get(field).and_then(Value::as_u64).unwrap_or(0);
    match (
        row.get("result").and_then(Value::as_str),
        row.get("authenticSize").and_then(Value::as_u64),
    ) {
        (Some("mismatch"), _) => {
            format!("{name}: mismatch: {}\n", printable(&cell(row, "mismatch")))
        }
        (_, authentic) => {
            let result = match authentic {
                Some(size) => format!("authentic up to entry {size}, consistent to the end"),
                None => "consistent".to_owned(),
            };
            let counts = [
                ("entries", "size"),
                ("payloads", "payloads"),
                ("erased", "erased"),
                ("heads", "heads"),
            ];
            let counts: Vec<String> = counts
                .iter()
                .map(|(word, field)| format!("{} {word}", count(field)))
                .collect();
            format!("{name}: {result} ({})\n", counts.join(", "))
        }
    }
}

fn unverifiable(lies: &Place, error: VerifyError) -> Failure {
    let exit = match &error {
        VerifyError::Open(store::OpenError::NotFound { .. }) => Exit::NotFound,
        VerifyError::Since(_) => Exit::Usage,
        // A log that can't be opened at all is not what was signed.
        _ => Exit::Failed,
    };
    Failure::new(exit, format!("failed to verify {lies}")).because(error)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn rebuild(place: &PlaceArgs, store: &StoreArgs, check: bool, output: OutputArgs) -> Outcome {
    let mode = if check {
        RebuildMode::Check
    } else {
        RebuildMode::Write
    };
    let mut rows = Vec::new();
    let mut exit = Exit::Done;
    for (name, lies) in logs(place, store)? {
        match refolded(&name, &lies, mode)? {
            Ok(built) => rows.push(json!({"log": name, "entries": built.entries, "rows": built.rows, "mismatch": null})),
            Err(mismatch) => {
                exit = Exit::Failed;
                rows.push(json!({"log": name, "mismatch": mismatch}));
            }
        }
    }
    print(output, &json!({"logs": rows}), |list| {
        let rows = list
            .get("logs")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        rows.map(|row| rebuilt_line(row, check)).collect()
    })?;
    if exit != Exit::Done {
        line_to_stderr(check);
    }
    Ok(exit)
}

/// Folds a log's entries; the inner error says where its tables differ.
fn refolded(
    name: &str,
    lies: &Place,
    mode: RebuildMode,
) -> Result<Result<Rebuilt, String>, Failure> {
    let mut fold = crate::fold::of_log(name);
    match store::rebuild_at(lies, fold.as_mut(), mode) {
        Ok(built) => Ok(Ok(built)),
        Err(
            error @ (RebuildError::Differs { .. }
            | RebuildError::Missing { .. }
            | RebuildError::Unexpected { .. }
            | RebuildError::Structure(_)
            | RebuildError::Fold { .. }),
        ) => Ok(Err(chain(&error))),
        Err(error) => {
            let failure = Failure::new(Exit::Failed, format!("failed to rebuild {lies}"));
            let failure = failure.because(error);
            // A running hub holds what it would have to be told.
            Err(match mode {
                RebuildMode::Write => failure.with_hint(
                    "end the `mainstay up` of this state first; `log rebuild --check` works beside it",
                ),
                RebuildMode::Check => failure,
            })
        }
    }
}

fn rebuilt_line(row: &Value, check: bool) -> String {
    let name = cell(row, "log");
    if let Some(mismatch) = row.get("mismatch").and_then(Value::as_str) {
        return format!("{name}: {}\n", printable(mismatch));
    }
    let verb = if check {
        "match"
    } else {
        "were made again from"
    };
    format!(
        "{name}: {} rows {verb} {} entries\n",
        cell(row, "rows"),
        cell(row, "entries")
    )
}

fn line_to_stderr(check: bool) {
    let what = if check {
        "the tables are not what the entries say"
    } else {
        "the tables could not be made again"
    };
    eprintln!("error: {what}");
}
