//! An API server for tests: answers what the test says, and keeps what it was asked.
//!
//! It knows no kinds and keeps no objects. What a test doesn't answer is not found; a list is
//! empty, and a watch is silent.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::context::Context;

/// What it was asked: method, path and body.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
}

impl Asked {
    /// Whether it is that request; the path by its end.
    pub(crate) fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path.ends_with(path)
    }
}

/// What it answers; none at all if that says so.
pub(crate) enum Answer {
    Say(u16, Value),
    Silence,
}

/// The API server.
pub(crate) struct Fake {
    pub(crate) client: Client,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    /// Starts one; `answer` goes before its own.
    pub(crate) async fn start(
        answer: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(serve(listener, Arc::new(answer), Arc::clone(&asked)));
        let config = Config::new(address.parse().unwrap());
        let client = Client::try_from(config).unwrap();
        Self { client, asked }
    }

    /// An operator's context on it.
    pub(crate) fn context(&self) -> Arc<Context> {
        let checks = api::Knowledge::nothing();
        let (image, namespace) = ("mainstay:1".to_owned(), "home".to_owned());
        Arc::new(Context::new(self.client.clone(), image, namespace, checks))
    }

    /// Everything that it was asked up to now.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }

    /// How often it was asked that.
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        let asked = self.asked();
        asked.iter().filter(|asked| asked.is(method, path)).count()
    }
}

/// Waits until it is so.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "it isn't so");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn serve(
    listener: TcpListener,
    answer: Arc<impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static>,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    while let Ok((stream, _)) = listener.accept().await {
        let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
        tokio::spawn(async move {
            let service = service_fn(|request| respond(request, answer.as_ref(), &asked));
            // How the client's connection ends is the client's.
            let _ended = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    answer: &impl Fn(&Asked) -> Option<Answer>,
    all: &Mutex<Vec<Asked>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let uri = request.uri().clone();
    let method = request.method().to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let asked = Asked {
        method,
        path: uri.path().to_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let query = uri.query().unwrap_or_default();
    let said = answer(&asked).unwrap_or_else(|| usual(&asked, query));
    all.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(asked);
    let Answer::Say(code, body) = said else {
        return std::future::pending().await;
    };
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = code.try_into().unwrap();
    Ok(response)
}

/// Lists are empty, watches silent; what is written is there as it was written.
fn usual(asked: &Asked, query: &str) -> Answer {
    match asked.method.as_str() {
        "GET" if query.contains("watch=") => Answer::Silence,
        "GET" if query.contains("limit=") || query.contains("labelSelector=") => Answer::Say(
            200,
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"},
                "items": []}),
        ),
        "PATCH" | "POST" | "PUT" => Answer::Say(200, asked.body.clone()),
        _ => missing(),
    }
}

/// As the API server says it.
pub(crate) fn refused(code: u16, reason: &str) -> Answer {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": reason, "reason": reason, "code": code,
    });
    Answer::Say(code, body)
}

fn missing() -> Answer {
    refused(404, "NotFound")
}
