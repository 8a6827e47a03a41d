//! An HTTP tool: a request made of a template and arguments, and its answer as text.
//!
//! Redirects are not followed: a credential and the idempotency key would follow with them.

use std::sync::Arc;
use std::time::Duration;

use api::fleet::{Credential, KeyPlace, ToolKind};
use reqwest::Method;
use serde_json::{Map, Value};
use url::Url;

use super::ToolCall;
use super::filling::Filling;
use super::result::{Made, too_large};
use crate::Gateway;

/// A request that is ready to be sent.
pub(super) struct Prepared {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) body: Option<Value>,
    pub(super) key: Option<(String, String)>,
}

pub(super) fn prepare(call: &ToolCall, step_id: &str) -> Result<Prepared, String> {
    let ToolKind::Http {
        method, url, body, ..
    } = &call.tool.kind
    else {
        return Err("the tool is not called over HTTP".into());
    };
    let mut arguments = call.arguments.as_object().cloned().unwrap_or_default();
    let mut key = None;
    match &call.tool.key {
        Some(KeyPlace::Header(name)) => key = Some((name.clone(), step_id.to_owned())),
        Some(KeyPlace::Argument(name)) => {
            drop(arguments.insert(name.clone(), Value::from(step_id)))
        }
        None => {}
    }
    let filling = Filling {
        arguments: &arguments,
        step_id,
    };
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| format!("{method} is no method"))?;
    let mut address = filling.url(url)?;
    let body = match body {
        Some(template) => Some(filling.body(template)),
        None if matches!(method, Method::GET | Method::DELETE) => {
            add_query(&mut address, &filling.unnamed(url));
            None
        }
        None => Some(Value::Object(filling.unnamed(url))),
    };
    Ok(Prepared {
        method,
        url: address,
        body,
        key,
    })
}

fn add_query(url: &mut Url, arguments: &Map<String, Value>) {
    if arguments.is_empty() {
        return;
    }
    let mut pairs = url.query_pairs_mut();
    for (name, value) in arguments {
        match value {
            Value::Null => {}
            Value::String(text) => drop(pairs.append_pair(name, text)),
            other => drop(pairs.append_pair(name, &other.to_string())),
        }
    }
}

/// An answer, read up to its bound.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) cut: bool,
}

pub(super) async fn call(gateway: &Arc<Gateway>, call: &ToolCall, step_id: &str) -> Made {
    let prepared = match prepare(call, step_id) {
        Ok(prepared) => prepared,
        Err(why) => return Made::error(&why),
    };
    let credential = match &call.tool.kind {
        ToolKind::Http { credential, .. } => credential.as_ref(),
        _ => None,
    };
    let limit_bytes = usize::try_from(call.tool.result_bytes).unwrap_or(usize::MAX);
    match send(
        gateway,
        prepared,
        credential,
        call.tool.timeout_ms,
        limit_bytes,
    )
    .await
    {
        Ok(answer) => as_result(&answer, limit_bytes),
        Err(made) => made,
    }
}

/// Sends a request and reads its answer; `Err` says what became of one that has none.
pub(super) async fn send(
    gateway: &Arc<Gateway>,
    prepared: Prepared,
    credential: Option<&Credential>,
    timeout_ms: u64,
    limit_bytes: usize,
) -> Result<Answer, Made> {
    let client = gateway.tools_http.to(prepared.url.as_str());
    let client = client.map_err(|refused| unreachable(&refused))?;
    let mut request = client.request(prepared.method, prepared.url);
    if let Some(body) = &prepared.body {
        request = request
            .header("content-type", "application/json")
            .body(body.to_string());
    }
    if let Some((name, value)) = prepared.key {
        request = request.header(name, value);
    }
    if let Some(credential) = credential {
        let secret = gateway.hub.secret(credential).map_err(|error| {
            Made::NotSent(format!("the tool's credential can't be read: {error}"))
        })?;
        request = request.bearer_auth(secret.trim());
    }
    let exchange = exchange(request, limit_bytes);
    tokio::time::timeout(Duration::from_millis(timeout_ms), exchange)
        .await
        .unwrap_or_else(|_| {
            let message = format!(
                "the tool did not answer within {} s",
                Duration::from_millis(timeout_ms).as_secs_f32()
            );
            Err(Made::Unanswered {
                message,
                timed_out: true,
            })
        })
}

async fn exchange(request: reqwest::RequestBuilder, limit_bytes: usize) -> Result<Answer, Made> {
    let mut response = request.send().await.map_err(|error| lost(&error))?;
    let status = response.status().as_u16();
    let (mut body, mut cut) = (Vec::new(), false);
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > limit_bytes {
            body.truncate(limit_bytes);
            cut = true;
            break;
        }
    }
    Ok(Answer { status, body, cut })
}

fn unreachable(why: &dyn std::fmt::Display) -> Made {
    Made::NotSent(format!("the tool can't be reached: {why}"))
}

fn lost(error: &reqwest::Error) -> Made {
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    let cause = cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    if error.is_connect() || error.is_builder() {
        return unreachable(&cause);
    }
    Made::Unanswered {
        message: format!("the tool's answer broke off: {cause}"),
        timed_out: false,
    }
}

fn as_result(answer: &Answer, limit_bytes: usize) -> Made {
    let text = match std::str::from_utf8(&answer.body) {
        Ok(text) => text,
        Err(error) if answer.cut => {
            std::str::from_utf8(&answer.body[..error.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => {
            return Made::error(&format!(
                "the tool answered with {} bytes that are no text",
                answer.body.len()
            ));
        }
    };
    if !(200..300).contains(&answer.status) {
        let text = mcp::message::bounded(text.trim(), 4096);
        return Made::error(&format!(
            "the tool answered with status {}: {text}",
            answer.status
        ));
    }
    if answer.cut {
        too_large(limit_bytes, text)
    } else {
        Made::text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_an_answer_and_a_cut_result_says_so() {
        let answer = |status, body: &str, cut| {
            as_result(
                &Answer {
                    status,
                    body: body.into(),
                    cut,
                },
                4,
            )
        };
        assert_eq!(answer(200, "fine", false), Made::text("fine"));
        assert!(matches!(
            answer(404, "none", false),
            Made::Answer { is_error: true, .. }
        ));
        assert!(matches!(
            answer(200, "fin", true),
            Made::Answer { is_error: true, .. }
        ));
    }
}
