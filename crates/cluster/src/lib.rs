//! The home of a hub on Kubernetes: custom resources in, pods as instances.
//!
//! It feeds the hub through the same channel that the keeper feeds on one server, and decides
//! nothing about tasks. `door` lets pods in by their tokens (`token`) and joins their connections
//! with sockets of this host (`pods`, `doors`, `pipe`), so that hub and gateway reach a pod as they
//! reach a process beside them. `reviews` says who a client is.

mod clock;
mod disk;
pub mod door;
mod doors;
mod fleet;
mod generation;
pub mod home;
mod objects;
mod offer;
mod pipe;
pub mod pods;
pub mod ready;
pub mod reviews;
mod secrets;
mod socket;
pub mod source;
pub mod token;
