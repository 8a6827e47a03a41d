//! One instance's standard output or error on disk: bounded, rotated once, never in the way.
//!
//! A full or read-only disk must not stop an agent: what can't be written is dropped.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::mirror::Mirror;

/// Two files of this size at most, `stdout.log` and `stdout.log.1`.
const MAX_BYTES: u64 = 10 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    at_line_start: bool,
    mirror: Option<Mirror>,
}

impl LogFile {
    pub(crate) fn open(path: &Path) -> Self {
        let mut log = Self {
            path: path.to_owned(),
            file: None,
            bytes: 0,
            at_line_start: true,
            mirror: None,
        };
        // Reported when writing fails too; an agent runs without its log rather than not at all.
        if let Err(error) = log.reopen() {
            tracing::warn!(path = %path.display(), %error, "cannot open log file");
        }
        log
    }

    /// Writes everything to this as well.
    pub(super) fn mirrored(mut self, mirror: Option<Mirror>) -> Self {
        self.mirror = mirror;
        self
    }

    fn reopen(&mut self) -> io::Result<()> {
        let file = File::options()
            .append(true)
            .create(true)
            .mode(0o640)
            .open(&self.path)?;
        self.bytes = file.metadata()?.len();
        self.file = Some(file);
        Ok(())
    }

    /// A line of ours between the agent's, on a line of its own.
    pub(crate) fn header(&mut self, text: &str) {
        let newline = if self.at_line_start { "" } else { "\n" };
        let line = format!("{newline}--- {text}\n");
        if let Some(mirror) = self.mirror.as_mut().filter(|mirror| mirror.headers) {
            mirror.write(line.as_bytes());
        }
        self.keep(line.as_bytes());
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if let Some(mirror) = &mut self.mirror {
            mirror.write(bytes);
        }
        self.keep(bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.bytes + bytes.len() as u64 > MAX_BYTES {
            self.rotate();
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.bytes += bytes.len() as u64;
        }
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
    }

    fn rotate(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        self.file = None;
        let rotated = std::fs::rename(&self.path, old).and_then(|()| self.reopen());
        if let Err(error) = rotated {
            tracing::warn!(path = %self.path.display(), %error, "cannot rotate log file");
            self.bytes = 0;
        }
    }
}
