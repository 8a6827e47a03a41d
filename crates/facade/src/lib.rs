//! The clients' door: REST and SSE, WebSocket, OpenAI's protocols, the page and the metrics.
//!
//! Everything here decodes a request, calls one method of [`hub::Hub`] and encodes what comes
//! back. There are two doors over the same handlers: a TCP one that asks for the owner's token (or one
//! that somebody outside vouches for) and checks Host and Origin, and a Unix socket for the command line that asks the kernel who calls.
//! No state of a task lives here: a facade that is killed has lost nothing but connections.

mod access;
mod auth;
mod connection;
mod control;
mod decode;
mod door;
mod frames;
mod openai;
mod origin;
mod page;
mod probe;
mod problem;
mod rest;
mod server;
mod sse;
mod submit;
mod tls;
mod ws;

pub use access::{Access, Asked, Refused, Review};
pub use door::Options;
pub use server::serve;
