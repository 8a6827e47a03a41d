//! A call of an agent, from its token to its answer: the one function that all of them pass.
//!
//! The order is the design. The match comes first, on the request as the agent sent it, so a
//! changed policy, filter or index never breaks a replay. Nothing leaves before its intent is
//! durable, and nothing reaches the agent before the result is. The match, the reservation and
//! the intent are one transaction of the hub ([`hub::Hub::step_begin`]).

use std::sync::Arc;

use hub::answer::AnswerStream;
use hub::caller::Caller;
use hub::step::{AfterUnknown, StepAsk, StepRun, StepTurn};
use hub::{Code, HubError, Refusal};
use tokio::sync::oneshot;

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
        result: Option<AnswerStream>,
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
    let caller = door.identify(gateway).await?;
    let call = Call::prepare(gateway, door, &caller, asked).await?;
    // From here on nothing depends on the agent's connection: between a durable intent and its
    // call nobody may be left who knows that it was never made.
    let (turn, taken) = oneshot::channel();
    let ask = call.ask(&caller, door);
    let passing = pass(gateway.clone(), caller, call, ask, turn);
    gateway.hub.spawn("call", passing);
    let ended = |_| HubError::new(Code::Unavailable, "the hub is stopping");
    taken.await.map_err(ended)?
}

/// Matches, journals and makes one call, whoever still waits for it.
async fn pass(
    gateway: Arc<Gateway>,
    caller: Caller,
    call: Call,
    ask: StepAsk,
    turn: oneshot::Sender<Result<Passed, Refusal>>,
) {
    // match against the journal → (policy, filter, enrich: none yet) → reserve and journal the intent
    let begun = gateway.hub.step_begin(&caller, ask).await;
    let (passed, run) = match begun {
        Ok(StepTurn::Answer(answer)) => (Ok(Passed::Answer(answer)), None),
        Ok(StepTurn::Local { step, result }) => (Ok(Passed::Local { step, result }), None),
        Ok(StepTurn::Run(run, answer)) => (Ok(Passed::Answer(answer)), Some(*run)),
        Err(refusal) => (Err(refusal), None),
    };
    // An agent that is gone hears nothing; its answer is journaled all the same.
    let _ = turn.send(passed);
    if let Some(run) = run {
        perform(gateway, call, run).await;
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
            Performed::Parked(child) => match run.parked(child).await {
                Some(again) => again,
                None => return,
            },
        };
    }
}
