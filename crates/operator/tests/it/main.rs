//! The operator against a real cluster: what it makes, what it leaves alone, what it takes away.
//!
//! Runs where `MAINSTAY_TEST_CLUSTER` names a kubeconfig. An operator runs in this process; if one
//! leads in the cluster already, this one waits behind it, and that one is what is tested. Nothing
//! here needs a pod to start. Only `reach` needs no cluster.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::large_futures,
    reason = "a test that can't go on must fail, and its future lies on its own stack"
)]

mod agent;
mod deep;
mod reach;
mod space;
mod workspace;
