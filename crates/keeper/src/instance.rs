//! The keeper's side of one shim: forked or adopted, spoken to, watched, ended with all it left.
//!
//! A shim outlives its keeper: the next one finds its socket in the state and adopts it, and ends
//! what doesn't answer. What an instance runs comes from its plan alone, never from the
//! hub; what becomes of its tasks is between shim and hub.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use contract::Versions;
use contract::keeper::{Instance, InstanceKind, ListenerPurpose};
use contract::shim::{FromShim, Role, Spec, ToShim};
use sandbox::process::Identity;

use crate::link::{Link, LinkError};
use crate::listener::{Listener, bind_unix, unix_address};
use crate::plan::{Place, Planned};
use crate::shim::{PROCESS_NAME, Setup};
use crate::state::State;

/// How long an adopted shim may take to answer.
const ADOPTION_TIMEOUT: Duration = Duration::from_secs(5);
/// On top of an instance's grace, for its shim to write and leave.
pub(crate) const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A shim that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) planned: Planned,
    pub(crate) place: Place,
    pub(crate) listener: Listener,
    pub(crate) process: Identity,
    pub(crate) pidfd: OwnedFd,
    /// `None` once the shim closed it.
    pub(crate) link: Option<Link>,
    /// What its last start put in force: user, Landlock.
    pub(crate) enforced: Option<(bool, bool)>,
    pub(crate) stopping: Option<Instant>,
    /// When it was forked or adopted.
    pub(crate) since: Instant,
    /// Started again after it has stopped.
    pub(crate) again: bool,
    /// What its user can't use of what its command names, in sentences not yet told.
    pub(crate) out_of_reach: Vec<String>,
    specs: Vec<(u64, Spec)>,
}

/// An adopted shim before it is known whether the fleet still has it.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) name: String,
    pub(crate) listener: Listener,
    process: Identity,
    pidfd: OwnedFd,
    link: Link,
    enforced: Option<(bool, bool)>,
}

pub(crate) fn socket_path(state: &State, instance: &str) -> PathBuf {
    state.run(&format!("{instance}.sock"))
}

fn process_file(instance: &str) -> String {
    format!("{instance}.json")
}

impl Running {
    /// Forks a shim for an instance.
    pub(crate) fn fork(
        state: &State,
        planned: Planned,
        place: Place,
        listener: Listener,
    ) -> io::Result<Self> {
        let name = planned.name.clone();
        prepare_directories(state, &planned, &place).map_err(io::Error::other)?;
        let hub_group = state.users.separate.then_some(state.users.hub);
        let socket = socket_path(state, &name);
        let mode = if hub_group.is_some() { 0o660 } else { 0o600 };
        let unix = bind_unix(&socket, mode, false)?;
        if hub_group.is_some() {
            std::os::unix::fs::lchown(&socket, Some(0), hub_group)?;
        }
        let (ours, theirs) = socket_pair()?;
        let setup = Setup {
            instance: name.clone(),
            kind: planned.kind,
            socket,
            spool: state.run(&format!("{name}.spool")),
            log_dir: state.root.join("logs").join(&name),
            listener: unix,
            gateway: listener.share()?,
            keeper: theirs,
            keeper_uid: state.users.keeper,
            hub_uid: state.users.hub,
            mirrors: None,
            is_alone: false,
        };
        let forked = sandbox::fork::fork(|| crate::shim::run(setup))?;
        let process = sandbox::process::identity(forked.pid)
            .ok_or_else(|| io::Error::other("the shim ended at once"))?;
        state
            .write_process(&process_file(&name), forked.pid)
            .map_err(io::Error::other)?;
        let mut link = Link::new(ours);
        let hello = ToShim::Hello {
            versions: Versions::OURS,
            role: Role::Keeper,
        };
        link.send(&hello, Vec::new()).map_err(io::Error::other)?;
        Ok(Self {
            planned,
            place,
            listener,
            process,
            pidfd: forked.pidfd,
            link: Some(link),
            enforced: None,
            stopping: None,
            since: Instant::now(),
            again: false,
            out_of_reach: Vec::new(),
            specs: Vec::new(),
        })
    }

    /// Takes over an adopted shim.
    pub(crate) fn adopt(adopted: Adopted, planned: Planned, place: Place) -> Self {
        Self {
            planned,
            place,
            listener: adopted.listener,
            process: adopted.process,
            pidfd: adopted.pidfd,
            link: Some(adopted.link),
            enforced: adopted.enforced,
            stopping: None,
            since: Instant::now(),
            again: false,
            out_of_reach: Vec::new(),
            specs: Vec::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.planned.name
    }

    /// Takes a newer plan of the same instance: its directories are there before its specs go out.
    pub(crate) fn follow(
        &mut self,
        state: &State,
        planned: Planned,
        service_port: Option<u16>,
    ) -> io::Result<()> {
        self.place.service_port = service_port;
        if self.planned != planned {
            prepare_directories(state, &planned, &self.place).map_err(io::Error::other)?;
            self.planned = planned;
        }
        Ok(())
    }

    pub(crate) fn link_fd(&self) -> Option<RawFd> {
        self.link.as_ref().map(|link| link.as_fd().as_raw_fd())
    }

    /// Sends a generation's spec unless the shim has exactly it, and drops the others.
    pub(crate) fn set_specs(&mut self, specs: Vec<(u64, Spec)>) {
        if specs == self.specs {
            return;
        }
        for (generation, spec) in &specs {
            if !self.specs.contains(&(*generation, spec.clone())) {
                self.send(&ToShim::Spec {
                    generation: *generation,
                    spec: Box::new(spec.clone()),
                });
            }
        }
        let generations = specs.iter().map(|(generation, _)| *generation).collect();
        self.send(&ToShim::KeepSpecs { generations });
        self.specs = specs;
    }

    pub(crate) fn stop(&mut self, grace: Duration, again: bool) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        self.send(&ToShim::Stop { grace_ms });
        let deadline = Instant::now() + grace + LEAVE_TIMEOUT;
        self.stopping = Some(
            self.stopping
                .map_or(deadline, |earlier| earlier.min(deadline)),
        );
        self.again = again;
    }

    fn send(&mut self, message: &ToShim) {
        if let Some(link) = &mut self.link
            && let Err(error) = link.send(message, Vec::new())
        {
            // Its pidfd tells when it is dead; one that lives without a link is killed at its stop.
            tracing::warn!(instance = self.planned.name, %error, "shim doesn't take messages");
            self.link = None;
        }
    }

    /// Reads what the shim says. Returns whether what is really enforced changed.
    pub(crate) fn receive(&mut self) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let filled = link.fill();
        let mut changed = false;
        while let Ok(Some(message)) = link.next::<FromShim>() {
            match message {
                FromShim::Enforced { user, landlock } => {
                    changed |= self.enforced != Some((user, landlock));
                    self.enforced = Some((user, landlock));
                }
                FromShim::OutOfReach { sentences } => self.out_of_reach.extend(sentences),
                _ => {}
            }
        }
        if filled.is_err() {
            self.link = None;
        }
        changed
    }

    /// Kills the shim; its tree is ended when its death is seen.
    pub(crate) fn kill(&self) {
        let _gone = sandbox::process::signal(self.pidfd.as_fd(), KILL);
    }

    /// Ends what a dead shim left.
    pub(crate) fn end_leftovers(&self, state: &State) {
        end_leftovers(state, &self.planned.name);
    }

    /// For the hub.
    pub(crate) fn describe(&self, state: &State) -> Instance {
        Instance {
            name: self.planned.name.clone(),
            owner: self.planned.owner.clone(),
            kind: self.planned.kind,
            index: self.planned.index,
            socket: socket_path(state, &self.planned.name).display().to_string(),
            shim_pid: self.process.pid,
            gateway_port: self.place.gateway_port,
            isolation: self.isolation(),
            service_port: self.place.service_port,
        }
    }

    fn isolation(&self) -> String {
        let expected = (self.place.user.is_some(), self.place.landlock);
        let (user, landlock) = self.enforced.unwrap_or(expected);
        isolation(user, landlock)
    }

    /// Removes what names a shim that is gone.
    pub(crate) fn forget(&self, state: &State) {
        let _gone = std::fs::remove_file(state.run(&process_file(&self.planned.name)));
        let _gone = std::fs::remove_file(socket_path(state, &self.planned.name));
    }
}

const KILL: i32 = 9;

/// The words of status for what is in force.
pub(crate) fn isolation(user: bool, landlock: bool) -> String {
    match (user, landlock) {
        (true, true) => "partial: uid, landlock",
        (true, false) => "partial: uid",
        (false, true) => "partial: landlock",
        (false, false) => "none",
    }
    .to_owned()
}

/// Kills every process whose temporary directory is this instance's, wherever it was reparented.
/// Not by user: another state on this machine may have given its agents the same ones.
fn end_leftovers(state: &State, instance: &str) {
    let tmp = state.run("home").join(instance);
    let marker = format!("TMPDIR={}/", tmp.display());
    let select = || {
        let name = PROCESS_NAME.to_str().unwrap_or_default();
        sandbox::tree::all()
            .into_iter()
            .filter(|stat| stat.state != 'Z' && stat.name != name)
            .filter(|stat| sandbox::tree::has_environment_prefix(stat.identity.pid, &marker))
            .map(|stat| stat.identity)
            .collect()
    };
    if !sandbox::tree::kill_until_none(select, || {}, Duration::from_secs(5)) {
        tracing::warn!(instance, "some processes of a dead shim can't be killed");
    }
}

fn prepare_directories(
    state: &State,
    planned: &Planned,
    place: &Place,
) -> Result<(), crate::state::StateError> {
    let separate = state.users.separate;
    let logs = if separate { 0o2750 } else { 0o700 };
    state.directory(&format!("logs/{}", planned.name), logs, true)?;
    let scratch = if separate { 0o711 } else { 0o700 };
    state.directory(&format!("run/home/{}", planned.name), scratch, false)?;
    if let Some(volume) = planned.volume(state) {
        state.workspace(planned.workspace())?;
        let name = format!(
            "workspaces/{}/volumes/{}",
            planned.workspace(),
            planned.name
        );
        state.directory(&name, 0o700, false)?;
        if place.user.is_some() {
            std::os::unix::fs::lchown(&volume, place.user, place.user)
                .map_err(crate::state::at("own", &volume))?;
        }
    }
    Ok(())
}

pub(crate) fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Connects to the shims that an earlier keeper left, ends those that don't answer, and ends what
/// dead ones left.
pub(crate) fn adopt_all(state: &State) -> Vec<Adopted> {
    let mut adopted = Vec::new();
    for entry in std::fs::read_dir(state.run(""))
        .into_iter()
        .flatten()
        .flatten()
    {
        let file = entry.file_name().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".json") else {
            continue;
        };
        let process = state.living_process(&file);
        match process.map(|process| adopt(state, name, process)) {
            Some(Ok(shim)) => adopted.push(shim),
            Some(Err(error)) => {
                tracing::warn!(instance = name, %error, "a shim doesn't answer and is ended");
                // Only what bears a shim's name: a file in `run/` alone kills nobody.
                let name_of = |pid| sandbox::process::stat(pid).map(|stat| stat.name);
                if let Some(process) = process
                    && name_of(process.pid).as_deref() == PROCESS_NAME.to_str().ok()
                {
                    sandbox::process::signal_identity(process, KILL);
                }
                forget_dead(state, name, &file);
            }
            None => forget_dead(state, name, &file),
        }
    }
    adopted
}

fn forget_dead(state: &State, name: &str, file: &str) {
    end_leftovers(state, name);
    let _gone = std::fs::remove_file(state.run(file));
    let _gone = std::fs::remove_file(socket_path(state, name));
}

fn adopt(state: &State, name: &str, process: Identity) -> Result<Adopted, LinkError> {
    let pidfd = sandbox::process::open_identity(process)?;
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .map_err(io::Error::from)?;
    let address = unix_address(&socket_path(state, name))?;
    rustix::net::connect(&socket, &address).map_err(io::Error::from)?;
    if sandbox::peer::of(&socket)?.pid != process.pid {
        return Err(io::Error::other("another process listens on the shim's socket").into());
    }
    let mut link = Link::new(socket);
    let hello = ToShim::Hello {
        versions: Versions::OURS,
        role: Role::Keeper,
    };
    link.send(&hello, Vec::new())?;
    link.send(&ToShim::GiveListener, Vec::new())?;
    let deadline = Instant::now() + ADOPTION_TIMEOUT;
    let mut enforced = None;
    loop {
        match link.next::<FromShim>()? {
            Some(FromShim::Hello { versions, .. }) => {
                if versions.agree(Versions::OURS).is_none() {
                    return Err(io::Error::other("it speaks other versions").into());
                }
            }
            Some(FromShim::Enforced { user, landlock }) => enforced = Some((user, landlock)),
            Some(FromShim::Listener) => break,
            Some(_) => {}
            None => {
                wait_readable(&link, deadline)?;
                link.fill()?;
            }
        }
    }
    let socket = link
        .take_descriptor()
        .ok_or_else(|| io::Error::other("it sent no listener"))?;
    Ok(Adopted {
        name: name.to_owned(),
        listener: Listener::returned(name, socket)?,
        process,
        pidfd,
        link,
        enforced,
    })
}

impl Adopted {
    /// A plan for a shim that the fleet no longer has, just to end it in good order.
    pub(crate) fn retire(self) -> Running {
        let gateway_port = self.listener.port().unwrap_or(0);
        let planned = Planned::retired(&self.name, InstanceKind::Exec);
        let place = Place {
            user: None,
            gateway_port,
            service_port: None,
            landlock: false,
        };
        Running::adopt(self, planned, place)
    }
}

fn wait_readable(link: &Link, deadline: Instant) -> Result<(), LinkError> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
    let mut fds = [rustix::event::PollFd::new(
        link,
        rustix::event::PollFlags::IN,
    )];
    match rustix::event::poll(&mut fds, Some(&left)).map_err(io::Error::from)? {
        0 => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        _ => Ok(()),
    }
}

/// The listener's purpose for an instance.
pub(crate) fn gateway_purpose(instance: &str) -> ListenerPurpose {
    ListenerPurpose::Gateway {
        instance: instance.to_owned(),
    }
}
