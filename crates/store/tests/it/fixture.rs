//! A small log whose rows follow from its entries, and the fold that makes the same rows again.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FlockOperation;

use store::{
    Batch, Entry, Fold, Ground, Log, Machine, NewEntry, OpenError, Options, Place, Reader,
    RebuildError, RebuildMode, Rebuilt, Report, Row, RowKey, Server, SessionRow, SigningKey,
    StateRow, StepRow, TaskRow, VerifyError, VerifyOptions, blob_name, rebuild_at, verify_at,
};
use tempfile::TempDir;
use testkit::postgres::Postgres;

const TABLES: [&str; 10] = [
    "meta",
    "entry",
    "payload",
    "author",
    "head",
    "task",
    "step",
    "session",
    "idempotency",
    "state",
];

pub(crate) const MAC: [u8; 32] = [0x5a; 32];

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed(&[11; 32]).unwrap()
}

pub(crate) fn options() -> Options {
    Options {
        workspace: "default".to_owned(),
        key: key(),
        create: true,
        previous_head: None,
        now_ms: 1_000,
        address: None,
    }
}

pub(crate) fn open(dir: &Path) -> Log {
    Log::open(dir, options()).unwrap()
}

/// Where one test's log lies.
pub(crate) struct Home {
    place: Place,
    dir: TempDir,
    server: Option<(&'static Postgres, String)>,
}

/// Runs a test on a directory and, where one is installed, on a Postgres.
pub(crate) fn on_both(test: impl Fn(&Home)) {
    test(&Home::directory());
    if let Some(home) = Home::server() {
        test(&home);
    }
}

impl Home {
    pub(crate) fn directory() -> Home {
        let dir = temp();
        let place = Place::Directory(dir.path().to_owned());
        Home {
            place,
            dir,
            server: None,
        }
    }

    pub(crate) fn server() -> Option<Home> {
        let postgres = Postgres::shared()?;
        let dir = temp();
        let url = postgres.url();
        let schema = url.split_once("schema=").unwrap().1.to_owned();
        let place = Place::Server {
            server: Server::parse(&url).unwrap(),
            dir: dir.path().to_owned(),
        };
        let server = Some((postgres, schema));
        Some(Home { place, dir, server })
    }

    pub(crate) fn is_on_server(&self) -> bool {
        self.server.is_some()
    }

    /// The log's directory, or the one beside the server.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn open(&self) -> Log {
        self.try_open(options()).unwrap()
    }

    pub(crate) fn try_open(&self, options: Options) -> Result<Log, OpenError> {
        self.open_on(Arc::new(Machine), options)
    }

    pub(crate) fn open_on(
        &self,
        ground: Arc<dyn Ground>,
        options: Options,
    ) -> Result<Log, OpenError> {
        self.let_go();
        Log::open_at(ground, &self.place, options)
    }

    /// A process that another test starts holds this one's lock for as long as it takes it to begin.
    fn let_go(&self) {
        let Ok(lock) = fs::File::open(self.dir.path().join("lock")) else {
            return;
        };
        for _ in 0..100 {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return,
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub(crate) fn reader(&self) -> Result<Reader, OpenError> {
        Reader::open_at(&self.place)
    }

    pub(crate) fn verify(&self, options: &VerifyOptions) -> Result<Report, VerifyError> {
        verify_at(&self.place, options)
    }

    pub(crate) fn rebuild(
        &self,
        fold: &mut dyn Fold,
        mode: RebuildMode,
    ) -> Result<Rebuilt, RebuildError> {
        if mode == RebuildMode::Write {
            self.let_go();
        }
        rebuild_at(&self.place, fold, mode)
    }

    pub(crate) fn url(&self) -> String {
        let (postgres, schema) = self.server.as_ref().unwrap();
        postgres.url_of(schema)
    }

    /// Changes what is stored behind the log's back.
    pub(crate) fn sql(&self, sql: &str) -> String {
        match &self.server {
            Some((postgres, schema)) => {
                postgres.sql(&format!("SET search_path TO {schema}; {sql}"))
            }
            None => {
                let path = self.dir.path().join("log.db");
                let connection = rusqlite::Connection::open(path).unwrap();
                connection.execute(sql, []).unwrap();
                String::new()
            }
        }
    }

    pub(crate) fn examine(&self) -> Result<String, String> {
        examine_at(&self.place)?;
        Ok(self.dump())
    }

    /// Every value in every table, and the heads file of a directory.
    pub(crate) fn dump(&self) -> String {
        if !self.is_on_server() {
            return dump(self.dir.path());
        }
        let tables = TABLES.map(|table| {
            let rows = self.sql(&format!("SELECT * FROM {table} ORDER BY 1, 2"));
            format!("{table}\n{rows}\n")
        });
        tables.concat()
    }
}

pub(crate) fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub(crate) fn entry(n: u64) -> NewEntry {
    NewEntry {
        time_ms: 1_000 + n.cast_signed(),
        kind: "task.changed".to_owned(),
        version: 1,
        subject: format!("task-{}", n % 5),
        author: format!("author-{}", n % 3),
        traceparent: n
            .is_multiple_of(2)
            .then(|| format!("00-{n:032x}-{n:016x}-01")),
        data: n.to_be_bytes().to_vec(),
        payloads: vec![
            (
                "text".to_owned(),
                format!("payload number {n} ")
                    .repeat(usize::try_from(n % 4).unwrap() * 40 + 1)
                    .into_bytes(),
            ),
            (
                blob_name(&[u8::try_from(n % 7).unwrap(); 32]),
                b"a message".to_vec(),
            ),
        ],
    }
}

/// What the fold makes of one entry. One task of five is deleted again by its later entries.
pub(crate) fn rows(seq: u64, subject: &str, data: &[u8]) -> Vec<Row> {
    if subject == "task-3" && seq > 8 {
        return vec![
            Row::Delete(RowKey::Task(subject.to_owned())),
            Row::Delete(RowKey::Step {
                task: subject.to_owned(),
                n: seq,
            }),
        ];
    }
    let state = ["working", "completed", "input-required"][usize::try_from(seq % 3).unwrap()];
    let agent = ["a", "b"][usize::try_from(seq % 2).unwrap()].to_owned();
    vec![
        Row::Task(TaskRow {
            id: subject.to_owned(),
            agent: agent.clone(),
            session: format!("session of {subject}"),
            state: state.to_owned(),
            created_ms: 7,
            updated_seq: seq,
            body: data.to_vec(),
        }),
        Row::Step(StepRow {
            task: subject.to_owned(),
            n: seq,
            body: data.repeat(9),
        }),
        Row::Session(SessionRow {
            id: format!("session of {subject}"),
            agent: seq.is_multiple_of(2).then_some(agent),
            body: data.to_vec(),
        }),
        Row::Idempotency {
            key: format!("key {seq}"),
            task: subject.to_owned(),
        },
        Row::State(StateRow {
            kind: "generation".to_owned(),
            key: format!("{:03}", seq % 4),
            body: data.to_vec(),
        }),
    ]
}

/// A batch of these entries with the rows that follow.
pub(crate) fn batch(log: &Log, entries: Vec<NewEntry>) -> Batch {
    let seqs = log.size()..;
    let rows = seqs
        .zip(&entries)
        .flat_map(|(seq, entry)| rows(seq, &entry.subject, &entry.data))
        .collect();
    Batch {
        entries,
        rows,
        ..Batch::default()
    }
}

/// Appends entries whose rows are left for later; returns the rows.
pub(crate) fn fill_later(log: &mut Log, count: u64) -> Vec<Row> {
    let mut later = Vec::new();
    for _ in 0..count {
        let size = log.size();
        let batch = batch(log, vec![entry(size), entry(size + 1)]);
        later.extend(batch.rows);
        log.append(&Batch {
            rows: Vec::new(),
            rows_later: true,
            ..batch
        })
        .unwrap();
    }
    later
}

/// Appends `count` batches of one to three entries.
pub(crate) fn fill(log: &mut Log, count: u64) {
    for _ in 0..count {
        let size = log.size();
        let entries = (size..=size + size % 3).map(entry).collect();
        let batch = batch(log, entries);
        log.append(&batch).unwrap();
    }
}

pub(crate) struct SampleFold;

impl Fold for SampleFold {
    fn apply(
        &mut self,
        entry: &Entry,
        _log: &Reader,
    ) -> Result<Vec<Row>, Box<dyn Error + Send + Sync>> {
        let is_ours = entry.kind == "task.changed";
        Ok(if is_ours {
            rows(entry.seq, &entry.subject, &entry.data)
        } else {
            Vec::new()
        })
    }
}

/// Copies a log as a backup that stops nobody would: the files, byte for byte.
pub(crate) fn copy(from: &Path) -> TempDir {
    let to = temp();
    for name in ["log.db", "log.db-wal", "log.db-shm", "heads"] {
        if from.join(name).exists() {
            fs::copy(from.join(name), to.path().join(name)).unwrap();
        }
    }
    to
}

/// Verifies a log and its projections with the key from elsewhere; on success gives all that it says, as text.
pub(crate) fn examine(dir: &Path) -> Result<String, String> {
    examine_at(&dir.into())?;
    Ok(dump(dir))
}

fn examine_at(place: &Place) -> Result<(), String> {
    let reader = Reader::open_at(place).map_err(|error| chain(&error))?;
    let public_key = Some(
        key()
            .public_key(reader.origin())
            .map_err(|error| chain(&error))?,
    );
    drop(reader);
    verify_at(
        place,
        &VerifyOptions {
            public_key,
            since: None,
        },
    )
    .map_err(|error| chain(&error))?;
    rebuild_at(place, &mut SampleFold, RebuildMode::Check).map_err(|error| chain(&error))?;
    Ok(())
}

pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Every value in every table, and the heads file.
pub(crate) fn dump(dir: &Path) -> String {
    let connection = rusqlite::Connection::open_with_flags(
        dir.join("log.db"),
        rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .unwrap();
    let mut text = String::new();
    for table in TABLES {
        let mut statement = connection
            .prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2"))
            .unwrap();
        let columns = statement.column_count();
        let mut rows = statement.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let values =
                (0..columns).map(|column| row.get::<_, rusqlite::types::Value>(column).unwrap());
            text.push_str(&format!("{table} {:?}\n", values.collect::<Vec<_>>()));
        }
    }
    text + &String::from_utf8_lossy(&fs::read(dir.join("heads")).unwrap())
}

pub(crate) fn flip(path: &PathBuf, at: usize, mask: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= mask;
    fs::write(path, bytes).unwrap();
}

pub(crate) fn cut(path: &PathBuf, length: usize) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..length]).unwrap();
}
