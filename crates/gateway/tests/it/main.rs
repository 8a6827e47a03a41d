//! The gateway on a real hub with a real log, with providers, tools and agents on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::large_futures,
    reason = "a test's helpers may end the test, and read into buffers of their own"
)]

mod fallback;
mod home;
mod mcp;
mod model;
mod service;
mod stdio;
mod tools;
mod transcripts;
