//! A call of an agent, from its token to its answer: the one function that all of them pass.
//!
//! The order is the design. The match comes first, on the request as the agent sent it, so a
//! changed policy, filter or index never breaks a replay. Nothing leaves before its intent is
//! durable, and nothing reaches the agent before the result is. The match, the reservation and
//! the intent are one transaction of the hub ([`hub::Hub::step_begin`]).

use std::sync::Arc;

use hub::answer::AnswerStream;
use hub::step::{AfterUnknown, StepRun, StepTurn};
use hub::{Code, HubError, Refusal};
use serde_json::Value;

use crate::Gateway;
use crate::call::{Asked, Call, Performed};
use crate::door::Door;

/// How often a call whose outcome stayed unknown is repeated before it is given up.
const MAX_REPEATS: u32 = 3;

/// What an agent gets.
pub enum Passed {
    Answer(AnswerStream),
    /// The tool runs inside the agent: run it, or take the result it had before.
    Local {
        step: String,
        result: Option<Value>,
    },
}

impl Passed {
    /// The answer of a call that doesn't run inside the agent.
    pub fn into_answer(self) -> Result<AnswerStream, Refusal> {
        match self {
            Self::Answer(answer) => Ok(answer),
            Self::Local { .. } => Err(HubError::new(
                Code::Internal,
                "a call was taken for a local step",
            )),
        }
    }
}

/// Lets one call through.
pub async fn call(gateway: &Arc<Gateway>, door: &Door, asked: Asked) -> Result<Passed, Refusal> {
    // identify
    let caller = door.identify(&gateway.hub).await?;
    let call = Call::prepare(gateway, door, &caller, asked).await?;
    // match against the journal → (policy, filter, enrich: none yet) → reserve and journal the intent
    match gateway
        .hub
        .step_begin(&caller, call.ask(&caller, door))
        .await?
    {
        StepTurn::Answer(answer) => Ok(Passed::Answer(answer)),
        StepTurn::Local { step, result } => Ok(Passed::Local { step, result }),
        StepTurn::Run(run, answer) => {
            // The call outlives the agent's connection: its result is journaled whoever still waits.
            let performing = perform(gateway.clone(), call, run);
            gateway.hub.spawn("call", performing);
            Ok(Passed::Answer(answer))
        }
    }
}

/// Makes the call and settles it, asking the hub what to do while its outcome is unknown.
async fn perform(gateway: Arc<Gateway>, call: Call, mut run: StepRun) {
    for repeat in 0.. {
        // call upstream, failing over → stream while metering
        let performed = call.perform(&gateway, &mut run, repeat < MAX_REPEATS).await;
        // settle and journal the result → release
        run = match performed {
            Performed::Finished(settled) => return run.finish(settled).await,
            Performed::Failed(failure) => return run.fail(failure).await,
            Performed::Unknown(message) => match run.unknown(message).await {
                (AfterUnknown::Again | AfterUnknown::ReadBack, Some(again)) => again,
                (_, _) => return,
            },
        };
    }
}
