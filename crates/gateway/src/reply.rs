//! What goes back to an agent: answers as they come, whole bodies, and refusals in the shape that
//! the agent's own SDK reads.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hub::answer::{AnswerStream, Broken, Head};
use hub::{Code, HubError};
use llm::Dialect;
use serde_json::{Value, json};

use crate::wire::Connection;

/// A body whose error resets the connection.
pub type Body = UnsyncBoxBody<Bytes, Broken>;
/// A response to an agent.
pub type Reply = Response<Body>;

/// How the asker wants to hear of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tongue {
    Model(Dialect),
    /// Everything that isn't a model's: `{"error": {"code", "message"}}`.
    Plain,
}

/// A whole JSON body.
#[must_use]
pub fn json(status: u16, value: &Value) -> Reply {
    bytes(status, "application/json", Bytes::from(value.to_string()))
}

/// A whole body.
#[must_use]
pub fn bytes(status: u16, content_type: &str, body: Bytes) -> Reply {
    with_body(
        status,
        content_type,
        Full::new(body)
            .map_err(|never| match never {})
            .boxed_unsync(),
    )
}

/// A body without bytes.
#[must_use]
pub fn empty(status: u16) -> Reply {
    let mut reply = Response::new(
        Full::new(Bytes::new())
            .map_err(|never| match never {})
            .boxed_unsync(),
    );
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    reply
}

fn with_body(status: u16, content_type: &str, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    if let Ok(value) = HeaderValue::from_str(content_type) {
        reply.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    reply
}

/// A refusal. All but `unavailable` say that asking again is of no use.
#[must_use]
pub fn refusal(tongue: Tongue, refused: &HubError) -> Reply {
    let (status, code) = (refused.code.status(), refused.code.word());
    let mut reply = json(status, &error_body(tongue, status, code, &refused.message));
    if refused.code != Code::Unavailable {
        no_retry(&mut reply);
    }
    reply
}

/// An error in the asker's own shape.
#[must_use]
pub fn error_body(tongue: Tongue, status: u16, code: &str, message: &str) -> Value {
    match tongue {
        Tongue::Model(dialect) => {
            let mut body = llm::render_error(dialect, status, code, message);
            // Refusals of a request begin with the field at fault; OpenAI's shape has a place for it.
            if let (400, Some(field)) = (status, field_at_fault(message))
                && let Some(param) = body.pointer_mut("/error/param")
            {
                *param = Value::from(field);
            }
            body
        }
        Tongue::Plain => json!({"error": {"code": code, "message": message}}),
    }
}

fn field_at_fault(message: &str) -> Option<&str> {
    let (field, _) = message.split_once(": ")?;
    let is_path = |c: char| c.is_ascii_alphanumeric() || "_-.[]".contains(c);
    field.chars().all(is_path).then_some(field)
}

fn no_retry(reply: &mut Reply) {
    reply
        .headers_mut()
        .insert("x-should-retry", HeaderValue::from_static("false"));
}

/// An answer as it comes: live, joined or replayed. Waits for its first byte that may leave.
pub async fn answer(
    tongue: Tongue,
    mut answer: AnswerStream,
    connection: Arc<Connection>,
) -> Reply {
    let head = match answer.head().await {
        Ok(head) => head,
        // Nothing has left yet, but a status would end the exchange cleanly.
        Err(Broken) => return reset(&connection),
    };
    if head.no_retry && head.status >= 400 {
        return refused_answer(tongue, &head, answer, connection).await;
    }
    let mut reply = with_body(
        head.status,
        &head.content_type,
        streamed(answer, connection),
    );
    describe(&mut reply, &head);
    reply
}

/// A refusal that the hub wrote in place of an answer, turned into the asker's own shape.
async fn refused_answer(
    tongue: Tongue,
    head: &Head,
    mut answer: AnswerStream,
    connection: Arc<Connection>,
) -> Reply {
    let Ok(body) = whole(&mut answer).await else {
        return reset(&connection);
    };
    let body = match hub_error(&body) {
        Some((code, message)) => error_body(tongue, head.status, &code, &message)
            .to_string()
            .into(),
        None => Bytes::from(body),
    };
    let mut reply = with_body(
        head.status,
        &head.content_type,
        owing(body, answer, connection),
    );
    describe(&mut reply, head);
    reply
}

/// The hub's own error object, `{"error": {"code", "message"}}`.
fn hub_error(body: &[u8]) -> Option<(String, String)> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let error = value.get("error")?;
    Some((
        error.get("code")?.as_str()?.to_owned(),
        error.get("message")?.as_str()?.to_owned(),
    ))
}

fn describe(reply: &mut Reply, head: &Head) {
    let headers = reply.headers_mut();
    headers.insert("mainstay-step", HeaderValue::from(head.step));
    if head.replayed {
        headers.insert("mainstay-replayed", HeaderValue::from_static("true"));
    }
    if head.no_retry {
        no_retry(reply);
    }
    if let Some(after) = head.retry_after {
        // Whole seconds are what every SDK reads; sooner than asked would be refused again.
        let seconds = after.as_millis().div_ceil(1000);
        reply.headers_mut().insert(
            header::RETRY_AFTER,
            HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)),
        );
    }
}

/// All bytes of an answer, once it is committed.
pub async fn whole(answer: &mut AnswerStream) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.next().await {
        body.extend_from_slice(&chunk?);
    }
    Ok(body)
}

/// A body that is made of an answer: the answer counts as delivered with the body's last byte.
#[must_use]
pub fn bytes_owing(
    content_type: &str,
    body: Bytes,
    answer: AnswerStream,
    connection: Arc<Connection>,
) -> Reply {
    with_body(200, content_type, owing(body, answer, connection))
}

fn owing(body: Bytes, answer: AnswerStream, connection: Arc<Connection>) -> Body {
    let frames = stream::unfold(
        (Some(body), Some((answer, connection))),
        |(body, owed)| async move {
            if let Some(body) = body {
                return Some((Ok(Frame::data(body)), (None, owed)));
            }
            if let Some((answer, connection)) = owed {
                connection.ended(answer);
            }
            None
        },
    );
    StreamBody::new(frames).boxed_unsync()
}

fn streamed(answer: AnswerStream, connection: Arc<Connection>) -> Body {
    let frames = stream::unfold(Some((answer, connection)), |state| async move {
        let (mut answer, connection) = state?;
        match answer.next().await {
            Some(Ok(chunk)) => Some((Ok(Frame::data(chunk)), Some((answer, connection)))),
            Some(Err(broken)) => {
                connection.break_off();
                Some((Err(broken), None))
            }
            None => {
                connection.ended(answer);
                None
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Breaks the connection without a status.
#[must_use]
pub fn reset(connection: &Connection) -> Reply {
    connection.break_off();
    let frames = stream::once(async { Err::<Frame<Bytes>, _>(Broken) });
    with_body(
        502,
        "application/json",
        StreamBody::new(frames).boxed_unsync(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_at_fault_stands_where_the_dialect_has_a_place_for_it() {
        let body = |dialect, message| error_body(Tongue::Model(dialect), 400, "invalid", message);
        let refused = body(Dialect::OpenAiChat, "tools[2].type: is run by the provider");
        assert_eq!(refused["error"]["param"], "tools[2].type");
        let refused = body(Dialect::OpenAiChat, "the body is not JSON: at line 1");
        assert_eq!(refused["error"]["param"], Value::Null);
        let refused = body(Dialect::Anthropic, "tools[2].type: is run by the provider");
        assert_eq!(refused["error"].get("param"), None);
    }
}
