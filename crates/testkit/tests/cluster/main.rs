//! The second home: a fleet on a real Kubernetes, whole and under fire, with a counting provider.
//!
//! `cargo xtask cluster test` hands a cluster over; run alone these tests say that they are left
//! out. Only the fleet's own processes, pods and the testbed's nodes are ever harmed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

mod admission;
mod alike;
mod audit;
mod condition;
mod control;
mod harm;
mod identity;
mod leave;
mod many;
mod move_home;
mod node;
mod scale;
mod source;
mod sweep;
mod tool;
mod world;
