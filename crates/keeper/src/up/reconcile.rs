//! Makes the instances what the active generation says; also after a shim's death.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use contract::keeper::ToHub;
use contract::shim::Spec;
use sandbox::process::{Identity, Reaped};

use super::{Keeper, UpError, announcement, say};
use crate::allocation::Allocation;
use crate::generation;
use crate::instance::{Running, gateway_purpose};
use crate::listener::Listener;
use crate::plan::{self, Place, Planned};

/// A shim that can't be started is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

impl Keeper {
    pub(super) fn reconcile(&mut self) -> Result<(), UpError> {
        self.reconcile_at = None;
        if self.hub.current().is_none() || self.stopping.is_some() {
            return Ok(());
        }
        let planned = self.planned();
        let wanted: BTreeSet<String> = planned.iter().map(|planned| planned.name.clone()).collect();
        self.retire_all_but(&wanted);
        let pinned = self.pinned_plans();
        for planned in planned {
            let name = planned.name.clone();
            if let Err(error) = self.ensure(planned, &pinned) {
                say(&format!(
                    "mainstay: instance {name} can't be started: {}",
                    generation::chain(&error)
                ));
                self.reconcile_at = Some(Instant::now() + RETRY);
            }
        }
        self.send_instances();
        Ok(())
    }

    /// The active generation's instances, less those that an operator stopped, alone or with their
    /// agent.
    fn planned(&self) -> Vec<Planned> {
        let mut planned = self.all_planned();
        planned.retain(|planned| {
            let alone = format!("{}/{}", planned.owner, planned.name);
            !self.stopped.contains(&planned.owner) && !self.stopped.contains(&alone)
        });
        planned
    }

    /// The same with what an operator stopped.
    fn all_planned(&self) -> Vec<Planned> {
        let active = self.active.as_ref();
        active.map_or_else(Vec::new, |active| {
            plan::instances(&active.fleet, &self.options.program)
        })
    }

    /// What older generations that open tasks pin say about each instance.
    fn pinned_plans(&self) -> BTreeMap<u64, Vec<Planned>> {
        let active = self.active.as_ref().map(|active| active.number);
        let pins = self.pins.iter().filter(|pin| Some(**pin) != active);
        pins.filter_map(|pin| generation::load(&self.state, *pin))
            .map(|pinned| {
                let plans = plan::instances(&pinned.fleet, &self.options.program);
                (pinned.number, plans)
            })
            .collect()
    }

    fn retire_all_but(&mut self, wanted: &BTreeSet<String>) {
        let adopted = std::mem::take(&mut self.adopted);
        let (kept, unwanted): (Vec<_>, Vec<_>) = adopted
            .into_iter()
            .partition(|adopted| wanted.contains(&adopted.name));
        self.adopted = kept;
        for adopted in unwanted {
            let running = adopted.retire();
            if let Err(error) = self.watch_shim(&running) {
                say(&format!("mainstay: an old shim can't be watched: {error}"));
            }
            self.running.insert(running.name().to_owned(), running);
        }
        for (name, running) in &mut self.running {
            if !wanted.contains(name) && running.stopping.is_none() {
                running.stop(Duration::from_millis(running.planned.grace_ms()), false);
            }
        }
    }

    /// Sees to it that this instance's shim runs and has the right specs.
    fn ensure(
        &mut self,
        planned: Planned,
        pinned: &BTreeMap<u64, Vec<Planned>>,
    ) -> Result<(), UpError> {
        let name = planned.name.clone();
        if let Some(running) = self.running.get_mut(&name)
            && (running.stopping.is_some() || running.planned.kind != planned.kind)
        {
            // It comes back, as what it should be now, once the old shim is gone.
            match running.stopping {
                Some(_) => running.again = true,
                None => running.stop(Duration::from_millis(running.planned.grace_ms()), true),
            }
            return Ok(());
        }
        if !self.running.contains_key(&name) {
            self.start_instance(planned.clone())?;
        }
        let active = self.active.as_ref().map_or(0, |active| active.number);
        let Some(running) = self.running.get_mut(&name) else {
            return Ok(());
        };
        let port = service_port(&mut self.allocation, running, &planned)?;
        running.follow(&self.state, planned, port)?;
        let mut specs: Vec<(u64, Spec)> = pinned
            .iter()
            .filter_map(|(number, plans)| {
                let plan = plans.iter().find(|plan| plan.name == name)?;
                Some((*number, plan.spec(&self.state, &running.place)))
            })
            .collect();
        specs.push((active, running.planned.spec(&self.state, &running.place)));
        running.set_specs(specs);
        Ok(())
    }

    fn start_instance(&mut self, planned: Planned) -> Result<(), UpError> {
        let name = planned.name.clone();
        let adopted = self.adopted.iter().position(|adopted| adopted.name == name);
        let adopted = adopted.map(|index| self.adopted.remove(index));
        let user = self.allocation.user(&planned.owner)?;
        let service_port = match planned.program.serves {
            true => {
                let wanted = planned.program.wanted_port;
                Some(
                    self.allocation
                        .service_port(&name, wanted, adopted.is_some())?,
                )
            }
            false => None,
        };
        let place = |gateway_port| Place {
            user: self.state.users.agent(user),
            gateway_port,
            service_port,
            landlock: self.landlock,
        };
        let running = match adopted {
            Some(adopted) => {
                let place = place(adopted.listener.port().unwrap_or(0));
                Running::adopt(adopted, planned, place)
            }
            None => {
                let listener = match self.spare.remove(&name) {
                    Some(listener) => listener,
                    None => Listener::tcp(gateway_purpose(&name), self.allocation.gateway(&name)?)?,
                };
                let place = place(listener.port().unwrap_or(0));
                Running::fork(&self.state, planned, place, listener)?
            }
        };
        self.watch_shim(&running)?;
        self.announce(&running.listener)?;
        self.running.insert(name, running);
        Ok(())
    }

    fn announce(&mut self, listener: &Listener) -> Result<(), UpError> {
        if self.refusing {
            listener.refuse();
            return Ok(());
        }
        let socket = listener.share()?;
        self.hub.send(&announcement(listener), vec![socket]);
        Ok(())
    }

    fn watch_shim(&self, running: &Running) -> Result<(), UpError> {
        self.reactor.add(&running.pidfd)?;
        if let Some(link) = &running.link {
            self.reactor.add(link)?;
        }
        Ok(())
    }

    pub(super) fn send_instances(&mut self) {
        if self.hub.current().is_none() {
            return;
        }
        let instances = self
            .running
            .values()
            .filter(|running| running.stopping.is_none())
            .map(|running| running.describe(&self.state))
            .collect();
        self.hub.send(&ToHub::Instances { instances }, Vec::new());
    }

    /// Ends what a dead shim left, then starts another unless it was stopped.
    pub(super) fn shim_died(&mut self, name: &str) {
        let Some(running) = self.running.remove(name) else {
            return;
        };
        self.reactor.remove(&running.pidfd);
        if let Some(link) = &running.link {
            self.reactor.remove(link.as_fd());
        }
        self.end_orphans();
        running.end_leftovers(&self.state);
        running.forget(&self.state);
        let expected = running.stopping.is_some();
        if !expected {
            say(&format!(
                "mainstay: the shim of {name} was killed; its agents are ended and it is started again"
            ));
        }
        if self.stopping.is_some() {
            return;
        }
        if running.again || !expected {
            self.spare.insert(name.to_owned(), running.listener);
            // One that dies at once would otherwise be started again without end.
            let soon = running.since.elapsed() < RETRY && !expected;
            let wait = if soon { RETRY } else { Duration::ZERO };
            self.reconcile_at = Some(Instant::now() + wait);
        } else {
            // One that is only stopped keeps its home.
            if !self
                .all_planned()
                .iter()
                .any(|planned| planned.name == name)
            {
                self.tidy_instance(name);
            }
            self.send_instances();
        }
    }

    /// Kills our descendants that belong to neither the hub nor a living shim: a dead shim's.
    pub(super) fn end_orphans(&self) {
        let mut spared: BTreeSet<u32> = self
            .running
            .values()
            .map(|running| running.process.pid)
            .collect();
        spared.extend(self.hub.process.as_ref().map(|hub| hub.pid));
        end_descendants(&spared);
    }
}

/// Where a running instance's next process listens: as before, unless its manifest wants another.
fn service_port(
    allocation: &mut Allocation,
    running: &Running,
    planned: &Planned,
) -> Result<Option<u16>, UpError> {
    let (before, program) = (&running.planned.program, &planned.program);
    if !program.serves {
        return Ok(None);
    }
    let now = running.place.service_port;
    let wanted = program.wanted_port;
    let is_another = wanted.is_some() && wanted != now && wanted != before.wanted_port;
    match now {
        Some(port) if !is_another => Ok(Some(port)),
        _ => Ok(Some(allocation.service_port(
            &planned.name,
            wanted,
            false,
        )?)),
    }
}

/// Kills our descendants but for these processes and theirs.
pub(super) fn end_descendants(spared: &BTreeSet<u32>) {
    let own = std::process::id();
    let select = || {
        let mut spared = spared.clone();
        let mut victims: Vec<Identity> = Vec::new();
        for stat in sandbox::tree::descendants(own) {
            if spared.contains(&stat.parent) || spared.contains(&stat.identity.pid) {
                spared.insert(stat.identity.pid);
            } else {
                victims.push(stat.identity);
            }
        }
        victims
    };
    // The hub is reaped in one place only, so that its exit code isn't lost here.
    if !sandbox::tree::kill_until_none(select, || {}, Duration::from_secs(5)) {
        tracing::warn!("some orphans can't be killed");
    }
}

/// Reaps every child that has ended, when nothing depends on their exit codes any more.
pub(super) fn reap_all() {
    while let Ok(Reaped::Child(..)) = sandbox::process::reap_any() {}
}
