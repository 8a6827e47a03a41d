//! The hub as the command line reaches it: HTTP over the state's Unix socket or over TCP.
//!
//! Paths and bodies are the API's. Errors come as problem documents and leave as [`Failure`]s with
//! the exit code of the table; a connection that breaks is told apart, because whoever waits for a
//! task tries again after it.

mod file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::kubernetes::HUB;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::kubernetes::{Renewed, Way};
use crate::place::{Address, PlaceArgs};

/// The longest that the hub is asked to hold one request open.
pub const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// A hub that holds a request that long is gone, whatever the connection says.
const SILENCE: Duration = Duration::from_secs(90);
/// The same while it takes a large file.
const LONG_SILENCE: Duration = Duration::from_secs(20 * 60);
const CONNECT: Duration = Duration::from_secs(10);
/// The largest answer of the API is a task's output with its envelope.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// A hub.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<Token>,
    address: Address,
}

/// What the hub is shown.
#[derive(Clone)]
enum Token {
    Given(String),
    Renewed(Renewed),
}

impl Token {
    fn now(&self) -> String {
        match self {
            Self::Given(token) => token.clone(),
            Self::Renewed(token) => token.now(),
        }
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Why a call got no answer.
#[derive(Debug)]
pub enum CallError {
    /// Nobody was reached, or the connection broke: the call may or may not have arrived.
    Lost(Failure),
    /// The hub said no.
    Refused(Failure),
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Lost(failure) | CallError::Refused(failure) => failure,
        }
    }
}

impl Client {
    pub fn new(place: &PlaceArgs) -> Result<Self, Failure> {
        Self::at(place.address()?, SILENCE)
    }

    /// One that is sent large files, and says nothing meanwhile.
    pub fn patient(address: Address) -> Result<Self, Failure> {
        Self::at(address, LONG_SILENCE)
    }

    /// The hub of the state in this directory.
    pub fn of_state(state: &Path) -> Result<Self, Failure> {
        Self::at(Address::Socket(state.join("run/control.sock")), SILENCE)
    }

    fn at(address: Address, silence: Duration) -> Result<Self, Failure> {
        // No proxy from the environment: it would see the token.
        let builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT)
            .read_timeout(silence);
        let (builder, base, token) = match &address {
            Address::Socket(path) => (
                builder.unix_socket(path.clone()).tls_certs_only([]),
                "http://mainstay".to_owned(),
                None,
            ),
            Address::Url { url, token, ca } => {
                let builder = match ca {
                    Some(path) => builder.tls_certs_merge(certificates(path)?),
                    None if url.starts_with("http://") => builder.tls_certs_only([]),
                    None => builder,
                };
                (builder, checked_url(url)?, token.clone().map(Token::Given))
            }
            Address::Cluster { cluster, workspace } => {
                let way = Way::open(cluster.clone(), workspace.clone())?;
                let builder = builder.tls_certs_only(way.certificates()?);
                (builder, way.base(), Some(Token::Renewed(way.token)))
            }
        };
        let http = builder.build().map_err(|error| {
            Failure::new(Exit::Failed, "failed to set up a client").because(error)
        })?;
        Ok(Self {
            http,
            base,
            token,
            address,
        })
    }

    /// The state directory behind the socket; `None` for a hub elsewhere.
    pub fn socket(&self) -> Option<&PathBuf> {
        match &self.address {
            Address::Socket(path) => Some(path),
            Address::Url { .. } | Address::Cluster { .. } => None,
        }
    }

    pub async fn get(&self, path: &str) -> Result<Value, CallError> {
        self.call(Method::GET, path, None, &[]).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, CallError> {
        self.call(Method::POST, path, Some(body), &[]).await
    }

    /// One request and its answer as JSON (`null` for an empty one).
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<Value, CallError> {
        let mut response = self.send(method, path, body, headers).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_BODY_BYTES {
                return Err(CallError::Refused(Failure::new(
                    Exit::Failed,
                    "the hub's answer has no end",
                )));
            }
        }
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            let failure = Failure::new(Exit::Failed, format!("the answer to {path} is not JSON"))
                .because(error);
            CallError::Refused(failure.with_hint(format!("is {} a Mainstay hub?", self.name())))
        })
    }

    /// One request whose answer is read as text pieces.
    pub async fn text(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Pieces<'_>, CallError> {
        let response = self.send(Method::GET, path, None, headers).await?;
        Ok(Pieces {
            client: self,
            response,
            rest: Vec::new(),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> Result<reqwest::Response, CallError> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(body);
        }
        self.sent(request, headers).await
    }

    async fn sent(
        &self,
        mut request: reqwest::RequestBuilder,
        headers: &[(&str, &str)],
    ) -> Result<reqwest::Response, CallError> {
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.now());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.map_err(|error| self.lost(error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.bytes().await.map_err(|error| self.lost(error))?;
        Err(self.refusal(status, &text))
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> CallError {
        let problem: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let text = |field: &str| problem.get(field).and_then(Value::as_str);
        let problems = problem.get("problems").and_then(Value::as_array);
        let problems: Vec<&str> = problems
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let is_in_cluster = matches!(self.address, Address::Cluster { .. });
        let message = if status == StatusCode::UNAUTHORIZED && !is_in_cluster {
            let whose = if self.token.is_some() {
                "does not know this token"
            } else {
                "asks for a token"
            };
            format!("{} {whose}", self.name())
        } else if problems.is_empty() {
            let said = text("detail").or_else(|| text("title"));
            said.map_or_else(
                || format!("{} answered {status}", self.name()),
                str::to_owned,
            )
        } else {
            problems.join("\n\n")
        };
        let exit = match (status.as_u16(), problems.is_empty()) {
            (_, false) | (422, _) => Exit::Manifest,
            (400 | 405 | 413 | 415, _) => Exit::Usage,
            (401 | 403, _) => Exit::NotAllowed,
            (404, _) => Exit::NotFound,
            (503, _) => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let failure = Failure::new(exit, message);
        let failure = match exit {
            Exit::NotAllowed if status == StatusCode::UNAUTHORIZED && !is_in_cluster => failure.with_hint(
                "set MAINSTAY_TOKEN, or the context's token, to what `mainstay token` prints on the server",
            ),
            _ => match text("hint") {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            },
        };
        // A hub that is stopping or not yet ready is one that will be back.
        if exit == Exit::Unreachable {
            CallError::Lost(failure)
        } else {
            CallError::Refused(failure)
        }
    }

    fn lost(&self, error: reqwest::Error) -> CallError {
        let denied = denied(&error);
        let exit = if denied {
            Exit::NotAllowed
        } else {
            Exit::Unreachable
        };
        let failure = Failure::new(exit, format!("cannot reach the hub at {}", self.name()));
        let hint = match (&self.address, denied) {
            (Address::Socket(_), true) => "the state belongs to another user".to_owned(),
            (Address::Socket(path), false) => {
                let state = path.parent().and_then(Path::parent).unwrap_or(path);
                format!(
                    "start one with `mainstay up --state {}`, or say where it is with --state or MAINSTAY_URL",
                    state.display()
                )
            }
            (Address::Url { .. }, _) if is_distrust(&error) => {
                "copy `system/tls/certificate.pem` of the hub's state here and name it in MAINSTAY_CA".to_owned()
            }
            (Address::Url { .. }, _) => "check MAINSTAY_URL or the context".to_owned(),
            (Address::Cluster { .. }, _) => "`mainstay kubernetes status` says what isn't ready".to_owned(),
        };
        let failure = failure.because(error.without_url()).with_hint(hint);
        if denied {
            CallError::Refused(failure)
        } else {
            CallError::Lost(failure)
        }
    }

    fn name(&self) -> String {
        match &self.address {
            Address::Socket(path) => path.display().to_string(),
            Address::Url { url, .. } => url.clone(),
            Address::Cluster { workspace, .. } => format!("{HUB} in namespace {workspace}"),
        }
    }
}

/// Whether the socket may not be used, as opposed to nobody being there.
fn denied(error: &reqwest::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::PermissionDenied;
        }
        source = cause.source();
    }
    false
}

/// Whether the hub's certificate is the trouble.
fn is_distrust(error: &reqwest::Error) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if cause.to_string().contains("invalid peer certificate") {
            return true;
        }
        source = cause.source();
    }
    false
}

fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, Failure> {
    let wrong = || format!("{} is not a certificate in PEM", path.display());
    let pem = std::fs::read(path).map_err(|error| Failure::usage(wrong()).because(error))?;
    reqwest::Certificate::from_pem_bundle(&pem)
        .map_err(|error| Failure::usage(wrong()).because(error))
}

fn checked_url(url: &str) -> Result<String, Failure> {
    if url.starts_with("http://") || url.starts_with("https://") {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    Err(Failure::usage(format!("`{url}` is not an address"))
        .with_hint("it begins with http:// or https://"))
}

/// A body that comes in pieces.
#[derive(Debug)]
pub struct Pieces<'client> {
    client: &'client Client,
    response: reqwest::Response,
    rest: Vec<u8>,
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentEvent {
    pub id: Option<String>,
    pub data: String,
}

impl Pieces<'_> {
    /// The next bytes; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, CallError> {
        let chunk = self
            .response
            .chunk()
            .await
            .map_err(|error| self.client.lost(error))?;
        Ok(chunk.map(|bytes| bytes.to_vec()))
    }

    /// The next event that carries data; `None` at the end.
    pub async fn next_event(&mut self) -> Result<Option<SentEvent>, CallError> {
        loop {
            while let Some(end) = blank_line(&self.rest) {
                let text: Vec<u8> = self.rest.drain(..end).collect();
                let event = read_event(&String::from_utf8_lossy(&text));
                if !event.data.is_empty() {
                    return Ok(Some(event));
                }
            }
            if self.rest.len() > MAX_BODY_BYTES {
                return Err(CallError::Refused(Failure::new(
                    Exit::Failed,
                    "an event has no end",
                )));
            }
            match self.next().await? {
                Some(bytes) => self.rest.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }
}

/// Where the first event ends, its blank line included.
fn blank_line(bytes: &[u8]) -> Option<usize> {
    let plain = bytes
        .windows(2)
        .position(|pair| pair == b"\n\n")
        .map(|at| at + 2);
    let crlf = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4);
    plain.into_iter().chain(crlf).min()
}

fn read_event(text: &str) -> SentEvent {
    let mut event = SentEvent::default();
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = Some(value.to_owned()),
            "data" if event.data.is_empty() => event.data = value.to_owned(),
            "data" => event.data.extend(["\n", value]),
            _ => {}
        }
    }
    event
}

/// A name as one segment of a path or value of a query.
pub fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                text.push(char::from(byte))
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_line_by_line() {
        let event = read_event("id: 4-0\nevent: chunk\ndata: {\ndata: }\n: ping\n\n");
        assert_eq!(
            event,
            SentEvent {
                id: Some("4-0".into()),
                data: "{\n}".into()
            }
        );
        assert_eq!(blank_line(b"data: 1\r\n\r\ndata"), Some(11));
    }

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(encoded("a/b?c d..é"), "a%2Fb%3Fc%20d..%C3%A9");
    }
}
