//! The three kinds of calls that pass the pipeline, and what each must be able to do: say what it
//! asks for, as far as the journal is concerned, and be performed.

use std::sync::Arc;

use hub::Refusal;
use hub::caller::Caller;
use hub::step::{Effect, Failure, Request, Reserve, Settled, StepAsk, StepKind, StepRun};
use llm::Dialect;
use serde_json::Value;

use crate::Gateway;
use crate::door::Door;
use crate::model::ModelCall;
use crate::reply::Tongue;
use crate::tools::{self, ToolCall};

/// What a model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelWire {
    Dialect(Dialect),
    Embeddings,
}

impl ModelWire {
    /// How errors are said. Embeddings are OpenAI's.
    #[must_use]
    pub fn tongue(self) -> Tongue {
        match self {
            Self::Dialect(dialect) => Tongue::Model(dialect),
            Self::Embeddings => Tongue::Model(Dialect::OpenAiChat),
        }
    }
}

/// A request of an agent, decoded from its protocol.
pub enum Asked {
    Model {
        wire: ModelWire,
        body: Value,
    },
    /// A tool of the fleet, by the name that the agent sees.
    Tool {
        name: String,
        arguments: Value,
    },
    /// A tool that runs inside the agent.
    Local {
        name: String,
        arguments: Value,
    },
}

/// A call that may be made.
pub enum Call {
    Model(Box<ModelCall>),
    Tool(Box<ToolCall>),
    Local { name: String, arguments: Value },
}

/// What became of it.
#[derive(Debug)]
pub enum Performed {
    Finished(Settled),
    /// It failed, and it is known that it failed.
    Failed(Failure),
    /// It left, and nobody knows what became of it.
    Unknown(String),
    /// The agent that was called made this task of it, which waits for a person.
    Parked(String),
}

impl Call {
    /// Reads what is asked and refuses what can't be done. Nothing leaves here but the question
    /// for a tool server's list of tools.
    pub async fn prepare(
        gateway: &Arc<Gateway>,
        door: &Door,
        caller: &Caller,
        asked: Asked,
    ) -> Result<Self, Refusal> {
        match asked {
            Asked::Model { wire, body } => ModelCall::prepare(wire, body, caller, &door.headers)
                .map(|call| Self::Model(Box::new(call))),
            Asked::Tool { name, arguments } => ToolCall::prepare(gateway, caller, &name, arguments)
                .await
                .map(|call| Self::Tool(Box::new(call))),
            Asked::Local { name, arguments } => Ok(Self::Local { name, arguments }),
        }
    }

    /// The call as the journal sees it.
    #[must_use]
    pub fn ask(&self, caller: &Caller, door: &Door) -> StepAsk {
        // OpenAI's and Anthropic's SDKs count their own retries here.
        let retries = door
            .header("x-stainless-retry-count")
            .and_then(|count| count.trim().parse::<u32>().ok());
        let retry = retries.is_some_and(|count| count > 0);
        match self {
            Self::Model(call) => call.ask(caller, retry),
            Self::Tool(call) => tool_ask(
                StepKind::Tool,
                &call.exposed,
                &call.arguments,
                call.effect,
                retry,
            ),
            Self::Local { name, arguments } => {
                tool_ask(StepKind::Local, name, arguments, Effect::Opaque, retry)
            }
        }
    }

    /// Makes the call. `may_repeat` is false when its outcome was unknown too often: then it ends.
    pub async fn perform(
        &self,
        gateway: &Arc<Gateway>,
        run: &mut StepRun,
        may_repeat: bool,
    ) -> Performed {
        match self {
            Self::Model(call) => call.perform(gateway, run).await,
            Self::Tool(call) => call.perform(gateway, run, may_repeat).await,
            Self::Local { .. } => Performed::Unknown("a local step is run by its agent".into()),
        }
    }
}

fn tool_ask(kind: StepKind, name: &str, arguments: &Value, effect: Effect, retry: bool) -> StepAsk {
    StepAsk {
        kind,
        name: name.to_owned(),
        canonical: tools::canonical(name, arguments),
        masked: None,
        effect,
        retry,
        marks: Vec::new(),
        request: Request {
            envelope: serde_json::json!({"tool": name}).to_string().into_bytes(),
            messages: vec![arguments.to_string().into_bytes()],
        },
        reserve: Reserve::default(),
    }
}
