//! What a kill sweep says: lines for whoever watches it, so that one that was interrupted has said
//! how far it was, and at its end a row for `cargo xtask soak`.

use std::time::{Duration, Instant};

use crate::agents::Sdk;

const PAUSE: Duration = Duration::from_secs(15);

/// A sweep under way.
pub(crate) struct Progress {
    name: String,
    tasks: usize,
    started: Instant,
    told: Instant,
}

impl Progress {
    pub(crate) fn start(name: &str, tasks: usize) -> Self {
        let now = Instant::now();
        Self {
            name: name.to_owned(),
            tasks,
            started: now,
            told: now,
        }
    }

    /// Says where it stands, if it hasn't for a while.
    pub(crate) fn tell(&mut self, open: usize, kills: usize) {
        if self.told.elapsed() < PAUSE {
            return;
        }
        self.told = Instant::now();
        eprintln!(
            "{}: {} of {} tasks ended, {kills} kills, {} s",
            self.name,
            self.tasks - open,
            self.tasks,
            self.seconds()
        );
    }

    fn seconds(&self) -> u64 {
        self.started.elapsed().as_secs()
    }
}

/// What was counted. That all completed, and every effect happened once, was asserted before.
pub(crate) struct Counted {
    pub(crate) killed: &'static str,
    pub(crate) kills: usize,
    /// Unknown where steps go on under another hub.
    pub(crate) replayed: Option<u64>,
    pub(crate) again: u64,
    pub(crate) reported: u64,
    pub(crate) questions: usize,
}

impl Counted {
    /// Prints the row, and hands it to `cargo xtask soak` where that asked for it.
    pub(crate) fn publish(self, progress: &Progress, agent: &Sdk) {
        let streamed = if agent.stream { ", streamed" } else { "" };
        let replayed = self.replayed.map_or("–".to_owned(), |n| n.to_string());
        let row = format!(
            "{} | `{}`{streamed} | {} | {} | {replayed} | {} | {} | {} | {}",
            self.killed,
            agent.file,
            progress.tasks,
            self.kills,
            self.again,
            self.reported,
            self.questions,
            progress.seconds()
        );
        eprintln!("{}: {row}", progress.name);
        if let Some(path) = std::env::var_os("MAINSTAY_SWEEP_ROW") {
            std::fs::write(path, row).unwrap();
        }
    }
}
