//! When something that died starts again, and when there is no sense in it any more.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const MOST: Duration = Duration::from_secs(5);
/// What ran for so long has not died at once.
const RAN_WELL: Duration = Duration::from_secs(10);
const FALSE_STARTS: usize = 5;
const FALSE_STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Of the shim, or of the relay: at once, then after 0.1 s doubling to 5 s.
#[derive(Debug, Default)]
pub(super) struct Restart {
    deaths: u32,
    since: Option<Instant>,
    start_at: Option<Instant>,
}

impl Restart {
    pub(super) fn started(&mut self, now: Instant) {
        self.since = Some(now);
        self.start_at = None;
    }

    pub(super) fn died(&mut self, now: Instant) {
        let since = self.since.take();
        if since.is_some_and(|since| since + RAN_WELL <= now) {
            self.deaths = 0;
        }
        let delay = match self.deaths {
            0 => Duration::ZERO,
            n => MOST.min(FIRST * 2u32.pow((n - 1).min(10))),
        };
        self.deaths = self.deaths.saturating_add(1);
        self.start_at = Some(now + delay);
    }

    /// When the next one starts, after a death.
    pub(super) fn due(&self) -> Option<Instant> {
        self.start_at
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.start_at.is_none_or(|at| at <= now)
    }
}

/// Starts in a row that came to nothing.
#[derive(Debug, Default)]
pub(super) struct FalseStarts {
    at: VecDeque<Instant>,
}

impl FalseStarts {
    /// One more. How many they are, once they are too many in too short a time.
    pub(super) fn note(&mut self, now: Instant) -> Option<usize> {
        self.at.push_back(now);
        while self
            .at
            .front()
            .is_some_and(|first| *first + FALSE_STARTS_WITHIN <= now)
        {
            self.at.pop_front();
        }
        (self.at.len() >= FALSE_STARTS).then_some(self.at.len())
    }

    pub(super) fn forget(&mut self) {
        self.at.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_immediate_and_a_long_life_makes_it_so_again() {
        let start = Instant::now();
        let mut restart = Restart::default();
        assert!(restart.is_due(start));
        let delays: Vec<_> = (0..8)
            .map(|_| {
                restart.started(start);
                restart.died(start);
                restart.due().unwrap() - start
            })
            .map(|delay| delay.as_millis())
            .collect();
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 5000]);
        restart.started(start);
        restart.died(start + RAN_WELL);
        assert!(restart.is_due(start + RAN_WELL));
    }

    #[test]
    fn five_false_starts_within_a_minute_are_too_many_and_a_good_one_forgives_them() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut starts = FalseStarts::default();
        let noted: Vec<_> = (0..5).map(|n| starts.note(start + second * n)).collect();
        assert_eq!(noted, [None, None, None, None, Some(5)]);
        starts.forget();
        assert_eq!(starts.note(start + second * 5), None);
        let mut slow = FalseStarts::default();
        assert!((0..20).all(|n| slow.note(start + second * 15 * n).is_none()));
    }
}
