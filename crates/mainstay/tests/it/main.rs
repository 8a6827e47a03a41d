//! The real binary: exit codes, what stands on standard output and error, and whole fleets that are
//! killed in the middle. One binary, so that it is linked once.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

mod chart;
mod child;
mod command;
mod crds;
mod elsewhere;
mod example;
mod fleet;
mod house;
mod mistake;
mod person;
mod pod;
mod render;
mod switch;
mod time;
mod traces;
