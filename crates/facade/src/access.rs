//! What each request does, in the few words that rights are given by.
//!
//! The owner's token may everything, so only callers who come by another identity ([`Review`]) are
//! asked for these. What isn't named here is the owner's: a new route is closed until somebody says
//! what it does.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use futures_util::future::BoxFuture;
use http::Method;

/// How often it is asked whether who holds a stream open may still do so.
pub(crate) const AGAIN: Duration = Duration::from_secs(5);

/// What a caller wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// See the fleet, tasks, sessions, the log and metrics.
    Read,
    /// Submit tasks.
    Run,
    Cancel,
    /// Say how a task that waits goes on, try one again, move sessions.
    Decide,
    /// Start, stop and restart agents.
    Steer,
    /// Change the fleet's objects.
    Change,
    /// Everything else: secrets, and the owner's token itself.
    Own,
}

/// Why a caller isn't let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nobody knows the token.
    Unknown(String),
    /// Its bearer may not do that.
    NotAllowed(String),
    /// Who could say is not there. Nobody is let in for that.
    Unanswered(String),
}

/// Who a bearer is and whether he may do that: his name as it stands in the log.
pub type Asked = BoxFuture<'static, Result<Arc<str>, Refused>>;

type Ask = dyn Fn(&str, Access) -> Asked + Send + Sync;

/// Somebody outside who knows callers by tokens that aren't ours.
#[derive(Clone)]
pub struct Review {
    ask: Arc<Ask>,
}

impl Review {
    pub fn new(ask: impl Fn(&str, Access) -> Asked + Send + Sync + 'static) -> Self {
        Self { ask: Arc::new(ask) }
    }

    pub(crate) async fn of(&self, bearer: &str, access: Access) -> Result<Arc<str>, Refused> {
        (self.ask)(bearer, access).await
    }
}

impl std::fmt::Debug for Review {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Review(..)")
    }
}

/// What somebody was let in with; it may be taken from him while a stream is open.
#[derive(Clone)]
pub(crate) struct Standing {
    pub(crate) review: Review,
    pub(crate) bearer: Arc<str>,
    pub(crate) access: Access,
}

impl Standing {
    /// Whether it was taken away. While nobody answers it holds, for nothing new is begun by it.
    pub(crate) async fn is_lost(&self) -> bool {
        let asked = self.review.of(&self.bearer, self.access).await;
        matches!(asked, Err(Refused::Unknown(_) | Refused::NotAllowed(_)))
    }

    /// Resolves when it was.
    pub(crate) async fn lost(self) {
        loop {
            tokio::time::sleep(AGAIN).await;
            if self.is_lost().await {
                return;
            }
        }
    }
}

impl std::fmt::Debug for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Standing({:?})", self.access)
    }
}

/// What a request does, by the route that it goes to.
pub(crate) fn of(request: &Request) -> Access {
    let path = request.extensions().get::<MatchedPath>();
    path.map_or(Access::Own, |path| needed(request.method(), path.as_str()))
}

fn needed(method: &Method, path: &str) -> Access {
    match (method.as_str(), path) {
        ("GET", "/ws/{agent}")
        | ("POST", "/api/v1/agents/{agent}/tasks" | "/v1/chat/completions" | "/v1/responses") => {
            Access::Run
        }
        (
            "GET" | "HEAD",
            "/" | "/tasks/{id}" | "/metrics" | "/v1/models" | "/v1/models/{model}",
        ) => Access::Read,
        ("GET" | "HEAD", path)
            if path.starts_with("/api/v1/") || path.starts_with("/control/objects/") =>
        {
            Access::Read
        }
        ("POST", "/api/v1/tasks/{id}/cancel") => Access::Cancel,
        (
            "POST",
            "/api/v1/tasks/{id}/retry"
            | "/api/v1/tasks/{id}/resume"
            | "/api/v1/sessions"
            | "/api/v1/sessions/{id}/export",
        ) => Access::Decide,
        ("POST", "/control/start" | "/control/stop" | "/control/restart") => Access::Steer,
        ("POST", "/control/apply" | "/control/delete")
        | ("GET" | "HEAD" | "PUT", "/control/sources/{name}") => Access::Change,
        _ => Access::Own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest;

    #[test]
    fn every_route_of_the_api_says_what_it_does() {
        for operation in rest::operations() {
            let method = match operation.method {
                rest::Method::Get => Method::GET,
                rest::Method::Post => Method::POST,
            };
            let access = needed(&method, operation.path);
            assert_ne!(access, Access::Own, "{}", operation.path);
            assert_eq!(
                access == Access::Read,
                method == Method::GET,
                "{}",
                operation.path
            );
        }
    }

    #[test]
    fn what_nobody_named_is_the_owners() {
        for (method, path) in [
            (Method::GET, "/control/token"),
            (Method::GET, "/control/secrets"),
            (Method::PUT, "/control/secrets/{name}/{key}"),
            (Method::DELETE, "/control/secrets/{name}/{key}"),
            (Method::POST, "/api/v1/whatever"),
            (Method::POST, "/control/whatever"),
            (Method::DELETE, "/api/v1/tasks/{id}"),
        ] {
            assert_eq!(needed(&method, path), Access::Own, "{method} {path}");
        }
    }
}
