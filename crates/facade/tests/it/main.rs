//! The facade over a real hub: real sockets, real state, a shim made by the test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on must fail"
)]

mod control;
mod door;
mod fixture;
mod openai;
mod rest;
mod review;
mod sdk;
mod socket;
mod source;
