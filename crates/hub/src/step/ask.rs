//! An ask with its digests: what the journal compares and what it keeps.
//!
//! All of them are keyed with the task's own key, so that erasing it unlinks them.

use mainstay_core::step::Digest;

use super::StepAsk;
use crate::caller::Caller;
use crate::keys::keyed;

/// An ask with its digests.
pub(super) struct Keyed {
    pub(super) ask: StepAsk,
    pub(super) key: Digest,
    pub(super) masked: Option<Digest>,
    pub(super) answers: Vec<Digest>,
    pub(super) blobs: Vec<(Digest, Vec<u8>)>,
    pub(super) envelope: Vec<u8>,
}

impl Keyed {
    pub(super) fn new(caller: &Caller, ask: StepAsk) -> Self {
        let blobs: Vec<(Digest, Vec<u8>)> = ask
            .request
            .messages
            .iter()
            .map(|message| (keyed(&caller.key, "blob", message), message.clone()))
            .collect();
        let macs: Vec<String> = blobs.iter().map(|(mac, _)| mac.to_hex()).collect();
        let envelope = serde_json::json!({
            "envelope": String::from_utf8_lossy(&ask.request.envelope),
            "messages": macs,
        });
        Self {
            key: keyed(&caller.key, "request", &ask.canonical),
            masked: ask
                .masked
                .as_ref()
                .map(|masked| keyed(&caller.key, "masked", masked)),
            answers: ask
                .marks
                .iter()
                .map(|mark| keyed(&caller.key, "answer", mark.as_bytes()))
                .collect(),
            envelope: envelope.to_string().into_bytes(),
            blobs,
            ask,
        }
    }
}
