//! The `heads` file: every signed head, appended outside the database after the commit and without a flush of its own.
//!
//! A record is `head NUMBER LENGTH`, a newline, and the head's note of that many bytes. The file follows byte for byte
//! from the database's heads, which makes three things simple: a torn or cut tail is written again from them; anything
//! else that differs is damage; and a number that the database doesn't have means that the *database* has lost
//! commits, which a flipped byte in SQLite's WAL does without a word.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ledger::SignedHead;

/// More than two records of the longest kind.
const TAIL_BYTES: u64 = 8 * 1024;
const MARK: &[u8] = b"head ";

/// The bytes of one record.
pub(crate) fn record(number: u64, head: &SignedHead) -> Vec<u8> {
    let note = head.to_text();
    format!("head {number} {}\n{note}", note.len()).into_bytes()
}

/// The file, open for appending.
#[derive(Debug)]
pub(crate) struct HeadsFile {
    file: File,
}

impl HeadsFile {
    pub(crate) fn open(path: &Path) -> io::Result<HeadsFile> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        Ok(HeadsFile { file })
    }

    /// Puts a file in place that begins with this head.
    pub(crate) fn begin(path: &Path, number: u64, head: &SignedHead) -> io::Result<HeadsFile> {
        let beside = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&beside)?.write_all(&record(number, head))?;
        std::fs::rename(&beside, path)?;
        HeadsFile::open(path)
    }

    pub(crate) fn append(&mut self, number: u64, head: &SignedHead) -> io::Result<()> {
        self.file.write_all(&record(number, head))
    }

    pub(crate) fn append_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// For an orderly end only; see the top of this file.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// The file from the start of its last record on.
    pub(crate) fn tail(&mut self) -> io::Result<Tail> {
        let length = self.file.seek(SeekFrom::End(0))?;
        let start = length.saturating_sub(TAIL_BYTES);
        self.file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        (&mut self.file).take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(Tail::of(&bytes, start == 0))
    }
}

/// The end of a heads file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    Empty,
    /// From the start of the last record that has its first line, which may be torn further on.
    Record {
        number: u64,
        bytes: Vec<u8>,
    },
    /// The file begins in the middle of its first line.
    Torn {
        bytes: Vec<u8>,
    },
    /// No record where one must be.
    Damaged,
}

impl Tail {
    fn of(bytes: &[u8], is_whole: bool) -> Tail {
        if is_whole && bytes.is_empty() {
            return Tail::Empty;
        }
        let starts = (0..bytes.len()).rev().filter(|at| match at.checked_sub(1) {
            Some(before) => bytes[before] == b'\n',
            None => is_whole,
        });
        for start in starts {
            if let Some((number, _)) = first_line(&bytes[start..]) {
                return Tail::Record {
                    number,
                    bytes: bytes[start..].to_owned(),
                };
            }
        }
        if is_whole && !bytes.contains(&b'\n') {
            Tail::Torn {
                bytes: bytes.to_owned(),
            }
        } else {
            Tail::Damaged
        }
    }
}

/// Number and length in a record's first line, if it is complete.
fn first_line(bytes: &[u8]) -> Option<(u64, usize)> {
    let rest = bytes.strip_prefix(MARK)?;
    let line = &rest[..rest.iter().take(64).position(|byte| *byte == b'\n')?];
    let (number, length) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    Some((number.parse().ok()?, length.parse().ok()?))
}

/// What one step of reading found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The bytes that were expected.
    Same,
    /// The file ends, perhaps in the middle of the expected bytes.
    End,
    Other,
}

/// Reads a heads file from its start, against the records it must have.
#[derive(Debug)]
pub(crate) struct HeadsReader {
    file: io::BufReader<File>,
    position: u64,
}

impl HeadsReader {
    /// `None` if there is no such file.
    pub(crate) fn open(path: &Path) -> io::Result<Option<HeadsReader>> {
        match File::open(path) {
            Ok(file) => Ok(Some(HeadsReader {
                file: io::BufReader::new(file),
                position: 0,
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Compares the next bytes; goes on only past the same, so that an end can be tried again while a writer runs.
    pub(crate) fn expect(&mut self, expected: &[u8]) -> io::Result<Next> {
        let mut found = Vec::with_capacity(expected.len());
        (&mut self.file)
            .take(expected.len() as u64)
            .read_to_end(&mut found)?;
        if found == expected {
            self.position += expected.len() as u64;
            return Ok(Next::Same);
        }
        self.file.seek(SeekFrom::Start(self.position))?;
        Ok(if expected.starts_with(&found) {
            Next::End
        } else {
            Next::Other
        })
    }

    /// Number of the first record; the file is read from its start again.
    pub(crate) fn first(&mut self) -> io::Result<Option<u64>> {
        let first = self.beyond()?;
        Ok(first.and_then(|record| record.number))
    }

    /// What stands behind the last expected record; `None` if nothing does. At most one record is read.
    pub(crate) fn beyond(&mut self) -> io::Result<Option<Beyond>> {
        let mut found = Vec::new();
        (&mut self.file).take(TAIL_BYTES).read_to_end(&mut found)?;
        self.file.seek(SeekFrom::Start(self.position))?;
        if found.is_empty() {
            return Ok(None);
        }
        let number = first_line(&found).map(|(number, _)| number);
        Ok(Some(Beyond {
            number,
            head: signed_head(&found),
        }))
    }
}

/// A record, or something that should be one, behind the last that the database knows.
#[derive(Debug)]
pub(crate) struct Beyond {
    pub(crate) number: Option<u64>,
    pub(crate) head: Option<SignedHead>,
}

/// The head of the record at the start of `bytes`, if it is whole.
pub(crate) fn signed_head(bytes: &[u8]) -> Option<SignedHead> {
    let (_, length) = first_line(bytes)?;
    let start = bytes.iter().position(|byte| *byte == b'\n')? + 1;
    let note = bytes.get(start..start.checked_add(length)?)?;
    SignedHead::parse(std::str::from_utf8(note).ok()?).ok()
}
