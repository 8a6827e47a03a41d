//! Reads the log as it grows and hands on the spans; never waits for whoever sends them.
//!
//! The feed is pulled, so a slow reader holds up nobody. A full queue drops what is new.

use std::time::{Duration, SystemTime};

use hub::Hub;
use hub::HubError;
use hub::view::EntryView;
use mainstay_core::event::Event;
use mainstay_core::task::TaskRecord;
use tokio::sync::mpsc;

use super::cursor::Cursor;
use super::send::{Loss, Spans};
use super::task::{At, Tasks};
use super::trace::Trace;

/// After the log couldn't be read.
const AGAIN: Duration = Duration::from_secs(1);
/// Agents called by agents; those deeper than this begin a trace of their own.
const DEEPEST: usize = 16;

/// Ends when the hub stops.
pub async fn follow(
    hub: &Hub,
    tasks: &mut Tasks,
    queue_tx: mpsc::Sender<Spans>,
    loss: &Loss,
    cursor: &Cursor,
) {
    let stopping = hub.stopping();
    tokio::pin!(stopping);
    tokio::select! {
        () = &mut stopping => {}
        () = read(hub, tasks, &queue_tx, loss, cursor) => {}
    }
}

async fn read(
    hub: &Hub,
    tasks: &mut Tasks,
    queue_tx: &mpsc::Sender<Spans>,
    loss: &Loss,
    cursor: &Cursor,
) {
    let mut after = cursor.resume(hub).await;
    let mut marked = after.is_some();
    loop {
        if let Ok(mut feed) = hub.log_feed(after).await {
            while let Some(entry) = feed.next().await {
                if !marked && let Some(before) = entry.seq.checked_sub(1) {
                    cursor.write(before).await;
                }
                marked = true;
                after = Some(entry.seq);
                let spans = take(hub, tasks, &entry).await;
                let (seq, lost) = (entry.seq, spans.len());
                if lost > 0 && queue_tx.try_send(Spans { seq, spans }).is_err() {
                    loss.add(lost);
                }
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn take(
    hub: &Hub,
    tasks: &mut Tasks,
    entry: &EntryView,
) -> Vec<opentelemetry_sdk::trace::SpanData> {
    // Where it happened its spans were made.
    if entry.author.starts_with(hub::session::IMPORTED) {
        return Vec::new();
    }
    // Kinds of a later release are none of ours.
    let Ok(event) = serde_json::from_value::<Event>(entry.data.clone()) else {
        return Vec::new();
    };
    let Some(time) = time_of(entry) else {
        return Vec::new();
    };
    if tasks.must_meet(&entry.subject, &event) {
        match find(hub, tasks, &entry.subject).await {
            Ok(Some((record, trace))) => tasks.meet(&record, trace),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, task = entry.subject, "a task has no spans"),
        }
    }
    let at = At {
        seq: entry.seq,
        time,
    };
    tasks.entry(at, &entry.subject, &event)
}

fn time_of(entry: &EntryView) -> Option<SystemTime> {
    let time: jiff::Timestamp = entry.time.parse().ok()?;
    Some(time.into())
}

/// A task with its trace, which the topmost task above it decides.
async fn find(hub: &Hub, tasks: &Tasks, id: &str) -> Result<Option<(TaskRecord, Trace)>, HubError> {
    let Some((record, mut traceparent)) = hub.task_origin(id).await? else {
        return Ok(None);
    };
    let (mut top, mut above) = (record.task.id.clone(), record.task.parent.clone());
    let mut steps = Vec::new();
    let mut trace = loop {
        let Some(parent) = above.filter(|_| steps.len() < DEEPEST) else {
            break tasks.begin(&top, traceparent.as_deref());
        };
        let known = tasks.trace_of(&parent.task, &parent.step);
        let origin = match known {
            Some(_) => None,
            None => hub.task_origin(&parent.task).await?,
        };
        let ambient = origin
            .as_ref()
            .is_some_and(|(record, _)| record.task.ambient);
        let step = parent.step;
        steps.push(step.clone());
        if let Some(known) = known {
            break known;
        }
        let Some((record, submitted_with)) = origin.filter(|_| !ambient) else {
            break tasks.begin(&step, None);
        };
        (top, above) = (record.task.id, record.task.parent);
        traceparent = submitted_with;
    };
    for step in steps.iter().rev() {
        trace = trace.below(step);
    }
    Ok(Some((record, trace)))
}
