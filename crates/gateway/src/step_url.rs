//! `MAINSTAY_STEP_URL`: a tool that runs inside the agent, made a journaled step. The agent asks
//! before it runs the tool and reports what came out; what was reported is never run again.

use std::sync::Arc;

use hub::answer::AnswerStream;
use hub::{Code, HubError, Refusal};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Gateway;
use crate::call::Asked;
use crate::door::Door;
use crate::pipeline::{self, Passed};
use crate::reply::{self, Reply};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    #[serde(default)]
    arguments: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    step: String,
    result: Value,
}

/// `POST /step/{name}`: shall it run? A report is taken here too: it says which step it is of, and
/// taking it for a question would run the tool again.
pub async fn ask(
    gateway: &Arc<Gateway>,
    door: &Door,
    name: String,
    body: &[u8],
) -> Result<Reply, Refusal> {
    if serde_json::from_slice::<Report>(body).is_ok() {
        return report(gateway, door, body).await;
    }
    let question: Question = read(body, r#"send {"arguments": …}"#)?;
    if name.len() > 64 {
        return Err(HubError::new(
            Code::Invalid,
            "a tool's name has at most 64 characters",
        ));
    }
    let asked = Asked::Local {
        name,
        arguments: question.arguments,
    };
    match pipeline::call(gateway, door, asked).await? {
        Passed::Local { step, result: None } => {
            Ok(reply::json(200, &json!({"step": step, "run": true})))
        }
        Passed::Local {
            step,
            result: Some(result),
        } => recorded(door, &step, result).await,
        Passed::Answer(_) => Err(HubError::new(
            Code::Conflict,
            "the step is no longer this agent's to run",
        )),
    }
}

/// What came out before. It counts as heard with the last byte, like any answer.
async fn recorded(door: &Door, step: &str, mut answer: AnswerStream) -> Result<Reply, Refusal> {
    let broken = |_| HubError::new(Code::Unavailable, "the recorded result can't be read");
    let result = reply::whole(&mut answer).await.map_err(broken)?;
    let result: Value = serde_json::from_slice(&result)
        .map_err(|_| HubError::new(Code::Internal, "the recorded result is no JSON"))?;
    let body = json!({"step": step, "run": false, "result": result}).to_string();
    let connection = door.connection.clone();
    Ok(reply::bytes_owing(
        "application/json",
        body.into(),
        answer,
        connection,
    ))
}

/// `POST /step`: this came out.
pub async fn report(gateway: &Arc<Gateway>, door: &Door, body: &[u8]) -> Result<Reply, Refusal> {
    let caller = door.identify(gateway).await?;
    let report: Report = read(body, r#"send {"step": …, "result": …}"#)?;
    gateway
        .hub
        .step_report(&caller, &report.step, report.result)
        .await?;
    Ok(reply::json(200, &json!({"step": report.step})))
}

fn read<'a, T: Deserialize<'a>>(body: &'a [u8], hint: &str) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| HubError::new(Code::Invalid, format!("{hint}: {error}")))
}
