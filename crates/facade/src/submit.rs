//! Submitting on a client's behalf: who, with which key, in which trace.
//!
//! REST, WebSocket and OpenAI's routes submit through one function, so none forgets the author.

use http::HeaderMap;
use hub::task::SubmitTask;

use crate::auth::Author;
use crate::decode::header;
use crate::problem::Problem;

/// The longest idempotency key.
const MAX_KEY_BYTES: usize = 256;

/// The part of a submission that comes from headers and the connection.
pub(crate) fn from_headers(author: &Author, headers: &HeaderMap) -> Result<SubmitTask, Problem> {
    Ok(SubmitTask {
        author: author.0.to_string(),
        idempotency_key: idempotency_key(headers)?,
        traceparent: header(headers, "traceparent")
            .filter(|value| is_traceparent(value))
            .map(str::to_owned),
        ..SubmitTask::default()
    })
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Problem::invalid(
            "Idempotency-Key is 1 to 256 visible ASCII characters",
        )),
    }
}

/// W3C's form: `00-<32 hex>-<16 hex>-<2 hex>`. Anything else is no reason to refuse work.
fn is_traceparent(value: &str) -> bool {
    let lengths = value.split('-').map(|part| {
        part.bytes()
            .all(|b| b.is_ascii_hexdigit())
            .then_some(part.len())
    });
    lengths.eq([Some(2), Some(32), Some(16), Some(2)])
}

/// What an agent may be given: text, or parts.
pub(crate) fn input(value: &serde_json::Value) -> Result<(), Problem> {
    let is_input = match value {
        serde_json::Value::String(_) => true,
        serde_json::Value::Array(parts) => {
            !parts.is_empty() && parts.iter().all(serde_json::Value::is_object)
        }
        _ => false,
    };
    is_input.then_some(()).ok_or_else(|| {
        Problem::invalid("input is a string, or a list of parts such as {\"text\": \"…\"}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn author() -> Author {
        Author("owner".into())
    }

    #[test]
    fn the_key_and_the_trace_of_a_request_are_kept() {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let headers = HeaderMap::from_iter([
            (
                http::HeaderName::from_static("idempotency-key"),
                http::HeaderValue::from_static("k 1"),
            ),
            (
                http::HeaderName::from_static("traceparent"),
                http::HeaderValue::from_static(trace),
            ),
        ]);
        let submit = from_headers(&author(), &headers).unwrap();
        assert_eq!(
            (
                submit.author.as_str(),
                submit.idempotency_key.as_deref(),
                submit.traceparent.as_deref()
            ),
            ("owner", Some("k 1"), Some(trace))
        );
    }

    #[test]
    fn a_key_that_cannot_be_kept_is_refused_and_a_bad_trace_is_dropped() {
        let long = http::HeaderValue::from_str(&"k".repeat(257)).unwrap();
        assert!(
            from_headers(
                &author(),
                &HeaderMap::from_iter([(http::HeaderName::from_static("idempotency-key"), long)])
            )
            .is_err()
        );
        let trace = http::HeaderValue::from_static("00-zz-b7ad6b7169203331-01");
        let submit = from_headers(
            &author(),
            &HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), trace)]),
        )
        .unwrap();
        assert_eq!(submit.traceparent, None);
    }

    #[test]
    fn input_is_text_or_parts() {
        for good in [json!(""), json!("x"), json!([{"text": "x"}])] {
            assert!(input(&good).is_ok(), "{good}");
        }
        for bad in [json!(null), json!(1), json!({}), json!([]), json!(["x"])] {
            assert!(input(&bad).is_err(), "{bad}");
        }
    }
}
