//! From what should run to the generation that does: proposed, journaled by the hub, current.

use std::time::{Duration, Instant};

use contract::keeper::{GenerationRef, ToHub};

use super::{Keeper, UpError, say};
use crate::generation::{self, Generation};

const PURSUE_AGAIN: Duration = Duration::from_secs(5);

impl Keeper {
    /// Compares what should run with what the hub says is current, and proposes or reconciles.
    pub(super) fn pursue(&mut self, current: Option<GenerationRef>) -> Result<(), UpError> {
        self.hand_credentials();
        let number = current.as_ref().map_or(0, |current| current.number);
        let wanted = self.desired.as_ref().map(|set| set.fleet.hash());
        let settled = match (&wanted, &current) {
            (Some(wanted), Some(current)) => *wanted == current.hash,
            (None, _) => true,
            (Some(_), None) => false,
        };
        if settled {
            self.proposed.clear();
            let desired = self.desired.as_ref().zip(wanted);
            self.active = generation::load(&self.state, number).or_else(|| {
                desired.map(|(set, hash)| Generation {
                    number,
                    hash,
                    fleet: set.fleet.clone(),
                })
            });
            if self.active.is_none() && number > 0 {
                say(&format!(
                    "mainstay: generation {number} is not in the state any more; apply the manifests again"
                ));
            }
            return self.reconcile();
        }
        if let Some(set) = &self.desired {
            let written = generation::write(&self.state, set, number)?;
            self.hub.send(
                &ToHub::GenerationProposed {
                    number: written.number,
                    hash: written.hash.clone(),
                },
                Vec::new(),
            );
            self.proposed.retain(|other| other.number != written.number);
            self.proposed.push(written);
        }
        Ok(())
    }

    pub(super) fn generation_committed(&mut self, number: u64) -> Result<(), UpError> {
        self.answer_taken(number);
        let Some(index) = self
            .proposed
            .iter()
            .position(|other| other.number == number)
        else {
            // What was proposed was taken back meanwhile, and is current all the same: back from it.
            tracing::debug!(
                number,
                "the hub committed a generation that isn't wanted any more"
            );
            self.is_current(number, generation::load(&self.state, number));
            self.pursue_if_possible();
            return Ok(());
        };
        let committed = self.proposed.remove(index);
        self.proposed.retain(|other| other.number > number);
        self.is_current(number, Some(committed.clone()));
        self.active = Some(committed);
        self.reconcile()?;
        self.announce_ready();
        Ok(())
    }

    fn is_current(&mut self, number: u64, committed: Option<Generation>) {
        let hash = committed.map(|committed| committed.hash);
        if let Some(process) = &mut self.hub.process {
            process.current = Some(Some(GenerationRef {
                number,
                hash: hash.unwrap_or_default(),
            }));
        }
    }

    /// Pursues the desired set with a hub that is past its hello; else its hello does.
    pub(super) fn pursue_if_possible(&mut self) {
        let Some(current) = self.hub.current().cloned() else {
            return;
        };
        self.pursue_at = None;
        if let Err(error) = self.pursue(current) {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_default();
            say(&format!(
                "mainstay: what should run can't be put into effect: {error} {cause}"
            ));
            self.pursue_at = Some(Instant::now() + PURSUE_AGAIN);
        }
    }
}
