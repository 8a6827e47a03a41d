//! Restart by exit class: what an end means, and how long to wait before the next start.
//!
//! Back-off is reset by a step finished live, never by uptime or replay: a process that replays
//! for an hour and crashes at the same place has not recovered.
//! Poison, credential and provider failures are seen by the hub, which holds the process instead.

use serde::{Deserialize, Serialize};

/// The reserved exit code that fails a task for good.
pub const EXIT_FINAL: i32 = 78;

const CRASH_FIRST_MS: u64 = 100;
const CRASH_WAITED_FOR_MS: u64 = 5_000;
const CRASH_IDLE_MS: u64 = 30_000;
const OUTSIDE_MS: u64 = 1_000;
const PROVIDER_FIRST_MS: u64 = 1_000;
const PROVIDER_MOST_MS: u64 = 30_000;
const PROVIDER_CUTS: u32 = 34;

/// What a process was there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// One attempt of a task: exit 0 is success, 78 a final failure.
    Attempt,
    /// Meant to run for ever: every exit is unexpected.
    Service,
}

/// What is known about an end, from the wait status and the shim's own acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// A memory event: the kernel killed for want of memory.
    pub oom: bool,
    /// Operator, hub or keeper ended it.
    pub asked: bool,
    /// A call of it was broken by a hub's death, an upgrade or a provider's failure.
    pub cut_off: bool,
    /// It had become ready.
    pub ready: bool,
}

/// The class of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    Done,
    Final,
    Asked,
    CutOff,
    Memory,
    KilledFromOutside,
    Configuration,
    Crash,
}

impl Class {
    /// The word in metrics and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Final => "final",
            Self::Asked => "asked",
            Self::CutOff => "cut_off",
            Self::Memory => "memory",
            Self::KilledFromOutside => "killed_from_outside",
            Self::Configuration => "configuration",
            Self::Crash => "crash",
        }
    }

    /// Whether it counts towards `restart.maxAttempts`.
    #[must_use]
    pub fn counted(self) -> bool {
        matches!(self, Self::Crash | Self::Memory | Self::Configuration)
    }

    /// Whether a process of this kind is started again after such an end.
    #[must_use]
    pub fn restarts(self, kind: Kind) -> bool {
        match self {
            Self::Done => kind == Kind::Service,
            Self::Final | Self::Asked => false,
            Self::CutOff
            | Self::Memory
            | Self::KilledFromOutside
            | Self::Configuration
            | Self::Crash => true,
        }
    }
}

/// Back-off so far: ends in a row without a productive step between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backoff {
    pub crashes: u32,
    /// Kills from outside that came before the process was ready.
    pub early_kills: u32,
}

/// What to do after an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub class: Class,
    pub restart: bool,
    pub delay_ms: u64,
    pub backoff: Backoff,
}

/// Which class an end belongs to.
#[must_use]
pub fn classify(kind: Kind, evidence: &Evidence) -> Class {
    const SIGKILL: i32 = 9;
    if evidence.asked {
        return Class::Asked;
    }
    if kind == Kind::Attempt {
        match evidence.code {
            Some(0) => return Class::Done,
            Some(EXIT_FINAL) => return Class::Final,
            _ => {}
        }
    }
    if evidence.oom {
        Class::Memory
    } else if evidence.signal == Some(SIGKILL) {
        Class::KilledFromOutside
    } else if evidence.cut_off {
        Class::CutOff
    } else if kind == Kind::Service && !evidence.ready {
        Class::Configuration
    } else {
        Class::Crash
    }
}

/// Decides about the next start. `tasks_wait`: work waits for this process.
#[must_use]
pub fn decide(kind: Kind, evidence: &Evidence, backoff: Backoff, tasks_wait: bool) -> Decision {
    let class = classify(kind, evidence);
    let mut next = backoff;
    let delay_ms = match class {
        Class::Done if kind == Kind::Attempt => 0,
        Class::Final | Class::Asked | Class::CutOff => 0,
        Class::KilledFromOutside if evidence.ready || kind == Kind::Attempt => 0,
        Class::KilledFromOutside => {
            next.early_kills = next.early_kills.saturating_add(1);
            doubled(backoff.early_kills, OUTSIDE_MS)
        }
        Class::Done | Class::Memory | Class::Configuration | Class::Crash => {
            next.crashes = next.crashes.saturating_add(1);
            let most = if tasks_wait {
                CRASH_WAITED_FOR_MS
            } else {
                CRASH_IDLE_MS
            };
            doubled(backoff.crashes, most)
        }
    };
    Decision {
        class,
        restart: class.restarts(kind),
        delay_ms,
        backoff: next,
    }
}

/// How long a task rests after this many attempts in a row that a provider's failure cut off; `None`
/// when a person should be asked. Together the rests are a quarter of an hour: an outage shorter
/// than that passes by itself.
#[must_use]
pub fn provider_rest_ms(cuts: u32) -> Option<u64> {
    (cuts <= PROVIDER_CUTS)
        .then(|| (PROVIDER_FIRST_MS << cuts.saturating_sub(1).min(20)).min(PROVIDER_MOST_MS))
}

/// 0, then 0.1 s doubling up to `most`.
fn doubled(earlier: u32, most: u64) -> u64 {
    match earlier {
        0 => 0,
        n => (CRASH_FIRST_MS << (n - 1).min(20)).min(most),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(number: i32) -> Evidence {
        Evidence {
            signal: Some(number),
            ready: true,
            ..Evidence::default()
        }
    }

    fn code(number: i32) -> Evidence {
        Evidence {
            code: Some(number),
            ready: true,
            ..Evidence::default()
        }
    }

    fn delays(kind: Kind, evidence: Evidence, tasks_wait: bool, count: usize) -> Vec<u64> {
        let mut backoff = Backoff::default();
        (0..count)
            .map(|_| {
                let decision = decide(kind, &evidence, backoff, tasks_wait);
                backoff = decision.backoff;
                decision.delay_ms
            })
            .collect()
    }

    #[test]
    fn the_first_restart_is_immediate_and_later_ones_double_to_the_bound() {
        assert_eq!(
            delays(Kind::Service, signal(11), true, 9),
            [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]
        );
        assert_eq!(
            delays(Kind::Service, signal(11), false, 12).last(),
            Some(&30_000)
        );
        assert_eq!(delays(Kind::Attempt, code(1), true, 3), [0, 100, 200]);
    }

    #[test]
    fn a_kill_from_outside_never_waits_once_ready_and_at_most_a_second_before() {
        assert!(
            delays(Kind::Service, signal(9), true, 1000)
                .iter()
                .all(|ms| *ms == 0)
        );
        let early = Evidence {
            ready: false,
            ..signal(9)
        };
        assert_eq!(delays(Kind::Service, early, false, 8).last(), Some(&1000));
        assert!(!classify(Kind::Service, &early).counted());
    }

    #[test]
    fn a_task_outlasts_a_providers_outage_of_a_quarter_of_an_hour() {
        let rests: Vec<u64> = (1..).map_while(provider_rest_ms).collect();
        assert_eq!(rests[..6], [1000, 2000, 4000, 8000, 16_000, 30_000]);
        assert!(
            rests.iter().all(|rest| *rest <= 30_000),
            "soon after it is back"
        );
        let minutes = rests.iter().sum::<u64>() / 60_000;
        assert_eq!(minutes, 15);
    }

    #[test]
    fn the_class_follows_the_evidence() {
        let check = |kind, evidence, class| assert_eq!(classify(kind, &evidence), class);
        check(Kind::Attempt, code(0), Class::Done);
        check(Kind::Attempt, code(EXIT_FINAL), Class::Final);
        check(Kind::Attempt, code(1), Class::Crash);
        check(Kind::Service, code(0), Class::Crash);
        check(Kind::Service, code(EXIT_FINAL), Class::Crash);
        check(
            Kind::Service,
            Evidence {
                ready: false,
                ..code(1)
            },
            Class::Configuration,
        );
        check(Kind::Attempt, signal(9), Class::KilledFromOutside);
        check(
            Kind::Attempt,
            Evidence {
                oom: true,
                ..signal(9)
            },
            Class::Memory,
        );
        check(
            Kind::Attempt,
            Evidence {
                asked: true,
                ..signal(9)
            },
            Class::Asked,
        );
        check(
            Kind::Attempt,
            Evidence {
                cut_off: true,
                ..code(1)
            },
            Class::CutOff,
        );
    }

    #[test]
    fn what_was_asked_for_or_is_final_is_not_restarted() {
        for kind in [Kind::Attempt, Kind::Service] {
            let asked = Evidence {
                asked: true,
                ..signal(15)
            };
            assert!(!decide(kind, &asked, Backoff::default(), true).restart);
        }
        assert!(!decide(Kind::Attempt, &code(0), Backoff::default(), true).restart);
        assert!(!decide(Kind::Attempt, &code(EXIT_FINAL), Backoff::default(), true).restart);
        assert!(decide(Kind::Service, &code(0), Backoff::default(), true).restart);
    }
}
