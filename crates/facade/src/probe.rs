//! Health, readiness and metrics: what monitors ask.
//!
//! The first two are open and say nothing but their status. Metrics come as OpenMetrics to who asks
//! for it, as Prometheus does, and else as Prometheus's older text, which every tool reads.

use std::collections::HashSet;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use hub::Hub;

use crate::door::Door;
use crate::problem::Problem;

/// The type of the text that the hub renders.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

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

async fn show(State(hub): State<Hub>, headers: HeaderMap) -> Result<impl IntoResponse, Problem> {
    let text = hub.metrics_text().await?;
    let asked = headers.get_all(ACCEPT).iter();
    let is_asked = |value: &http::HeaderValue| {
        value
            .to_str()
            .is_ok_and(|types| types.contains("application/openmetrics-text"))
    };
    if asked.into_iter().any(is_asked) {
        return Ok(([(CONTENT_TYPE, OPENMETRICS)], text));
    }
    Ok(([(CONTENT_TYPE, PROMETHEUS)], prometheus(&text)))
}

/// The same as Prometheus's text: there a counter is called what its samples are called, and there
/// are no units and no end.
fn prometheus(openmetrics: &str) -> String {
    let counters: HashSet<&str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
        .collect();
    let mut text = String::with_capacity(openmetrics.len() + 64);
    for line in openmetrics.lines() {
        let mut words = line.splitn(4, ' ');
        let (mark, what, name) = (words.next(), words.next(), words.next());
        match (mark, what, name) {
            (Some("#"), Some("EOF" | "UNIT"), _) => continue,
            (Some("#"), Some(what), Some(name)) if counters.contains(name) => {
                let rest = words.next().unwrap_or_default();
                text.push_str(&format!("# {what} {name}_total {rest}"));
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_called_what_its_samples_are_called() {
        let openmetrics = "# HELP a_b Of # TYPE.\n# TYPE a_b counter\na_b_total{x=\"y\"} 1\n# HELP s S.\n\
            # TYPE s histogram\n# UNIT s seconds\ns_sum 0.0\n# EOF\n";
        assert_eq!(
            prometheus(openmetrics),
            "# HELP a_b_total Of # TYPE.\n# TYPE a_b_total counter\na_b_total{x=\"y\"} 1\n# HELP s S.\n\
            # TYPE s histogram\ns_sum 0.0\n"
        );
    }
}
