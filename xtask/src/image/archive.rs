//! Where an image's parts are written: a tar archive (ustar, POSIX.1-1988), or a folder.
//!
//! The same parts make the same bytes: times are zero and owners are root. It must not know what
//! the parts mean.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};

const BLOCK: usize = 512;

/// Takes files one after the other.
pub trait Sink {
    fn put(&mut self, name: &str, content: &[u8]) -> Result<()>;
}

/// Files below a folder, which is there.
pub struct Folder<'a>(pub &'a Path);

impl Sink for Folder<'_> {
    fn put(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        Ok(fs::write(path, content)?)
    }
}

/// A tar archive of files and folders with short names.
pub struct Tar<W> {
    to: W,
}

impl<W: Write> Sink for Tar<W> {
    fn put(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.file(name, 0o644, content)
    }
}

impl<W: Write> Tar<W> {
    pub fn new(to: W) -> Self {
        Self { to }
    }

    /// A folder; its name ends in a slash.
    pub fn folder(&mut self, name: &str, mode: u32) -> Result<()> {
        self.header(name, mode, 0, b'5')
    }

    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.header(name, mode, content.len(), b'0')?;
        self.to.write_all(content)?;
        let padding = content.len().next_multiple_of(BLOCK) - content.len();
        self.to.write_all(&[0; BLOCK][..padding])?;
        Ok(())
    }

    fn header(&mut self, name: &str, mode: u32, size: usize, kind: u8) -> Result<()> {
        if name.len() > 100 || size > 0o77_777_777_777 {
            bail!("{name} has too long a name or is too large for a tar header");
        }
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| {
            header[at..at + text.len()].copy_from_slice(text.as_bytes());
        };
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, &format!("{:07o}", 0));
        put(116, &format!("{:07o}", 0));
        put(124, &format!("{size:011o}"));
        put(136, &format!("{:011o}", 0));
        // The checksum counts itself as eight spaces.
        put(148, "        ");
        put(257, "ustar\0");
        put(263, "00");
        header[156] = kind;
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.to.write_all(&header)?;
        Ok(())
    }

    /// Two empty blocks end an archive.
    pub fn end(mut self) -> Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }
}
