//! Packing: entries as they come, in the order of their paths, which is the caller's to keep.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::{BEGINNING, DIRECTORY, END, FILE, LINK, PROGRAM, Sum};

const BUFFER: usize = 256 * 1024;

/// Packs an artifact.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    sum: Sum,
}

impl<W: Write> Writer<W> {
    /// One that is empty.
    pub fn new(mut to: W) -> io::Result<Self> {
        to.write_all(BEGINNING)?;
        Ok(Self {
            to,
            sum: Sum::default(),
        })
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: &Path) -> io::Result<()> {
        self.sum.directory(path);
        self.entry(DIRECTORY, path)
    }

    /// Adds a link.
    pub fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.sum.link(path, target);
        self.entry(LINK, path)?;
        self.text(target)
    }

    /// Adds a file that holds so many bytes. One that turns out to hold others is refused.
    pub fn file(
        &mut self,
        path: &Path,
        is_program: bool,
        length: u64,
        content: impl Read,
    ) -> io::Result<()> {
        self.entry(if is_program { PROGRAM } else { FILE }, path)?;
        self.to.write_all(&length.to_be_bytes())?;
        let mut content = content.take(length.saturating_add(1));
        let (mut hasher, mut written) = (Sha256::new(), 0);
        let mut buffer = vec![0; BUFFER];
        loop {
            let count = content.read(&mut buffer)?;
            written += count as u64;
            if count == 0 || written > length {
                break;
            }
            hasher.update(&buffer[..count]);
            self.to.write_all(&buffer[..count])?;
        }
        if written != length {
            return Err(io::Error::other("it changed while it was read"));
        }
        self.sum.file(path, is_program, hasher.finalize().into());
        Ok(())
    }

    /// Says the end, and gives the name.
    pub fn finish(mut self) -> io::Result<String> {
        self.to.write_all(&[END])?;
        self.to.flush()?;
        Ok(self.sum.finish())
    }

    fn entry(&mut self, kind: u8, path: &Path) -> io::Result<()> {
        self.to.write_all(&[kind])?;
        self.text(path)
    }

    fn text(&mut self, path: &Path) -> io::Result<()> {
        let bytes = path.as_os_str().as_bytes();
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.to.write_all(&length.to_be_bytes())?;
        self.to.write_all(bytes)
    }
}
