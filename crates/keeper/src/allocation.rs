//! What an instance keeps over restarts of everything: its user and its ports.
//!
//! Kept in `instances.json`, written before use, so that two keepers never give the same user to
//! two agents and a client that remembers an address finds the same instance there.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::state::{State, StateError, at, write_atomically};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ports {
    gateway: Option<u16>,
    service: Option<u16>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// Index of each owner's user.
    users: BTreeMap<String, u32>,
    ports: BTreeMap<String, Ports>,
}

#[derive(Debug)]
pub(crate) struct Allocation {
    path: PathBuf,
    kept: Kept,
}

impl Allocation {
    pub(crate) fn open(state: &State) -> Result<Self, StateError> {
        let path = state.root.join("instances.json");
        let kept = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| at("understand", &path)(io::Error::other(error)))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(at("read", &path)(error)),
        };
        Ok(Self { path, kept })
    }

    /// The index of an owner's user; the lowest free one if it has none yet.
    pub(crate) fn user(&mut self, owner: &str) -> Result<u32, StateError> {
        if let Some(index) = self.kept.users.get(owner) {
            return Ok(*index);
        }
        let used: std::collections::BTreeSet<u32> = self.kept.users.values().copied().collect();
        let index = (0..).find(|index| !used.contains(index)).unwrap_or(0);
        self.kept.users.insert(owner.to_owned(), index);
        self.save()?;
        Ok(index)
    }

    /// The port where a service listens: the one it had, else `wanted` if it is free, else a free one.
    pub(crate) fn service_port(
        &mut self,
        instance: &str,
        wanted: Option<u16>,
        running: bool,
    ) -> Result<u16, StateError> {
        let kept = self
            .kept
            .ports
            .entry(instance.to_owned())
            .or_default()
            .service;
        if let Some(port) = kept
            && (running || wanted.is_none_or(|wanted| wanted == port) && is_free(port))
        {
            return Ok(port);
        }
        let port = match wanted.filter(|port| is_free(*port)) {
            Some(port) => port,
            None => free_port().map_err(at("find a free port for", &self.path))?,
        };
        self.kept
            .ports
            .entry(instance.to_owned())
            .or_default()
            .service = Some(port);
        self.save()?;
        Ok(port)
    }

    /// Opens an instance's gateway listener, on the port it had if that is free.
    pub(crate) fn gateway(&mut self, instance: &str) -> Result<TcpListener, StateError> {
        let kept = self
            .kept
            .ports
            .get(instance)
            .and_then(|ports| ports.gateway);
        if let Some(listener) = kept.and_then(|port| bind(port).ok()) {
            return Ok(listener);
        }
        let open = || bind(free_port()?);
        // The free port may be taken before it is bound; a second try is enough in practice.
        let listener = open()
            .or_else(|_| open())
            .map_err(at("open a gateway for", &self.path))?;
        let port = listener
            .local_addr()
            .map_err(at("read", &self.path))?
            .port();
        self.kept
            .ports
            .entry(instance.to_owned())
            .or_default()
            .gateway = Some(port);
        self.save()?;
        Ok(listener)
    }

    fn save(&self) -> Result<(), StateError> {
        let text = serde_json::to_vec_pretty(&self.kept)
            .map_err(|error| at("write", &self.path)(io::Error::other(error)))?;
        write_atomically(&self.path, &text, 0o600).map_err(at("write", &self.path))
    }
}

fn bind(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn is_free(port: u16) -> bool {
    bind(port).is_ok()
}

/// A port that is free now. It is then bound by number: only an explicitly bound port is kept
/// through `shutdown` and a later `listen`.
fn free_port() -> io::Result<u16> {
    Ok(bind(0)?.local_addr()?.port())
}
