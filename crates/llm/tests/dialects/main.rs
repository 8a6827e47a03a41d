//! The dialects against each other: every agent's dialect over every provider's, from recorded-like fixtures written
//! by hand after the providers' references, so that readers and writers are not only checked against each other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that can't go on has failed"
)]

mod errors;
mod fixtures;
mod properties;
mod relaying;
mod rendered;
mod requests;
