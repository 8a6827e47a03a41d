//! A service of protocol `http`: `POST /` with the task, and the output as the body of the answer.

use hub::service::ServiceCall;
use reqwest::{Response, StatusCode};

use super::{Ended, MAX_OUTPUT_BYTES};

pub(super) async fn deliver(client: &reqwest::Client, call: &ServiceCall) -> Ended {
    let Some(address) = call.address else {
        return Ended::Lost("the service has no address".into());
    };
    let sent = client
        .post(format!("http://{address}/"))
        .header("content-type", "application/json")
        .header("mainstay-token", call.token.as_ref())
        .body(call.body.to_string())
        .send()
        .await;
    let response = match sent {
        Ok(response) => response,
        Err(error) => return Ended::Lost(lost(&error)),
    };
    let status = response.status();
    let is_json = is_json(&response);
    let body = match read(response).await {
        Ok(body) => body,
        Err(why) => return Ended::Lost(why),
    };
    if status.is_success() {
        return output(is_json, body);
    }
    refused(status, &body)
}

fn output(is_json: bool, body: Vec<u8>) -> Ended {
    if !is_json {
        return Ended::Done {
            content_type: "text/plain",
            output: body,
        };
    }
    match hub::json_fault(&body) {
        None => Ended::Done {
            content_type: "application/json",
            output: body,
        },
        // Another attempt would be given the same recorded answers and say the same.
        Some(fault) => Ended::Failed(format!(
            "the service's answer says Content-Type: application/json, but it is no JSON: {fault}"
        )),
    }
}

/// A 4xx with words is the service's own judgement; but for those that speak of the moment.
pub(super) fn refused(status: StatusCode, body: &[u8]) -> Ended {
    let text = String::from_utf8_lossy(body);
    let text = mcp::message::bounded(text.trim(), 4096);
    let passing = matches!(status.as_u16(), 408 | 409 | 425 | 429);
    if status.is_client_error() && !passing && !text.is_empty() {
        return Ended::Failed(text);
    }
    Ended::Lost(format!(
        "the service answered with status {}: {text}",
        status.as_u16()
    ))
}

pub(super) fn is_json(response: &Response) -> bool {
    let kind = response
        .headers()
        .get("content-type")
        .and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| {
        let kind = kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        kind == "application/json" || kind.ends_with("+json")
    })
}

/// Reads a whole body, which is bounded.
pub(super) async fn read(mut response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_OUTPUT_BYTES {
            return Err(format!(
                "the service's answer is larger than {MAX_OUTPUT_BYTES} bytes"
            ));
        }
    }
    Ok(body)
}

pub(super) fn lost(error: &reqwest::Error) -> String {
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    let cause = cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string);
    format!("the call to the service broke: {cause}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_calls_itself_json_is_json_or_no_answer() {
        let done = |content_type, text: &str| Ended::Done {
            content_type,
            output: text.into(),
        };
        assert_eq!(output(true, b"[1]".into()), done("application/json", "[1]"));
        assert_eq!(output(false, b"[1".into()), done("text/plain", "[1"));
        assert!(matches!(output(true, b"[1".into()), Ended::Failed(_)));
        assert!(matches!(output(true, Vec::new()), Ended::Failed(_)));
    }

    #[test]
    fn only_a_judgement_of_the_service_is_final() {
        let ended = |status: u16, body: &str| {
            refused(StatusCode::from_u16(status).unwrap(), body.as_bytes())
        };
        assert_eq!(
            ended(422, "no such order"),
            Ended::Failed("no such order".into())
        );
        assert!(matches!(ended(422, ""), Ended::Lost(_)));
        assert!(matches!(ended(429, "busy"), Ended::Lost(_)));
        assert!(matches!(ended(500, "oops"), Ended::Lost(_)));
    }
}
