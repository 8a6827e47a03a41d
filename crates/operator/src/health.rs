//! The operator's own port: whether it lives, whether it works or waits to, and its counters.
//!
//! HTTP by hand would be a parser of ours on a port; hyper has one.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::context::Context;

/// Connections at once; more wait in the listen backlog.
const CONNECTIONS: usize = 64;

/// What the port tells.
pub(crate) struct Health {
    pub(crate) context: Arc<Context>,
    /// It leads.
    pub(crate) leads: AtomicBool,
    /// It can reach the API server: it leads, or it waits to.
    pub(crate) is_ready: AtomicBool,
}

/// Serves until dropped.
pub(crate) async fn serve(listener: TcpListener, health: Arc<Health>) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // No more descriptors, most likely: the next try must not spin.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let health = Arc::clone(&health);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = answer(&health, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            // How a monitor's connection ends is the monitor's.
            let _ended = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(slot);
        });
    }
}

fn answer(health: &Health, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
    }
    let leads = health.leads.load(Ordering::Relaxed);
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if health.is_ready.load(Ordering::Relaxed) => {
            text(StatusCode::OK, "ok\n".to_owned())
        }
        "/readyz" => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "the API server can't be reached, or the custom resources aren't installed\n"
                .to_owned(),
        ),
        "/metrics" => {
            let queued = health.context.queue().len();
            text(StatusCode::OK, health.context.metrics.render(queued, leads))
        }
        _ => text(StatusCode::NOT_FOUND, "not found\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let plain = hyper::header::HeaderValue::from_static("text/plain; charset=utf-8");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, plain);
    response
}
