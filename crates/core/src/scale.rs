//! How many instances an agent should have: queue depth, connections, memory and idleness in, a
//! number out.
//!
//! Up at once, down late. A rise follows the present load; a fall waits until the load has been
//! lower for the whole of `idle_after`, and then for a moment in which nothing is under way: which
//! instance goes is not decided here, and it could be one that works. An agent at zero is woken by
//! the first task or connection.

use serde::{Deserialize, Serialize};

/// One step of the ladder: up to so many open tasks, so many instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    pub up_to: u32,
    pub replicas: u32,
}

/// What a manifest asks for. Steps are in rising order; above the last one counts `max`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    pub min: u32,
    pub max: u32,
    pub steps: Vec<Step>,
    pub idle_after_ms: u64,
    /// Connections that one instance is meant to carry.
    pub connections_per_instance: u32,
    /// How full the memory of one instance is meant to be, of 100.
    pub memory_percent: u32,
}

/// The load of one agent at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Tasks that nobody holds yet and that an instance could take.
    pub waiting: u32,
    /// Tasks that an instance holds, an open stream or a model call among them.
    pub working: u32,
    /// Instances that hold at least one.
    pub busy_instances: u32,
    /// Tasks that ask a person: an agent with one of them isn't idle, and needs no more than one
    /// instance for them.
    pub asking: u32,
    /// Conversations that clients hold open.
    pub connections: u32,
    /// How full the memory of its instances is, of 100 for each: their sum. One that says nothing
    /// counts as empty, so that one that just begins is not answered by another.
    pub memory_percent: u32,
    /// Instances there should be by what was decided last.
    pub replicas: u32,
}

/// Since when the load has asked for less than there is, and the most it asked for since then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calm {
    since_ms: Option<u64>,
    most: u32,
}

/// How many instances there should be now. `calm` is the caller's to keep between calls; `now_ms`
/// is on a clock that no wall jump moves.
pub fn wanted(policy: &Policy, load: Load, calm: &mut Calm, now_ms: u64) -> u32 {
    let asked = asked(policy, load);
    if asked >= load.replicas {
        *calm = Calm::default();
        return asked;
    }
    let since = *calm.since_ms.get_or_insert(now_ms);
    calm.most = calm.most.max(asked);
    if now_ms.saturating_sub(since) < policy.idle_after_ms || load.busy_instances > 0 {
        return load.replicas.clamp(policy.min, policy.max);
    }
    let fallen = calm.most;
    *calm = Calm::default();
    fallen
}

/// What the load asks for, were there no yesterday.
fn asked(policy: &Policy, load: Load) -> u32 {
    let open = load.waiting.saturating_add(load.working);
    let by_queue = match open {
        0 => 0,
        open => policy
            .steps
            .iter()
            .find(|step| open <= step.up_to)
            .map_or(policy.max, |step| step.replicas),
    };
    let by_connections = load
        .connections
        .div_ceil(policy.connections_per_instance.max(1));
    let is_used = open > 0 || load.asking > 0 || load.connections > 0;
    // What an idle instance holds is no reason to keep it.
    let by_memory = match is_used {
        true => load.memory_percent.div_ceil(policy.memory_percent.max(1)),
        false => 0,
    };
    by_queue
        .max(by_connections)
        .max(by_memory)
        .max(load.busy_instances)
        .max(u32::from(is_used))
        .clamp(policy.min, policy.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy {
            min: 0,
            max: 10,
            steps: vec![
                Step {
                    up_to: 5,
                    replicas: 2,
                },
                Step {
                    up_to: 20,
                    replicas: 5,
                },
            ],
            idle_after_ms: 300_000,
            connections_per_instance: 100,
            memory_percent: 70,
        }
    }

    fn check(load: Load, expected: u32) {
        assert_eq!(
            wanted(&policy(), load, &mut Calm::default(), 0),
            expected,
            "{load:?}"
        );
    }

    fn open(waiting: u32) -> Load {
        Load {
            waiting,
            ..Load::default()
        }
    }

    #[test]
    fn the_queue_climbs_the_ladder() {
        for (waiting, expected) in [
            (0, 0),
            (1, 2),
            (5, 2),
            (6, 5),
            (20, 5),
            (21, 10),
            (9999, 10),
        ] {
            check(open(waiting), expected);
        }
    }

    #[test]
    fn what_works_counts_like_what_waits() {
        check(
            Load {
                waiting: 3,
                working: 3,
                busy_instances: 3,
                ..Load::default()
            },
            5,
        );
    }

    #[test]
    fn a_question_to_a_person_keeps_one_instance() {
        check(
            Load {
                asking: 7,
                ..Load::default()
            },
            1,
        );
    }

    #[test]
    fn connections_alone_keep_instances() {
        let connections = |connections| Load {
            connections,
            ..Load::default()
        };
        check(connections(1), 1);
        check(connections(101), 2);
        check(connections(100_000), 10);
    }

    #[test]
    fn memory_above_its_share_asks_for_more_while_there_is_work() {
        let full = |memory_percent, working| Load {
            working,
            busy_instances: working,
            memory_percent,
            ..Load::default()
        };
        // Two instances: 140 of 200 is their share.
        check(full(140, 2), 2);
        check(full(141, 2), 3);
        check(full(800, 5), 10);
        check(full(100, 0), 0);
        let talking = Load {
            connections: 1,
            ..full(90, 0)
        };
        check(talking, 2);
    }

    #[test]
    fn a_fall_waits_for_the_whole_of_idle_after_and_takes_the_most_of_it() {
        let (policy, mut calm) = (policy(), Calm::default());
        let at = |waiting, working, now, calm: &mut Calm| {
            let load = Load {
                waiting,
                working,
                busy_instances: working,
                replicas: 5,
                ..Load::default()
            };
            wanted(&policy, load, calm, now)
        };
        assert_eq!(at(0, 0, 1_000, &mut calm), 5);
        assert_eq!(at(0, 3, 200_000, &mut calm), 5);
        assert_eq!(at(0, 0, 300_999, &mut calm), 5);
        assert_eq!(at(0, 0, 301_000, &mut calm), 3);
    }

    #[test]
    fn a_rise_in_between_starts_the_wait_anew() {
        let (policy, mut calm) = (policy(), Calm::default());
        let mut at = |waiting, now| {
            let load = Load {
                replicas: 2,
                ..open(waiting)
            };
            wanted(&policy, load, &mut calm, now)
        };
        assert_eq!(at(0, 0), 2);
        assert_eq!(at(1, 299_999), 2);
        assert_eq!(at(0, 300_000), 2);
        assert_eq!(at(0, 599_999), 2);
        assert_eq!(at(0, 600_000), 0);
    }

    #[test]
    fn nothing_is_scaled_away_while_something_is_busy() {
        let (policy, mut calm) = (policy(), Calm::default());
        let load = Load {
            working: 4,
            busy_instances: 4,
            replicas: 5,
            ..Load::default()
        };
        assert_eq!(wanted(&policy, load, &mut calm, 0), 5);
        assert_eq!(wanted(&policy, load, &mut calm, 400_000), 5);
        let done = Load {
            working: 0,
            busy_instances: 0,
            ..load
        };
        assert_eq!(wanted(&policy, done, &mut calm, 400_001), 4);
        let fewer = Load {
            replicas: 4,
            ..done
        };
        assert_eq!(wanted(&policy, fewer, &mut calm, 400_002), 4);
        assert_eq!(wanted(&policy, fewer, &mut calm, 700_002), 0);
    }

    #[test]
    fn the_bounds_hold_whatever_happens() {
        let policy = Policy { min: 1, ..policy() };
        let above = Load {
            replicas: 50,
            ..open(0)
        };
        let (mut calm, zero) = (Calm::default(), Load::default());
        assert_eq!(wanted(&policy, zero, &mut calm, 0), 1);
        assert_eq!(wanted(&policy, above, &mut calm, 0), 10);
    }
}
