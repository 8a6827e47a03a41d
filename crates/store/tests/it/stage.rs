//! A disk that fails at any stage of a commit: the batch is whole or not there, the writer takes
//! nothing more, and the next start goes on from what is durable. And one source of chance: the
//! same bytes give the same log.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use store::{Ground, Log, Stage, StoreError};

use crate::fixture::{batch, dump, entry, fill, on_both, options, temp};

const STAGES: [Stage; 4] = [
    Stage::Begin,
    Stage::Written,
    Stage::Committed,
    Stage::Headed,
];

/// Fails the n-th commit at one stage; its chance is a counter.
#[derive(Debug)]
struct Failing {
    commits: AtomicU64,
    at: Option<(u64, Stage)>,
    drawn: AtomicU64,
}

impl Failing {
    fn at(at: Option<(u64, Stage)>) -> Arc<Self> {
        Arc::new(Self {
            commits: AtomicU64::new(0),
            at,
            drawn: AtomicU64::new(0),
        })
    }
}

impl Ground for Failing {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), StoreError> {
        for byte in bytes {
            *byte = self.drawn.fetch_add(1, Ordering::SeqCst).to_be_bytes()[7];
        }
        Ok(())
    }

    fn reach(&self, _dir: &Path, stage: Stage) -> io::Result<()> {
        if stage == Stage::Begin {
            self.commits.fetch_add(1, Ordering::SeqCst);
        }
        match self.at {
            Some((n, at)) if at == stage && n == self.commits.load(Ordering::SeqCst) => {
                Err(io::Error::other("the disk broke"))
            }
            _ => Ok(()),
        }
    }
}

#[test]
fn a_commit_that_fails_at_any_stage_is_whole_or_not_there_and_ends_the_writer() {
    on_both(|home| {
        for (n, stage) in (1..=3).flat_map(|n| STAGES.map(|stage| (n, stage))) {
            let ground = Failing::at(Some((n, stage)));
            let mut log = home.open_on(ground, options()).unwrap();
            fill(&mut log, n - 1);
            let before = log.size();
            let next = batch(&log, vec![entry(before), entry(before + 1)]);
            let error = log.append(&next).unwrap_err();
            assert!(error.is_fatal(), "{n} {stage:?}: {error}");
            assert!(
                matches!(log.append(&next), Err(StoreError::Failed)),
                "{n} {stage:?}: it takes more"
            );
            drop(log);

            let mut log = home.open();
            let is_durable = matches!(stage, Stage::Committed | Stage::Headed);
            let size = before + if is_durable { 2 } else { 0 };
            assert_eq!(log.size(), size, "{n} {stage:?}");
            let healed = u64::from(stage == Stage::Committed);
            assert_eq!(log.healed_heads(), healed, "{n} {stage:?}");
            fill(&mut log, 2);
            drop(log);
            home.examine()
                .unwrap_or_else(|error| panic!("{n} {stage:?}: {error}"));
        }
    });
}

#[test]
fn the_same_chance_gives_the_same_log_to_the_byte() {
    let written = || {
        let dir = temp();
        let mut log = Log::open_on(Failing::at(None), dir.path(), options()).unwrap();
        fill(&mut log, 9);
        let root = log.last_head().head.root;
        drop(log);
        (root, dump(dir.path()))
    };
    assert_eq!(written(), written());
}
