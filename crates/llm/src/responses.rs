//! OpenAI Responses, both sides. The wire format is OpenAI's API reference.
//! Only what a call carries itself is supported: whatever points at something kept by the provider is refused.

pub(crate) mod parse_request;
pub(crate) mod read_answer;
pub(crate) mod render_request;
pub(crate) mod write_answer;

/// Mark Anthropic's proofs that travel as the encrypted content of a reasoning item, so that they come back whole.
pub(crate) const SIGNATURE_PROOF: &str = "anthropic-signature:";
pub(crate) const REDACTED_PROOF: &str = "anthropic-redacted:";
/// Marks an open model's plain reasoning, which needs no proof and goes back as text.
pub(crate) const PLAIN_PROOF: &str = "plain-reasoning";
