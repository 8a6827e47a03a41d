//! The home of a hub on Kubernetes: custom resources in, pods as instances.
//!
//! It feeds the hub through the same channel that the keeper feeds on one server, and decides
//! nothing about tasks.
