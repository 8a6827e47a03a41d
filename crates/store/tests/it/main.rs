//! The store on the real engine, in temporary directories: what is appended is there, what is damaged is noticed.

#![allow(
    clippy::unwrap_used,
    reason = "a test's own setup may fail loudly, in its functions too"
)]

mod append;
mod crash;
mod damage;
mod erase;
mod fixture;
mod heads;
mod open;
mod read;
mod rebuild;
mod server;
mod stage;
mod verify;
mod watermark;
