//! What a service's next start needs, made while the process before it still runs.
//!
//! Between a crash and the next process nothing is left to do but to read why it ended and to
//! clone. It is made for one incarnation's token, and thrown away when tokens or spec change.

use std::io;
use std::os::fd::OwnedFd;

use super::prepared::Prepared;
use super::process::{Made, StartFailure, Who};

#[derive(Debug)]
pub(super) struct Standby {
    pub(super) incarnation: u32,
    pub(super) made: Made,
    pub(super) ready_reader: OwnedFd,
    pub(super) ready_writer: OwnedFd,
    pub(super) null: OwnedFd,
}

impl Standby {
    pub(super) fn make(
        prepared: &mut Prepared,
        incarnation: u32,
        who: &Who<'_>,
        own_stdout: bool,
    ) -> Result<Self, StartFailure> {
        let made = Made::new(prepared, who, own_stdout)?;
        let broken = |error: io::Error| {
            StartFailure(format!("the agent's descriptors can't be made: {error}"))
        };
        let (ready_reader, ready_writer) = nonblocking_pipe().map_err(broken)?;
        let null = std::fs::File::open("/dev/null").map_err(broken)?.into();
        Ok(Self {
            incarnation,
            made,
            ready_reader,
            ready_writer,
            null,
        })
    }
}

fn nonblocking_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&reader, true)?;
    Ok((reader, writer))
}
