//! An HTTP server whose calls leave effects, which it counts: the world outside.
//!
//! `POST /effects` takes effect once per `Idempotency-Key`, or each time without one;
//! `GET /effects?ref=` reads them back; `GET /weather` is pure. Every request is counted too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::server::Server;

/// One thing that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    pub key: Option<String>,
    pub body: Value,
}

/// How it behaves towards `POST /effects`.
#[derive(Clone, Copy, Debug, Default)]
pub enum Behaviour {
    #[default]
    Answer,
    /// Takes effect, then answers after a while.
    AnswerAfter(Duration),
    /// Takes effect and never answers.
    NeverAnswer,
    /// Refuses with that status and takes no effect.
    Refuse(u16),
}

#[derive(Default)]
struct Shared {
    effects: Mutex<Vec<Effect>>,
    requests: Mutex<Vec<(String, Effect)>>,
    behaviour: Mutex<Behaviour>,
}

/// A running server.
pub struct EffectServer {
    server: Server,
    shared: Arc<Shared>,
}

impl EffectServer {
    /// Starts one.
    #[must_use]
    pub fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/effects", post(take_effect).get(read_back))
            .route("/weather", get(weather))
            .with_state(Arc::clone(&shared));
        Self {
            server: Server::start(router),
            shared,
        }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Everything that was done, once each.
    #[must_use]
    pub fn effects(&self) -> Vec<Effect> {
        self.shared.effects.lock().unwrap().clone()
    }

    /// Everything that was asked, with its path.
    #[must_use]
    pub fn requests(&self) -> Vec<(String, Effect)> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Behaves like that from now on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }
}

async fn take_effect(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let key = headers.get("idempotency-key");
    let key = key.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let effect = Effect { key, body };
    let behaviour = *shared.behaviour.lock().unwrap();
    {
        let asked = ("/effects".to_owned(), effect.clone());
        shared.requests.lock().unwrap().push(asked);
    }
    if let Behaviour::Refuse(status) = behaviour {
        let status = StatusCode::from_u16(status).unwrap();
        return (status, Json(json!({"error": "refused"}))).into_response();
    }
    {
        let mut effects = shared.effects.lock().unwrap();
        let is_known = effect.key.is_some() && effects.iter().any(|old| old.key == effect.key);
        if !is_known {
            effects.push(effect.clone());
        }
    }
    match behaviour {
        Behaviour::NeverAnswer => std::future::pending::<()>().await,
        Behaviour::AnswerAfter(delay) => tokio::time::sleep(delay).await,
        Behaviour::Answer | Behaviour::Refuse(_) => {}
    }
    Json(json!({"done": true, "body": effect.body})).into_response()
}

async fn read_back(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Value> {
    let wanted = query.get("ref").cloned().unwrap_or_default();
    let effects = shared.effects.lock().unwrap();
    let items = effects
        .iter()
        .filter(|effect| effect.body["ref"] == wanted.as_str());
    let items: Vec<_> = items.map(|effect| effect.body.clone()).collect();
    Json(json!({"items": items}))
}

async fn weather(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Value> {
    let city = query.get("city").cloned().unwrap_or_default();
    let effect = Effect {
        key: None,
        body: json!({"city": city}),
    };
    shared
        .requests
        .lock()
        .unwrap()
        .push(("/weather".to_owned(), effect));
    Json(json!({"city": city, "sky": "clear"}))
}
