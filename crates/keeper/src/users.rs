//! Who runs as whom. As root: the hub and each agent have a user of their own. Else all are one.

use serde::{Deserialize, Serialize};

/// The hub's user and group (outside the ranges that Debian, systemd and login tools hand out).
pub const HUB: u32 = 61_000;
/// The first agent's user and group; the others follow.
pub const FIRST_AGENT: u32 = 61_100;
/// So many agents can have one.
pub const MAX_AGENTS: u32 = 400;

/// How users are kept apart in this state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// The keeper is root and may become other users.
    pub separate: bool,
    pub keeper: u32,
    /// The hub's user, and its group where users are separate.
    pub hub: u32,
}

impl Users {
    /// What this process may do.
    #[must_use]
    pub fn detect() -> Self {
        let keeper = rustix::process::geteuid().as_raw();
        let separate = keeper == 0 && is_mapped();
        Self {
            separate,
            keeper,
            hub: if separate { HUB } else { keeper },
        }
    }

    /// The user and group of the agent with this index.
    #[must_use]
    pub fn agent(self, index: u32) -> Option<u32> {
        self.separate.then_some(FIRST_AGENT + index % MAX_AGENTS)
    }
}

/// Whether our range exists here: a user namespace with root alone maps nothing else.
fn is_mapped() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else {
        return false;
    };
    covers(&map, HUB, FIRST_AGENT + MAX_AGENTS)
}

fn covers(map: &str, first: u32, last: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) => {
                inside <= u64::from(first) && u64::from(last) < inside + count
            }
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_with_root_alone_has_no_other_users() {
        assert!(covers(
            "         0          0 4294967295\n",
            HUB,
            FIRST_AGENT
        ));
        assert!(!covers(
            "         0       1000          1\n",
            HUB,
            FIRST_AGENT
        ));
        assert!(!covers("0 100000 61050\n", HUB, FIRST_AGENT));
    }
}
