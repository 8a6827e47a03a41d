//! The Model Context Protocol: the client that calls tool servers, and the parts of a server that
//! don't depend on HTTP.
//!
//! Written here rather than taken from an SDK for two reasons: a journal must know whether a
//! request had left when a connection broke, and every byte that a server sends is bounded before
//! it is parsed. Nothing in here knows agents, steps or effects.

pub mod client;
mod lines;
pub mod message;
pub mod server;
mod splitter;
mod sse;
mod streamable_http;
mod tool;
pub mod version;

pub use client::{Call, CallError, Client};
pub use tool::Tool;
