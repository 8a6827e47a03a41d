//! A session as a file: what one home writes and another one reads.
//!
//! JSON lines. The first names the session and the log that it comes from, with that log's signed
//! head and its key; each one after it is an entry of the session's tasks, in the log's order: the
//! entry's own bytes, its proof of inclusion in that head, and its payloads with their salts. So
//! whoever reads it can tell that nothing in it was changed since the head was signed, and, where
//! he knows the key from elsewhere, by whom. What lies in the file is a session's whole content:
//! its reader may read all of it. No secret of the home is in it, for none is in a log.
//!
//! Pure: bytes in, bytes out. What the entries mean is `check.rs`'s to say.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use store::{
    Entry, Hash, MAX_PAYLOADS, PublicKey, SALT_BYTES, SaltedPayload, SignedHead, leaf_hash,
    payload_digest, verify_inclusion,
};
use thiserror::Error;

use super::at_most::at_most;

/// The longest file. It is read, checked and appended as a whole.
pub const MAX_FILE_BYTES: usize = 128 * 1024 * 1024;
/// Most entries in a file.
pub const MAX_ENTRIES: usize = 100_000;
/// No tree is deeper.
const MAX_PATH: usize = 64;
const WHAT: &str = "session";
const VERSION: u32 = 1;

/// Why a file is not an exported session.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FileError {
    #[error("the file is not an exported session")]
    NotOne,
    #[error("the file is longer than {MAX_FILE_BYTES} bytes or {MAX_ENTRIES} entries")]
    TooLarge,
    #[error("the file has version {0} of the format, and this build knows {VERSION}")]
    Version(u32),
    #[error("line {line} of the file is not what stands there in an exported session")]
    Line { line: usize },
    #[error(
        "the file has {found} entries and its first line speaks of {said}: it was cut or added to"
    )]
    Count { said: usize, found: usize },
    #[error("the head in the file is not signed by the key in the file")]
    Signature,
    #[error("the file's log is not signed by the key given")]
    OtherKey,
    #[error("line {line}: the entry is not in the log whose head the file has: it was changed")]
    NotIncluded { line: usize },
    #[error("line {line}: payload {name} is not the one that the entry names: it was changed")]
    Payload { line: usize, name: String },
    #[error("line {line}: {what}")]
    Meaning { line: usize, what: String },
    #[error("{what}")]
    Whole { what: String },
}

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    mainstay: String,
    version: u32,
    pub session: String,
    pub agent: String,
    /// Of the log.
    pub origin: String,
    /// The head that every entry is proven against: a signed note.
    pub head: String,
    /// The key that signs it, as text.
    pub key: String,
    pub entries: usize,
}

/// What a first line says in every version.
#[derive(Deserialize)]
struct Format {
    mainstay: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    entry: String,
    #[serde(deserialize_with = "at_most::<MAX_PATH, _, _>")]
    path: Vec<String>,
    #[serde(deserialize_with = "at_most::<MAX_PAYLOADS, _, _>")]
    payloads: Vec<PayloadLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PayloadLine {
    name: String,
    salt: String,
    bytes: String,
}

/// An entry whose proof and payloads were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    pub line: usize,
    pub entry: Entry,
    /// Those that are there; one that the entry names and that isn't was erased.
    pub payloads: Vec<(String, Vec<u8>)>,
}

/// A file of which every byte was checked.
#[derive(Clone, Debug)]
pub struct Contents {
    pub header: Header,
    pub entries: Vec<Proven>,
}

/// What a header says besides what is always the same.
pub(super) struct Told<'a> {
    pub(super) session: &'a str,
    pub(super) agent: &'a str,
    pub(super) head: &'a SignedHead,
    pub(super) key: &'a PublicKey,
    pub(super) entries: usize,
}

/// Writes the first line.
pub(super) fn write_header(out: &mut Vec<u8>, told: &Told<'_>) {
    let header = Header {
        mainstay: WHAT.to_owned(),
        version: VERSION,
        session: told.session.to_owned(),
        agent: told.agent.to_owned(),
        origin: told.head.head.origin.clone(),
        head: told.head.to_text(),
        key: told.key.to_text(),
        entries: told.entries,
    };
    write_line(out, &header);
}

/// Writes an entry's line.
pub(super) fn write_entry(
    out: &mut Vec<u8>,
    bytes: &[u8],
    path: &[Hash],
    payloads: &[(String, SaltedPayload)],
) {
    let line = Line {
        entry: STANDARD.encode(bytes),
        path: path.iter().map(|hash| STANDARD.encode(hash)).collect(),
        payloads: payloads
            .iter()
            .map(|(name, payload)| PayloadLine {
                name: name.clone(),
                salt: STANDARD.encode(payload.salt),
                bytes: STANDARD.encode(&payload.bytes),
            })
            .collect(),
    };
    write_line(out, &line);
}

fn write_line<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    // Writing to memory can't fail, and these types have no maps.
    let _ = serde_json::to_writer(&mut *out, value);
    out.push(b'\n');
}

/// Reads a file and checks all of it. `key`: the log's, from elsewhere.
pub fn read(file: &[u8], key: Option<&PublicKey>) -> Result<Contents, FileError> {
    if file.len() > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    let body = file.strip_suffix(b"\n").ok_or(FileError::NotOne)?;
    let mut lines = body.split(|byte| *byte == b'\n').enumerate();
    let (_, first) = lines.next().ok_or(FileError::NotOne)?;
    let (header, head) = read_header(first, key)?;
    let mut entries: Vec<Proven> = Vec::new();
    for (at, line) in lines {
        if entries.len() >= MAX_ENTRIES {
            return Err(FileError::TooLarge);
        }
        let proven = read_entry(line, at + 1, &head)?;
        let follows = entries
            .last()
            .is_none_or(|last| last.entry.seq < proven.entry.seq);
        if !follows {
            return Err(FileError::Line { line: at + 1 });
        }
        entries.push(proven);
    }
    if entries.len() != header.entries {
        return Err(FileError::Count {
            said: header.entries,
            found: entries.len(),
        });
    }
    Ok(Contents { header, entries })
}

fn read_header(
    line: &[u8],
    expected: Option<&PublicKey>,
) -> Result<(Header, SignedHead), FileError> {
    // A struct would be read from a list too.
    if line.first() != Some(&b'{') {
        return Err(FileError::NotOne);
    }
    let format: Format = serde_json::from_slice(line).map_err(|_| FileError::NotOne)?;
    if format.mainstay != WHAT {
        return Err(FileError::NotOne);
    }
    if format.version != VERSION {
        return Err(FileError::Version(format.version));
    }
    let header: Header = serde_json::from_slice(line).map_err(|_| FileError::Line { line: 1 })?;
    let head = SignedHead::parse(&header.head).map_err(|_| FileError::Signature)?;
    let key = PublicKey::parse(&header.key).map_err(|_| FileError::Signature)?;
    if head.head.origin != header.origin || !head.is_signed_by(&key) {
        return Err(FileError::Signature);
    }
    if expected.is_some_and(|expected| *expected != key) {
        return Err(FileError::OtherKey);
    }
    Ok((header, head))
}

fn read_entry(line: &[u8], number: usize, head: &SignedHead) -> Result<Proven, FileError> {
    let wrong = || FileError::Line { line: number };
    let line: Line = serde_json::from_slice(line).map_err(|_| wrong())?;
    let bytes = STANDARD.decode(&line.entry).map_err(|_| wrong())?;
    let entry = Entry::decode(&bytes).map_err(|_| wrong())?;
    let path = line.path.iter().map(|hash| hash_of(hash));
    let path: Vec<Hash> = path.collect::<Option<_>>().ok_or_else(wrong)?;
    let (size, root, leaf) = (head.head.size, &head.head.root, leaf_hash(&bytes));
    if !verify_inclusion(size, root, entry.seq, &leaf, &path) {
        return Err(FileError::NotIncluded { line: number });
    }
    let payloads = read_payloads(line.payloads, number, &entry)?;
    Ok(Proven {
        line: number,
        entry,
        payloads,
    })
}

/// In the order of the entry's, each at most once.
fn read_payloads(
    lines: Vec<PayloadLine>,
    number: usize,
    entry: &Entry,
) -> Result<Vec<(String, Vec<u8>)>, FileError> {
    let mut named = entry.payloads.iter();
    let mut payloads = Vec::with_capacity(lines.len());
    for line in lines {
        let wrong = || FileError::Payload {
            line: number,
            name: line.name.escape_default().take(256).collect(),
        };
        let digest = named
            .find(|named| named.name == line.name)
            .ok_or_else(wrong)?;
        let salt: Option<[u8; SALT_BYTES]> = hash_of(&line.salt);
        let salt = salt.ok_or_else(wrong)?;
        let bytes = STANDARD.decode(&line.bytes).map_err(|_| wrong())?;
        let fits =
            bytes.len() as u64 == digest.length && payload_digest(&salt, &bytes) == digest.digest;
        if !fits {
            return Err(wrong());
        }
        payloads.push((line.name, bytes));
    }
    Ok(payloads)
}

fn hash_of(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// About how long the file is that has these entries and payloads.
pub(super) fn file_bytes(entries: u64, entry_bytes: u64, payload_bytes: u64) -> u64 {
    const PATH: u64 = 32 * 48;
    (entry_bytes + payload_bytes) / 3 * 4 + entries * PATH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_too_long_is_not_read_to_its_end() {
        let read = |items: usize, end: &str| {
            let path = vec!["\"\""; items].join(",");
            let line = format!(r#"{{"entry":"","path":[{path}{end}],"payloads":[]}}"#);
            serde_json::from_str::<Line>(&line).map(|line| line.path.len())
        };
        assert_eq!(read(MAX_PATH, "").unwrap(), MAX_PATH);
        let stopped = read(MAX_PATH + 1, ", what no JSON has").unwrap_err();
        assert!(stopped.is_data(), "{stopped}");
    }

    #[test]
    fn a_first_line_of_another_kind_is_told_apart() {
        let read = |line: &str| read(format!("{line}\n").as_bytes(), None).unwrap_err();
        for line in [
            "",
            "[\"session\",1]",
            "{}",
            r#"{"mainstay":"log","version":1}"#,
        ] {
            assert_eq!(read(line), FileError::NotOne, "{line}");
        }
        let later = r#"{"mainstay":"session","version":2,"more":[[1],{"than":"known"}]}"#;
        assert_eq!(read(later), FileError::Version(2));
        let wanting = r#"{"mainstay":"session","version":1}"#;
        assert_eq!(read(wanting), FileError::Line { line: 1 });
    }
}
