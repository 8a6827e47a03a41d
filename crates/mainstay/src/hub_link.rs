//! The hub's end of the keeper's link: descriptor 3, frames, and listeners that travel beside them.
//!
//! Two threads that block in the kernel stand between the socket and the hub's channels, so the
//! hub never touches a descriptor and the runtime never waits for the keeper.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use contract::Versions;
use contract::frame::{Decoder, FrameError, encode};
use contract::keeper::{ListenerPurpose, ToHub, ToKeeper};
use hub::home::{HomeEvent, HomeLink, Listener, SecretText};
use rustix::event::{PollFd, PollFlags};
use tokio::sync::mpsc;

/// The descriptor that the keeper starts us with.
const LINK: i32 = 3;
/// Events that wait for the hub; behind them the keeper's bytes wait in the socket.
const EVENTS: usize = 64;

/// Why the link is of no use.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("descriptor 3 is not a keeper's link: the hub is started by `mainstay up`")]
    Missing(#[source] io::Error),
    #[error("keeper's link broke")]
    Io(#[from] io::Error),
    #[error("keeper sends what is no message")]
    Frame(#[from] FrameError),
    #[error("keeper is gone")]
    Gone,
    #[error("keeper announced {0} and sent no descriptor with it")]
    NoDescriptor(&'static str),
    #[error("keeper speaks versions {oldest} to {newest} of the contract, none of ours")]
    Version { oldest: u32, newest: u32 },
    #[error("keeper did not begin with a hello")]
    NoHello,
    #[error("state key is not 32 bytes long")]
    Key,
}

/// What the keeper's hello brings.
pub struct Hello {
    pub state_dir: PathBuf,
    pub workspace: String,
    pub state_key: [u8; 32],
}

/// Waits for the hello, then lets two threads carry both directions.
pub fn open() -> Result<(Hello, HomeLink), LinkError> {
    let socket = sandbox::descriptors::inherited(LINK).map_err(LinkError::Missing)?;
    let sender = socket.try_clone()?;
    let mut incoming = Incoming {
        socket,
        decoder: Decoder::default(),
        descriptors: VecDeque::new(),
    };
    let hello = hello(&mut incoming)?;
    let (events_tx, events) = mpsc::channel(EVENTS);
    let (commands, commands_rx) = mpsc::unbounded_channel();
    std::thread::Builder::new()
        .name("home-receive".into())
        .spawn(move || receive(incoming, &events_tx))?;
    std::thread::Builder::new()
        .name("home-send".into())
        .spawn(move || send(&sender, commands_rx))?;
    Ok((hello, HomeLink { events, commands }))
}

struct Incoming {
    socket: OwnedFd,
    decoder: Decoder,
    descriptors: VecDeque<OwnedFd>,
}

impl Incoming {
    /// Waits for the next whole message. Its descriptors have arrived with its first byte.
    fn next(&mut self) -> Result<ToHub, LinkError> {
        loop {
            if let Some(message) = self.decoder.next()? {
                return Ok(message);
            }
            wait(&self.socket, PollFlags::IN)?;
            let (mut buffer, mut descriptors) = ([0; 16 * 1024], Vec::new());
            let received = sandbox::descriptors::receive_with(
                self.socket.as_fd(),
                &mut buffer,
                &mut descriptors,
            );
            self.descriptors.extend(descriptors);
            match received {
                Ok(0) => return Err(LinkError::Gone),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(LinkError::Gone);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn descriptor(&mut self, what: &'static str) -> Result<OwnedFd, LinkError> {
        self.descriptors
            .pop_front()
            .ok_or(LinkError::NoDescriptor(what))
    }
}

fn hello(incoming: &mut Incoming) -> Result<Hello, LinkError> {
    let ToHub::Hello {
        versions,
        state_dir,
        workspace,
        ..
    } = incoming.next()?
    else {
        return Err(LinkError::NoHello);
    };
    if Versions::OURS.agree(versions).is_none() {
        return Err(LinkError::Version {
            oldest: versions.oldest,
            newest: versions.newest,
        });
    }
    let mut key = Vec::new();
    let memory = std::fs::File::from(incoming.descriptor("the state key")?);
    memory.take(64).read_to_end(&mut key)?;
    let state_key = key.try_into().map_err(|_| LinkError::Key)?;
    Ok(Hello {
        state_dir: state_dir.into(),
        workspace,
        state_key,
    })
}

/// Ends when the keeper or the hub does; the last event says so.
fn receive(mut incoming: Incoming, events: &mpsc::Sender<HomeEvent>) {
    loop {
        let event = incoming
            .next()
            .and_then(|message| event(&mut incoming, message));
        let event = event.unwrap_or_else(|error| {
            if !matches!(error, LinkError::Gone) {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the keeper's link is of no more use"
                );
            }
            HomeEvent::Gone
        });
        let is_last = matches!(event, HomeEvent::Gone);
        if events.blocking_send(event).is_err() || is_last {
            return;
        }
    }
}

fn event(incoming: &mut Incoming, message: ToHub) -> Result<HomeEvent, LinkError> {
    let (purpose, address) = match message {
        ToHub::Listener { purpose, address } => (purpose, address),
        ToHub::CredentialFile { path } => {
            let mut bytes = Vec::new();
            let memory = std::fs::File::from(incoming.descriptor("a credential file")?);
            let limit = u64::try_from(hub::secret::MAX_SECRET_BYTES).unwrap_or(u64::MAX);
            // One more, so that what is too long is refused and not cut.
            memory.take(limit + 1).read_to_end(&mut bytes)?;
            let text = SecretText(String::from_utf8_lossy(&bytes).into_owned());
            return Ok(HomeEvent::CredentialFile { path, text });
        }
        message => return Ok(HomeEvent::Message(message)),
    };
    let descriptor = incoming.descriptor("a listener")?;
    let listener = match purpose {
        ListenerPurpose::Control => Listener::Unix(UnixListener::from(descriptor)),
        ListenerPurpose::Facade | ListenerPurpose::Metrics | ListenerPurpose::Gateway { .. } => {
            Listener::Tcp(TcpListener::from(descriptor))
        }
    };
    Ok(HomeEvent::Listener {
        purpose,
        address,
        listener,
    })
}

fn send(socket: &OwnedFd, mut commands: mpsc::UnboundedReceiver<ToKeeper>) {
    while let Some(command) = commands.blocking_recv() {
        if let Err(error) = deliver(socket, &command) {
            // The receiving side sees the same and ends the hub in order.
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a message did not reach the keeper"
            );
            return;
        }
    }
}

fn deliver(socket: &OwnedFd, command: &ToKeeper) -> Result<(), LinkError> {
    let bytes = encode(command)?;
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        match sandbox::descriptors::send_with(socket.as_fd(), rest, &[]) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(socket, PollFlags::OUT)?
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait(socket: &OwnedFd, flags: PollFlags) -> io::Result<()> {
    let mut polled = [PollFd::new(socket, flags)];
    loop {
        match rustix::event::poll(&mut polled, None) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
