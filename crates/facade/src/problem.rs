//! Problem documents (RFC 9457): the one shape of every error outside OpenAI's routes.
//!
//! `From<HubError>` is the only place where the hub's errors become HTTP; [`Problem`]'s own
//! constructors are for what goes wrong before the hub is asked.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use hub::{Code, HubError};
use serde_json::json;

/// An error on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// The stable machine word.
    pub(crate) code: &'static str,
    pub(crate) title: &'static str,
    pub(crate) detail: String,
    pub(crate) retry_after_seconds: Option<u32>,
}

impl Problem {
    fn new(
        status: StatusCode,
        code: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            code,
            title,
            detail: detail.into(),
            retry_after_seconds: None,
        }
    }

    pub(crate) fn invalid(detail: impl Into<String>) -> Self {
        HubError::new(Code::Invalid, detail).into()
    }

    pub(crate) fn unauthorized() -> Self {
        HubError::new(
            Code::Unauthorized,
            "send the token that `mainstay token` prints as `Authorization: Bearer …`",
        )
        .into()
    }

    pub(crate) fn unknown(detail: impl Into<String>) -> Self {
        HubError::new(Code::Unauthorized, detail).into()
    }

    pub(crate) fn unanswered(detail: impl Into<String>) -> Self {
        HubError::new(Code::Unavailable, detail).into()
    }

    pub(crate) fn not_allowed(detail: impl Into<String>) -> Self {
        HubError::new(Code::NotAllowed, detail).into()
    }

    pub(crate) fn too_large(limit_bytes: usize) -> Self {
        HubError::new(
            Code::TooLarge,
            format!("the body is larger than {limit_bytes} bytes"),
        )
        .into()
    }

    pub(crate) fn no_such_path() -> Self {
        HubError::new(
            Code::NotFound,
            "no such path; /api/v1/openapi.json lists them",
        )
        .into()
    }

    pub(crate) fn method() -> Self {
        let detail = "this path has no such method; /api/v1/openapi.json lists them";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "method not allowed",
            detail,
        )
    }

    pub(crate) fn misdirected(host: &str) -> Self {
        let detail = format!("no service of the name `{}` is here", host.escape_debug());
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            "wrong host",
            detail,
        )
    }

    pub(crate) fn media_type() -> Self {
        let detail = "send the body as `Content-Type: application/json`";
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "media_type",
            "unsupported media type",
            detail,
        )
    }

    pub(crate) fn body_too_slow() -> Self {
        let detail = "the body did not arrive in time";
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            "request timeout",
            detail,
        )
    }

    pub(crate) fn upgrade(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "WebSocket required",
            detail,
        )
    }
}

/// A short title that is the same for every occurrence of a code.
fn title(code: Code) -> &'static str {
    match code {
        Code::Invalid => "invalid request",
        Code::NotFound => "not found",
        Code::NotAllowed => "not allowed",
        Code::Unauthorized => "no valid token",
        Code::Conflict => "not possible in this state",
        Code::QueueFull => "queue full",
        Code::Budget => "budget used up",
        Code::Fenced => "attempt fenced",
        Code::Parked => "task is parked",
        Code::TooLarge => "too large",
        Code::Upstream => "provider or tool failed",
        Code::NoSpace => "no space left",
        Code::Unavailable => "hub not available",
        Code::Internal => "internal error",
    }
}

/// When it makes sense to try again, where it does.
fn retry_after_seconds(code: Code) -> Option<u32> {
    match code {
        Code::QueueFull => Some(2),
        Code::Unavailable => Some(1),
        _ => None,
    }
}

impl From<HubError> for Problem {
    fn from(error: HubError) -> Self {
        let status =
            StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self {
            status,
            code: error.code.word(),
            title: title(error.code),
            detail: error.message,
            retry_after_seconds: retry_after_seconds(error.code),
        }
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let fault = text
            .strip_prefix("Failed to deserialize query string: ")
            .unwrap_or(&text);
        let fault = fault
            .replace("invalid digit found in string", "not a whole number")
            .replace(
                "cannot parse integer from empty string",
                "not a whole number",
            );
        Self::invalid(format!("the query is not what is expected: {fault}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({
            "type": format!("https://mainstay.dev/problems/{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"mainstay\""),
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: [Code; 14] = [
        Code::Invalid,
        Code::NotFound,
        Code::NotAllowed,
        Code::Unauthorized,
        Code::Conflict,
        Code::QueueFull,
        Code::Budget,
        Code::Fenced,
        Code::Parked,
        Code::TooLarge,
        Code::Upstream,
        Code::NoSpace,
        Code::Unavailable,
        Code::Internal,
    ];

    async fn document(problem: Problem) -> (StatusCode, http::HeaderMap, serde_json::Value) {
        let response = problem.into_response();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 16).await.unwrap();
        (
            parts.status,
            parts.headers,
            serde_json::from_slice(&bytes).unwrap(),
        )
    }

    #[tokio::test]
    async fn every_hub_error_is_a_problem_document_of_its_own_status() {
        for code in CODES {
            let (status, headers, body) = document(HubError::new(code, "a sentence").into()).await;
            assert_eq!(status.as_u16(), code.status());
            assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
            assert_eq!(body["code"], code.word());
            assert_eq!(body["status"], code.status());
            assert_eq!(body["detail"], "a sentence");
            assert!(body["type"].as_str().unwrap().ends_with(code.word()));
            assert!(!body["title"].as_str().unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_full_queue_says_when_to_come_back_and_a_used_up_budget_does_not() {
        let (_, full, _) = document(HubError::new(Code::QueueFull, "x").into()).await;
        assert!(full.contains_key(RETRY_AFTER));
        let (_, budget, _) = document(HubError::new(Code::Budget, "x").into()).await;
        assert!(!budget.contains_key(RETRY_AFTER));
    }

    #[tokio::test]
    async fn a_missing_token_names_the_scheme() {
        let (status, headers, _) = document(Problem::unauthorized()).await;
        assert_eq!(status, 401);
        assert_eq!(headers[WWW_AUTHENTICATE], "Bearer realm=\"mainstay\"");
    }

    #[tokio::test]
    async fn a_host_name_cannot_break_out_of_the_document() {
        let (_, _, body) = document(Problem::misdirected("evil\"\n<b>")).await;
        assert_eq!(
            body["detail"],
            "no service of the name `evil\\\"\\n<b>` is here"
        );
    }
}
