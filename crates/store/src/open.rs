//! The steps of opening a log for writing, in order: the database or its creation, whose it is, where it ends, and
//! whether the heads file agrees.

use std::path::Path;

use ledger::{Edge, SignedHead, origin};
use tracing::warn;

use crate::append::{self, Before, End as PreparedEnd, Prepared};
use crate::batch::{KIND_CREATED, NewEntry, OWN_AUTHOR};
use crate::create::Created;
use crate::database::DatabaseError;
use crate::directory::{self, database_path, heads_path};
use crate::error::{OpenError, StoreError};
use crate::ground::Ground;
use crate::heads::{HeadsFile, Tail, record, signed_head};
use crate::log::Options;
use crate::reader::Reader;
use crate::schema::{self, Format};
use crate::sqlite::Sqlite;

/// Where a log ends.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) edge: Edge,
    pub(crate) head_count: u64,
    pub(crate) last_head: SignedHead,
    pub(crate) watermark: u64,
}

/// Opens the database, making it first where there is none, and checks that it is the log the caller means.
pub(crate) fn database(
    dir: &Path,
    options: &Options,
    ground: &dyn Ground,
) -> Result<Reader, OpenError> {
    let path = database_path(dir);
    let failed = |source: rusqlite::Error| OpenError::Database {
        path: path.clone(),
        source: source.into(),
    };
    let is_empty = directory::length_of(&path).map_err(|source| io_error(&path, source))? == 0;
    if is_empty {
        // Before SQLite sees it: with an empty database it would throw the WAL away.
        refuse_if_heads_know_more(dir, 0)?;
        if !options.create {
            return Err(OpenError::NotFound { path });
        }
        directory::touch(&path).map_err(|source| io_error(&path, source))?;
    }
    let connection = schema::open_writer(&path).map_err(failed)?;
    let sqlite = Sqlite::new(connection, dir.to_owned());
    if schema::format_of(sqlite.connection()).map_err(failed)? == Format::Empty {
        refuse_if_heads_know_more(dir, 0)?;
        if !options.create {
            return Err(OpenError::NotFound { path });
        }
        create(&sqlite, &path, options, ground)?;
        directory::sync(dir).map_err(|source| io_error(dir, source))?;
    }
    Reader::on_sqlite(sqlite, &path)
}

pub(crate) fn io_error(path: &Path, source: std::io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Makes the tables and the first entry in one transaction.
fn create(
    sqlite: &Sqlite,
    path: &Path,
    options: &Options,
    ground: &dyn Ground,
) -> Result<(), OpenError> {
    first_entry(options, ground, &|prepared| {
        commit_first(sqlite, prepared).map_err(|source| OpenError::Database {
            path: path.to_owned(),
            source,
        })
    })
}

/// Prepares the entry that begins a log, under a new incarnation.
pub(crate) fn first_entry(
    options: &Options,
    ground: &dyn Ground,
    write: &dyn Fn(&Prepared<'_>) -> Result<(), OpenError>,
) -> Result<(), OpenError> {
    let mut incarnation = [0; 16];
    ground
        .fill(&mut incarnation)
        .map_err(OpenError::FirstEntry)?;
    let origin = origin(&options.workspace, &incarnation).map_err(OpenError::Workspace)?;
    let created = Created {
        origin: origin.clone(),
        public_key: *options.key.public_bytes(),
        previous_head: options.previous_head.clone(),
    };
    let first = NewEntry {
        time_ms: options.now_ms,
        kind: KIND_CREATED.to_owned(),
        version: 1,
        subject: OWN_AUTHOR.to_owned(),
        author: OWN_AUTHOR.to_owned(),
        data: created.encode(),
        ..NewEntry::default()
    };
    let end = PreparedEnd {
        edge: &Edge::default(),
        head_count: 0,
        origin: &origin,
        key: &options.key,
    };
    let prepared =
        Prepared::new(&end, &NothingBefore(ground), &[&first]).map_err(OpenError::FirstEntry)?;
    write(&prepared)
}

struct NothingBefore<'a>(&'a dyn Ground);

impl Before for NothingBefore<'_> {
    fn counter(&self, _author: &str) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.0.fill(bytes)
    }
}

fn commit_first(sqlite: &Sqlite, prepared: &Prepared<'_>) -> Result<(), DatabaseError> {
    let connection = sqlite.connection();
    schema::begin_writing(connection)?;
    let transaction = connection.unchecked_transaction()?;
    schema::create(&transaction)?;
    prepared.write(sqlite)?;
    append::write_watermark(sqlite, prepared.edge.size())?;
    Ok(transaction.commit()?)
}

pub(crate) fn check_owner(
    reader: &Reader,
    options: &Options,
    path: &Path,
) -> Result<(), OpenError> {
    let path = path.to_owned();
    let found = reader.origin().rsplit('/').nth(1).unwrap_or_default();
    if found != options.workspace {
        return Err(OpenError::OtherWorkspace {
            path,
            found: found.to_owned(),
            wanted: options.workspace.clone(),
        });
    }
    if reader.public_key().bytes() != options.key.public_bytes() {
        return Err(OpenError::OtherKey { path });
    }
    Ok(())
}

/// Reads where the log ends, and checks the last head and the last entry against each other.
pub(crate) fn end(path: &Path, reader: &Reader) -> Result<End, OpenError> {
    let damaged = |what: &str| OpenError::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let failed = |error| unread(path, error);
    let edge = append::read_edge(reader.database()).map_err(failed)?;
    let size = reader.size().map_err(failed)?;
    let head_count = reader.head_count().map_err(failed)?;
    let last_head = reader
        .last_head()
        .map_err(failed)?
        .ok_or_else(|| damaged("table head (it is empty)"))?;
    if last_head.head.size != edge.size() || last_head.head.root != edge.root() {
        return Err(damaged(&format!(
            "head {} or the tree's edge",
            head_count.saturating_sub(1)
        )));
    }
    if !last_head.is_signed_by(reader.public_key()) {
        return Err(damaged(&format!(
            "signature of head {}",
            head_count.saturating_sub(1)
        )));
    }
    let last_entry = reader.entry(size.saturating_sub(1)).map_err(failed)?;
    if size != edge.size() || last_entry.is_none() {
        return Err(damaged(&format!(
            "end of table entry: it has {size} entries, the last head {}",
            edge.size()
        )));
    }
    let watermark = reader.watermark().map_err(failed)?;
    if watermark > size {
        return Err(damaged("watermark (table meta)"));
    }
    Ok(End {
        edge,
        head_count,
        last_head,
        watermark,
    })
}

/// Why what is there can't be opened.
pub(crate) fn unread(path: &Path, error: StoreError) -> OpenError {
    let path = path.to_owned();
    let what = match error {
        StoreError::Read(source) => return OpenError::Database { path, source },
        StoreError::Damaged { what } => what,
        _ => "log".to_owned(),
    };
    OpenError::Damaged { path, what }
}

/// Opens the heads file and writes what it lacks. Returns how many heads that were.
pub(crate) fn heads(dir: &Path, reader: &Reader, end: &End) -> Result<(HeadsFile, u64), OpenError> {
    let path = heads_path(dir);
    refuse_if_heads_know_more(dir, end.head_count)
        .map_err(|error| with_log_size(error, end.edge.size()))?;
    let mut file = HeadsFile::open(&path).map_err(|source| io_error(&path, source))?;
    let tail = file.tail().map_err(|source| io_error(&path, source))?;
    let healed = heal(&mut file, tail, reader, end.head_count, &path)?;
    if healed > 1 {
        warn!(path = %path.display(), heads = healed, "heads file lacked more than its last head; they were added");
    }
    Ok((file, healed))
}

/// Compares the file's tail with the records it must have from there on, and appends what comes after it.
fn heal(
    file: &mut HeadsFile,
    tail: Tail,
    reader: &Reader,
    head_count: u64,
    path: &Path,
) -> Result<u64, OpenError> {
    let damaged = |number: u64| OpenError::Damaged {
        path: path.to_owned(),
        what: format!("head {number}"),
    };
    let (first, mut rest) = match tail {
        Tail::Empty => (0, Vec::new()),
        Tail::Torn { bytes } => (0, bytes),
        Tail::Record { number, bytes } => (number, bytes),
        Tail::Damaged => return Err(damaged(head_count.saturating_sub(1))),
    };
    let mut healed = 0;
    for number in first..head_count {
        let head = reader
            .head(number)
            .ok()
            .flatten()
            .ok_or_else(|| damaged(number))?;
        let expected = record(number, &head);
        if rest.len() >= expected.len() {
            rest = rest
                .strip_prefix(&expected[..])
                .ok_or_else(|| damaged(number))?
                .to_owned();
            continue;
        }
        let missing = expected
            .strip_prefix(&rest[..])
            .ok_or_else(|| damaged(number))?;
        file.append_bytes(missing)
            .map_err(|source| io_error(path, source))?;
        rest.clear();
        healed += 1;
    }
    if rest.is_empty() {
        Ok(healed)
    } else {
        Err(damaged(head_count))
    }
}

/// Fails if the last record of the heads file has a number that the database doesn't.
pub(crate) fn refuse_if_heads_know_more(dir: &Path, head_count: u64) -> Result<(), OpenError> {
    let path = heads_path(dir);
    if directory::length_of(&path).map_err(|source| io_error(&path, source))? == 0 {
        return Ok(());
    }
    let mut file = HeadsFile::open(&path).map_err(|source| io_error(&path, source))?;
    let (number, size) = match file.tail().map_err(|source| io_error(&path, source))? {
        Tail::Record { number, bytes } if number >= head_count => {
            // A torn record has no size to read, but stands for one entry at least.
            (
                number,
                signed_head(&bytes).map_or(number + 1, |head| head.head.size),
            )
        }
        Tail::Damaged | Tail::Torn { .. } if head_count == 0 => {
            return Err(OpenError::Damaged {
                path,
                what: "heads file without its log".to_owned(),
            });
        }
        _ => return Ok(()),
    };
    Err(OpenError::EntriesMissing {
        path: dir.to_owned(),
        log_size: 0,
        heads_size: size,
        head_number: number,
    })
}

pub(crate) fn with_log_size(error: OpenError, size: u64) -> OpenError {
    match error {
        OpenError::EntriesMissing {
            path,
            heads_size,
            head_number,
            ..
        } => OpenError::EntriesMissing {
            path,
            log_size: size,
            heads_size,
            head_number,
        },
        error => error,
    }
}
