//! A provider that counts: OpenAI Chat Completions and Responses, and Anthropic Messages, streamed
//! and not, answered by a script.
//!
//! A script is a function of the request alone, so the same question gets the same answer however
//! often it is asked; what it was asked, and how often, is what tests look at afterwards.

mod call;
mod chat;
mod messages;
mod reply;
mod responses;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

pub use call::{Call, Dialect};
pub use reply::{Kind, Reply};

use crate::server::Server;

type Script = Box<dyn Fn(&Call) -> Reply + Send + Sync>;

struct Shared {
    script: Mutex<Arc<Script>>,
    calls: Mutex<Vec<Call>>,
}

/// A running provider.
pub struct Provider {
    server: Server,
    shared: Arc<Shared>,
}

impl Provider {
    /// Starts one on loopback that answers by this script.
    #[must_use]
    pub fn start(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), script)
    }

    /// The same on another address of this machine.
    #[must_use]
    pub fn start_on(
        address: IpAddr,
        script: impl Fn(&Call) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            script: Mutex::new(Arc::new(Box::new(script))),
            calls: Mutex::new(Vec::new()),
        });
        let router = Router::new()
            .route("/v1/chat/completions", post(answer))
            .route("/v1/responses", post(answer))
            .route("/v1/messages", post(answer))
            .route("/v1/embeddings", post(answer))
            .route("/v1/models", get(models))
            .layer(axum::extract::DefaultBodyLimit::max(64 * 1024 * 1024))
            .with_state(Arc::clone(&shared));
        Self {
            server: Server::start_on(address, router),
            shared,
        }
    }

    /// What goes into an `openai` provider's `baseUrl`.
    #[must_use]
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.server.address)
    }

    /// What goes into an `anthropic` provider's `baseUrl`.
    #[must_use]
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Answers by another script from now on.
    pub fn set_script(&self, script: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
        *self.shared.script.lock().unwrap() = Arc::new(Box::new(script));
    }

    /// Every request so far, in order of arrival.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// How often each turn of each conversation was asked for.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<(String, u32), usize> {
        let mut counts = BTreeMap::new();
        for call in self.shared.calls.lock().unwrap().iter() {
            *counts
                .entry((call.conversation.clone(), call.turn))
                .or_default() += 1;
        }
        counts
    }

    /// How often each body was sent, by its fingerprint.
    #[must_use]
    pub fn counts_by_body(&self) -> BTreeMap<u64, usize> {
        let mut counts = BTreeMap::new();
        for call in self.shared.calls.lock().unwrap().iter() {
            *counts.entry(call.fingerprint).or_default() += 1;
        }
        counts
    }

    /// Requests of one conversation, by its first words.
    #[must_use]
    pub fn calls_of(&self, conversation: &str) -> Vec<Call> {
        let calls = self.shared.calls.lock().unwrap();
        let of = calls
            .iter()
            .filter(|call| call.conversation == conversation);
        of.cloned().collect()
    }

    /// Forgets what was counted.
    pub fn forget(&self) {
        self.shared.calls.lock().unwrap().clear();
    }
}

/// A script for a loop of that many model calls: each but the last calls `tool` with
/// `{"conversation", "n"}`, the last says `done: <conversation>`.
pub fn loop_of(turns: u32, tool: &str) -> impl Fn(&Call) -> Reply + Send + Sync + 'static {
    let tool = tool.to_owned();
    move |call| {
        if call.turn + 1 >= turns {
            return Reply::text(&format!("done: {}", call.conversation));
        }
        let name = call.tool_named(&tool);
        let arguments = json!({"conversation": call.conversation, "n": call.turn + 1});
        Reply::tool(&name, arguments)
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some(call) = Call::parse(uri.path(), &headers, &body) else {
        return reply::refuse(400, "the request is no JSON object of this dialect");
    };
    let script = Arc::clone(&shared.script.lock().unwrap());
    shared.calls.lock().unwrap().push(call.clone());
    let reply = script(&call);
    reply.render(&call).await
}

async fn models() -> axum::Json<serde_json::Value> {
    axum::Json(
        json!({"object": "list", "data": [{"id": "fake-1", "object": "model",
        "created": reply::CREATED, "owned_by": "testkit"}]}),
    )
}
