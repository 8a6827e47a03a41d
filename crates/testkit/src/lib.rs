//! Fakes that count, builders, and a real `mainstay up` to break: for tests only.
//!
//! Everything here blocks and waits for conditions with a bound, so that a test reads from top to
//! bottom. Nothing here but `home` and `pod_door` links a room of Mainstay: it knows the program only
//! as a user does, by its command line, its HTTP API and its state directory. Servers listen on
//! loopback (those that pods of a test's own cluster call, on its bridge), on ports the kernel picks;
//! only processes that a test started itself are ever killed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a fake that can't do its work must fail the test that uses it, loudly"
)]

pub mod cli;
mod client;
pub mod cluster;
pub mod effects;
pub mod fleet;
#[cfg(feature = "home")]
pub mod home;
pub mod http;
pub mod mcp_server;
#[cfg(feature = "pod")]
pub mod pod_door;
pub mod postgres;
pub mod processes;
pub mod provider;
pub mod random;
pub mod sdk;
mod server;
pub mod up;
pub mod wait;

pub use client::Client;
pub use effects::EffectServer;
pub use fleet::Fleet;
pub use mcp_server::McpServer;
pub use provider::{Call, Provider, Reply};
pub use up::Up;
pub use wait::until;
