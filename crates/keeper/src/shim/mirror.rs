//! What an agent prints, once more on the container's own output, for `kubectl logs`.
//!
//! Whoever reads there may be slow or gone: what isn't taken at once is dropped, in whole lines as
//! far as can be, and the agent never waits. The log file beside it keeps what is dropped here.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;

#[derive(Debug)]
pub(crate) struct Mirror {
    output: OwnedFd,
    /// A line was cut: its rest goes too, and the next one begins on a line of its own.
    cut: bool,
    /// Lines of ours between the agent's are shown as well.
    pub(super) headers: bool,
}

impl Mirror {
    /// Takes the descriptor over; a pipe or socket is made non-blocking for all who share it.
    pub(crate) fn new(output: OwnedFd, headers: bool) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&output)?.st_mode);
        if matches!(kind, FileType::Fifo | FileType::Socket) {
            rustix::io::ioctl_fionbio(&output, true)?;
        }
        Ok(Self {
            output,
            cut: false,
            headers,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) {
        if !self.cut {
            self.pass(bytes);
        } else if let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            // From its newline on: that ends the line that was cut.
            self.cut = false;
            self.pass(&bytes[end..]);
        }
    }

    fn pass(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            match rustix::io::write(&self.output, rest) {
                Ok(count) if count > 0 => rest = &rest[count..],
                Err(rustix::io::Errno::INTR) => {}
                _ => {
                    self.cut = true;
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(reader: &OwnedFd) -> Vec<u8> {
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count) = rustix::io::read(reader, &mut buffer) {
            all.extend_from_slice(&buffer[..count]);
        }
        all
    }

    #[test]
    fn a_reader_that_sleeps_costs_lines_and_never_the_agents_time() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        rustix::io::ioctl_fionbio(&reader, true).unwrap();
        let mut mirror = Mirror::new(writer, false).unwrap();
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        for _ in 0..200 {
            mirror.write(&line);
        }
        // More than a pipe holds, of a line that goes on.
        mirror.write(&[b'y'; 100_000]);
        let kept = read_all(&reader);
        assert!(kept.len() >= 4096 && kept.len() < 200 * line.len());
        // It is awake again: a line that was cut ends, and whole lines follow.
        mirror.write(b"rest of it\nnext\n");
        mirror.write(b"last\n");
        let after = String::from_utf8(read_all(&reader)).unwrap();
        assert_eq!(after, "\nnext\nlast\n");
    }
}
