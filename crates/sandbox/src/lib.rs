//! What the kernel offers for keeping processes: start, watch, signal, confine, end.
//!
//! The only crate with `unsafe`. It knows processes, descriptors and paths; it knows nothing of
//! agents, tasks or manifests. Everything that runs between fork and exec is async-signal-safe:
//! no allocation, no lock, no libc wrapper that touches other threads.

#![allow(
    unsafe_code,
    reason = "this crate is where system calls without a safe wrapper live"
)]

pub mod confine;
pub mod descriptors;
pub mod fork;
pub mod memory_events;
pub mod pages;
pub mod peer;
pub mod process;
pub mod reach;
pub mod signals;
pub mod spawn;
pub mod tree;
