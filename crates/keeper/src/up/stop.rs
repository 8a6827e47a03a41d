//! The end of `up`: the hub finishes first, then the shims end their agents; nothing is left.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use contract::keeper::ToHub;

use super::reconcile::{end_descendants, reap_all};
use super::{Ended, Keeper};

/// How long the hub may take to drain and journal.
const HUB_PATIENCE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Stopping {
    ended: Ended,
    phase: Phase,
    hub_until: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Hub,
    Shims,
}

impl Stopping {
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + POLL
    }
}

impl Keeper {
    /// The first time in good order; told again, at once.
    pub(super) fn stop(&mut self, ended: Ended) {
        let now = Instant::now();
        if let Some(stopping) = &mut self.stopping {
            stopping.hub_until = now;
            for running in self.running.values_mut() {
                running.stop(Duration::ZERO, false);
            }
            return;
        }
        self.hub.send(&ToHub::Stop, Vec::new());
        self.stopping = Some(Stopping {
            ended,
            phase: Phase::Hub,
            hub_until: now + HUB_PATIENCE,
        });
    }

    pub(super) fn tick_stop(&mut self, now: Instant) -> Option<Ended> {
        self.flush_links();
        let hub_gone = self.hub.process.is_none();
        let stopping = self.stopping.as_mut()?;
        let ended = stopping.ended;
        match stopping.phase {
            Phase::Hub if hub_gone => {
                stopping.phase = Phase::Shims;
                self.stop_shims();
                None
            }
            Phase::Hub => {
                if stopping.hub_until <= now {
                    self.hub.kill();
                }
                None
            }
            Phase::Shims => {
                for running in self.running.values() {
                    if running.stopping.is_some_and(|until| until <= now) {
                        running.kill();
                    }
                }
                if !self.running.is_empty() {
                    return None;
                }
                self.leave();
                Some(ended)
            }
        }
    }

    fn stop_shims(&mut self) {
        for adopted in std::mem::take(&mut self.adopted) {
            let running = adopted.retire();
            let _gone_already = self.reactor.add(&running.pidfd);
            self.running.insert(running.name().to_owned(), running);
        }
        for running in self.running.values_mut() {
            if running.stopping.is_none() {
                running.stop(Duration::from_millis(running.planned.grace_ms()), false);
            }
        }
    }

    fn leave(&mut self) {
        end_descendants(&BTreeSet::new());
        reap_all();
        let files = [
            "control.sock",
            "keeper.pid",
            "keeper.process",
            "hub.pid",
            "hub.process",
        ];
        for name in files {
            let _gone = std::fs::remove_file(self.state.run(name));
        }
    }

    /// Ends everything at once: the hub can't start, so nothing may go on.
    pub(super) fn abandon(&mut self) {
        self.stop_shims();
        for running in self.running.values() {
            running.kill();
        }
        for name in self.running.keys().cloned().collect::<Vec<_>>() {
            if let Some(running) = self.running.remove(&name) {
                let patience = Duration::from_secs(5);
                let _timed_out = sandbox::process::wait_ended(
                    std::os::fd::AsFd::as_fd(&running.pidfd),
                    patience,
                );
                running.end_leftovers(&self.state);
                running.forget(&self.state);
            }
        }
        self.leave();
    }
}
