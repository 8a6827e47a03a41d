//! Kubernetes: controllers of five kinds, and what they build from a workspace's objects.
//!
//! Each reconcile is five steps: dereference, validate, build, apply, update status. What a fleet
//! means is decided by `api` alone; what a hub does with it is the hub's.

mod admission;
mod apply;
pub mod build;
mod clock;
mod context;
mod controller;
mod dereference;
mod error;
#[cfg(test)]
mod fake;
mod health;
mod homes;
pub mod install;
mod lease;
mod metrics;
pub mod object;
mod optional;
mod queue;
pub mod rbac;
mod resolve;
mod service;
mod status;
mod verdict;
mod watch;
mod world;

pub use service::{Options, ServiceError, run};

/// Who writes what the operator makes: its field manager, and the name of its lease.
pub const FIELD_MANAGER: &str = "mainstay-operator";
