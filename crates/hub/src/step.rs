//! One model or tool call: matched against the journal, journaled before it leaves, settled
//! before anybody may act on its answer.

use std::sync::Arc;
use std::time::Duration;

use api::fleet::OnDivergence;
use bytes::Bytes;
use mainstay_core::budget::Limits;
use mainstay_core::event::{Event, Payload, Recorded, StepMark};
use mainstay_core::step::{self, Ask, Digest, Match, Step, StepState};
pub use mainstay_core::step::{Effect, StepKind};
use mainstay_core::task::Reason;
use mainstay_core::usage::{Cost, Usage};

use crate::action::Action;
use crate::answer::{AnswerStream, Delivered, Guard, Spool, TooLarge};
use crate::caller::Caller;
use crate::keys::keyed;
use crate::shared::{Spools, lock};
use crate::state::Open;
use crate::stream::FrameKind;
use crate::tx::Tx;
use crate::{Code, Hub, HubError, Refusal};

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
    Run(StepRun, AnswerStream),
    /// `StepKind::Local` only: run it in the agent, or take the recorded result.
    Local {
        step: String,
        result: Option<serde_json::Value>,
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
    /// Every credential was refused (401 from all): the task is parked in `auth-required`.
    pub credential: Option<String>,
}

/// A step that this hub is performing.
pub struct StepRun {
    hub: Hub,
    caller: Caller,
    n: u32,
    id: String,
    kind: StepKind,
    name: String,
    occasion: Occasion,
    spool: Arc<Spool>,
    shows_text: bool,
    settled: bool,
    /// Given to whoever performs it: until then nothing was sent.
    handed: bool,
}

impl std::fmt::Debug for StepRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "StepRun({} {} {:?})",
            self.caller.task, self.n, self.occasion
        )
    }
}

/// What the journal says to one ask.
enum Decision {
    Stream(AnswerStream),
    Recorded {
        n: u32,
        seq: u64,
        status: u16,
        content_type: String,
        broken: bool,
        stream: StreamParts,
    },
    /// Made with the intent: if who asked is gone before the commit, dropping it says that nothing
    /// was sent.
    Run(Box<StepRun>, AnswerStream),
    Local {
        step: String,
        seq: Option<u64>,
    },
    /// Ask again in a while: another branch may still ask for what this looks like.
    Hold,
}

/// What makes an `AnswerStream` of a recorded answer once its bytes are read.
struct StreamParts {
    delivered: Delivered,
    guard: Guard,
    replayed: bool,
}

/// How long a suspicious live call is held before the task is parked.
const HOLD: Duration = Duration::from_secs(20);
const HOLD_STEP: Duration = Duration::from_millis(200);
/// Bounds of what one step's entries hold.
const MAX_NAME: usize = 1024;
const MAX_MESSAGES: usize = 8192;
const MAX_DIGESTS: usize = 4096;
/// The status of a call that was not made: its client had closed the request.
const NOBODY_ASKS: u16 = 499;

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
                    return Ok(StepTurn::Run(*run, stream));
                }
                Decision::Local { step, seq } => return self.local(step, seq).await,
                Decision::Recorded {
                    n,
                    seq,
                    status,
                    content_type,
                    broken,
                    stream,
                } => {
                    let bytes = self
                        .read(move |reader| reader.payload(seq, "answer"))
                        .await?;
                    let spool = recorded(status, &content_type, bytes.unwrap_or_default(), broken);
                    let StreamParts {
                        delivered,
                        guard,
                        replayed,
                    } = stream;
                    let stream =
                        AnswerStream::new(spool, n, replayed, Some(delivered), Some(guard));
                    return Ok(StepTurn::Answer(stream));
                }
            }
        }
    }

    async fn local(&self, step: String, seq: Option<u64>) -> Result<StepTurn, Refusal> {
        let Some(seq) = seq else {
            return Ok(StepTurn::Local { step, result: None });
        };
        let result = self
            .read(move |reader| crate::input::payload_json(reader, seq, "answer"))
            .await?;
        Ok(StepTurn::Local {
            step,
            result: Some(result),
        })
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

/// An ask with its digests.
struct Keyed {
    ask: StepAsk,
    key: Digest,
    masked: Option<Digest>,
    answers: Vec<Digest>,
    blobs: Vec<(Digest, Vec<u8>)>,
    envelope: Vec<u8>,
}

impl Keyed {
    fn new(caller: &Caller, ask: StepAsk) -> Self {
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

/// The open task, if this caller still holds it.
fn fenced<'a>(tx: &'a Tx<'_>, caller: &Caller) -> Result<&'a Open, HubError> {
    let gone = || {
        HubError::new(
            Code::Fenced,
            format!(
                "attempt {} of task {} no longer holds it",
                caller.attempt, caller.task
            ),
        )
    };
    let open = tx.state.tasks.get(&caller.task).ok_or_else(gone)?;
    let task = &open.record.task;
    if task.state.is_parked() {
        return Err(HubError::new(
            Code::Parked,
            format!("task {} waits for a person", caller.task),
        ));
    }
    let holds = task
        .lease
        .as_ref()
        .is_some_and(|lease| lease.attempt == caller.attempt);
    if holds { Ok(open) } else { Err(gone()) }
}

/// The decision about one ask. Runs on the writer's thread.
fn begin(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    ask: &Keyed,
    last: bool,
) -> Result<Decision, HubError> {
    let (found, implied) = {
        let open = fenced(tx, caller)?;
        let steps = &open.record.steps;
        if caller.ambient {
            (Match::New, Vec::new())
        } else {
            let live = |n: u32| tx.shared.live.is(&caller.task, caller.attempt, n);
            let question = Ask {
                attempt: caller.attempt,
                key: ask.key,
                masked: ask.masked,
                retry: ask.ask.retry,
                live: &live,
            };
            let implied = step::implied_marks(steps, caller.attempt, &ask.answers);
            (step::find(steps, &question), implied)
        }
    };
    for mark in implied {
        tx.mark(&caller.task, caller.attempt, mark);
    }
    match found {
        Match::Replay(n) => replay(tx, hub, caller, n),
        Match::Join(n) => join(tx, hub, caller, n, ask.ask.kind),
        Match::Retry(n) => again(tx, hub, caller, n, false),
        Match::Released(n) => released(tx, hub, caller, n),
        Match::Unknown(n) => unknown(tx, hub, caller, n),
        Match::Held(n) => {
            let text = question_text(tx, caller, n);
            tx.park(&caller.task, Reason::Divergence, Some(n), text);
            Err(HubError::new(
                Code::Parked,
                "the task waits for a person: the call may be a second of one that is done",
            ))
        }
        Match::New => new_step(tx, hub, caller, ask, last),
    }
}

/// Only the built-in loop's model text is the answer as it comes.
fn shows_text(caller: &Caller, kind: StepKind) -> bool {
    matches!(caller.agent.runtime, api::fleet::Runtime::Builtin) && kind == StepKind::Model
}

fn replay(tx: &mut Tx<'_>, hub: &Hub, caller: &Caller, n: u32) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    let Some(answer) = step.answer.clone() else {
        return Err(HubError::new(Code::Internal, "the step has no answer"));
    };
    let replayed = mark_used(tx, caller, &step);
    if step.kind == StepKind::Local {
        deliver(tx, &caller.task, caller.attempt, n);
        return Ok(Decision::Local {
            step: step.id,
            seq: Some(answer.seq),
        });
    }
    tx.shared.metrics.replayed(&caller.agent.name);
    let stream = StreamParts {
        delivered: hub.on_delivered(caller, n),
        guard: tx.shared.live.register(&caller.task, caller.attempt, n),
        replayed,
    };
    let (seq, status, content_type, broken) = (
        answer.seq,
        answer.status,
        answer.content_type,
        answer.broken,
    );
    Ok(Decision::Recorded {
        n,
        seq,
        status,
        content_type,
        broken,
        stream,
    })
}

fn join(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    n: u32,
    kind: StepKind,
) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    let replayed = mark_used(tx, caller, &step);
    if kind == StepKind::Local {
        // Asked twice in one life: it runs inside the agent, which alone knows how far it came.
        return Ok(Decision::Local {
            step: step.id,
            seq: None,
        });
    }
    let spool = lock(&tx.shared.spools)
        .get(&(caller.task.clone(), n))
        .cloned();
    let spool = spool
        .ok_or_else(|| HubError::new(Code::Unavailable, "the call is not being made; ask again"))?;
    Ok(Decision::Stream(open_stream(
        tx, hub, caller, n, replayed, spool,
    )))
}

/// A person gave leave to send it. Whether a first one arrived is still not known, if there was.
fn released(tx: &mut Tx<'_>, hub: &Hub, caller: &Caller, n: u32) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n);
    let was_sent = step.is_some_and(|step| step.sent_in > 0);
    again(tx, hub, caller, n, was_sent)
}

/// Sends a step again under its id.
fn again(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    n: u32,
    doubtful: bool,
) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    // A step that was never sent (held, then released) is sent for the first time.
    let occasion = if step.sent_in == 0 {
        Occasion::First
    } else {
        Occasion::Again
    };
    if shows_text(caller, step.kind) {
        // What clients saw of the try before is void.
        tx.frame(&caller.task, FrameKind::Restart);
    }
    let event = Event::StepRepeated {
        n,
        attempt: caller.attempt,
        incarnation: tx.state.incarnation,
        doubtful,
    };
    tx.emit(&caller.task, "hub", event);
    tx.mark(
        &caller.task,
        caller.attempt,
        StepMark {
            n,
            used: true,
            ..StepMark::default()
        },
    );
    run(tx, hub, caller, &step, occasion)
}

fn run(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    step: &Step,
    occasion: Occasion,
) -> Result<Decision, HubError> {
    if step.kind == StepKind::Local {
        return Ok(Decision::Local {
            step: step.id.clone(),
            seq: None,
        });
    }
    let spool = Spool::new();
    lock(&tx.shared.spools).insert((caller.task.clone(), step.n), Arc::clone(&spool));
    let stream = open_stream(tx, hub, caller, step.n, false, Arc::clone(&spool));
    let run = StepRun {
        hub: hub.clone(),
        caller: caller.clone(),
        n: step.n,
        id: step.id.clone(),
        kind: step.kind,
        name: step.name.clone(),
        occasion,
        spool,
        shows_text: shows_text(caller, step.kind),
        settled: false,
        handed: false,
    };
    Ok(Decision::Run(Box::new(run), stream))
}

/// A call whose outcome nobody knows, by what it does outside.
fn unknown(tx: &mut Tx<'_>, hub: &Hub, caller: &Caller, n: u32) -> Result<Decision, HubError> {
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    let is_looked_for = lock(&tx.shared.spools).contains_key(&(caller.task.clone(), n));
    if is_looked_for {
        // Its outcome is being read back: a second look could end in a second call.
        return join(tx, hub, caller, n, step.kind);
    }
    match step.effect {
        Effect::Pure | Effect::Keyed => again(tx, hub, caller, n, true),
        // Inside the agent there is nobody to read back from.
        Effect::Queryable if step.kind != StepKind::Local => {
            tx.mark(
                &caller.task,
                caller.attempt,
                StepMark {
                    n,
                    used: true,
                    ..StepMark::default()
                },
            );
            run(tx, hub, caller, &step, Occasion::ReadBack)
        }
        Effect::Queryable | Effect::Opaque => {
            park_unknown(tx, &caller.task, &step);
            Err(HubError::new(
                Code::Parked,
                format!(
                    "nobody knows whether {} was done: the task waits for a person",
                    step.name
                ),
            ))
        }
    }
}

fn park_unknown(tx: &mut Tx<'_>, task: &str, step: &Step) {
    let n = step.n;
    let message = format!(
        "step {n} called {} and its outcome is unknown. Look whether it was done, then: mainstay task resume {task} --step {n} --as done[=RESULT]|repeat|fail",
        step.name
    );
    tx.park(task, Reason::Question, Some(n), message);
}

fn new_step(
    tx: &mut Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    ask: &Keyed,
    last: bool,
) -> Result<Decision, HubError> {
    let (suspicious, proposed_by) = {
        let open = fenced(tx, caller)?;
        let steps = &open.record.steps;
        let proposed_by = (ask.ask.kind == StepKind::Tool)
            .then(|| step::proposer(steps, ask.key))
            .flatten();
        let watch =
            caller.agent.on_divergence == OnDivergence::Ask && ask.ask.kind != StepKind::Model;
        let suspicious = watch
            .then(|| {
                step::suspicious(
                    steps,
                    caller.attempt,
                    &ask.ask.name,
                    ask.ask.effect,
                    proposed_by,
                )
            })
            .flatten();
        (suspicious, proposed_by)
    };
    if suspicious.is_some() && !last {
        return Ok(Decision::Hold);
    }
    refuse_if_over(tx, caller, ask)?;
    let open = fenced(tx, caller)?;
    let n = u32::try_from(open.record.steps.len())
        .unwrap_or(u32::MAX)
        .saturating_add(1);
    let occurrence = open
        .record
        .steps
        .iter()
        .filter(|step| step.key == ask.key)
        .count();
    // Derived from (task, tool, arguments, occurrence): the same call gets the same id in every life.
    let id = tx.shared.keys.derived_id(&[
        b"step",
        caller.task.as_bytes(),
        &ask.key.0,
        &u64::try_from(occurrence).unwrap_or_default().to_be_bytes(),
    ]);
    let event = Event::StepIntended {
        n,
        id,
        kind: ask.ask.kind,
        name: ask.ask.name.clone(),
        key: ask.key,
        masked: ask.masked,
        effect: ask.ask.effect,
        attempt: caller.attempt,
        incarnation: tx.state.incarnation,
        proposed_by,
        reserved_tokens: ask.ask.reserve.tokens,
        reserved_micro_usd: Cost::from_usd(ask.ask.reserve.usd).micro_usd,
    };
    let recorded = with_request(tx, caller, ask, event);
    tx.emit(&caller.task, "agent", recorded);
    if ask.ask.kind != StepKind::Model {
        show_call(tx, caller, ask, n);
    }
    if let Some(other) = suspicious {
        tx.emit(&caller.task, "hub", Event::StepHeld { n });
        let text = format!(
            "{} {}",
            question_text(tx, caller, n),
            compared(tx, caller, other, n)
        );
        tx.park(&caller.task, Reason::Divergence, Some(n), text);
        return Err(HubError::new(
            Code::Parked,
            "the call may be a second of one that is done: the task waits for a person",
        ));
    }
    let step = fenced(tx, caller)?.record.step(n).cloned();
    let step = step.ok_or_else(|| HubError::new(Code::Internal, "the step is gone"))?;
    run(tx, hub, caller, &step, Occasion::First)
}

fn question_text(tx: &Tx<'_>, caller: &Caller, n: u32) -> String {
    let name = tx
        .state
        .tasks
        .get(&caller.task)
        .and_then(|open| open.record.step(n))
        .map(|step| step.name.clone());
    format!(
        "step {n} calls {} but may be a second of a call that is done. Compare them, then: mainstay task resume {} --step {n} --as done[=RESULT]|repeat|fail",
        name.unwrap_or_default(),
        caller.task
    )
}

fn compared(tx: &Tx<'_>, caller: &Caller, done: u32, asked: u32) -> String {
    let step = tx
        .state
        .tasks
        .get(&caller.task)
        .and_then(|open| open.record.step(done));
    let when = step
        .map(|step| crate::view::rfc3339(step.intended_ms))
        .unwrap_or_default();
    format!("(done: step {done} at {when}; asked: step {asked})")
}

fn refuse_if_over(tx: &mut Tx<'_>, caller: &Caller, ask: &Keyed) -> Result<(), HubError> {
    if tx.low_space() {
        return Err(HubError::new(
            Code::NoSpace,
            "less than 64 MiB of disk are free: free some, then ask again",
        ));
    }
    let open = fenced(tx, caller)?;
    let budget = &caller.agent_today().budget;
    let limits = Limits {
        micro_usd: budget.usd.map(|usd| Cost::from_usd(Some(usd)).micro_usd),
        tokens: budget.tokens,
        steps: budget.steps,
        time_ms: budget.time_ms,
    };
    let reserve = mainstay_core::budget::Reserve {
        tokens: ask.ask.reserve.tokens,
        micro_usd: Cost::from_usd(ask.ask.reserve.usd).micro_usd,
    };
    let Some(message) = mainstay_core::budget::exceeded(&open.record, &limits, reserve, tx.now_ms)
    else {
        return Ok(());
    };
    let event = Event::CallRefused {
        attempt: caller.attempt,
        code: "budget".into(),
        message: message.clone(),
    };
    tx.emit(&caller.task, "hub", event);
    Err(HubError::new(Code::Budget, message))
}

fn with_request(tx: &mut Tx<'_>, caller: &Caller, ask: &Keyed, event: Event) -> Recorded {
    let mut recorded = event.with("request", ask.envelope.clone());
    if let Some(open) = tx.state.tasks.get_mut(&caller.task) {
        for (mac, message) in &ask.blobs {
            if open.blobs.insert(mac.0) {
                recorded.payloads.push(Payload {
                    name: store::blob_name(&mac.0),
                    bytes: message.clone(),
                });
            }
        }
    }
    recorded
}

fn show_call(tx: &mut Tx<'_>, caller: &Caller, ask: &Keyed, n: u32) {
    let arguments = ask
        .ask
        .request
        .messages
        .first()
        .and_then(|bytes| serde_json::from_slice(bytes).ok());
    let frame = FrameKind::ToolCall {
        step: n,
        name: ask.ask.name.clone(),
        arguments: arguments.unwrap_or_default(),
    };
    tx.frame(&caller.task, frame);
}

/// Marks a step used by this attempt; returns whether it comes from the journal.
fn mark_used(tx: &mut Tx<'_>, caller: &Caller, step: &Step) -> bool {
    let mark = step.mark_in(caller.attempt);
    let replayed = mark.replayed || step.sent_in < caller.attempt;
    tx.mark(
        &caller.task,
        caller.attempt,
        StepMark {
            used: true,
            replayed,
            ..mark
        },
    );
    replayed
}

fn deliver(tx: &mut Tx<'_>, task: &str, attempt: u32, n: u32) {
    let mark = tx
        .state
        .tasks
        .get(task)
        .and_then(|open| open.record.step(n))
        .map(|step| step.mark_in(attempt));
    if let Some(mark) = mark {
        tx.mark(
            task,
            attempt,
            StepMark {
                used: true,
                delivered: true,
                ..mark
            },
        );
    }
}

fn open_stream(
    tx: &Tx<'_>,
    hub: &Hub,
    caller: &Caller,
    n: u32,
    replayed: bool,
    spool: Arc<Spool>,
) -> AnswerStream {
    let guard = tx.shared.live.register(&caller.task, caller.attempt, n);
    AnswerStream::new(
        spool,
        n,
        replayed,
        Some(hub.on_delivered(caller, n)),
        Some(guard),
    )
}

fn recorded(status: u16, content_type: &str, bytes: Vec<u8>, broken: bool) -> Arc<Spool> {
    let spool = Spool::new();
    spool.head(status, content_type);
    // A recorded answer is never larger than what a spool takes.
    let _ = spool.push(Bytes::from(bytes), false);
    if broken {
        spool.break_off()
    } else {
        spool.release()
    }
    spool
}

impl Hub {
    fn on_delivered(&self, caller: &Caller, n: u32) -> Delivered {
        let (writer, task, attempt) = (self.writer.clone(), caller.task.clone(), caller.attempt);
        Box::new(move || writer.post(move |tx| deliver(tx, &task, attempt, n)))
    }
}

impl StepRun {
    /// The step's number in its task.
    #[must_use]
    pub fn n(&self) -> u32 {
        self.n
    }

    /// The idempotency key's value, `{stepId}`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Why the call is made.
    #[must_use]
    pub fn occasion(&self) -> Occasion {
        self.occasion
    }

    /// Sets status and content type of the answer.
    pub fn head(&mut self, status: u16, content_type: &str) {
        self.spool.head(status, content_type);
    }

    /// Appends bytes of the answer. What is pushed with `hold`, and all after it, leaves only when
    /// the result is committed.
    pub fn push(
        &mut self,
        bytes: Bytes,
        hold: bool,
        text_delta: Option<&str>,
    ) -> Result<(), TooLarge> {
        self.spool.push(bytes, hold)?;
        if self.shows_text
            && let Some(text) = text_delta
            && !text.is_empty()
        {
            self.hub.shared.streams.chunk(&self.caller.task, text);
        }
        Ok(())
    }

    /// Has a byte left to an agent? No other provider may answer after that.
    #[must_use]
    pub fn has_left(&self) -> bool {
        self.spool.has_left()
    }

    /// Commits the pushed bytes as the step's answer, then releases them.
    pub async fn finish(mut self, settled: Settled) {
        let (status, content_type) = self
            .spool
            .status()
            .unwrap_or((200, "application/json".into()));
        let bytes = self.spool.bytes();
        let key = self.caller.key;
        let event = Event::StepFinished {
            n: self.n,
            status,
            content_type,
            usage: settled.usage,
            cost: settled.cost,
            model: settled.model,
            marks: settled
                .marks
                .iter()
                .take(MAX_DIGESTS)
                .map(|mark| keyed(&key, "answer", mark.as_bytes()))
                .collect(),
            proposals: settled
                .proposals
                .iter()
                .take(MAX_DIGESTS)
                .map(|proposal| keyed(&key, "request", proposal))
                .collect(),
            is_error: settled.is_error,
            attempt: self.caller.attempt,
        };
        let shown = (self.kind != StepKind::Model).then(|| shown_result(&bytes));
        let (task, n, name) = (self.caller.task.clone(), self.n, self.name.clone());
        let productive = Action::Shim {
            instance: self.caller.instance.clone(),
            message: PRODUCTIVE,
        };
        let committed = self
            .hub
            .writer
            .run(move |tx| {
                tx.emit(&task, "hub", event.with("answer", bytes));
                if let Some(result) = shown {
                    tx.frame(
                        &task,
                        FrameKind::ToolResult {
                            step: n,
                            name,
                            result,
                            is_error: settled.is_error,
                        },
                    );
                }
                tx.after(productive);
                tx.roll_ambient(&task);
            })
            .await;
        self.settled = true;
        if committed.is_ok() {
            self.spool.release()
        } else {
            self.spool.break_off()
        }
        self.close();
    }

    /// The call failed for sure, or a stream broke off.
    pub async fn fail(mut self, failure: Failure) {
        let broken = failure.broken || self.spool.has_left();
        let event = Event::StepFailed {
            n: self.n,
            status: failure.status,
            content_type: failure.content_type.clone(),
            broken,
            usage: failure.usage,
            cost: failure.cost,
        };
        let (task, body) = (self.caller.task.clone(), failure.body.to_vec());
        let credential = failure.credential.clone();
        let committed = self
            .hub
            .writer
            .run(move |tx| {
                tx.emit(&task, "hub", event.with("answer", body));
                match credential {
                    Some(message) if tx.is_open_task(&task) => {
                        tx.park(&task, Reason::Credential, None, message)
                    }
                    _ => tx.roll_ambient(&task),
                }
            })
            .await;
        self.settled = true;
        if broken || committed.is_err() {
            self.spool.break_off();
        } else {
            self.spool
                .replace(failure.status, &failure.content_type, failure.body, false);
        }
        self.close();
    }

    /// The call broke after it was sent. `Again` and `ReadBack` give the run back; `Parked` resets
    /// the agent's connections, whose process ends.
    pub async fn unknown(mut self, message: String) -> (AfterUnknown, Option<Self>) {
        let (task, n, caller) = (self.caller.task.clone(), self.n, self.caller.clone());
        tracing::warn!(task, step = n, message, "a call broke after it was sent");
        let decided = self
            .hub
            .writer
            .run(move |tx| after_unknown(tx, &caller, n))
            .await;
        match decided {
            Ok(AfterUnknown::Parked) | Err(_) => {
                self.settled = true;
                self.spool.break_off();
                self.close();
                (AfterUnknown::Parked, None)
            }
            Ok(next) => {
                self.occasion = if next == AfterUnknown::Again {
                    Occasion::Again
                } else {
                    Occasion::ReadBack
                };
                (next, Some(self))
            }
        }
    }

    /// A read-back found nothing: the call may be sent.
    pub async fn absent(&mut self) {
        let (task, n, attempt) = (self.caller.task.clone(), self.n, self.caller.attempt);
        let _ = self
            .hub
            .writer
            .run(move |tx| {
                let incarnation = tx.state.incarnation;
                tx.emit(
                    &task,
                    "hub",
                    Event::StepRepeated {
                        n,
                        attempt,
                        incarnation,
                        doubtful: false,
                    },
                );
            })
            .await;
        self.occasion = Occasion::Again;
    }

    fn close(&self) {
        close(
            &self.hub.shared.spools,
            &self.caller.task,
            self.n,
            &self.spool,
        );
    }
}

impl Drop for StepRun {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // The performer was dropped in mid-call (a panic, the hub stopping): nobody knows. Unless
        // there never was one, because who asked went away before the commit.
        self.spool.break_off();
        let (task, n, spool) = (self.caller.task.clone(), self.n, Arc::clone(&self.spool));
        let outcome = if self.handed {
            Event::StepUnknown { n }.into()
        } else {
            not_sent(n)
        };
        self.hub.writer.post_all(move |tx| {
            // Until here the step is in flight with a broken spool: who joins it is reset. It may
            // also have been settled by a job before this one, whose performer didn't see it done.
            let is_last = close(&tx.shared.spools, &task, n, &spool);
            let step = tx
                .state
                .tasks
                .get(&task)
                .and_then(|open| open.record.step(n));
            if is_last && step.is_some_and(|step| step.state == StepState::InFlight) {
                tx.emit(&task, "hub", outcome);
            }
        });
    }
}

/// A definite failure that no agent was told of: the next who asks tries again.
fn not_sent(n: u32) -> Recorded {
    let event = Event::StepFailed {
        n,
        status: NOBODY_ASKS,
        content_type: "text/plain".into(),
        broken: false,
        usage: Usage::default(),
        cost: Cost::default(),
    };
    event.with("answer", Vec::new())
}

/// Forgets the spool of a call, unless a newer call of the step has put its own there.
fn close(spools: &Spools, task: &str, n: u32, spool: &Arc<Spool>) -> bool {
    let mut spools = lock(spools);
    let key = (task.to_owned(), n);
    let is_own = spools
        .get(&key)
        .is_some_and(|known| Arc::ptr_eq(known, spool));
    if is_own {
        spools.remove(&key);
    }
    is_own
}

const PRODUCTIVE: contract::shim::ToShim = contract::shim::ToShim::Marks {
    hold: false,
    productive: true,
    idle: false,
};

fn after_unknown(tx: &mut Tx<'_>, caller: &Caller, n: u32) -> AfterUnknown {
    tx.emit(&caller.task, "hub", Event::StepUnknown { n });
    let Some(step) = tx
        .state
        .tasks
        .get(&caller.task)
        .and_then(|open| open.record.step(n))
        .cloned()
    else {
        return AfterUnknown::Parked;
    };
    let open = tx.state.tasks.get(&caller.task);
    if open.is_none_or(|open| open.record.task.state.is_terminal()) {
        // Nobody waits for it any more: what is not known stays so.
        return AfterUnknown::Parked;
    }
    let repeat = |tx: &mut Tx<'_>| {
        let incarnation = tx.state.incarnation;
        let attempt = step.sent_in;
        tx.emit(
            &caller.task,
            "hub",
            Event::StepRepeated {
                n,
                attempt,
                incarnation,
                doubtful: true,
            },
        );
        AfterUnknown::Again
    };
    match step.effect {
        Effect::Pure | Effect::Keyed => repeat(tx),
        Effect::Queryable => AfterUnknown::ReadBack,
        Effect::Opaque => {
            park_unknown(tx, &caller.task, &step);
            AfterUnknown::Parked
        }
    }
}

/// What clients are shown of a tool's result.
fn shown_result(bytes: &[u8]) -> String {
    const MAX: usize = 4096;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX)]).into_owned();
    if bytes.len() > MAX {
        format!("{text}…")
    } else {
        text
    }
}
