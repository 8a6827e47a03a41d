//! `mainstay events`: what happens, as the log has it, newest last.

use std::time::Duration;

use serde_json::Value;

use crate::client::{CallError, Client};
use crate::exit::{Exit, Outcome};
use crate::log::{entry_line, newest_entries};
use crate::output::{OutputArgs, line, print};
use crate::place::PlaceArgs;

const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  mainstay events -f")]
pub struct EventsArgs {
    /// Go on printing as it happens
    #[arg(short, long)]
    follow: bool,
    /// Begin with this many of the newest
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    tail: u32,
    #[command(flatten)]
    output: OutputArgs,
}

pub async fn events(place: &PlaceArgs, args: EventsArgs) -> Outcome {
    let client = Client::new(place)?;
    let entries = newest_entries(&client, args.tail).await?;
    if !args.follow {
        print(args.output, &Value::from(entries), |entries| {
            entries
                .as_array()
                .into_iter()
                .flatten()
                .map(|entry| format!("{}\n", entry_line(entry)))
                .collect()
        })?;
        return Ok(Exit::Done);
    }
    let mut last = entries
        .last()
        .and_then(|entry| entry.get("seq"))
        .and_then(Value::as_u64);
    for entry in &entries {
        show(entry, args.output)?;
    }
    tokio::select! {
        outcome = follow(&client, &mut last, args.output) => outcome,
        _signal = tokio::signal::ctrl_c() => Ok(Exit::Done),
    }
}

/// Through restarts of the hub, for as long as somebody reads.
async fn follow(client: &Client, last: &mut Option<u64>, output: OutputArgs) -> Outcome {
    loop {
        let id = last.map(|seq| seq.to_string());
        let headers: Vec<(&str, &str)> =
            id.iter().map(|id| ("last-event-id", id.as_str())).collect();
        match client.text("/api/v1/events", &headers).await {
            Ok(mut events) => {
                while let Ok(Some(event)) = events.next_event().await {
                    let Ok(entry) = serde_json::from_str::<Value>(&event.data) else {
                        continue;
                    };
                    *last = entry.get("seq").and_then(Value::as_u64).or(*last);
                    show(&entry, output)?;
                }
            }
            Err(CallError::Refused(failure)) => return Err(failure),
            Err(CallError::Lost(_)) => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One entry a line: JSON lines where data is asked for.
fn show(entry: &Value, output: OutputArgs) -> Result<(), crate::exit::Failure> {
    if output.is_data() {
        line(&entry.to_string())
    } else {
        line(&entry_line(entry))
    }
}
