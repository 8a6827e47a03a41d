//! The five kinds of manifest: their types, defaults, validation, JSON Schema, and their resolution into a `Fleet`.
//!
//! One pure function, `resolve`, takes a whole set of documents and reports either a fleet or everything that is wrong
//! with the set. This crate never reads a file, a clock or the network: texts and facts come in as arguments.

pub mod agent;
mod canonical;
pub mod credential;
pub mod duration;
pub mod fleet;
pub mod problem;
pub mod prompt_pack;
pub mod provider;
pub mod quantity;
pub mod tool_registry;
pub mod workspace;

/// What every manifest begins with.
pub const API_VERSION: &str = "mainstay.dev/v1alpha1";
