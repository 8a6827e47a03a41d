//! The five kinds of manifest: their types, defaults, validation, JSON Schema, and their resolution into a `Fleet`.
//!
//! One pure function, `resolve`, takes a whole set of documents and reports either a fleet or everything that is wrong
//! with the set. This crate never reads a file, a clock or the network: texts and facts come in as arguments.

pub mod agent;
mod canonical;
mod check;
pub mod cpu;
pub mod crd;
pub mod credential;
pub mod duration;
mod file;
pub mod fleet;
mod format;
pub mod kubernetes;
mod later;
pub mod manifest;
mod nearest;
pub mod node_address;
pub mod placement;
pub mod problem;
pub mod prompt_pack;
pub mod provider;
pub mod quantity;
mod resolve;
pub mod rule;
pub mod scale;
pub mod schema;
pub mod template;
pub mod tool_registry;
mod tree;
pub mod workspace;

pub use fleet::Fleet;
pub use format::model_name;
pub use manifest::{Document, Kind, Object, parse};
pub use problem::{Problem, Problems};
pub use resolve::{Facts, GATEWAY_ENV, Home, Knowledge, Resolved, STANDARD_ENV, resolve};
pub use schema::schema;

/// What every manifest begins with.
pub const API_VERSION: &str = "mainstay.dev/v1alpha1";
