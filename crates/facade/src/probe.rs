//! Health, readiness and metrics: what monitors ask.
//!
//! The first two are open and say nothing but their status.

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use hub::Hub;

use crate::door::Door;
use crate::problem::Problem;

/// The type of the OpenMetrics text that the hub renders.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn open() -> Router<Door> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

pub(crate) fn metrics() -> Router<Door> {
    Router::new().route("/metrics", get(show))
}

async fn healthz() -> StatusCode {
    StatusCode::OK
}

async fn readyz(State(hub): State<Hub>) -> StatusCode {
    if hub.ready() && !hub.is_stopping() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn show(State(hub): State<Hub>) -> Result<impl IntoResponse, Problem> {
    Ok(([(CONTENT_TYPE, METRICS_TYPE)], hub.metrics_text().await?))
}
