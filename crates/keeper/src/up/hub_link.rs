//! What the hub says to the keeper, and what follows: it starts, says hello, is ready.

use std::time::Duration;

use api::{Problem, Problems};
use contract::Versions;
use contract::keeper::{GenerationRef, ToKeeper};

use super::{Keeper, Ready, UpError, say};
use crate::hub::AfterDeath;
use crate::instance;

impl Keeper {
    pub(super) fn start_hub(&mut self) -> Result<(), UpError> {
        let isolation = instance::isolation(self.state.users.separate, self.landlock);
        if let Err(error) = self
            .hub
            .start(&self.state, &self.key, &isolation, &self.workspace)
        {
            let mut text = format!("mainstay: cannot start the hub: {error}");
            if let Some(cause) = std::error::Error::source(&error) {
                text.push_str(&format!(": {cause}"));
            }
            say(&text);
            if let AfterDeath::GiveUp(code) = self.hub.died(sandbox::process::Ended::Code(1)) {
                return Err(UpError::Hub { code });
            }
            return Ok(());
        }
        if let Some(process) = &self.hub.process {
            self.reactor.add(&process.link)?;
        }
        Ok(())
    }

    pub(super) fn take_from_hub(&mut self, message: ToKeeper) -> Result<(), UpError> {
        match message {
            ToKeeper::Hello {
                versions,
                current_generation,
                ..
            } => self.hub_says_hello(versions, current_generation),
            ToKeeper::Ready => {
                self.hub_is_ready();
                Ok(())
            }
            ToKeeper::GenerationCommitted { number } => self.generation_committed(number),
            ToKeeper::GenerationRefused { number, problems } => {
                self.generation_refused(number, problems)
            }
            ToKeeper::Pins { generations } => {
                self.pins = generations;
                self.reconcile()?;
                self.tidy();
                Ok(())
            }
            ToKeeper::Stopped { agents } => {
                self.stopped = agents.into_iter().collect();
                self.reconcile()
            }
            ToKeeper::Restart { instance } => {
                if let Some(running) = self.running.get_mut(&instance) {
                    let grace = Duration::from_millis(running.planned.grace_ms());
                    running.stop(grace, true);
                }
                Ok(())
            }
            ToKeeper::Apply {
                request,
                documents,
                dry_run,
            } => self.apply(request, documents, dry_run),
            ToKeeper::Delete {
                request,
                objects,
                dry_run,
            } => self.delete(request, objects, dry_run),
        }
    }

    /// What runs keeps running; where nothing does, a wrong manifest ends `up` as any other would.
    fn generation_refused(&mut self, number: u64, said: Vec<String>) -> Result<(), UpError> {
        self.proposed.retain(|other| other.number != number);
        let set = self.desired.as_ref();
        let problems = said.into_iter().map(|text| {
            let placed = set.and_then(|set| set.refused(&text));
            placed.unwrap_or_else(|| Problem::of_file("manifests", text))
        });
        let problems = Problems(problems.collect());
        let told: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        if self.take_back(number, &told)? {
            return Ok(());
        }
        let is_first = matches!(self.hub.current(), Some(None));
        if is_first && !self.announced {
            return Err(UpError::Manifests(problems));
        }
        say(&format!("{problems}\nmainstay: what runs keeps running"));
        self.announce_ready();
        Ok(())
    }

    pub(super) fn hub_says_hello(
        &mut self,
        versions: Versions,
        current: Option<GenerationRef>,
    ) -> Result<(), UpError> {
        if versions.agree(Versions::OURS).is_none() {
            say(
                "mainstay: the hub speaks other versions than this keeper: they are of different builds",
            );
            self.hub.kill();
            return Ok(());
        }
        if let Some(process) = &mut self.hub.process {
            process.current = Some(current);
        }
        if !self.refusing {
            self.announce_listeners();
        }
        self.pursue_if_possible();
        Ok(())
    }

    pub(super) fn hub_is_ready(&mut self) {
        self.hub.became_ready();
        if self.refusing {
            self.refusing = false;
            self.accept_again();
            self.announce_listeners();
        }
        self.announce_ready();
    }

    /// Says once that the fleet is up: a hub is ready, and has these manifests.
    pub(super) fn announce_ready(&mut self) {
        if !self.announced && self.hub.not_ready_since.is_none() && self.proposed.is_empty() {
            self.announced = true;
            let ready = Ready {
                state: self.state.root.clone(),
                address: self.facade.address.clone(),
                metrics: self.metrics.as_ref().map(|own| own.address.clone()),
                isolation: instance::isolation(self.state.users.separate, self.landlock),
            };
            (self.options.on_ready)(&ready);
        }
    }
}
