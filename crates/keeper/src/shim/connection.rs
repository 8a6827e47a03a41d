//! Who talks to the shim: keeper, hub, bridge; each checked by the kernel's word on its peer.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use contract::Versions;
use contract::keeper::InstanceKind;
use contract::shim::{FromShim, Role, ToShim};

use super::prepared::Prepared;
use super::{PROCESS_NAME, Shim};
use crate::link::{Link, LinkError};

/// Connections beyond this are refused.
const MAX_CONNECTIONS: usize = 16;
/// Records queued for a hub at a time; more follow as it reads.
const QUEUE_BYTES: usize = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Connection {
    link: Link,
    peer_uid: u32,
    role: Option<Role>,
    /// The newest record this hub was told.
    told: u64,
    waits_to_write: bool,
}

impl Shim {
    pub(super) fn accept(&mut self) -> io::Result<()> {
        let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
        while let Ok(socket) = rustix::net::accept_with(&self.setup.listener, flags) {
            let peer = sandbox::peer::of(&socket)?;
            // Root may do anything to us anyway; no agent runs as root.
            let known = [0, self.setup.keeper_uid, self.setup.hub_uid].contains(&peer.uid);
            let name = PROCESS_NAME.to_str().unwrap_or_default();
            let agent = sandbox::process::descends_from_name(peer.pid, name);
            if !known || agent || self.connections.len() >= MAX_CONNECTIONS {
                tracing::warn!(
                    pid = peer.pid,
                    uid = peer.uid,
                    "connection to the shim refused"
                );
                continue;
            }
            self.add_connection(socket, peer.uid)?;
        }
        Ok(())
    }

    pub(super) fn add_connection(&mut self, socket: OwnedFd, peer_uid: u32) -> io::Result<()> {
        self.reactor.add(&socket)?;
        let connection = Connection {
            link: Link::new(socket),
            peer_uid,
            role: None,
            told: 0,
            waits_to_write: false,
        };
        self.connections
            .insert(connection.link.as_fd().as_raw_fd(), connection);
        Ok(())
    }

    pub(super) fn serve_connection(&mut self, fd: RawFd, readable: bool) -> io::Result<()> {
        let mut filled = Ok(());
        if readable && let Some(connection) = self.connections.get_mut(&fd) {
            filled = connection.link.fill();
        }
        // What arrived before the end still counts.
        while let Some(connection) = self.connections.get_mut(&fd) {
            match connection.link.next::<ToShim>() {
                Ok(Some(message)) => self.take_message(fd, message)?,
                Ok(None) => break,
                Err(LinkError::Frame(contract::frame::FrameError::Decode(error))) => {
                    tracing::warn!(%error, "a message that this version doesn't know");
                }
                Err(_) => {
                    self.drop_connection(fd);
                    return Ok(());
                }
            }
        }
        if filled.is_err() {
            self.drop_connection(fd);
        }
        Ok(())
    }

    fn drop_connection(&mut self, fd: RawFd) {
        let Some(connection) = self.connections.remove(&fd) else {
            return;
        };
        self.reactor.remove(&connection.link);
        let keeper_left = !self.has_keeper();
        if keeper_left && self.keeper_gone_since.is_none() {
            self.keeper_gone_since = Some(Instant::now());
        }
    }

    pub(super) fn has_hub(&self) -> bool {
        self.connections
            .values()
            .any(|connection| connection.role == Some(Role::Hub))
    }

    fn has_keeper(&self) -> bool {
        self.connections
            .values()
            .any(|connection| connection.role == Some(Role::Keeper))
    }

    fn take_message(&mut self, fd: RawFd, message: ToShim) -> io::Result<()> {
        let Some(connection) = self.connections.get(&fd) else {
            return Ok(());
        };
        match (connection.role, message) {
            (None, ToShim::Hello { versions, role }) => self.greet(fd, versions, role),
            (Some(Role::Keeper), message) => self.obey_keeper(fd, message),
            (Some(Role::Hub), message) => self.take_from_hub(message),
            (role, _) => {
                tracing::warn!(?role, "a message out of turn");
                self.drop_connection(fd);
                Ok(())
            }
        }
    }

    fn greet(&mut self, fd: RawFd, versions: Versions, role: Role) -> io::Result<()> {
        let keeper_uid = self.setup.keeper_uid;
        let hello = self.hello();
        let Some(connection) = self.connections.get_mut(&fd) else {
            return Ok(());
        };
        let spoken = versions.agree(Versions::OURS).is_some();
        let allowed = role != Role::Keeper || connection.peer_uid == keeper_uid;
        let bridge_here = role != Role::Bridge || self.setup.kind == InstanceKind::Mcp;
        let sent = connection.link.send(&hello, Vec::new());
        if !spoken || !allowed || !bridge_here || sent.is_err() {
            self.drop_connection(fd);
            return Ok(());
        }
        connection.role = Some(role);
        match role {
            Role::Bridge => self.adopt_bridge(fd),
            Role::Hub | Role::Keeper => {
                self.replace_older(fd, role);
                if role == Role::Keeper {
                    self.keeper_gone_since = None;
                    self.reported = None;
                }
                Ok(())
            }
        }
    }

    /// The newest connection of a role wins: an older one is a hub or keeper that is going.
    fn replace_older(&mut self, newest: RawFd, role: Role) {
        let older: Vec<RawFd> = self
            .connections
            .iter()
            .filter(|(fd, connection)| **fd != newest && connection.role == Some(role))
            .map(|(fd, _)| *fd)
            .collect();
        for fd in older {
            self.drop_connection(fd);
        }
    }

    fn hello(&self) -> FromShim {
        FromShim::Hello {
            versions: Versions::OURS,
            instance: self.setup.instance.clone(),
            pid: std::process::id(),
            running: self.tasks.running(),
            service: self.service_state(),
        }
    }

    /// From here on this connection carries raw lines.
    fn adopt_bridge(&mut self, fd: RawFd) -> io::Result<()> {
        let Some(connection) = self.connections.remove(&fd) else {
            return Ok(());
        };
        let (socket, received, unsent) = connection.link.into_raw();
        rustix::io::ioctl_fionbio(&socket, true)?;
        self.reactor.remove(&socket);
        self.connect_bridge(socket, received, unsent)
    }

    fn obey_keeper(&mut self, fd: RawFd, message: ToShim) -> io::Result<()> {
        match message {
            ToShim::Spec { generation, spec } => self.take_spec(generation, *spec),
            ToShim::KeepSpecs { generations } => {
                self.specs.retain(|number, _| generations.contains(number));
                self.unusable
                    .retain(|number, _| generations.contains(number));
                Ok(())
            }
            ToShim::Stop { grace_ms } => {
                self.stop(Some(Duration::from_millis(grace_ms)));
                Ok(())
            }
            ToShim::GiveListener => self.give_listener(fd),
            _ => Ok(()),
        }
    }

    fn take_spec(&mut self, generation: u64, spec: contract::shim::Spec) -> io::Result<()> {
        let same = self
            .specs
            .get(&generation)
            .is_some_and(|known| known.spec == spec);
        if same {
            self.tell_out_of_reach(generation);
            return Ok(());
        }
        match Prepared::new(spec) {
            Ok(prepared) => {
                self.unusable.remove(&generation);
                self.specs.insert(generation, prepared);
                self.tell_out_of_reach(generation);
                self.service_spec_changed(generation)
            }
            Err(error) => {
                self.specs.remove(&generation);
                self.stderr_log.header(&format!(
                    "generation {generation} can't be prepared: {error}"
                ));
                self.unusable.insert(generation, error.to_string());
                self.service_spec_unusable();
                Ok(())
            }
        }
    }

    fn tell_out_of_reach(&mut self, generation: u64) {
        let sentences = self.specs.get(&generation);
        let sentences = sentences.map(|prepared| prepared.out_of_reach.clone());
        if let Some(sentences) = sentences.filter(|sentences| !sentences.is_empty()) {
            self.tell_keeper(&FromShim::OutOfReach { sentences });
        }
    }

    fn give_listener(&mut self, fd: RawFd) -> io::Result<()> {
        let gateway = rustix::io::fcntl_dupfd_cloexec(&self.setup.gateway, 3)?;
        let Some(connection) = self.connections.get_mut(&fd) else {
            return Ok(());
        };
        if connection
            .link
            .send(&FromShim::Listener, vec![gateway])
            .is_err()
        {
            self.drop_connection(fd);
        }
        Ok(())
    }

    fn take_from_hub(&mut self, message: ToShim) -> io::Result<()> {
        let now = Instant::now();
        match message {
            ToShim::Assign {
                task,
                generation,
                attempts,
                hold_restart,
            } => self.assign(task, generation, attempts, hold_restart),
            ToShim::Prepare { task, attempt } => {
                self.tasks.prepare(&task, attempt);
                Ok(())
            }
            ToShim::ServiceTokens { generation, tokens } => self.service_tokens(generation, tokens),
            ToShim::EndTask { task, grace_ms } => {
                self.tasks.end(&task, Duration::from_millis(grace_ms), now);
                Ok(())
            }
            ToShim::RestartService { grace_ms } => {
                self.service.end(Duration::from_millis(grace_ms), now, true);
                Ok(())
            }
            ToShim::Acknowledge { record } => self.spool.acknowledge(record),
            ToShim::Marks {
                hold,
                productive,
                idle,
            } => {
                self.hold = hold;
                if self.idle && !idle {
                    self.service.is_awaited(now);
                }
                self.idle = idle;
                if productive {
                    self.tasks.forget_crashes();
                    self.service.forget_crashes();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Sends what waits, and each hub the durable facts it wasn't told yet.
    pub(super) fn pump_connections(&mut self) {
        let mut broken = Vec::new();
        for (fd, connection) in &mut self.connections {
            let pumped = pump(connection, &self.spool);
            let waits = connection.link.unsent() > 0;
            if pumped.is_err() {
                broken.push(*fd);
            } else if waits != connection.waits_to_write {
                connection.waits_to_write = waits;
                if self.reactor.set(&connection.link, true, waits).is_err() {
                    broken.push(*fd);
                }
            }
        }
        for fd in broken {
            self.drop_connection(fd);
        }
    }

    pub(super) fn tell_hubs(&mut self, message: &FromShim) {
        self.tell(Role::Hub, message);
    }

    pub(super) fn tell_keeper(&mut self, message: &FromShim) {
        self.tell(Role::Keeper, message);
    }

    fn tell(&mut self, role: Role, message: &FromShim) {
        let mut broken = Vec::new();
        for (fd, connection) in &mut self.connections {
            if connection.role == Some(role) && connection.link.send(message, Vec::new()).is_err() {
                broken.push(*fd);
            }
        }
        for fd in broken {
            self.drop_connection(fd);
        }
    }
}

fn pump(connection: &mut Connection, spool: &super::spool::Spool) -> Result<(), LinkError> {
    connection.link.flush()?;
    if connection.role != Some(Role::Hub) {
        return Ok(());
    }
    while connection.link.unsent() < QUEUE_BYTES {
        let Some((record, recorded)) = spool.after(connection.told).next() else {
            break;
        };
        connection.told = record;
        let message = FromShim::Record {
            record,
            at_ms: recorded.at_ms,
            fact: recorded.fact.clone(),
        };
        connection.link.send(&message, Vec::new())?;
    }
    Ok(())
}
