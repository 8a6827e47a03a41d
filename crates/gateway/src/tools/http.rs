//! An HTTP tool: a request made of a template and arguments, and its answer as text.
//!
//! Arguments come from a model and may be anything. They are percent-encoded, can't change the
//! path's shape, and can't choose the host. Redirects are not followed: a credential and the
//! idempotency key would follow with them.

use std::sync::Arc;
use std::time::Duration;

use api::fleet::{Credential, KeyPlace, ToolKind};
use api::template::{self, Part, STEP_ID};
use reqwest::Method;
use serde_json::{Map, Value};
use url::Url;

use super::ToolCall;
use super::result::{Made, too_large};
use crate::Gateway;

/// Arguments and step id, to fill templates with.
pub(super) struct Filling<'a> {
    pub(super) arguments: &'a Map<String, Value>,
    pub(super) step_id: &'a str,
}

impl Filling<'_> {
    fn value(&self, name: &str) -> Option<Value> {
        if name == STEP_ID {
            Some(Value::from(self.step_id))
        } else {
            self.arguments.get(name).cloned()
        }
    }

    fn text(&self, name: &str) -> String {
        match self.value(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text,
            Some(other) => other.to_string(),
        }
    }

    /// A URL with its placeholders percent-encoded.
    pub(super) fn url(&self, template: &str) -> Result<Url, String> {
        let mut filled = String::new();
        for part in template::parts(template) {
            match part {
                Part::Text(text) => filled.push_str(text),
                Part::Argument(name) => filled.extend(encode(&self.text(name))),
            }
        }
        let url =
            Url::parse(&filled).map_err(|error| format!("the address can't be made: {error}"))?;
        // `..` is a step up even when it is percent-encoded.
        let wanted = path_segments(&filled);
        let made = url.path_segments().map_or(0, Iterator::count);
        if wanted.is_some_and(|wanted| wanted != made) {
            return Err("an argument would change the address's path".into());
        }
        Ok(url)
    }

    /// A body with its placeholders filled; a lone one keeps its JSON type, and an argument that
    /// wasn't given leaves its field out.
    fn body(&self, template: &Value) -> Value {
        match template {
            Value::String(text) => match template::whole(text) {
                Some(name) => self.value(name).unwrap_or_default(),
                None => Value::String(self.inline(text)),
            },
            Value::Array(items) => items.iter().map(|item| self.body(item)).collect(),
            Value::Object(fields) => {
                let kept = fields.iter().filter(|(_, value)| !self.is_missing(value));
                Value::Object(
                    kept.map(|(name, value)| (name.clone(), self.body(value)))
                        .collect(),
                )
            }
            other => other.clone(),
        }
    }

    fn inline(&self, text: &str) -> String {
        let parts = template::parts(text).into_iter().map(|part| match part {
            Part::Text(text) => text.to_owned(),
            Part::Argument(name) => self.text(name),
        });
        parts.collect()
    }

    fn is_missing(&self, template: &Value) -> bool {
        let name = template.as_str().and_then(template::whole);
        name.is_some_and(|name| self.value(name).is_none())
    }

    /// Arguments that the URL doesn't name.
    fn unnamed(&self, template: &str) -> Map<String, Value> {
        let named: Vec<&str> = template::arguments(template).collect();
        let rest = self
            .arguments
            .iter()
            .filter(|(name, _)| !named.contains(&name.as_str()));
        rest.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// Everything but letters, digits, `-`, `_`, `.` and `~` as `%XX`.
fn encode(text: &str) -> impl Iterator<Item = char> {
    text.bytes().flat_map(|byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
        let hex = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
        if plain {
            vec![char::from(byte)]
        } else {
            vec!['%', hex(byte >> 4), hex(byte & 15)]
        }
    })
}

/// How many segments the path of an address has as it is written.
fn path_segments(url: &str) -> Option<usize> {
    let (_, rest) = url.split_once("://")?;
    let rest = rest.split(['?', '#']).next()?;
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    Some(path.split('/').count())
}

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
    let mut request = gateway.tools_http.request(prepared.method, prepared.url);
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

fn lost(error: &reqwest::Error) -> Made {
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    let cause = cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    if error.is_connect() || error.is_builder() {
        return Made::NotSent(format!("the tool can't be reached: {cause}"));
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
    use proptest::prelude::*;
    use serde_json::json;

    fn filling(arguments: &Value) -> Map<String, Value> {
        arguments.as_object().cloned().unwrap_or_default()
    }

    fn url(template: &str, arguments: &Value) -> Result<String, String> {
        let arguments = filling(arguments);
        Filling {
            arguments: &arguments,
            step_id: "s-1",
        }
        .url(template)
        .map(|url| url.to_string())
    }

    #[test]
    fn an_argument_can_change_nothing_but_its_own_place() {
        let check = |template: &str, arguments: Value, expect: &str| {
            assert_eq!(
                url(template, &arguments).as_deref(),
                Ok(expect),
                "{template} {arguments}"
            );
        };
        check(
            "http://h/v1?city={city}",
            json!({"city": "São Paulo&x=1"}),
            "http://h/v1?city=S%C3%A3o%20Paulo%26x%3D1",
        );
        check(
            "http://h/{a}/end",
            json!({"a": "x/../../y?z#w"}),
            "http://h/x%2F..%2F..%2Fy%3Fz%23w/end",
        );
        check(
            "http://h/{a}?s={stepId}",
            json!({"a": 7}),
            "http://h/7?s=s-1",
        );
        check("http://h/{a}", json!({}), "http://h/");
        for step_up in ["..", ".", "%2e%2e"] {
            let made = url("http://h/one/{a}/two", &json!({"a": step_up}));
            let kept = made.as_deref() == Ok("http://h/one/%252e%252e/two");
            assert!(made.is_err() || kept, "{step_up}: {made:?}");
        }
    }

    #[test]
    fn a_lone_placeholder_keeps_its_type_and_a_missing_one_its_field_out() {
        let arguments = filling(&json!({"n": 3, "list": [1], "text": "a"}));
        let filling = Filling {
            arguments: &arguments,
            step_id: "s-1",
        };
        let template = json!({"n": "{n}", "l": ["{list}"], "t": "<{text}{n}>", "gone": "{other}", "ref": "{stepId}", "k": true});
        assert_eq!(
            filling.body(&template),
            json!({"n": 3, "l": [[1]], "t": "<a3>", "ref": "s-1", "k": true})
        );
    }

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

    proptest! {
        #[test]
        fn no_argument_leaves_the_host_or_the_path(text in "\\PC{0,40}") {
            if let Ok(url) = url("http://host/a/{x}/b?q={x}", &json!({"x": text})) {
                prop_assert!(url.starts_with("http://host/a/"), "{}", url);
                let path = url.split('?').next().unwrap_or_default();
                prop_assert!(path.ends_with("/b"), "{}", path);
                prop_assert_eq!(path.split('/').count(), 6);
            }
        }
    }
}
