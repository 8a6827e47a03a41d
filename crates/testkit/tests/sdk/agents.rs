//! The ordinary agents under `tests/`: which SDK, which dialect, how they are started.

use std::path::{Path, PathBuf};

use testkit::sdk;

/// What a provider must speak for an agent without translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    OpenAi,
    Anthropic,
}

/// One agent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sdk {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    pub(crate) speaks: Speaks,
    pub(crate) stream: bool,
}

const fn sdk(name: &'static str, file: &'static str, speaks: Speaks, stream: bool) -> Sdk {
    Sdk {
        name,
        file,
        speaks,
        stream,
    }
}

pub(crate) const CHAT: Sdk = sdk("chat", "openai_chat.py", Speaks::OpenAi, false);
pub(crate) const CHAT_STREAM: Sdk = sdk("chat-stream", "openai_chat.py", Speaks::OpenAi, true);
pub(crate) const RESPONSES: Sdk = sdk("responses", "openai_responses.py", Speaks::OpenAi, false);
pub(crate) const RESPONSES_STREAM: Sdk = sdk(
    "responses-stream",
    "openai_responses.py",
    Speaks::OpenAi,
    true,
);
pub(crate) const MESSAGES: Sdk = sdk(
    "messages",
    "anthropic_messages.py",
    Speaks::Anthropic,
    false,
);
pub(crate) const MESSAGES_STREAM: Sdk = sdk(
    "messages-stream",
    "anthropic_messages.py",
    Speaks::Anthropic,
    true,
);
pub(crate) const LANGGRAPH: Sdk = sdk("langgraph", "langgraph_graph.py", Speaks::OpenAi, false);
pub(crate) const AGENTS_SDK: Sdk = sdk("agents-sdk", "agents_sdk.py", Speaks::OpenAi, false);
pub(crate) const NODE_CHAT: Sdk = sdk("node-chat", "openai_chat.mjs", Speaks::OpenAi, true);
pub(crate) const NODE_MESSAGES: Sdk = sdk(
    "node-messages",
    "anthropic_messages.mjs",
    Speaks::Anthropic,
    true,
);

impl Sdk {
    fn is_node(&self) -> bool {
        Path::new(self.file)
            .extension()
            .is_some_and(|extension| extension == "mjs")
    }

    /// The command line, or nothing where the SDK isn't installed. Node resolves packages from
    /// where a script lies, so its scripts stay beside their `node_modules`.
    pub(crate) fn command(&self) -> Option<Vec<String>> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        if self.is_node() {
            let folder = sdk::node(self.name)?;
            return Some(vec!["node".to_owned(), text(folder.join(self.file))]);
        }
        let python = sdk::python(self.name)?;
        Some(vec![text(python), self.file.to_owned()])
    }

    /// What goes into the agent's `source`, as name and text.
    pub(crate) fn source(&self) -> Option<(&'static str, String)> {
        let is_copied = !self.is_node();
        is_copied.then(|| (self.file, sdk::agent_source(self.file)))
    }
}
