//! The figures of docs/benchmarks.md: `cargo xtask bench`. One file per section; each measures with
//! the release program and says what it ran, how often, and beside whom.
//!
//! `cargo bench -p testkit --bench figures -- NAME` runs the sections whose name contains NAME.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a measurement that fails must say so"
)]

mod crash_ready;
mod gateway;
mod idle;
mod kill_continue;
mod litellm;
mod machine;
mod peers;
mod report;
mod socket;

use report::Report;

type Section = (&'static str, fn(&mut Report));

const SECTIONS: &[Section] = &[
    ("machine", machine::measure),
    ("crash-ready", crash_ready::measure),
    ("kill-continue", kill_continue::measure),
    ("gateway-latency", gateway::latency),
    ("steps-http", gateway::throughput),
    ("idle-memory", idle::memory),
    ("websockets", idle::websockets),
];

fn main() {
    // `cargo bench` adds its own flags.
    let wanted: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    for (name, measure) in SECTIONS {
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        eprintln!("== {name}");
        let mut report = Report::new(name);
        measure(&mut report);
        report.publish();
    }
}
