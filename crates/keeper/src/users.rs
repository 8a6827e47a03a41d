//! Who runs as whom. As root: the hub and each agent have a user of their own. Else all are one.

use serde::{Deserialize, Serialize};

/// A state's numbers: the hub's user and group, and from [`AGENTS_AT`] on the agents'.
const BLOCK: u32 = 500;
const AGENTS_AT: u32 = 100;
/// So many agents can have one.
pub const MAX_AGENTS: u32 = BLOCK - AGENTS_AT;
/// Blocks lie outside of what Debian and login tools hand out: first where a container with 65,536
/// numbers has them too, then above those and below the ranges for subordinate users.
pub(crate) const FIRST_BLOCK: u32 = 61_000;
const RANGES: [std::ops::Range<u32>; 2] = [FIRST_BLOCK..65_000, 66_000..99_500];

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
            hub: if separate { FIRST_BLOCK } else { keeper },
        }
    }

    /// The same with the block that begins there, where users are separate.
    pub(crate) fn with_block(self, base: u32) -> Self {
        Self {
            hub: if self.separate { base } else { self.hub },
            ..self
        }
    }

    /// The user and group of the agent with this index.
    #[must_use]
    pub fn agent(self, index: u32) -> Option<u32> {
        self.separate
            .then_some(self.hub + AGENTS_AT + index % MAX_AGENTS)
    }
}

/// Whether there are blocks here: a user namespace with root alone maps nothing else.
fn is_mapped() -> bool {
    blocks().next().is_some()
}

/// The first numbers of all blocks that exist here.
pub(crate) fn blocks() -> impl Iterator<Item = u32> {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let bases = RANGES
        .into_iter()
        .flat_map(|range| range.step_by(BLOCK as usize));
    bases.filter(move |base| covers(&map, *base, base + BLOCK - 1))
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
        assert!(covers("         0          0 4294967295\n", 61_000, 61_499));
        assert!(!covers(
            "         0       1000          1\n",
            61_000,
            61_499
        ));
        assert!(!covers("0 100000 61050\n", 61_000, 61_499));
    }

    #[test]
    fn no_two_blocks_overlap_and_agents_stay_in_theirs() {
        let bases: Vec<u32> = RANGES
            .into_iter()
            .flat_map(|range| range.step_by(BLOCK as usize))
            .collect();
        assert!(bases.windows(2).all(|pair| pair[0] + BLOCK <= pair[1]));
        let users = Users {
            separate: true,
            keeper: 0,
            hub: 0,
        };
        let users = users.with_block(66_000);
        let agents = (0..1000).filter_map(|index| users.agent(index));
        assert!(
            agents
                .into_iter()
                .all(|agent| (66_100..66_500).contains(&agent))
        );
    }
}
