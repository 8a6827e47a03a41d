//! Unpacking: each entry handed on once it is known to be one that may be there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{
    BEGINNING, DIRECTORY, END, FILE, LINK, MAX_BYTES, MAX_ENTRIES, MAX_PATH_BYTES, PROGRAM, Sum,
};

/// Where entries go. Paths are relative and stay below where they begin, and each one's parent was
/// handed on before it as a directory.
pub trait Sink {
    /// A directory.
    fn directory(&mut self, path: &Path) -> io::Result<()>;
    /// A link, which may lead anywhere.
    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()>;
    /// A file. What isn't read of its content is passed over.
    fn file(&mut self, path: &Path, is_program: bool, content: &mut dyn Read) -> io::Result<()>;
}

/// Why it can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("it is not a packed artifact")]
    NotOne,
    #[error("it ends in the middle")]
    Cut,
    #[error("it goes on after its end")]
    Longer,
    #[error("it names {0:?}, which a packed artifact does not hold")]
    Path(PathBuf),
    #[error("it names {0:?} out of order, or twice")]
    Order(PathBuf),
    #[error("it has more than {MAX_ENTRIES} files")]
    TooMany,
    #[error("its files hold more than 1 GiB")]
    TooLarge,
    #[error("it can't be read")]
    Read(#[source] io::Error),
    #[error("can't write {path:?}")]
    Write { path: PathBuf, source: io::Error },
}

/// Reads a whole artifact, and gives the name that its content has.
pub fn read(archive: impl Read, sink: &mut impl Sink) -> Result<String, ReadError> {
    let mut reader = Reader {
        archive,
        sum: Sum::default(),
        directories: BTreeSet::new(),
        last: None,
        entries: 0,
        bytes: 0,
    };
    if reader.take(BEGINNING.len())? != BEGINNING {
        return Err(ReadError::NotOne);
    }
    while reader.entry(sink)? {}
    let mut more = [0];
    match reader.archive.read(&mut more) {
        Ok(0) => Ok(reader.sum.finish()),
        Ok(_) => Err(ReadError::Longer),
        Err(error) => Err(ReadError::Read(error)),
    }
}

struct Reader<R> {
    archive: R,
    sum: Sum,
    directories: BTreeSet<PathBuf>,
    last: Option<PathBuf>,
    entries: usize,
    bytes: u64,
}

impl<R: Read> Reader<R> {
    /// Whether there was one more.
    fn entry(&mut self, sink: &mut impl Sink) -> Result<bool, ReadError> {
        let kind = self.number::<1>()?[0];
        if kind == END {
            return Ok(false);
        }
        let path = self.path()?;
        self.placed(&path)?;
        let failed = |source| ReadError::Write {
            path: path.clone(),
            source,
        };
        match kind {
            DIRECTORY => {
                sink.directory(&path).map_err(failed)?;
                self.sum.directory(&path);
                self.directories.insert(path.clone());
            }
            LINK => {
                let target = self.text()?;
                sink.link(&path, &target).map_err(failed)?;
                self.sum.link(&path, &target);
            }
            FILE | PROGRAM => self.file(sink, &path, kind == PROGRAM)?,
            _ => return Err(ReadError::NotOne),
        }
        self.last = Some(path);
        Ok(true)
    }

    fn file(
        &mut self,
        sink: &mut impl Sink,
        path: &Path,
        is_program: bool,
    ) -> Result<(), ReadError> {
        let length = u64::from_be_bytes(self.number()?);
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > MAX_BYTES {
            return Err(ReadError::TooLarge);
        }
        let mut content = Content {
            archive: &mut self.archive,
            left: length,
            hasher: Sha256::new(),
            failed: None,
        };
        let written = sink.file(path, is_program, &mut content);
        let passed_over = io::copy(&mut content, &mut io::sink());
        // What broke in the archive broke there, whatever the sink made of it.
        if let Some(error) = content.failed {
            return Err(error);
        }
        written
            .and(passed_over.map(drop))
            .map_err(|source| ReadError::Write {
                path: path.to_owned(),
                source,
            })?;
        self.sum
            .file(path, is_program, content.hasher.finalize().into());
        Ok(())
    }

    /// Whether a path may stand here.
    fn placed(&mut self, path: &Path) -> Result<(), ReadError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(ReadError::TooMany);
        }
        if self.last.as_deref().is_some_and(|last| last >= path) {
            return Err(ReadError::Order(path.to_owned()));
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent != Path::new("") && !self.directories.contains(parent) {
            return Err(ReadError::Path(path.to_owned()));
        }
        Ok(())
    }

    fn path(&mut self) -> Result<PathBuf, ReadError> {
        let path = self.text()?;
        let mut names = path.components();
        let is_plain = names.all(|name| matches!(name, Component::Normal(_)));
        // Written otherwise it would be the same place under another name.
        let plainly: PathBuf = path.components().collect();
        match is_plain && plainly.as_os_str() == path.as_os_str() {
            true => Ok(path),
            false => Err(ReadError::Path(path)),
        }
    }

    fn text(&mut self) -> Result<PathBuf, ReadError> {
        let length = u32::from_be_bytes(self.number()?);
        if length == 0 || length > MAX_PATH_BYTES {
            return Err(ReadError::NotOne);
        }
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        let path = PathBuf::from(OsString::from_vec(bytes));
        match path.as_os_str().as_encoded_bytes().contains(&0) {
            true => Err(ReadError::Path(path)),
            false => Ok(path),
        }
    }

    fn number<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], ReadError> {
        let mut bytes = [0; BYTES];
        self.archive.read_exact(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = vec![0; length];
        self.archive.read_exact(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }
}

fn broken(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Cut,
        _ => ReadError::Read(error),
    }
}

/// One file's bytes in the archive, hashed as they are read.
struct Content<R> {
    archive: R,
    left: u64,
    hasher: Sha256,
    failed: Option<ReadError>,
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.archive.read(&mut buffer[..most]) {
            Ok(0) => {
                self.failed = Some(ReadError::Cut);
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => {
                self.left -= count as u64;
                self.hasher.update(&buffer[..count]);
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failed = Some(ReadError::Read(error));
                Err(kind.into())
            }
        }
    }
}
