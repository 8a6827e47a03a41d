//! What each agent spent today, counted from the log: a hub that starts knows it as the one before.
//!
//! The day is UTC's. Who keeps a tally asks for it now and then; only entries that are new since
//! are read.

use std::collections::BTreeMap;

use mainstay_core::event::Event;
use mainstay_core::usage::Cost;
use store::{Entry, Reader, StoreError};

use crate::projection;
use crate::{Hub, HubError};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const PAGE: usize = 1000;

/// A day's costs so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    day: Option<i64>,
    /// The first entry that is not counted yet.
    next: u64,
    by_agent: BTreeMap<String, Cost>,
}

impl Tally {
    /// Dollars; `None` where a price is unknown. An agent that spent nothing has 0.
    #[must_use]
    pub fn usd(&self, agent: &str) -> Option<f64> {
        self.by_agent
            .get(agent)
            .map_or(Some(0.0), |cost| cost.usd())
    }

    fn count(mut self, reader: &Reader, day: i64) -> Result<Self, StoreError> {
        if self.day.is_none() {
            self.next = first_since(reader, day * DAY_MS)?;
        }
        if self.day != Some(day) {
            self.by_agent.clear();
            self.day = Some(day);
        }
        loop {
            let page = reader.entries(self.next, PAGE)?;
            let Some(last) = page.last() else {
                return Ok(self);
            };
            self.next = last.seq + 1;
            for entry in page.iter().filter(|entry| entry.time_ms >= day * DAY_MS) {
                self.add(reader, entry)?;
            }
        }
    }

    fn add(&mut self, reader: &Reader, entry: &Entry) -> Result<(), StoreError> {
        let is_call = matches!(entry.kind.as_str(), "step.finished" | "step.failed");
        if !is_call || is_imported(entry) {
            return Ok(());
        }
        let event = projection::decode::<Event>(&entry.data);
        let Some(Event::StepFinished { cost, .. } | Event::StepFailed { cost, .. }) = event else {
            return Ok(());
        };
        if cost == Cost::default() {
            return Ok(());
        }
        let Some(task) = reader.task(&entry.subject)? else {
            return Ok(());
        };
        self.by_agent.entry(task.agent).or_default().add(&cost);
        Ok(())
    }
}

/// The first entry of this time or later, by halves: entries follow the clock, but for its jumps,
/// and but for those that were imported with the times that they had elsewhere.
fn first_since(reader: &Reader, time_ms: i64) -> Result<u64, StoreError> {
    let (mut low, mut high) = (0, reader.size()?);
    while low < high {
        let middle = low + (high - low) / 2;
        match own_from(reader, middle, high)? {
            Some((seq, at_ms)) if at_ms < time_ms => low = seq + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first entry from there on that was written here first, and its time.
fn own_from(reader: &Reader, mut from: u64, end: u64) -> Result<Option<(u64, i64)>, StoreError> {
    while from < end {
        // Mostly it is the first.
        let page = reader.entries(from, 8)?;
        let Some(last) = page.last() else { break };
        from = last.seq + 1;
        if let Some(own) = page.iter().find(|entry| !is_imported(entry)) {
            return Ok((own.seq < end).then_some((own.seq, own.time_ms)));
        }
    }
    Ok(None)
}

/// What it cost was paid elsewhere.
fn is_imported(entry: &Entry) -> bool {
    entry.author.starts_with(crate::session::IMPORTED)
}

impl Hub {
    /// The tally with all that was spent since it was asked for last.
    pub async fn tally(&self, tally: Tally) -> Result<Tally, HubError> {
        let day = self.shared.ground.now_ms().div_euclid(DAY_MS);
        self.read(move |reader| tally.count(reader, day)).await
    }
}
