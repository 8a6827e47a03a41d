//! The gateway, as the loop reaches it: plain HTTP on this machine, one connection per request.
//!
//! A request that breaks is sent again with `x-stainless-retry-count`, which lets the gateway
//! answer from what it has instead of doing the thing twice. A refusal with
//! `x-should-retry: false` stands. The wait between tries is bounded, and so is all of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::assignment::{Assignment, Speech};
use crate::failure::{Failure, with_sources};

/// The gateway's cap on an answer.
pub(crate) const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;
/// No byte for this long means that nobody is there any more; a model may think for minutes.
const SILENCE: Duration = Duration::from_secs(15 * 60);
/// A hub that restarts is back long before this; after it the shim decides when to try again.
const PATIENCE: Duration = Duration::from_secs(60);
/// The gateway has tried a failing provider several times before it says so, and what broke off
/// may have been paid for: more than this is the next attempt's, or a person's, to decide.
const MAX_RETRIES: u32 = 2;
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// An error's text is for a person: this much is enough.
const MAX_ERROR_BYTES: usize = 16 * 1024;

/// Where models and tools are, and the token that opens both.
#[derive(Debug, Clone)]
pub(crate) struct Doors {
    pub(crate) models: Uri,
    pub(crate) tools: Option<Uri>,
    pub(crate) token: String,
    pub(crate) speech: Speech,
}

impl Doors {
    pub(crate) fn from_environment(
        assignment: &Assignment,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, Failure> {
        let (name, path) = match assignment.dialect {
            Speech::Openai => ("OPENAI_BASE_URL", llm::Dialect::OpenAiChat.path()),
            Speech::Anthropic => ("ANTHROPIC_BASE_URL", llm::Dialect::Anthropic.path()),
        };
        let base = variable(name).ok_or(Failure::Variable(name))?;
        let tools = variable("MAINSTAY_MCP_URL").filter(|url| !url.is_empty());
        let token = match variable("MAINSTAY_TOKEN") {
            Some(token) if assignment.token.is_empty() => token,
            _ => assignment.token.clone(),
        };
        Ok(Self {
            models: address(name, &format!("{}{path}", base.trim_end_matches('/')))?,
            tools: tools
                .map(|url| address("MAINSTAY_MCP_URL", &url))
                .transpose()?,
            token,
            speech: assignment.dialect,
        })
    }
}

fn address(name: &'static str, text: &str) -> Result<Uri, Failure> {
    let uri: Option<Uri> = text.parse().ok();
    uri.filter(|uri| uri.scheme_str() == Some("http") && uri.authority().is_some())
        .ok_or_else(|| Failure::Address {
            name,
            value: text.to_owned(),
        })
}

/// Counts the tries of one request.
#[derive(Debug)]
pub(crate) struct Tries {
    what: String,
    retries: u32,
    /// Retries of requests that had reached the gateway.
    reached: u32,
    give_up: Instant,
}

impl Tries {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            retries: 0,
            reached: 0,
            give_up: Instant::now() + PATIENCE,
        }
    }

    pub(crate) fn retries(&self) -> u32 {
        self.retries
    }

    /// Waits before the next try, or gives the failure back when it stands or time is up.
    pub(crate) async fn after(&mut self, trouble: Trouble) -> Result<(), Failure> {
        let reached = !matches!(trouble, Trouble::Away(_));
        let over = Instant::now() >= self.give_up || (reached && self.reached >= MAX_RETRIES);
        self.reached += u32::from(reached);
        let (message, asked) = match trouble {
            Trouble::Refused { status, message } => return Err(self.refused(status, message)),
            Trouble::Busy {
                status, message, ..
            } if over => {
                return Err(self.refused(status, message));
            }
            Trouble::Busy { message, after, .. } => (message, after),
            Trouble::Broken(message) | Trouble::Away(message) => (message, None),
        };
        if over {
            return Err(Failure::Broken {
                what: self.what.clone(),
                message,
            });
        }
        let doubled = FIRST_DELAY.saturating_mul(1 << self.retries.min(10));
        self.retries += 1;
        tokio::time::sleep(asked.unwrap_or(doubled).min(LONGEST_DELAY)).await;
        Ok(())
    }

    fn refused(&self, status: u16, message: String) -> Failure {
        // Only what depends on nothing but the request itself is final: every attempt asks the same.
        let is_final = matches!(status, 400 | 404 | 413 | 422);
        Failure::Refused {
            what: self.what.clone(),
            status,
            message,
            is_final,
        }
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It stands: asking again changes nothing.
    Refused { status: u16, message: String },
    /// Not now.
    Busy {
        status: u16,
        message: String,
        after: Option<Duration>,
    },
    /// The connection or the answer broke off.
    Broken(String),
    /// Nobody took the connection: the hub is being started again.
    Away(String),
}

/// An answer whose body is still to come.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    body: Incoming,
    bytes: usize,
}

impl Answer {
    /// The next piece of the body; `None` after a clean end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        loop {
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| Trouble::Broken("nothing came for 15 minutes".into()))?;
            let Some(frame) = frame.transpose().map_err(|error| broken(&error))? else {
                return Ok(None);
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.bytes += data.len();
            if self.bytes > MAX_ANSWER_BYTES {
                let message = format!("the answer is larger than {MAX_ANSWER_BYTES} bytes");
                return Err(Trouble::Refused {
                    status: 502,
                    message,
                });
            }
            return Ok(Some(data));
        }
    }

    pub(crate) fn is_event_stream(&self) -> bool {
        let kind = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok());
        kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// The rest of the body.
    pub(crate) async fn collect(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut all = Vec::new();
        while let Some(data) = self.next().await? {
            all.extend_from_slice(&data);
        }
        Ok(all)
    }
}

/// Sends one request. Anything but a success comes back as `Trouble`.
pub(crate) async fn send(
    uri: &Uri,
    headers: &HeaderMap,
    body: Bytes,
    retries: u32,
) -> Result<Answer, Trouble> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    let path = uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    *request.uri_mut() = path.parse().map_err(|error| broken(&error))?;
    request.headers_mut().clone_from(headers);
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let host = authority.parse().map_err(|error| broken(&error))?;
    request.headers_mut().insert(header::HOST, host);
    request
        .headers_mut()
        .insert("x-stainless-retry-count", retries.into());
    let response = deliver(authority, request).await?;
    let (parts, body) = response.into_parts();
    let mut answer = Answer {
        headers: parts.headers,
        body,
        bytes: 0,
    };
    if parts.status.is_success() {
        return Ok(answer);
    }
    Err(trouble(parts.status, &mut answer).await)
}

async fn deliver(
    authority: &str,
    request: Request<Full<Bytes>>,
) -> Result<http::Response<Incoming>, Trouble> {
    let address = if authority.contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let stream = tokio::net::TcpStream::connect(address)
        .await
        .map_err(|error| Trouble::Away(with_sources(&error)))?;
    let _slower = stream.set_nodelay(true);
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| broken(&error))?;
    // Ends with the answer's body; its error is the body's error.
    tokio::spawn(connection);
    let response = tokio::time::timeout(SILENCE, sender.send_request(request)).await;
    let response = response.map_err(|_| Trouble::Broken("no answer came for 15 minutes".into()))?;
    response.map_err(|error| broken(&error))
}

async fn trouble(status: StatusCode, answer: &mut Answer) -> Trouble {
    let header = |name: &str| {
        answer
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let should_retry = header("x-should-retry").map(|value| value == "true");
    let after = header("retry-after")
        .and_then(|value| value.parse().ok())
        .map(Duration::from_secs);
    let status = status.as_u16();
    let retry = should_retry.unwrap_or(matches!(status, 408 | 409 | 429 | 500..));
    let mut text = Vec::new();
    while let Ok(Some(data)) = answer.next().await {
        text.extend_from_slice(&data);
        if text.len() > MAX_ERROR_BYTES {
            break;
        }
    }
    let message = message_of(&text);
    if retry {
        Trouble::Busy {
            status,
            message,
            after,
        }
    } else {
        Trouble::Refused { status, message }
    }
}

/// The sentence in an error body of any dialect, or the body.
fn message_of(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let named = json.as_ref().and_then(|json| {
        let places = ["/error/message", "/detail", "/message", "/error"];
        places
            .iter()
            .find_map(|place| json.pointer(place))
            .and_then(Value::as_str)
    });
    let text = named.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
    text.chars().take(2000).collect()
}

pub(crate) fn broken(error: &dyn std::error::Error) -> Trouble {
    Trouble::Broken(with_sources(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_of_an_error_is_found_in_every_dialect() {
        let check = |body: &str, expect: &str| assert_eq!(message_of(body.as_bytes()), expect);
        check(r#"{"error": {"message": "no", "type": "x"}}"#, "no");
        check(
            r#"{"type": "error", "error": {"type": "x", "message": "never"}}"#,
            "never",
        );
        check(r#"{"detail": "full"}"#, "full");
        check("<html>", "<html>");
    }

    #[test]
    fn only_an_http_address_is_a_door() {
        assert!(address("A", "http://127.0.0.1:1/v1").is_ok());
        for wrong in ["https://x/", "127.0.0.1:1", "", "http:///x"] {
            assert!(address("A", wrong).is_err(), "{wrong}");
        }
    }
}
