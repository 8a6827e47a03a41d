//! What it was measured on, and what a flush to disk costs there: no durable thing can be faster.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use crate::report::{Report, Samples};

const FLUSHES: usize = 2000;
const BLOCK: usize = 4096;

pub(crate) fn measure(report: &mut Report) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let of = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.trim_matches([' ', '\t', ':']).to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report.line(format!(
        "{} × {}; {}; Linux {}",
        cores,
        of(&processors, "model name"),
        of(&read("/proc/meminfo"), "MemTotal"),
        // The number alone: what follows names whoever built the kernel.
        read("/proc/sys/kernel/osrelease")
            .split('-')
            .next()
            .unwrap_or_default()
            .trim()
    ));
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("unknown");
    report.line(format!("Load average when the measurements began: {load}."));
    report.line("");
    report.line("| flush of 4 KiB (write + fdatasync) | n | p50 ms | p99 ms |");
    report.line("|---|---|---|---|");
    for (name, grown) in [
        ("appended to a growing file", true),
        ("into a file written before", false),
    ] {
        let samples = flushes(grown);
        report.line(format!(
            "| {name} | {} | {:.3} | {:.3} |",
            samples.count(),
            samples.ms(500),
            samples.ms(990)
        ));
    }
}

/// On the file system where tests keep their state.
fn flushes(grows: bool) -> Samples {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("flush")).unwrap();
    let block = vec![7_u8; BLOCK];
    if !grows {
        for _ in 0..FLUSHES {
            file.write_all(&block).unwrap();
        }
        file.sync_all().unwrap();
    }
    let offset = |index: usize| (index * BLOCK) as u64;
    let samples = (0..FLUSHES).map(|index| {
        let started = Instant::now();
        file.write_all_at(&block, offset(index)).unwrap();
        file.sync_data().unwrap();
        started.elapsed()
    });
    Samples::new(samples.collect())
}
