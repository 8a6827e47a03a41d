//! Anthropic Messages, both sides. The wire format is Anthropic's API reference (version 2023-06-01, with
//! `output_config` and adaptive thinking).

pub(crate) mod parse_request;
pub(crate) mod read_answer;
pub(crate) mod render_request;
pub(crate) mod write_answer;

/// Marks an OpenAI reasoning item that travels as the signature of a thinking block, so that it comes back whole.
pub(crate) const OPENAI_PROOF: &str = "openai-reasoning:";
