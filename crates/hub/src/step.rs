//! One model or tool call: matched against the journal, journaled before it leaves, settled
//! before anybody may act on its answer.
//!
//! `begin` decides which answer an ask gets, `intent` journals a new call, `run` is a call being
//! made, `question` what a person is asked.

mod ask;
mod begin;
mod intent;
mod question;
mod run;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mainstay_core::event::Event;
use mainstay_core::step::StepState;
pub use mainstay_core::step::{Effect, StepKind};
use mainstay_core::usage::{Cost, Usage};

use crate::answer::AnswerStream;
use crate::caller::Caller;
use crate::{Code, Hub, HubError, Refusal};
use ask::Keyed;
use begin::{Decision, Recorded, begin, deliver, fenced, spooled};
pub use run::StepRun;

/// A request of an agent, as far as the journal is concerned.
#[derive(Clone, Debug)]
pub struct StepAsk {
    pub kind: StepKind,
    /// The model as asked for, or the tool's exposed name.
    pub name: String,
    /// What the match key is made of: dialect, path and canonical body, or tool and arguments.
    pub canonical: Vec<u8>,
    /// The same with times masked, if masking changed anything.
    pub masked: Option<Vec<u8>>,
    /// Models are `Pure`.
    pub effect: Effect,
    /// The SDK says it is a retry of its own (`x-stainless-retry-count` > 0).
    pub retry: bool,
    /// Tool call ids and texts of earlier answers that the request contains.
    pub marks: Vec<String>,
    pub request: Request,
    pub reserve: Reserve,
}

/// A request as it is kept: whole requests would be quadratic, so each message is stored once.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub envelope: Vec<u8>,
    pub messages: Vec<Vec<u8>>,
}

/// What the call may take at most, as far as one can tell before it is made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reserve {
    pub tokens: u64,
    pub usd: Option<f64>,
}

/// What to do with a request.
#[derive(Debug)]
pub enum StepTurn {
    /// Recorded or in flight: stream it to the agent.
    Answer(AnswerStream),
    /// Perform the call in a task of [`Hub::spawn`], which outlives the agent's connection.
    Run(Box<StepRun>, AnswerStream),
    /// `StepKind::Local` only: run it in the agent, or take the recorded result.
    Local {
        step: String,
        result: Option<AnswerStream>,
    },
}

/// How a call comes to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    First,
    /// Sent before, under the same id.
    Again,
    /// A queryable call of unknown outcome: read back first.
    ReadBack,
}

/// What became of a step whose outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterUnknown {
    /// Send it again under the same id.
    Again,
    ReadBack,
    /// The task waits for a person; the agent's connection got a refusal.
    Parked,
    /// It is of an ambient task, which nothing resumes: the call is answered with an error.
    Told,
}

/// A call's result.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    pub usage: Usage,
    pub cost: Cost,
    /// `provider/model` that served.
    pub model: Option<String>,
    /// Tool call ids, or the text, of the answer.
    pub marks: Vec<String>,
    /// Tool calls the answer proposes: what their tool steps' `canonical` will be.
    pub proposals: Vec<Vec<u8>>,
    /// A tool's own error: an answer all the same.
    pub is_error: bool,
}

/// A definite failure of a call, in the agent's dialect.
#[derive(Clone, Debug)]
pub struct Failure {
    pub status: u16,
    pub content_type: String,
    pub body: Bytes,
    /// Bytes have left already or the stream broke: connections are reset.
    pub broken: bool,
    pub usage: Usage,
    pub cost: Cost,
    /// How long the provider asks to be left alone.
    pub retry_after: Option<Duration>,
    /// Every credential was refused (401 from all): the task is parked in `auth-required`.
    pub credential: Option<String>,
}

/// How long a suspicious live call is held before the task is parked.
const HOLD: Duration = Duration::from_secs(20);

const HOLD_STEP: Duration = Duration::from_millis(200);

/// Bounds of what one step's entries hold.
const MAX_NAME: usize = 1024;

const MAX_MESSAGES: usize = 8192;

impl Hub {
    /// Matches a request against the journal; a new one is journaled with its reservation in the
    /// same transaction. Returns after the commit.
    pub async fn step_begin(&self, caller: &Caller, ask: StepAsk) -> Result<StepTurn, Refusal> {
        bounded(&ask)?;
        let ask = Arc::new(Keyed::new(caller, ask));
        let until = tokio::time::Instant::now() + HOLD;
        loop {
            let last = tokio::time::Instant::now() >= until;
            let (hub, caller_, ask_) = (self.clone(), caller.clone(), Arc::clone(&ask));
            let decision = self
                .writer
                .run(move |tx| begin(tx, &hub, &caller_, &ask_, last))
                .await??;
            match decision {
                Decision::Hold => tokio::time::sleep(HOLD_STEP).await,
                Decision::Stream(stream) => return Ok(StepTurn::Answer(stream)),
                Decision::Run(mut run, stream) => {
                    run.handed = true;
                    return Ok(StepTurn::Run(run, stream));
                }
                Decision::Recorded(recorded) => {
                    return Ok(StepTurn::Answer(self.recorded(recorded).await?));
                }
                Decision::Local { step, answer } => {
                    let result = match answer {
                        Some(recorded) => Some(self.recorded(recorded).await?),
                        None => None,
                    };
                    return Ok(StepTurn::Local { step, result });
                }
            }
        }
    }

    async fn recorded(&self, recorded: Recorded) -> Result<AnswerStream, Refusal> {
        let Recorded {
            n,
            answer,
            delivered,
            guard,
            replayed,
        } = recorded;
        let seq = answer.seq;
        let bytes = self
            .read_entries(move |reader| reader.payload(seq, "answer"))
            .await?;
        let spool = spooled(&answer, bytes.unwrap_or_default());
        let (delivered, guard) = (Some(delivered), Some(guard));
        Ok(AnswerStream::new(spool, n, replayed, delivered, guard))
    }

    /// The result of a step that the agent ran itself.
    pub async fn step_report(
        &self,
        caller: &Caller,
        step_id: &str,
        result: serde_json::Value,
    ) -> Result<(), Refusal> {
        let (caller, id) = (caller.clone(), step_id.to_owned());
        let bytes = result.to_string().into_bytes();
        if bytes.len() > crate::answer::MAX_ANSWER_BYTES {
            return Err(HubError::new(
                Code::TooLarge,
                "the step's result is larger than 32 MiB",
            ));
        }
        self.writer
            .run(move |tx| {
                let open = fenced(tx, &caller)?;
                let step = open
                    .record
                    .steps
                    .iter()
                    .find(|step| step.id == id && step.kind == StepKind::Local);
                let step = step.ok_or_else(|| {
                    HubError::new(
                        Code::NotFound,
                        format!("the task has no step {id} of its own"),
                    )
                })?;
                if step.state == StepState::Finished {
                    return Ok(());
                }
                let event = Event::StepFinished {
                    n: step.n,
                    status: 200,
                    content_type: "application/json".into(),
                    usage: Usage::default(),
                    cost: Cost::default(),
                    model: None,
                    marks: Vec::new(),
                    proposals: Vec::new(),
                    is_error: false,
                    attempt: caller.attempt,
                };
                let n = step.n;
                tx.emit(&caller.task, "agent", event.with("answer", bytes));
                deliver(tx, &caller.task, caller.attempt, n);
                Ok(())
            })
            .await?
    }
}

/// What an entry can't hold is refused here: past this point nothing may refuse a batch.
fn bounded(ask: &StepAsk) -> Result<(), Refusal> {
    let refused = |what: String| Err(HubError::new(Code::TooLarge, what));
    if ask.name.len() > MAX_NAME {
        return refused(format!("the name is longer than {MAX_NAME} bytes"));
    }
    if ask.request.messages.len() > MAX_MESSAGES {
        return refused(format!("the request has more than {MAX_MESSAGES} messages"));
    }
    Ok(())
}
