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
        if !matches!(entry.kind.as_str(), "step.finished" | "step.failed") {
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

/// The first entry of this time or later, by halves: entries follow the clock, but for its jumps.
fn first_since(reader: &Reader, time_ms: i64) -> Result<u64, StoreError> {
    let (mut low, mut high) = (0, reader.size()?);
    while low < high {
        let middle = low + (high - low) / 2;
        match reader.entry(middle)? {
            Some(entry) if entry.time_ms < time_ms => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

impl Hub {
    /// The tally with all that was spent since it was asked for last.
    pub async fn tally(&self, tally: Tally) -> Result<Tally, HubError> {
        let day = self.shared.ground.now_ms().div_euclid(DAY_MS);
        self.read(move |reader| tally.count(reader, day)).await
    }
}
