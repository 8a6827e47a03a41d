//! Which path is whose. SDKs put `/v1` before some paths and not before others, and users write
//! base URLs with and without it, so leading `v1` segments don't count.

use std::sync::Arc;

use http::{Method, Request};
use hub::{Code, HubError};
use hyper::body::Incoming;
use llm::Dialect;
use serde_json::Value;

use crate::call::{Asked, ModelWire};
use crate::door::{self, Door};
use crate::reply::{self, Reply, Tongue};
use crate::room::{Held, Room};
use crate::service::attach;
use crate::wire::Connection;
use crate::{Gateway, catalog, mcp_endpoint, pipeline, step_url};

/// A place behind the door.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Model(ModelWire),
    CountTokens,
    Models,
    Model1(String),
    Mcp,
    /// `POST /step/{name}`.
    Step(String),
    /// `POST /step`.
    StepResult,
    Attach,
    Nowhere,
}

impl Place {
    fn tongue(&self, anthropic: bool) -> Tongue {
        match self {
            Self::Model(wire) => wire.tongue(),
            Self::CountTokens => Tongue::Model(Dialect::Anthropic),
            Self::Models | Self::Model1(_) if anthropic => Tongue::Model(Dialect::Anthropic),
            Self::Models | Self::Model1(_) => Tongue::Model(Dialect::OpenAiChat),
            _ => Tongue::Plain,
        }
    }
}

fn place(method: &Method, path: &str) -> Place {
    let mut segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let versions = segments
        .iter()
        .take_while(|segment| **segment == "v1")
        .count();
    segments.drain(..versions.min(2));
    match (method.as_str(), segments.as_slice()) {
        ("POST", ["chat", "completions"]) => Place::Model(ModelWire::Dialect(Dialect::OpenAiChat)),
        ("POST", ["responses"]) => Place::Model(ModelWire::Dialect(Dialect::OpenAiResponses)),
        ("POST", ["messages"]) => Place::Model(ModelWire::Dialect(Dialect::Anthropic)),
        ("POST", ["embeddings"]) => Place::Model(ModelWire::Embeddings),
        ("POST", ["messages", "count_tokens"]) => Place::CountTokens,
        ("GET", ["models"]) => Place::Models,
        ("GET", ["models", id @ ..]) => Place::Model1(decoded(&id.join("/"))),
        (_, ["mcp"]) => Place::Mcp,
        ("POST", ["step"]) => Place::StepResult,
        ("POST", ["step", name]) => Place::Step(decoded(name)),
        ("GET", ["attach"]) => Place::Attach,
        _ => Place::Nowhere,
    }
}

/// A name as it was before a client put it into a path: SDKs encode the slash of provider/model.
fn decoded(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = (*byte == b'%').then(|| after.get(..2)).flatten();
        let escaped = escaped
            .filter(|pair| pair.iter().all(u8::is_ascii_hexdigit))
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        bytes.push(escaped.unwrap_or(*byte));
        rest = if escaped.is_some() {
            &after[2..]
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Answers one request.
pub async fn serve(
    gateway: Arc<Gateway>,
    instance: Arc<str>,
    room: Room,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Reply {
    let place = place(request.method(), request.uri().path());
    let anthropic = request.headers().contains_key("anthropic-version");
    let tongue = place.tongue(anthropic);
    let door = Door {
        instance,
        connection,
        headers: request.headers().clone(),
        room,
    };
    match go(&gateway, &door, request, place).await {
        Ok(reply) => reply,
        Err(refused) => reply::refusal(tongue, &refused),
    }
}

async fn go(
    gateway: &Arc<Gateway>,
    door: &Door,
    mut request: Request<Incoming>,
    place: Place,
) -> Result<Reply, HubError> {
    match place {
        Place::Nowhere => Err(nowhere(request.method(), request.uri().path())),
        Place::Models => catalog::list(gateway, door).await,
        Place::Model1(id) => catalog::one(gateway, door, &id).await,
        Place::Attach => attach::open(gateway, door, &mut request).await,
        Place::Mcp => mcp_endpoint::serve(gateway, door, request).await,
        Place::Model(wire) => {
            let (body, _held) = read_json(door, request.into_body()).await?;
            let asked = Asked::Model { wire, body };
            let passed = pipeline::call(gateway, door, asked).await?;
            Ok(reply::answer(
                wire.tongue(),
                passed.into_answer()?,
                door.connection.clone(),
            )
            .await)
        }
        Place::CountTokens => {
            let (body, _held) = read_json(door, request.into_body()).await?;
            catalog::count_tokens(gateway, door, &body).await
        }
        Place::Step(name) => {
            let (body, _held) = door.read_body(request.into_body()).await?;
            step_url::ask(gateway, door, name, &body).await
        }
        Place::StepResult => {
            let (body, _held) = door.read_body(request.into_body()).await?;
            step_url::report(gateway, door, &body).await
        }
    }
}

/// A body as JSON; its text isn't kept beside it.
async fn read_json(door: &Door, body: Incoming) -> Result<(Value, Held), HubError> {
    let (text, held) = door.read_body(body).await?;
    Ok((door::parse(&text)?, held))
}

fn nowhere(method: &Method, path: &str) -> HubError {
    let path = &path[..path.floor_char_boundary(128)];
    HubError::new(
        Code::NotFound,
        format!(
            "{method} {path} is nothing here; there are POST /v1/chat/completions, /v1/responses, /v1/messages, \
             /v1/embeddings, /v1/messages/count_tokens, GET /v1/models, /mcp, POST /step/NAME and GET /attach"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_with_and_without_a_version_lead_to_the_same_place() {
        let chat = Place::Model(ModelWire::Dialect(Dialect::OpenAiChat));
        for path in [
            "/chat/completions",
            "/v1/chat/completions",
            "/v1/v1/chat/completions",
            "//v1//chat/completions/",
        ] {
            assert_eq!(place(&Method::POST, path), chat, "{path}");
        }
        assert_eq!(
            place(&Method::POST, "/v1/v1/v1/chat/completions"),
            Place::Nowhere
        );
        assert_eq!(place(&Method::GET, "/v1/chat/completions"), Place::Nowhere);
        assert_eq!(
            place(&Method::GET, "/v1/models/openai/a/b"),
            Place::Model1("openai/a/b".into())
        );
        assert_eq!(
            place(&Method::GET, "/v1/models/openai%2Fa%20b%zz%+5%"),
            Place::Model1("openai/a b%zz%+5%".into())
        );
        assert_eq!(
            place(&Method::POST, "/step/read%20file"),
            Place::Step("read file".into())
        );
        assert_eq!(place(&Method::DELETE, "/mcp"), Place::Mcp);
        assert_eq!(place(&Method::POST, "/step/run"), Place::Step("run".into()));
    }
}
