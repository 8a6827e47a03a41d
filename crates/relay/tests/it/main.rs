//! The relay against a hub's door that a test plays, and an agent and a supervisor beside it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod gateway;
mod offer;
mod pod;
