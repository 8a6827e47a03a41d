//! The walk itself: entries in order, each with its payloads, and each head when the walk has reached its size.

use std::path::Path;
use std::time::{Duration, Instant};

use ledger::{Entry, SaltedPayload, SignedHead, Summary, Verifier};
use rusqlite::{Connection, Rows};

use super::{Mismatch, Report, VerifyError, from_store, unreadable};
use crate::append::read_edge;
use crate::batch::{KIND_ERASED, mac_of_blob_name};
use crate::directory::heads_path;
use crate::erase::erasures_of;
use crate::heads::{HeadsReader, Next, record};
use crate::reader::Reader;

/// A running writer appends a head right after its commit; a head that is still missing then is missing.
const HEADS_FILE_PATIENCE: Duration = Duration::from_millis(500);
const HEADS_FILE_PAUSE: Duration = Duration::from_millis(10);

/// Walks the log; the caller holds a read transaction.
pub(super) fn run(
    dir: &Path,
    reader: &Reader,
    since: Option<&SignedHead>,
) -> Result<Report, VerifyError> {
    let head_count = reader
        .head_count()
        .map_err(|error| from_store("table head", error))?;
    let mut walk = Walk {
        reader,
        verifier: Verifier::new(reader.public_key().clone()),
        heads: HeadsWalk {
            dir,
            file: None,
            next: 0,
            count: head_count,
            pending: None,
            last: None,
        },
        blobs: 0,
        since,
    };
    walk.entries()?;
    let Walk {
        verifier,
        mut heads,
        blobs,
        ..
    } = walk;
    heads.finish(verifier.size())?;
    let last_head = heads.last.ok_or(Mismatch::HeadMissing { number: 0 })?;
    if last_head.head.size != verifier.size() {
        return Err(Mismatch::EntriesUnsigned {
            from: last_head.head.size,
        }
        .into());
    }
    if let Some(since) = since.filter(|since| since.head.size > verifier.size()) {
        return Err(Mismatch::SinceBeyond {
            size: verifier.size(),
            since: since.head.size,
        }
        .into());
    }
    let summary = verifier.finish().map_err(Mismatch::Log)?;
    derived(reader, &summary, blobs)?;
    integrity(reader.connection())?;
    Ok(Report {
        size: summary.edge.size(),
        heads: head_count,
        last_head,
        payloads: summary.payloads,
        erased: summary.erased,
        authentic_size: since.map(|since| since.head.size),
    })
}

struct Walk<'a> {
    reader: &'a Reader,
    verifier: Verifier,
    heads: HeadsWalk<'a>,
    /// Rows of the blob index that were found to be right.
    blobs: u64,
    since: Option<&'a SignedHead>,
}

impl Walk<'_> {
    fn entries(&mut self) -> Result<(), VerifyError> {
        let connection = self.reader.connection();
        let prepare = |sql| {
            connection
                .prepare(sql)
                .map_err(|source| unreadable("schema", source))
        };
        let mut entries = prepare("SELECT seq, bytes FROM entry ORDER BY seq")?;
        let mut payloads =
            prepare("SELECT seq, name, salt, bytes FROM payload ORDER BY seq, name")?;
        let mut rows = entries
            .query([])
            .map_err(|source| unreadable("table entry", source))?;
        let rest = payloads
            .query([])
            .map_err(|source| unreadable("table payload", source))?;
        let mut payloads = Payloads {
            rows: rest,
            next: None,
        };
        payloads.step()?;
        loop {
            let seq = self.verifier.size();
            let unreadable = |source| unreadable(&format!("entry {seq}"), source);
            let Some(row) = rows.next().map_err(unreadable)? else {
                break;
            };
            if row.get::<_, i64>(0).map_err(unreadable)?.cast_unsigned() != seq {
                return Err(Mismatch::EntryMissing { seq }.into());
            }
            let bytes: Vec<u8> = row.get(1).map_err(unreadable)?;
            self.entry(seq, &bytes, &mut payloads)?;
        }
        match payloads.next {
            Some((seq, name, _)) => Err(Mismatch::PayloadUnknown { seq, name }.into()),
            None => Ok(()),
        }
    }

    fn entry(
        &mut self,
        seq: u64,
        bytes: &[u8],
        payloads: &mut Payloads<'_>,
    ) -> Result<(), VerifyError> {
        let mut failure = None;
        let mut present = Vec::new();
        let entry = self.verifier.entry(bytes, |name| {
            let found = payloads.take(seq, name).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                None
            });
            if found.is_some() {
                present.push(name.to_owned());
            }
            found
        });
        // A payload that can't be read comes first: it looks like a missing one to the verifier.
        if let Some(failure) = failure {
            return Err(failure);
        }
        let entry = entry.map_err(Mismatch::Log)?;
        self.count_blobs(&entry, &present)?;
        self.erasures(&entry)?;
        self.heads.at(&mut self.verifier, self.reader)?;
        self.since()
    }

    /// Every blob that is there must be found by its index in the one entry of its subject that has it.
    fn count_blobs(&mut self, entry: &Entry, present: &[String]) -> Result<(), VerifyError> {
        for name in present {
            let Some(mac) = mac_of_blob_name(name) else {
                continue;
            };
            let wrong = || Mismatch::Derived {
                what: format!("blob index of {name}, entry {},", entry.seq),
            };
            let indexed = self.reader.blob_seq(&entry.subject, &mac);
            let indexed = indexed
                .map_err(|error| from_store("table blob", error))?
                .ok_or_else(wrong)?;
            if indexed != entry.seq {
                return Err(wrong().into());
            }
            self.blobs += 1;
        }
        Ok(())
    }

    fn erasures(&mut self, entry: &Entry) -> Result<(), VerifyError> {
        if entry.kind != KIND_ERASED {
            return Ok(());
        }
        let erasures = erasures_of(&entry.data).map_err(|_| Mismatch::Damaged {
            what: format!("list of erasures in entry {}", entry.seq),
        })?;
        for erasure in erasures {
            self.verifier
                .erasure(entry.seq, erasure.seq, &erasure.name)
                .map_err(Mismatch::Log)?;
        }
        Ok(())
    }

    fn since(&self) -> Result<(), VerifyError> {
        match self.since {
            Some(since)
                if since.head.size == self.verifier.size()
                    && since.head.root != self.verifier.root() =>
            {
                Err(Mismatch::SinceRoot {
                    since: since.head.size,
                }
                .into())
            }
            _ => Ok(()),
        }
    }
}

/// Rows of payloads in order, walked beside the entries that name them.
struct Payloads<'a> {
    rows: Rows<'a>,
    next: Option<(u64, String, SaltedPayload)>,
}

impl Payloads<'_> {
    fn step(&mut self) -> Result<(), VerifyError> {
        let place = match &self.next {
            Some((seq, name, _)) => format!("payload after {name} of entry {seq}"),
            None => "first payload".to_owned(),
        };
        self.next = self.read().map_err(|source| unreadable(&place, source))?;
        Ok(())
    }

    fn read(&mut self) -> rusqlite::Result<Option<(u64, String, SaltedPayload)>> {
        let Some(row) = self.rows.next()? else {
            return Ok(None);
        };
        let payload = SaltedPayload {
            salt: row.get(2)?,
            bytes: row.get(3)?,
        };
        Ok(Some((
            row.get::<_, i64>(0)?.cast_unsigned(),
            row.get(1)?,
            payload,
        )))
    }

    /// The payload of this name, if it is the next one; names are asked for in order.
    fn take(&mut self, seq: u64, name: &str) -> Result<Option<SaltedPayload>, VerifyError> {
        let Some((next_seq, next_name, _)) = &self.next else {
            return Ok(None);
        };
        if (*next_seq, next_name.as_str()) < (seq, name) {
            return Err(Mismatch::PayloadUnknown {
                seq: *next_seq,
                name: next_name.clone(),
            }
            .into());
        }
        if (*next_seq, next_name.as_str()) > (seq, name) {
            return Ok(None);
        }
        let found = self.next.take().map(|(_, _, payload)| payload);
        self.step()?;
        Ok(found)
    }
}

/// The heads in the database, each compared with the tree and with its record in the heads file.
struct HeadsWalk<'a> {
    dir: &'a Path,
    file: Option<HeadsReader>,
    /// Number of the next head.
    next: u64,
    count: u64,
    /// The next head, read already and of a size that the walk has not reached.
    pending: Option<SignedHead>,
    last: Option<SignedHead>,
}

impl HeadsWalk<'_> {
    /// Checks the heads that were made at the size that the walk has reached, or that should have been before.
    fn at(&mut self, verifier: &mut Verifier, reader: &Reader) -> Result<(), VerifyError> {
        while self.next < self.count {
            let head = match self.pending.take() {
                Some(head) => head,
                None => self.read(reader)?,
            };
            if head.head.size > verifier.size() {
                self.pending = Some(head);
                return Ok(());
            }
            verifier.head(self.next, &head).map_err(Mismatch::Log)?;
            self.compare(self.next, &record(self.next, &head))?;
            self.next += 1;
            self.last = Some(head);
        }
        Ok(())
    }

    fn read(&self, reader: &Reader) -> Result<SignedHead, VerifyError> {
        let number = self.next;
        let head = reader
            .head(number)
            .map_err(|error| from_store(&format!("head {number}"), error))?;
        Ok(head.ok_or(Mismatch::HeadMissing { number })?)
    }

    fn compare(&mut self, number: u64, expected: &[u8]) -> Result<(), VerifyError> {
        let deadline = Instant::now() + HEADS_FILE_PATIENCE;
        loop {
            match self.expect(expected)? {
                Next::Same => return Ok(()),
                Next::Other => return Err(Mismatch::HeadsFileDiffers { number }.into()),
                Next::End if Instant::now() > deadline => {
                    return Err(Mismatch::HeadsFileShort {
                        number,
                        count: self.count,
                    }
                    .into());
                }
                Next::End => std::thread::sleep(HEADS_FILE_PAUSE),
            }
        }
    }

    fn expect(&mut self, expected: &[u8]) -> Result<Next, VerifyError> {
        if self.file.is_none() {
            self.file = HeadsReader::open(&heads_path(self.dir)).map_err(VerifyError::Heads)?;
        }
        match &mut self.file {
            Some(file) => file.expect(expected).map_err(VerifyError::Heads),
            None => Ok(Next::End),
        }
    }

    /// Nothing may be left: no head for which there are no entries, and no record behind the last head, unless a
    /// running writer has made it since the walk began.
    fn finish(&mut self, size: u64) -> Result<(), VerifyError> {
        if self.next < self.count {
            let number = self.next;
            let heads_size = self.pending.as_ref().map_or(size, |head| head.head.size);
            return Err(Mismatch::Log(ledger::Mismatch::HeadOutOfPlace {
                number,
                size: heads_size,
                at: size,
            })
            .into());
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let Some(beyond) = file.beyond().map_err(VerifyError::Heads)? else {
            return Ok(());
        };
        let number = self.count;
        let now = super::open(self.dir)?
            .head(number)
            .map_err(|error| from_store("table head", error))?;
        if let Some(head) = now {
            let found = self.expect(&record(number, &head))?;
            let is_running = found != Next::Other;
            return if is_running {
                Ok(())
            } else {
                Err(Mismatch::HeadsFileDiffers { number }.into())
            };
        }
        match (beyond.number, beyond.head) {
            (Some(found), head) if found >= number => {
                let heads_size = head.map_or(size + 1, |head| head.head.size);
                Err(Mismatch::EntriesMissing {
                    log_size: size,
                    heads_size,
                    number: found,
                }
                .into())
            }
            _ => Err(Mismatch::HeadsFileDiffers { number }.into()),
        }
    }
}

/// What the database keeps besides entries, payloads and heads must be what they say.
fn derived(reader: &Reader, summary: &Summary, blobs: u64) -> Result<(), VerifyError> {
    let edge = read_edge(reader.connection()).map_err(|error| from_store("table meta", error))?;
    let connection = reader.connection();
    let count = |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        connection
            .query_row(&sql, [], |row| row.get::<_, i64>(0))
            .map_err(|source| unreadable(&format!("table {table}"), source))
    };
    if edge != summary.edge || count("meta")? != 1 {
        return Err(Mismatch::Derived {
            what: "tree's edge (table meta)".to_owned(),
        }
        .into());
    }
    if count("blob")?.cast_unsigned() != blobs {
        return Err(Mismatch::Derived {
            what: "blob index".to_owned(),
        }
        .into());
    }
    authors(connection, summary)
}

fn authors(connection: &Connection, summary: &Summary) -> Result<(), VerifyError> {
    let read = || -> rusqlite::Result<Vec<(String, i64)>> {
        let mut statement = connection.prepare("SELECT name, counter FROM author ORDER BY name")?;
        statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    };
    let found = read().map_err(|source| unreadable("table author", source))?;
    for (name, counter) in &found {
        if summary.authors.get(name) != Some(&counter.cast_unsigned()) {
            return Err(Mismatch::Derived {
                what: format!("counter of author {name}"),
            }
            .into());
        }
    }
    if found.len() != summary.authors.len() {
        return Err(Mismatch::Derived {
            what: "table author".to_owned(),
        }
        .into());
    }
    Ok(())
}

/// The tables' and indexes' own structure, projections included.
pub(crate) fn integrity(connection: &Connection) -> Result<(), VerifyError> {
    let finding: String = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|source| unreadable("structure", source))?;
    if finding == "ok" {
        Ok(())
    } else {
        Err(Mismatch::Integrity { finding }.into())
    }
}
