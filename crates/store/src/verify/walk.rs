//! The walk itself: entries in order, each with its payloads, and each head when the walk has reached its size.

use ledger::{Entry, SaltedPayload, SignedHead, Verifier};

use super::heads::HeadsWalk;
use super::{Mismatch, Report, VerifyError, derived, from_store, unreadable};
use crate::batch::KIND_ERASED;
use crate::database::{DatabaseError, Rows};
use crate::erase::erasures_of;
use crate::place::Place;
use crate::reader::{Reader, salted};
use crate::row::{payload_id, payload_place};

/// Walks the log; the caller holds a read transaction.
pub(super) fn run(
    place: &Place,
    reader: &Reader,
    since: Option<&SignedHead>,
) -> Result<Report, VerifyError> {
    let head_count = reader
        .head_count()
        .map_err(|error| from_store("table head", error))?;
    let mut walk = Walk {
        reader,
        verifier: Verifier::new(reader.public_key().clone()),
        heads: HeadsWalk::new(place, head_count)?,
        since,
    };
    walk.entries()?;
    let Walk {
        verifier,
        mut heads,
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
    derived::check(reader, &summary)?;
    derived::integrity(reader.database())?;
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
    since: Option<&'a SignedHead>,
}

impl Walk<'_> {
    fn entries(&mut self) -> Result<(), VerifyError> {
        let entries = "SELECT seq, bytes FROM entry ORDER BY seq";
        let payloads = "SELECT id, name, salt, bytes FROM payload ORDER BY id";
        let mut walked = Ok(());
        let database = self.reader.database();
        let prepared = database.walk(&[entries, payloads], &mut |rows| {
            if let [entries, payloads] = rows {
                walked = self.beside(*entries, *payloads);
            }
        });
        prepared.map_err(|source| unreadable("schema", source))?;
        walked
    }

    fn beside(
        &mut self,
        entries: &mut dyn Rows,
        payloads: &mut dyn Rows,
    ) -> Result<(), VerifyError> {
        let mut payloads = Payloads {
            rows: payloads,
            next: None,
        };
        payloads.step()?;
        loop {
            let seq = self.verifier.size();
            let unreadable = |source| unreadable(&format!("entry {seq}"), source);
            let Some(row) = entries.next().map_err(unreadable)? else {
                break;
            };
            if row.integer(0).map_err(unreadable)?.cast_unsigned() != seq {
                return Err(Mismatch::EntryMissing { seq }.into());
            }
            let bytes = row.blob(1).map_err(unreadable)?;
            self.entry(seq, bytes, &mut payloads)?;
        }
        match payloads.next {
            Some((id, name, _)) => Err(unknown(id, &name)),
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
        let mut at = 0..;
        let entry = self.verifier.entry(bytes, |name| {
            let id = payload_id(seq, at.next().unwrap_or_default());
            payloads.take(id, name).unwrap_or_else(|error| {
                failure.get_or_insert(error);
                None
            })
        });
        // A payload that can't be read comes first: it looks like a missing one to the verifier.
        if let Some(failure) = failure {
            return Err(failure);
        }
        let entry = entry.map_err(Mismatch::Log)?;
        self.erasures(&entry)?;
        self.heads.at(&mut self.verifier, self.reader)?;
        self.since()
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

fn unknown(id: i64, name: &str) -> VerifyError {
    Mismatch::PayloadUnknown {
        seq: payload_place(id).0,
        name: name.to_owned(),
    }
    .into()
}

/// Rows of payloads in order, walked beside the entries that name them.
struct Payloads<'a> {
    rows: &'a mut dyn Rows,
    next: Option<(i64, String, SaltedPayload)>,
}

impl Payloads<'_> {
    fn step(&mut self) -> Result<(), VerifyError> {
        let place = match &self.next {
            Some((id, name, _)) => {
                format!("payload after {name} of entry {}", payload_place(*id).0)
            }
            None => "first payload".to_owned(),
        };
        self.next = self.read().map_err(|source| unreadable(&place, source))?;
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(i64, String, SaltedPayload)>, DatabaseError> {
        let Some(row) = self.rows.next()? else {
            return Ok(None);
        };
        let payload = salted(row, 2)?;
        Ok(Some((row.integer(0)?, row.text(1)?.to_owned(), payload)))
    }

    /// The payload in this place, if it is the next one, which must bear the name; places are asked for in order.
    fn take(&mut self, id: i64, name: &str) -> Result<Option<SaltedPayload>, VerifyError> {
        match &self.next {
            Some((next, _, _)) if *next > id => return Ok(None),
            None => return Ok(None),
            Some((next, found, _)) if *next < id || found != name => {
                return Err(unknown(*next, found));
            }
            Some(_) => {}
        }
        let found = self.next.take().map(|(_, _, payload)| payload);
        self.step()?;
        Ok(found)
    }
}
