//! The listeners of all doors: a hub serves them; without one for long they refuse.

use std::io;
use std::net::SocketAddr;

use contract::keeper::{ListenerPurpose, ToHub};

use super::{Keeper, UpError, say};
use crate::listener::Listener;

impl Keeper {
    pub(super) fn listeners_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        let gateways = self
            .running
            .values_mut()
            .map(|running| &mut running.listener);
        [&mut self.facade, &mut self.control]
            .into_iter()
            .chain(&mut self.metrics)
            .chain(gateways)
            .chain(self.spare.values_mut())
    }

    pub(super) fn refuse(&mut self) {
        self.refusing = true;
        for listener in self.listeners_mut() {
            listener.refuse();
        }
        // A Unix listener can't come back after a shutdown: its path goes instead.
        let _gone = std::fs::remove_file(self.state.run("control.sock"));
    }

    pub(super) fn accept_again(&mut self) {
        match Listener::control(&self.state) {
            Ok(control) => self.control = control,
            Err(error) => say(&format!(
                "mainstay: cannot open the control socket: {error}"
            )),
        }
        for listener in self.listeners_mut() {
            if let Err(error) = listener.accept_again() {
                say(&format!(
                    "mainstay: cannot listen on {} again: {error}",
                    listener.address
                ));
            }
        }
    }

    pub(super) fn announce_listeners(&mut self) {
        let announcements: Vec<_> = self
            .listeners_mut()
            .filter_map(|listener| Some((announcement(listener), listener.share().ok()?)))
            .collect();
        for (message, socket) in announcements {
            self.hub.send(&message, vec![socket]);
        }
    }
}

/// A listener, or which option chooses another address.
pub(super) fn door(
    purpose: ListenerPurpose,
    address: SocketAddr,
    option: &'static str,
) -> Result<Listener, UpError> {
    Listener::door(purpose, address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => UpError::Busy { address, option },
        _ => UpError::Listen { address, source },
    })
}

pub(super) fn announcement(listener: &Listener) -> ToHub {
    ToHub::Listener {
        purpose: listener.purpose.clone(),
        address: listener.address.clone(),
    }
}
