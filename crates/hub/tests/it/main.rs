#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::manual_assert,
    clippy::disallowed_methods,
    reason = "a test may, and plays the world below the hub"
)]
//! The hub on a real log, with a home and a shim played by the test.

mod child;
mod clock;
mod home;
mod moving;
mod prompt;
mod replay;
mod restart;
mod retention;
mod rig;
mod simulation;
mod sweep;
mod tally;
mod task;
