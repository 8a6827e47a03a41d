//! Facts on disk until the hub's log has them: they survive the shim, the keeper and the machine.
//!
//! One append-only file of frames per instance. A torn last frame is what a crash leaves and is
//! cut off. Numbers grow over all lives of the instance. When nothing is left unacknowledged the
//! file is emptied but for the next number.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use contract::frame::{Decoder, FrameError, encode};
use contract::shim::Fact;
use serde::{Deserialize, Serialize};

/// More unacknowledged facts about a service than this: the oldest of them are dropped.
const MAX_SERVICE_FACTS: usize = 4096;
/// A file that grew beyond this is rewritten with what is still unacknowledged.
const REWRITE_BYTES: u64 = 64 * 1024 * 1024;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
enum Line {
    Next {
        record: u64,
    },
    #[serde(rename_all = "camelCase")]
    Recorded {
        record: u64,
        at_ms: u64,
        fact: Fact,
    },
    Acknowledged {
        record: u64,
    },
    /// A process that runs although the fact of its start was acknowledged.
    Open {
        fact: Fact,
    },
}

/// A fact and the wall clock when it happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) at_ms: u64,
    pub(crate) fact: Fact,
}

#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
    file: File,
    bytes: u64,
    next: u64,
    /// On disk and not acknowledged: what a hub may be told.
    durable: BTreeMap<u64, Recorded>,
    /// Starts without an end, acknowledged or not, by task; the service's under an empty name.
    open: BTreeMap<String, Fact>,
    /// Not flushed yet: nobody is told.
    pending: BTreeMap<u64, Recorded>,
    buffer: Vec<u8>,
}

impl Spool {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let Replayed {
            next,
            durable,
            open,
            whole,
        } = replay(&bytes);
        file.set_len(whole)?;
        file.seek(SeekFrom::Start(whole))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes: whole,
            next,
            durable,
            open,
            pending: BTreeMap::new(),
            buffer: Vec::new(),
        })
    }

    /// Adds a fact; it is told to a hub after the next [`Spool::flush`].
    pub(crate) fn record(&mut self, at_ms: u64, mut fact: Fact) -> io::Result<u64> {
        let record = self.next;
        let bytes = loop {
            let line = Line::Recorded {
                record,
                at_ms,
                fact: fact.clone(),
            };
            match encode(&line) {
                Ok(bytes) => break bytes,
                // Control characters take six bytes each in JSON.
                Err(FrameError::TooLarge { .. }) if shorten(&mut fact) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        };
        self.next += 1;
        note_open(&mut self.open, &fact);
        self.buffer.extend(bytes);
        self.pending.insert(record, Recorded { at_ms, fact });
        Ok(record)
    }

    /// Makes everything recorded durable. If the disk refuses, the facts are told all the same
    /// (an answer in hand is worth more than its copy) and the next call tries again.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.write_buffer();
        self.durable.append(&mut self.pending);
        written?;
        self.drop_old_service_facts();
        if self.bytes > REWRITE_BYTES {
            self.rewrite()?;
        }
        Ok(())
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let written = self
            .file
            .write_all(&self.buffer)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.bytes)?;
            self.file.seek(SeekFrom::Start(self.bytes))?;
            if self.buffer.len() as u64 > REWRITE_BYTES {
                self.buffer = Vec::new();
            }
            return Err(error);
        }
        self.bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// The hub's log has this fact. Not flushed: telling it twice is harmless.
    pub(crate) fn acknowledge(&mut self, record: u64) -> io::Result<()> {
        if self.durable.remove(&record).is_none() {
            return Ok(());
        }
        if self.durable.is_empty() && self.pending.is_empty() && self.bytes > 64 * 1024 {
            return self.rewrite();
        }
        let line = encode(&Line::Acknowledged { record }).map_err(io::Error::other)?;
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Durable facts above a number, oldest first.
    pub(crate) fn after(&self, record: u64) -> impl Iterator<Item = (u64, &Recorded)> {
        self.durable
            .range(record + 1..)
            .map(|(number, recorded)| (*number, recorded))
    }

    /// Starts without an end: what runs now, or ran when the shim before this one died.
    pub(crate) fn running(&self) -> impl Iterator<Item = &Fact> {
        self.open.values()
    }

    /// Nothing is left that a hub doesn't have.
    pub(crate) fn is_settled(&self) -> bool {
        self.durable.is_empty() && self.pending.is_empty()
    }

    /// Everything unacknowledged, durable or not.
    pub(crate) fn unacknowledged(&self) -> impl Iterator<Item = &Fact> {
        self.durable
            .values()
            .chain(self.pending.values())
            .map(|recorded| &recorded.fact)
    }

    fn drop_old_service_facts(&mut self) {
        let is_service = |fact: &Fact| {
            !matches!(
                fact,
                Fact::AttemptStarted { .. } | Fact::AttemptEnded { .. }
            )
        };
        let numbers: Vec<u64> = self
            .durable
            .iter()
            .filter(|(_, recorded)| is_service(&recorded.fact))
            .map(|(number, _)| *number)
            .collect();
        let excess = numbers.len().saturating_sub(MAX_SERVICE_FACTS);
        for number in &numbers[..excess] {
            self.durable.remove(number);
        }
    }

    /// Replaces the file by one with the next number and what is unacknowledged.
    fn rewrite(&mut self) -> io::Result<()> {
        let mut bytes = encode(&Line::Next { record: self.next }).map_err(io::Error::other)?;
        for (record, recorded) in &self.durable {
            let line = Line::Recorded {
                record: *record,
                at_ms: recorded.at_ms,
                fact: recorded.fact.clone(),
            };
            bytes.extend(encode(&line).map_err(io::Error::other)?);
        }
        for fact in self.open.values() {
            let line = Line::Open { fact: fact.clone() };
            bytes.extend(encode(&line).map_err(io::Error::other)?);
        }
        let new = self.path.with_extension("spool-new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        std::fs::rename(&new, &self.path)?;
        self.file = file;
        self.bytes = bytes.len() as u64;
        Ok(())
    }
}

/// Halves the answer in a fact; false if there is nothing to halve.
fn shorten(fact: &mut Fact) -> bool {
    let Fact::AttemptEnded { exit, .. } = fact else {
        return false;
    };
    let mut half = exit.stdout.len() / 2;
    while !exit.stdout.is_char_boundary(half) {
        half -= 1;
    }
    exit.stdout.truncate(half);
    exit.stdout_truncated = true;
    half > 0
}

/// What a file holds.
struct Replayed {
    next: u64,
    durable: BTreeMap<u64, Recorded>,
    open: BTreeMap<String, Fact>,
    /// Bytes up to the first torn line.
    whole: u64,
}

/// Reads lines until the end or the first torn one.
fn replay(bytes: &[u8]) -> Replayed {
    let mut decoder = Decoder::default();
    decoder.push(bytes);
    let (mut next, mut durable, mut open) = (1, BTreeMap::new(), BTreeMap::new());
    loop {
        let line = match decoder.next::<Line>() {
            Ok(Some(line)) => line,
            // A line of a newer version: its facts are for a newer hub.
            Err(FrameError::Decode(_)) => continue,
            Ok(None) | Err(_) => break,
        };
        match line {
            Line::Next { record } => next = next.max(record),
            Line::Recorded {
                record,
                at_ms,
                fact,
            } => {
                next = next.max(record + 1);
                note_open(&mut open, &fact);
                durable.insert(record, Recorded { at_ms, fact });
            }
            Line::Acknowledged { record } => {
                durable.remove(&record);
            }
            Line::Open { fact } => note_open(&mut open, &fact),
        }
    }
    let whole = (bytes.len() - decoder.into_rest().len()) as u64;
    Replayed {
        next,
        durable,
        open,
        whole,
    }
}

/// Follows which processes run.
fn note_open(open: &mut BTreeMap<String, Fact>, fact: &Fact) {
    match fact {
        Fact::AttemptStarted { task, .. } => {
            open.insert(task.clone(), fact.clone());
        }
        Fact::AttemptEnded { task, .. } => {
            open.remove(task);
        }
        Fact::ServiceStarted { .. } => {
            open.insert(String::new(), fact.clone());
        }
        Fact::ServiceEnded { .. } => {
            open.remove("");
        }
        Fact::ServiceReady { .. } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(attempt: u32) -> Fact {
        Fact::AttemptStarted {
            task: "t".to_owned(),
            attempt,
            pid: 7,
        }
    }

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("spool-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path.join("x.spool")
    }

    #[test]
    fn facts_outlive_the_shim_at_any_torn_end_and_numbers_never_repeat() {
        let path = scratch("torn");
        let mut spool = Spool::open(&path).unwrap();
        spool.record(1, started(1)).unwrap();
        assert_eq!(spool.after(0).count(), 0, "not told before it is durable");
        spool.flush().unwrap();
        let first = std::fs::metadata(&path).unwrap().len();
        spool.record(2, started(2)).unwrap();
        spool.flush().unwrap();
        drop(spool);
        let whole = std::fs::read(&path).unwrap();
        for cut in usize::try_from(first).unwrap()..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut spool = Spool::open(&path).unwrap();
            let kept = spool.after(0).count();
            assert_eq!(kept, if cut == whole.len() { 2 } else { 1 }, "cut at {cut}");
            let record = spool.record(3, started(3)).unwrap();
            assert_eq!(record, kept as u64 + 1);
        }
    }

    #[test]
    fn an_answer_whose_encoding_is_too_large_is_shortened_not_fatal() {
        let mut spool = Spool::open(&scratch("large")).unwrap();
        let exit = contract::shim::Exit {
            stdout: "\u{1}".repeat(9 * 1024 * 1024),
            ..crate::shim::process::never_started(String::new())
        };
        let fact = Fact::AttemptEnded {
            task: "t".to_owned(),
            attempt: 1,
            exit,
            will_restart: false,
            delay_ms: 0,
        };
        spool.record(1, fact).unwrap();
        let Some(Fact::AttemptEnded { exit, .. }) = spool.unacknowledged().next() else {
            panic!("the fact is kept");
        };
        assert!(exit.stdout_truncated && exit.stdout.len() > 1024 * 1024);
    }

    #[test]
    fn an_acknowledged_fact_is_gone_and_its_number_stays_used() {
        let path = scratch("acknowledged");
        let mut spool = Spool::open(&path).unwrap();
        let record = spool.record(1, started(1)).unwrap();
        spool.flush().unwrap();
        spool.acknowledge(record).unwrap();
        spool.rewrite().unwrap();
        drop(spool);
        let mut spool = Spool::open(&path).unwrap();
        assert_eq!(spool.after(0).count(), 0);
        assert_eq!(spool.running().count(), 1, "it still runs");
        assert!(spool.record(2, started(2)).unwrap() > record);
    }
}
