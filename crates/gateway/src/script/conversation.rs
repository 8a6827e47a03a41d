//! A request as rules and templates see it.

use llm::{Part, Request, Turn};

/// What a transcript may look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub(crate) system: String,
    /// The newest thing a user said.
    pub(crate) input: String,
    /// Answers since then, tool calls included.
    pub(crate) turn: u32,
    /// Results since then, oldest first.
    pub(crate) tool_results: Vec<String>,
    pub(crate) model: String,
    pub(crate) attempt: u32,
    /// The same for the same conversation.
    pub(crate) fingerprint: u64,
}

impl Conversation {
    pub(crate) fn read(request: &Request, model: &str, attempt: u32) -> Self {
        let mut conversation = Self {
            model: model.to_owned(),
            attempt,
            ..Self::default()
        };
        let mut fingerprint = Fingerprint::default();
        let mut in_answer = false;
        for turn in &request.turns {
            fingerprint.add(&format!("{turn:?}"));
            let is_answer = matches!(turn, Turn::Assistant(_));
            match turn {
                Turn::System(parts) => conversation.system.push_str(&text(parts)),
                Turn::User(parts) => {
                    conversation.input = text(parts);
                    conversation.turn = 0;
                    conversation.tool_results.clear();
                }
                // Some dialects cut one answer into several items.
                Turn::Assistant(_) if in_answer => {}
                Turn::Assistant(_) => conversation.turn += 1,
                Turn::Tool(result) => conversation.tool_results.push(text(&result.content)),
            }
            in_answer = is_answer;
        }
        conversation.fingerprint = fingerprint.0;
        conversation
    }
}

fn text(parts: &[Part]) -> String {
    let texts = parts.iter().filter_map(|part| match part {
        Part::Text(text) => Some(text.as_str()),
        Part::Image(_) | Part::Document { .. } => None,
    });
    texts.collect::<Vec<_>>().join("\n")
}

/// FNV-1a: stable over versions of Rust, which the standard hasher is not.
struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    fn add(&mut self, text: &str) {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
