//! When things are tidied: once the hub has said what its open tasks pin, and when an instance is
//! gone for good.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Keeper;
use crate::tidy::{self, Keep};

impl Keeper {
    /// The hub's pins came after its current generation: none older can be pinned anew.
    pub(super) fn tidy(&self) {
        let Some(Some(current)) = self.hub.current() else {
            return;
        };
        let fleets = self.desired.iter().map(|set| &set.fleet);
        let proposed = self.proposed.iter().map(|generation| &generation.fleet);
        let active = self.active.iter().map(|generation| &generation.fleet);
        let keep = Keep {
            current: current.number,
            pins: self.pins.iter().copied().collect(),
            artifacts: fleets
                .chain(proposed)
                .chain(active)
                .flat_map(tidy::artifacts)
                .collect::<BTreeSet<String>>(),
        };
        take_apart(tidy::generations(&self.state, &keep));
    }

    /// An instance that no generation in use has any more.
    pub(super) fn tidy_instance(&self, name: &str) {
        take_apart(tidy::instance(&self.state, name));
    }
}

fn take_apart(found: std::io::Result<Vec<PathBuf>>) {
    if let Err(error) = found.and_then(tidy::take_apart) {
        tracing::warn!(%error, "what nothing needs can't be removed");
    }
}
