//! The gateway on a real hub with a real log, with providers, tools and agents on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test's helpers may end the test"
)]

mod fallback;
mod home;
mod mcp;
mod model;
mod service;
mod stdio;
mod tools;
mod transcripts;
