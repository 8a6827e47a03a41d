//! The heads in the database, each compared with the tree and with its record in the heads file.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use ledger::{SignedHead, Verifier};

use super::{Mismatch, VerifyError, from_store};
use crate::directory::heads_path;
use crate::heads::{HeadsReader, Next, record};
use crate::place::Place;
use crate::reader::Reader;

/// A running writer appends a head right after its commit; a head that is still missing then is missing.
const HEADS_FILE_PATIENCE: Duration = Duration::from_millis(500);
const PAGE: usize = 512;
const HEADS_FILE_PAUSE: Duration = Duration::from_millis(10);

/// The heads in the database, each compared with the tree and with its record in the heads file.
pub(super) struct HeadsWalk<'a> {
    place: &'a Place,
    file: Option<HeadsReader>,
    /// The first head that the file must have.
    compared_from: u64,
    /// Number of the next head.
    next: u64,
    count: u64,
    /// The next head, read already and of a size that the walk has not reached.
    pending: Option<SignedHead>,
    last: Option<SignedHead>,
    /// Of a server several are asked for at once; in a file each is read alone, and damage has its place.
    ahead: VecDeque<(u64, SignedHead)>,
}

impl HeadsWalk<'_> {
    pub(super) fn new(place: &Place, count: u64) -> Result<HeadsWalk<'_>, VerifyError> {
        let compared_from = first_compared(place).map_err(VerifyError::Heads)?;
        Ok(HeadsWalk {
            place,
            file: None,
            compared_from,
            next: 0,
            count,
            pending: None,
            last: None,
            ahead: VecDeque::new(),
        })
    }

    /// The last head that was checked.
    pub(super) fn into_last(self) -> Option<SignedHead> {
        self.last
    }

    /// Checks the heads that were made at the size that the walk has reached, or that should have been before.
    pub(super) fn at(
        &mut self,
        verifier: &mut Verifier,
        reader: &Reader,
    ) -> Result<(), VerifyError> {
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
            if self.next >= self.compared_from {
                self.compare(self.next, &record(self.next, &head))?;
            }
            self.next += 1;
            self.last = Some(head);
        }
        Ok(())
    }

    fn read(&mut self, reader: &Reader) -> Result<SignedHead, VerifyError> {
        let number = self.next;
        if self.ahead.is_empty() && matches!(self.place, Place::Server { .. }) {
            let page = reader.heads(number, PAGE);
            self.ahead = page
                .map_err(|error| from_store("table head", error))?
                .into();
        }
        if let Some((_, head)) = self.ahead.pop_front_if(|(found, _)| *found == number) {
            return Ok(head);
        }
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
            self.file =
                HeadsReader::open(&heads_path(self.place.dir())).map_err(VerifyError::Heads)?;
        }
        match &mut self.file {
            Some(file) => file.expect(expected).map_err(VerifyError::Heads),
            None => Ok(Next::End),
        }
    }

    /// Nothing may be left: no head for which there are no entries, and no record behind the last head, unless a
    /// running writer has made it since the walk began.
    pub(super) fn finish(&mut self, size: u64) -> Result<(), VerifyError> {
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
        let now = super::open(self.place)?
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

/// On a server the table alone has every head; the file beside it begins where this machine last did. A file that has
/// no first record is compared from the start, and so is found to be damaged.
fn first_compared(place: &Place) -> io::Result<u64> {
    let Place::Server { dir, .. } = place else {
        return Ok(0);
    };
    match HeadsReader::open(&heads_path(dir))? {
        None => Ok(u64::MAX),
        Some(mut file) => Ok(file.first()?.unwrap_or(0)),
    }
}
