//! The admission webhook: says no before an object is written that nothing could run, in the words
//! that a server says it in.
//!
//! Theory: it is a courtesy. Rules between fields are in the definitions, and whatever gets past both
//! stands in the object's status; so the API server asks with `failurePolicy: Ignore`, and a cluster
//! without this port works. Every operator answers, whether it leads or not.
//!
//! The authority that the API server trusts is made by the installation, because whoever may change a
//! webhook's configuration can have every object of the cluster shown to it. The operator may not; it
//! signs a certificate of its own with the authority's key, and a new one long before that ends.

mod certificate;
mod judge;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::Knowledge;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use certificate::Certificate;

/// Connections at once; more wait in the listen backlog.
const CONNECTIONS: usize = 64;
/// The API server's own bound of an object is 3 MiB, and it sends two.
const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// For a handshake, and for a request's head.
const HEAD: Duration = Duration::from_secs(5);
const BODY: Duration = Duration::from_secs(10);
/// How often the authority's files are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// What the port is opened with.
pub(crate) struct Admission {
    /// The authority's certificate and key lie there.
    pub(crate) authority: PathBuf,
    /// The operator's namespace, by which its Service is named.
    pub(crate) namespace: String,
    pub(crate) checks: Knowledge,
}

/// Serves until dropped. Without an authority nobody asks here, and nothing is answered.
pub(crate) async fn serve(listener: TcpListener, admission: Admission) {
    let Admission {
        authority,
        namespace,
        checks,
    } = admission;
    let certificate = Certificate::new(authority, namespace);
    if let Err(error) = certificate.renew() {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "objects are not judged before they are written");
    }
    let certificate = Arc::new(certificate);
    let acceptor = match certificate.acceptor() {
        Ok(acceptor) => acceptor,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "objects are not judged before they are written");
            return;
        }
    };
    tokio::join!(accept(listener, acceptor, checks), keep(certificate));
}

/// Renews the certificate for ever.
async fn keep(certificate: Arc<Certificate>) {
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        // It was said when it began.
        if let Err(error) = certificate.renew() {
            tracing::debug!(error = &error as &dyn std::error::Error, "no certificate");
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, checks: Knowledge) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            // No more descriptors, most likely: the next try must not spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = tokio::time::timeout(HEAD, acceptor.accept(stream)).await {
                let service = service_fn(|request| respond(request, checks));
                // How the API server's connection ends is the API server's.
                let _ended = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD * 12)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            }
            drop(slot);
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    checks: Knowledge,
) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(match answer(request, checks).await {
        Ok(review) => json(&review),
        Err(status) => {
            let mut response = Response::new(Full::new(Bytes::new()));
            *response.status_mut() = status;
            response
        }
    })
}

async fn answer(request: Request<Incoming>, checks: Knowledge) -> Result<Value, StatusCode> {
    if request.method() != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let body = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    let body = tokio::time::timeout(BODY, body).await;
    let body = body.map_err(|_| StatusCode::REQUEST_TIMEOUT)?;
    let body = body.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?.to_bytes();
    // A large object takes a while, and others wait for this thread.
    let judged = tokio::task::spawn_blocking(move || {
        let review: Value = serde_json::from_slice(&body).ok()?;
        judge::review(&review, &checks)
    });
    let judged = judged
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    judged.ok_or(StatusCode::BAD_REQUEST)
}

fn json(review: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(review.to_string())));
    let kind = hyper::header::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}
