//! Batches spans and hands them to the exporter; says how many were lost, once a minute at most.
//!
//! The exporter tries again by itself until its time is over. After that a batch is gone: a queue
//! that grows while a collector is away would only move the loss into the hub's memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::cursor::Cursor;
use super::settings::Settings;

/// How often a loss is told.
const EVERY: Duration = Duration::from_secs(60);

/// The spans of one entry, which are sent or lost together.
#[derive(Debug)]
pub struct Spans {
    pub seq: u64,
    pub spans: Vec<SpanData>,
}

/// Spans that nobody will see.
#[derive(Debug, Default)]
pub struct Loss(AtomicU64);

impl Loss {
    pub fn add(&self, spans: usize) {
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sends until the queue is closed and empty.
pub async fn send(
    mut queue_rx: mpsc::Receiver<Spans>,
    exporter: &impl SpanExporter,
    settings: &Settings,
    loss: &Loss,
    cursor: &Cursor,
) {
    let mut told = Told::default();
    while let Some((seq, batch)) = next_batch(&mut queue_rx, settings).await {
        let spans = batch.len();
        let error = match exporter.export(batch).await {
            Ok(()) => {
                cursor.write(seq).await;
                None
            }
            Err(error) => {
                loss.add(spans);
                Some(error.to_string())
            }
        };
        told.tell(loss.total(), error.as_deref());
    }
}

/// Waits for a first entry's spans, then for more until the batch is full or has waited enough.
async fn next_batch(
    queue_rx: &mut mpsc::Receiver<Spans>,
    settings: &Settings,
) -> Option<(u64, Vec<SpanData>)> {
    let Spans { mut seq, mut spans } = queue_rx.recv().await?;
    let until = Instant::now() + settings.delay;
    while spans.len() < settings.batch {
        let Ok(Some(more)) = tokio::time::timeout_at(until, queue_rx.recv()).await else {
            break;
        };
        seq = more.seq;
        spans.extend(more.spans);
    }
    Some((seq, spans))
}

/// What was said about losses, and when.
#[derive(Default)]
struct Told {
    lost: u64,
    at: Option<Instant>,
}

impl Told {
    fn tell(&mut self, lost: u64, error: Option<&str>) {
        let recent = self.at.is_some_and(|at| at.elapsed() < EVERY);
        if lost == self.lost || recent {
            return;
        }
        tracing::warn!(
            lost = lost - self.lost,
            lost_since_start = lost,
            error = error.unwrap_or("the queue was full"),
            "spans were dropped: the collector does not take them"
        );
        self.lost = lost;
        self.at = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests;
