//! Kubernetes: five controllers, and what they build from a workspace's objects.
//!
//! Each reconcile is five steps: dereference, validate, build, apply, update status. What a fleet
//! means is decided by `api` alone; what a hub does with it is the hub's.

pub mod install;
