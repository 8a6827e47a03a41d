//! Decisions, and nothing else: no clock, no randomness, no I/O.
//!
//! Each state machine is a `decide` (state and command in, events or a rejection out) and an
//! `apply` (state and event in, state out). Both homes and the simulator use the same functions.

pub mod budget;
pub mod event;
pub mod restart;
pub mod scale;
pub mod step;
pub mod task;
pub mod usage;
