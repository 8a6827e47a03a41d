//! The one writer of a log: opens it, appends batches, and ends at the first commit that fails.
//!
//! Opening reads the tree's right edge, the last head and the end of the heads file, never the whole log. It refuses to
//! go on where the heads file knows of more than the database holds, because the next commit would bury what was lost.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use ledger::{Edge, SignedHead, SigningKey, incarnation_of};
use tracing::warn;

use crate::append::{Before, End, Prepared};
use crate::batch::{Appended, Batch, Erasure, MAX_ERASURES, NewEntry, RESERVED_KIND_PREFIX};
use crate::database::{Columns, Param, Writing};
use crate::directory::{self, Lock};
use crate::erase;
use crate::error::{OpenError, StoreError};
use crate::ground::{Ground, Machine, Stage};
use crate::heads::HeadsFile;
use crate::health::{Health, Trouble};
use crate::open;
use crate::open_server;
use crate::place::Place;
use crate::reader::Reader;

/// How to open a log.
#[derive(Debug)]
pub struct Options {
    /// Stands in the log's origin; an existing log must be of this workspace.
    pub workspace: String,
    /// Signs the heads; an existing log must be signed by this key.
    pub key: SigningKey,
    /// Whether to make a log where there is none.
    pub create: bool,
    /// For a new log: the last head, as text, of the log that it is restored or imported from.
    pub previous_head: Option<String>,
    /// For a new log: the wall clock.
    pub now_ms: i64,
    /// On a server: where others who want the log find its writer.
    pub address: Option<String>,
}

/// A log open for appending. It blocks; one thread owns it.
#[derive(Debug)]
pub struct Log {
    place: Place,
    reader: Reader,
    key: SigningKey,
    heads: HeadsFile,
    edge: Edge,
    head_count: u64,
    last_head: SignedHead,
    watermark: u64,
    /// Counters of the authors seen since the start.
    authors: HashMap<String, u64>,
    healed_heads: u64,
    has_failed: bool,
    ground: Arc<dyn Ground>,
    health: Health,
    _lock: Lock,
}

impl Log {
    /// Opens a log, or makes one if `options.create` says so.
    pub fn open(dir: &Path, options: Options) -> Result<Log, OpenError> {
        Log::open_on(Arc::new(Machine), dir, options)
    }

    /// The same on another ground than the machine's: for sweeps and simulations.
    pub fn open_on(
        ground: Arc<dyn Ground>,
        dir: &Path,
        options: Options,
    ) -> Result<Log, OpenError> {
        Log::open_at(ground, &dir.into(), options)
    }

    /// The same wherever it lies.
    pub fn open_at(
        ground: Arc<dyn Ground>,
        place: &Place,
        options: Options,
    ) -> Result<Log, OpenError> {
        let (dir, path) = (place.dir(), place.shown());
        let on_server = matches!(place, Place::Server { .. });
        directory::prepare(dir, options.create || on_server)?;
        let lock = directory::lock(dir)?;
        let (reader, health) = match place {
            Place::Directory(dir) => {
                let reader = open::database(dir, &options, ground.as_ref())?;
                (reader, Health::default())
            }
            Place::Server { server, dir } => {
                open_server::database(server, dir, &options, ground.as_ref())?
            }
        };
        open::check_owner(&reader, &options, &path)?;
        let end = open::end(&path, &reader)?;
        let (heads, healed_heads) = match place {
            Place::Directory(dir) => open::heads(dir, &reader, &end)?,
            Place::Server { server, dir } => open_server::heads(dir, server, &reader, &end)?,
        };
        let begun = reader.database().begin_writing();
        begun.map_err(|source| OpenError::Database { path, source })?;
        Ok(Log {
            place: place.clone(),
            reader,
            key: options.key,
            heads,
            edge: end.edge,
            head_count: end.head_count,
            last_head: end.last_head,
            watermark: end.watermark,
            authors: HashMap::new(),
            healed_heads,
            has_failed: false,
            ground,
            health,
            _lock: lock,
        })
    }

    /// Commits a batch: one transaction, one flush, one head. When this returns, the batch is durable. A batch of
    /// nothing but rows that were left for later gets a head too, of the same size as the last: a commit that is lost
    /// without a word is one that the heads file misses.
    ///
    /// After an error that [`StoreError::is_fatal`] the log takes nothing more.
    pub fn append(&mut self, batch: &Batch) -> Result<Appended, StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        let erasures = sorted(&batch.erasures);
        self.check(batch, &erasures)?;
        let record = (!erasures.is_empty()).then(|| erase::erasure_entry(&erasures, batch.now_ms));
        let entries: Vec<&NewEntry> = batch.entries.iter().chain(&record).collect();
        let prepared = self.prepare(&entries)?;
        let started = Instant::now();
        let writing = Writing {
            prepared: &prepared,
            erasures: &erasures,
            rows: (!batch.rows_later).then_some(&batch.rows),
        };
        let reach = |stage| self.ground.reach(self.place.dir(), stage);
        if let Err(source) = self.reader.database().write(&writing, &reach) {
            return Err(self.fail(StoreError::Commit(source)));
        }
        let commit_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        if let Err(source) = self.append_head(&prepared) {
            return Err(self.fail(StoreError::Heads(source)));
        }
        if !batch.rows_later {
            self.watermark = prepared.edge.size();
        }
        Ok(self.advance(prepared, commit_micros))
    }

    /// A connection of its own for reading.
    pub fn reader(&self) -> Result<Reader, OpenError> {
        Reader::open_at(&self.place)
    }

    /// Reads on the writer's own connection: the last commit's state.
    pub fn read(&self) -> &Reader {
        &self.reader
    }

    /// Which life of this log it is, in hex: part of the origin, made anew by a restore or an import.
    pub fn incarnation(&self) -> &str {
        incarnation_of(self.reader.origin()).unwrap_or_default()
    }

    /// Entries in the log.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Entries below this are in the projections' tables. Where it is less than the size, rows were left for later, by
    /// this writer or by one that ended before it wrote them.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    pub fn last_head(&self) -> &SignedHead {
        &self.last_head
    }

    /// How many heads the start had to add to the heads file. One is what a kill between commit and append leaves;
    /// more means that the machine lost power, or that someone cut the file; of a log on a server, that other machines
    /// wrote meanwhile.
    pub fn healed_heads(&self) -> u64 {
        self.healed_heads
    }

    /// Whether less than [`crate::RESERVE_BYTES`] are free: then new intents should be refused and results written. Of a
    /// server only that is known which it said when it last had no room.
    pub fn low_space(&self) -> std::io::Result<bool> {
        match &self.place {
            Place::Directory(dir) => self.ground.is_low(dir),
            Place::Server { .. } => Ok(self.health.trouble() == Trouble::Full),
        }
    }

    /// For those who ask while the writer may be waiting.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Ends in good order: the heads file is flushed and the WAL moved into the database.
    pub fn close(self) -> Result<(), StoreError> {
        if self.has_failed {
            return Err(StoreError::Failed);
        }
        self.heads.sync().map_err(StoreError::Heads)?;
        self.reader.database().close().map_err(StoreError::Commit)
    }

    /// What can be refused without touching anything.
    fn check(&self, batch: &Batch, erasures: &[Erasure]) -> Result<(), StoreError> {
        let refuse = |reason| Err(StoreError::Batch { reason });
        let owes_rows = self.watermark < self.size() && !batch.rows_later;
        if batch.entries.is_empty() && erasures.is_empty() && !owes_rows {
            return refuse("it has no entries, and rows follow from entries");
        }
        if batch
            .entries
            .iter()
            .any(|entry| entry.kind.starts_with(RESERVED_KIND_PREFIX))
        {
            return refuse("kinds that begin with log. are the store's own");
        }
        if batch.rows_later && !batch.rows.is_empty() {
            return refuse("it has rows and says that they come later");
        }
        if erasures.len() > MAX_ERASURES {
            return refuse("it erases too many payloads at once");
        }
        for erasure in erasures {
            if !self.reader.has_payload(erasure.seq, &erasure.name)? {
                return refuse("it erases a payload that is not there");
            }
        }
        Ok(())
    }

    fn prepare<'b>(&self, entries: &[&'b NewEntry]) -> Result<Prepared<'b>, StoreError> {
        let end = End {
            edge: &self.edge,
            head_count: self.head_count,
            origin: self.reader.origin(),
            key: &self.key,
        };
        Prepared::new(&end, self, entries)
    }

    fn append_head(&mut self, prepared: &Prepared<'_>) -> std::io::Result<()> {
        self.ground.reach(self.place.dir(), Stage::Committed)?;
        self.heads.append(prepared.head_number, &prepared.head)?;
        self.ground.reach(self.place.dir(), Stage::Headed)
    }

    fn fail(&mut self, error: StoreError) -> StoreError {
        self.has_failed = true;
        if let Err(source) = self.reader.database().abandon() {
            warn!(%source, "closing the log may try to flush it again");
        }
        error
    }

    fn advance(&mut self, prepared: Prepared<'_>, commit_micros: u64) -> Appended {
        let first_seq = self.edge.size();
        for (author, counter) in prepared.authors {
            self.authors.insert(author.to_owned(), counter);
        }
        self.edge = prepared.edge;
        self.head_count = prepared.head_number + 1;
        self.last_head = prepared.head.clone();
        Appended {
            first_seq,
            size: self.edge.size(),
            head: prepared.head,
            commit_micros,
        }
    }
}

impl Before for Log {
    fn counter(&self, author: &str) -> Result<u64, StoreError> {
        if let Some(counter) = self.authors.get(author) {
            return Ok(*counter);
        }
        let sql = "SELECT counter FROM author WHERE name = ?1";
        let counter = |row: &dyn Columns| Ok(row.integer(0)?.cast_unsigned());
        let params = [Param::Text(author)];
        let known = self.reader.database().first(sql, &params, counter)?;
        Ok(known.unwrap_or(0))
    }

    fn fill(&self, bytes: &mut [u8]) -> Result<(), StoreError> {
        self.ground.fill(bytes)
    }
}

fn sorted(erasures: &[Erasure]) -> Vec<Erasure> {
    let mut erasures = erasures.to_vec();
    erasures.sort();
    erasures.dedup();
    erasures
}
