//! The real program from outside: the official SDKs as agents, unharmed and under kill sweeps, and
//! the bad luck that needs no SDK.
//!
//! `cargo xtask test` installs the SDKs and runs the sweeps with a few tasks each; `cargo xtask
//! soak` runs the same by the hundred. Without the SDKs these tests say so and do nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod agents;
mod bad_luck;
mod clients;
mod doors;
mod fakes;
mod moving;
mod replay;
mod result;
mod sweep;
mod unharmed;
mod world;
