//! A call being made: its bytes as they come, and its end.
//!
//! Nothing is released before the commit that holds the result. A run that is dropped without an
//! end says so: not sent, if it was never handed out; else nobody knows.

use std::sync::Arc;

use bytes::Bytes;
use mainstay_core::event::{Event, Recorded};
use mainstay_core::step::{Effect, StepKind, StepState};
use mainstay_core::task::Reason;
use mainstay_core::usage::{Cost, Usage};
use serde_json::json;

use super::question::{park_unknown, unknown_text};
use super::{AfterUnknown, Failure, Occasion, Settled};
use crate::Hub;
use crate::answer::{Spool, TooLarge};
use crate::caller::Caller;
use crate::keys::keyed;
use crate::shared::{Spools, lock};
use crate::stream::FrameKind;
use crate::tx::Tx;

const MAX_DIGESTS: usize = 4096;

/// A step that this hub is performing.
pub struct StepRun {
    pub(super) hub: Hub,
    pub(super) caller: Caller,
    pub(super) n: u32,
    pub(super) id: String,
    pub(super) kind: StepKind,
    pub(super) name: String,
    pub(super) occasion: Occasion,
    pub(super) spool: Arc<Spool>,
    /// The entry that says this try is made: another try has another.
    pub(super) said_in: u64,
    pub(super) shows_text: bool,
    pub(super) settled: bool,
    /// Given to whoever performs it: until then nothing was sent.
    pub(super) handed: bool,
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

/// The status of a call that was not made: its client had closed the request.
const NOBODY_ASKS: u16 = 499;

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
            let call = (self.n, self.said_in);
            self.hub
                .shared
                .streams
                .chunk(&self.caller.task, Some(call), text);
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
        let instance = self.caller.instance.clone();
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
                tx.productive(&instance);
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
        // Nobody could resume it; the answer says what is wrong.
        let is_ambient = self.caller.ambient;
        let committed = self
            .hub
            .writer
            .run(move |tx| {
                tx.emit(&task, "hub", event.with("answer", body));
                match credential {
                    Some(message) if !is_ambient && tx.is_open_task(&task) => {
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
            self.spool.ask_again_after(failure.retry_after);
            self.spool
                .replace(failure.status, &failure.content_type, failure.body, false);
        }
        self.close();
    }

    /// The call broke after it was sent. `Again` and `ReadBack` give the run back; `Parked` resets
    /// the agent's connections, whose process ends; `Told` answers.
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
            Ok(AfterUnknown::Told) => {
                let text = unknown_text(&self.name);
                self.tell(&text);
                (AfterUnknown::Told, None)
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

    /// The task of the agent that was called waits for a person. The caller's task is parked until
    /// it has ended, unless it goes on already: then the run is given back, to look again.
    pub async fn parked(mut self, child: String) -> Option<Self> {
        let (task, n) = (self.caller.task.clone(), self.n);
        if self.caller.ambient {
            return self.leaves_child(child).await;
        }
        let parked = self
            .hub
            .writer
            .run(move |tx| tx.park_behind_child(&task, n, &child))
            .await;
        if let Ok(false) = parked {
            return Some(self);
        }
        self.settled = true;
        self.spool.break_off();
        self.close();
        None
    }

    /// The same for an ambient task, which can't wait: it is told of the agent's task.
    async fn leaves_child(mut self, child: String) -> Option<Self> {
        let (task, n) = (self.caller.task.clone(), self.n);
        let left = self
            .hub
            .writer
            .run(move |tx| tx.leave_child(&task, n, &child))
            .await;
        match left {
            Ok(None) => return Some(self),
            Ok(Some(text)) => self.tell(&text),
            Err(_) => {
                self.settled = true;
                self.spool.break_off();
                self.close();
            }
        }
        None
    }

    /// Answers with an error of ours, after the commit that says what is known of the step.
    fn tell(&mut self, text: &str) {
        self.settled = true;
        let body = json!({"content": [{"type": "text", "text": text}], "isError": true});
        let body = Bytes::from(body.to_string());
        self.spool.replace(504, "application/json", body, true);
        self.close();
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
    if !tx.is_open_task(&caller.task) || tx.has_moved(&caller.task) {
        // Nobody waits for it any more, or not here: what is not known stays so.
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
        Effect::Opaque if caller.ambient => {
            tx.roll_ambient(&caller.task);
            AfterUnknown::Told
        }
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
