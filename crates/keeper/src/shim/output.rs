//! What a child prints: drained at once, so that it never blocks on us, into bounded places.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::log_file::LogFile;

const TAIL_BYTES: usize = 4 * 1024;
/// Read at one go before others get their turn.
const TURN_BYTES: usize = 1024 * 1024;

/// The shim's end of a child's standard output or error.
#[derive(Debug)]
pub(crate) struct Output {
    pipe: Option<OwnedFd>,
    /// The first bytes, up to `keep_max`: an attempt's answer.
    kept: Vec<u8>,
    keep_max: usize,
    truncated: bool,
    /// The last bytes.
    tail: VecDeque<u8>,
}

/// What a turn of reading found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing more at the moment, or the turn is over.
    Open,
    /// Open still, and longer than what is kept: it can't be used any more.
    Overflowing,
    /// All writers are gone.
    Ended,
}

impl Output {
    /// A pipe: our end, and the child's end to give away.
    pub(crate) fn pipe(keep_max: u64) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&reader, true)?;
        let output = Self {
            pipe: Some(reader),
            kept: Vec::new(),
            keep_max: usize::try_from(keep_max).unwrap_or(usize::MAX),
            truncated: false,
            tail: VecDeque::new(),
        };
        Ok((output, writer))
    }

    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    pub(crate) fn close(&mut self) {
        self.pipe = None;
    }

    /// Reads what is there; more than a turn's worth waits for the next call.
    pub(crate) fn drain(&mut self, log: &mut LogFile) -> Drained {
        let mut buffer = [0; 64 * 1024];
        let mut left = TURN_BYTES;
        while let Some(pipe) = &self.pipe {
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => return Drained::Ended,
                Ok(count) => {
                    self.take(&buffer[..count]);
                    log.write(&buffer[..count]);
                    left = left.saturating_sub(count);
                    if left == 0 {
                        return self.open();
                    }
                }
                Err(rustix::io::Errno::AGAIN) => return self.open(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Drained::Ended,
            }
        }
        Drained::Ended
    }

    fn open(&self) -> Drained {
        if self.keep_max > 0 && self.truncated {
            Drained::Overflowing
        } else {
            Drained::Open
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = self.keep_max.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.truncated |= bytes.len() > room;
        let last = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        self.tail.extend(last);
        let excess = self.tail.len().saturating_sub(TAIL_BYTES);
        self.tail.drain(..excess);
    }

    /// The kept bytes as text, and whether there were more.
    pub(crate) fn take_kept(&mut self) -> (String, bool) {
        (text(std::mem::take(&mut self.kept)), self.truncated)
    }

    pub(crate) fn take_tail(&mut self) -> String {
        text(std::mem::take(&mut self.tail).into())
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_outgrows_what_is_kept_is_told_from_one_that_fits() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = LogFile::open(&directory.path().join("stdout.log"));
        for (keep_max, expected) in [
            (4, Drained::Overflowing),
            (5, Drained::Open),
            (0, Drained::Open),
        ] {
            let (mut output, writer) = Output::pipe(keep_max).unwrap();
            rustix::io::write(&writer, b"12345").unwrap();
            assert_eq!(output.drain(&mut log), expected, "{keep_max}");
        }
    }
}
