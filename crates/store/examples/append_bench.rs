//! How many entries a second one writer makes durable, by group size, at 512 bytes of payload.
//!
//! `cargo run --release -p store --example append_bench [DIR [URL]]`; without DIR in a directory under the current one,
//! because a temporary directory may lie in memory. With URL on that Postgres, in schemas that it makes and leaves.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::{Batch, Log, Machine, NewEntry, Options, Place, Row, Server, SigningKey, StepRow};

const GROUPS: [u64; 5] = [1, 4, 16, 64, 256];
const TIME_PER_GROUP: Duration = Duration::from_secs(2);
const PAYLOAD_BYTES: usize = 512;

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::args()
        .nth(1)
        .unwrap_or_else(|| format!("append-bench-{}", std::process::id()));
    let base = Path::new(&base);
    std::fs::create_dir_all(base)?;
    println!("fdatasync of 4 KiB, median: {} us", fdatasync_micros(base)?);
    println!("entries per commit | entries/s | commits/s | commit p50 us | p99 us");
    for group in GROUPS {
        let dir = base.join(format!("group-{group}"));
        measure(&place(&dir, group)?, group)?;
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::remove_file(base.join("flush"))?;
    Ok(std::fs::remove_dir(base)?)
}

fn place(dir: &Path, group: u64) -> Result<Place, Box<dyn Error>> {
    let dir = dir.to_owned();
    Ok(match std::env::args().nth(2) {
        None => Place::Directory(dir),
        Some(url) => {
            let name = format!("bench_{}_{group}", std::process::id());
            let server = Server::parse(&url)?.beside(&name)?;
            Place::Server { server, dir }
        }
    })
}

fn fdatasync_micros(dir: &Path) -> Result<u128, Box<dyn Error>> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("flush"))?;
    let mut micros = Vec::new();
    for _ in 0..200 {
        file.write_all(&[1; 4096])?;
        let started = Instant::now();
        file.sync_data()?;
        micros.push(started.elapsed().as_micros());
    }
    micros.sort_unstable();
    Ok(micros[micros.len() / 2])
}

fn measure(place: &Place, group: u64) -> Result<(), Box<dyn Error>> {
    let key = SigningKey::from_seed(&[1; 32])?;
    let options = Options {
        workspace: "bench".to_owned(),
        key,
        create: true,
        previous_head: None,
        address: None,
        now_ms: 0,
    };
    let mut log = Log::open_at(Arc::new(Machine), place, options)?;
    let mut commits = Vec::new();
    let started = Instant::now();
    while started.elapsed() < TIME_PER_GROUP {
        let batch = batch(log.size(), group);
        let began = Instant::now();
        log.append(&batch)?;
        commits.push(began.elapsed().as_micros());
    }
    let seconds = started.elapsed().as_secs_f64();
    commits.sort_unstable();
    let (p50, p99) = (
        commits[commits.len() / 2],
        commits[commits.len() * 99 / 100],
    );
    let count = commits.len() as f64;
    println!(
        "{group} | {:.0} | {:.0} | {p50} | {p99}",
        count * group as f64 / seconds,
        count / seconds
    );
    Ok(log.close()?)
}

/// Steps as they are journaled: an entry with one payload, and the row that follows from it.
fn batch(size: u64, group: u64) -> Batch {
    let mut batch = Batch::default();
    for seq in size..size + group {
        let task = format!("0199a0c4-5000-7000-8000-{:012x}", seq / 200);
        batch.entries.push(NewEntry {
            time_ms: 1_790_000_000_000,
            kind: "step.completed".to_owned(),
            version: 1,
            subject: task.clone(),
            author: format!("worker-{}", seq % 50),
            data: vec![0xa0; 64],
            payloads: vec![("answer".to_owned(), vec![b'x'; PAYLOAD_BYTES])],
            ..NewEntry::default()
        });
        batch.rows.push(Row::Step(StepRow {
            task,
            n: seq % 200,
            body: vec![1; 128],
        }));
    }
    batch
}
