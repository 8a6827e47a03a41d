//! One tool call: read back first where that is asked for, called, and its end put in words that
//! the journal understands.
//!
//! The rule behind it: a call that never left is tried again here; one that left and whose
//! outcome is unknown is for its effect class to decide, and that is the hub's to know.

use std::sync::Arc;
use std::time::Duration;

use api::fleet::ToolKind;
use bytes::Bytes;
use hub::step::{Effect, Failure, Occasion, Settled, StepRun};
use mainstay_core::usage::{Cost, Usage};
use mcp::server::text_result;
use serde_json::Value;

use super::read_back::{self, Seen};
use super::result::Made;
use super::{ToolCall, agent, http, mcp_servers};
use crate::Gateway;
use crate::call::Performed;

/// How often a call that didn't leave is tried again.
const MAX_TRIES: u32 = 4;
/// The wait before the first of them; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);

impl ToolCall {
    /// Makes the call. `may_repeat` is false when its outcome was unknown too often.
    pub async fn perform(
        &self,
        gateway: &Arc<Gateway>,
        run: &mut StepRun,
        may_repeat: bool,
    ) -> Performed {
        // A queryable call that was ever sent is looked for before it is sent again.
        if self.effect == Effect::Queryable && run.occasion() != Occasion::First {
            match read_back::look(gateway, self, run.id()).await {
                Seen::Done(result) => return answered(run, &result, false),
                Seen::Absent => run.absent().await,
                Seen::Unclear(message) if may_repeat => return Performed::Unknown(message),
                Seen::Unclear(message) => return failed(504, &message),
            }
        }
        match self.try_until_sent(gateway, run.id()).await {
            Made::Answer { result, is_error } => answered(run, &result, is_error),
            Made::NotSent(message) => failed(502, &message),
            Made::Unanswered { message, timed_out } if self.gives_up(timed_out, may_repeat) => {
                failed(504, &message)
            }
            Made::Unanswered { message, .. } => Performed::Unknown(message),
            Made::Parked { task } => Performed::Parked(task),
        }
    }

    /// A pure call does no harm when it is tried again later, so waiting once is enough; a keyed
    /// one keeps its key. An agent that took its time has a task that goes on: nothing is unknown.
    fn gives_up(&self, timed_out: bool, may_repeat: bool) -> bool {
        let is_agent = matches!(self.tool.kind, ToolKind::Agent { .. });
        match self.effect {
            Effect::Keyed if !is_agent => !may_repeat,
            Effect::Pure | Effect::Keyed => timed_out || !may_repeat,
            Effect::Queryable | Effect::Opaque => false,
        }
    }

    async fn try_until_sent(&self, gateway: &Arc<Gateway>, step_id: &str) -> Made {
        let mut wait = FIRST_WAIT;
        for _ in 1..MAX_TRIES {
            match self.make(gateway, step_id).await {
                Made::NotSent(message) => {
                    tracing::info!(tool = self.exposed, message, "a tool call is tried again")
                }
                made => return made,
            }
            tokio::time::sleep(wait.mul_f64(0.5 + rand::random::<f64>())).await;
            wait *= 2;
        }
        self.make(gateway, step_id).await
    }

    async fn make(&self, gateway: &Arc<Gateway>, step_id: &str) -> Made {
        match &self.tool.kind {
            ToolKind::Http { .. } => http::call(gateway, self, step_id).await,
            ToolKind::McpHttp { .. } | ToolKind::McpStdio { .. } => {
                mcp_servers::call(gateway, self, step_id).await
            }
            ToolKind::Agent { agent } => agent::call(gateway, self, agent, step_id).await,
        }
    }
}

fn answered(run: &mut StepRun, result: &Value, is_error: bool) -> Performed {
    run.head(200, "application/json");
    match run.push(Bytes::from(result.to_string()), true, None) {
        Ok(()) => Performed::Finished(Settled {
            is_error,
            ..Settled::default()
        }),
        Err(error) => failed(502, &error.to_string()),
    }
}

/// The call failed for sure: under the same step it may be tried again.
fn failed(status: u16, message: &str) -> Performed {
    Performed::Failed(Failure {
        status,
        content_type: "application/json".into(),
        body: Bytes::from(text_result(message, true).to_string()),
        broken: false,
        usage: Usage::default(),
        cost: Cost::default(),
        retry_after: None,
        credential: None,
    })
}
