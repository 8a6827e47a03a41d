//! The walk itself: entries in order, each with its payloads, and each head when the walk has reached its size.

use std::path::Path;

use ledger::{Entry, SaltedPayload, SignedHead, Verifier};
use rusqlite::Rows;

use super::heads::HeadsWalk;
use super::{Mismatch, Report, VerifyError, derived, from_store, unreadable};
use crate::batch::{KIND_ERASED, mac_of_blob_name};
use crate::erase::erasures_of;
use crate::reader::Reader;

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
        heads: HeadsWalk::new(dir, head_count),
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
    let last_head = heads
        .into_last()
        .ok_or(Mismatch::HeadMissing { number: 0 })?;
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
    derived::check(reader, &summary, blobs)?;
    derived::integrity(reader.connection())?;
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
