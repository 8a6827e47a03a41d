//! One epoll: which descriptors have something to do. Level-triggered, single-threaded.
//!
//! A descriptor is known by its number; whoever closes one removes it here first.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

/// A descriptor that can be read or written (or has failed, which reading shows).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) fd: RawFd,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
}

#[derive(Debug)]
pub(crate) struct Reactor {
    epoll: OwnedFd,
}

impl Reactor {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        })
    }

    /// Watches a descriptor for reading.
    pub(crate) fn add(&self, fd: impl AsFd) -> io::Result<()> {
        let data = data(&fd);
        Ok(epoll::add(&self.epoll, fd, data, EventFlags::IN)?)
    }

    /// Sets what is watched: reading, writing, both or neither.
    pub(crate) fn set(&self, fd: impl AsFd, read: bool, write: bool) -> io::Result<()> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, read);
        flags.set(EventFlags::OUT, write);
        let data = data(&fd);
        Ok(epoll::modify(&self.epoll, fd, data, flags)?)
    }

    /// Stops watching; a descriptor that was never watched is fine.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _unknown = epoll::delete(&self.epoll, fd);
    }

    /// Waits until something happens or the deadline passes.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> io::Result<Vec<Event>> {
        let mut events = Vec::with_capacity(64);
        let timeout = deadline
            .map(|deadline| deadline.saturating_duration_since(Instant::now()))
            .map(|left| left.min(Duration::from_secs(3600)))
            .and_then(|left| rustix::event::Timespec::try_from(left).ok());
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) => Ok(events.iter().map(event).collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

fn data(fd: &impl AsFd) -> EventData {
    EventData::new_u64(u64::from(fd.as_fd().as_raw_fd().unsigned_abs()))
}

fn event(event: &epoll::Event) -> Event {
    let flags = event.flags;
    let broken = flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP);
    Event {
        fd: RawFd::try_from(event.data.u64()).unwrap_or(-1),
        readable: broken || flags.contains(EventFlags::IN),
        writable: flags.contains(EventFlags::OUT),
    }
}
