//! Errors in OpenAI's shape.
//!
//! Once a task exists, a repeated request would be a second task: such errors tell the official
//! SDKs not to try again, and name the task.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, StatusCode};
use hub::view::TaskView;
use hub::{Code, HubError};
use serde_json::{Value, json};

use crate::problem::Problem;

/// An error on its way to an OpenAI client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) code: String,
    pub(super) message: String,
    /// The field of the request that is at fault.
    pub(super) param: Option<&'static str>,
    /// The task that failed or waits.
    pub(super) task: Option<String>,
    retry_after_seconds: Option<u32>,
}

impl ApiError {
    fn new(status: StatusCode, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.into(),
            message: message.into(),
            param: None,
            task: None,
            retry_after_seconds: None,
        }
    }

    /// A field that can't be honoured.
    pub(super) fn field(param: &'static str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param),
            ..Self::new(StatusCode::BAD_REQUEST, "unsupported_value", message)
        }
    }

    pub(super) fn no_such_model(model: &str) -> Self {
        let message = format!(
            "there is no agent `{}`; /v1/models lists them",
            model.escape_debug()
        );
        Self {
            param: Some("model"),
            ..Self::new(StatusCode::NOT_FOUND, "model_not_found", message)
        }
    }

    /// A task that ended without an answer, or waits for a person.
    pub(super) fn of_task(task: &TaskView) -> Self {
        let (status, otherwise) = match task.state.as_str() {
            "input-required" | "auth-required" => (StatusCode::CONFLICT, "parked"),
            "canceled" => (StatusCode::CONFLICT, "canceled"),
            "rejected" => (StatusCode::BAD_REQUEST, "rejected"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        let code = task
            .error
            .as_ref()
            .map(|error| error.code.clone())
            .or_else(|| task.reason.clone());
        let why = task.error.as_ref().map_or_else(
            || task.reason.clone().unwrap_or_default(),
            |error| error.message.clone(),
        );
        let message = format!("task {} is {}: {why}", task.id, task.state);
        Self {
            task: Some(task.id.clone()),
            ..Self::new(
                status,
                code.unwrap_or_else(|| otherwise.to_owned()),
                message,
            )
        }
    }

    /// A task that failed.
    pub(super) fn failed(task: &str, code: String, message: &str) -> Self {
        let message = format!("task {task} failed: {message}");
        Self {
            task: Some(task.to_owned()),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, message)
        }
    }

    /// A task that waits for a person.
    pub(super) fn parked(task: &str, reason: &str, text: &str) -> Self {
        let code = if reason.is_empty() { "parked" } else { reason };
        let message = format!("task {task} waits for a person: {text}");
        Self {
            task: Some(task.to_owned()),
            ..Self::new(StatusCode::CONFLICT, code, message)
        }
    }

    /// The answer broke off while it was being sent.
    pub(super) fn interrupted(task: &str, message: &str) -> Self {
        Self {
            task: Some(task.to_owned()),
            ..Self::new(StatusCode::BAD_GATEWAY, "interrupted", message)
        }
    }

    /// The hub stops while a task of this call runs on.
    pub(super) fn stopping(task: &str) -> Self {
        let message = format!(
            "the hub is stopping; task {task} goes on and can be read at /api/v1/tasks/{task}"
        );
        Self {
            task: Some(task.to_owned()),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
        }
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 => "authentication_error",
            403 => "permission_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// The object that OpenAI puts under `error`.
    pub(super) fn object(&self) -> Value {
        let mut object = json!({"message": self.message, "type": self.kind(), "param": self.param, "code": self.code});
        if let Some(task) = &self.task {
            object["task"] = json!(task);
        }
        object
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        let code = if problem.status == StatusCode::UNAUTHORIZED {
            "invalid_api_key"
        } else {
            problem.code
        };
        Self {
            retry_after_seconds: problem.retry_after_seconds,
            ..Self::new(problem.status, code, problem.detail)
        }
    }
}

impl From<HubError> for ApiError {
    fn from(error: HubError) -> Self {
        Problem::from(error).into()
    }
}

impl ApiError {
    /// The same, about an agent that was named as `model`.
    pub(super) fn about_model(error: HubError, model: &str) -> Self {
        if error.code == Code::NotFound {
            Self::no_such_model(model)
        } else {
            error.into()
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, json!({"error": self.object()}).to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.task.is_some() {
            headers.insert(
                HeaderName::from_static("x-should-retry"),
                HeaderValue::from_static("false"),
            );
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::task;
    use hub::view::ErrorView;

    #[test]
    fn a_failed_task_is_a_server_error_that_is_not_retried() {
        let error = ErrorView {
            code: "attempts".into(),
            message: "10 attempts crashed".into(),
        };
        let error = ApiError::of_task(&TaskView {
            state: "failed".into(),
            error: Some(error),
            ..task()
        });
        assert_eq!(
            error.object(),
            json!({"message": "task 0197 is failed: 10 attempts crashed", "type": "server_error", "param": null, "code": "attempts", "task": "0197"})
        );
        let response = error.into_response();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["x-should-retry"], "false");
    }

    #[test]
    fn a_parked_task_names_its_reason_and_itself() {
        let error = ApiError::of_task(&TaskView {
            state: "input-required".into(),
            reason: Some("question".into()),
            ..task()
        });
        assert_eq!(
            (
                error.status.as_u16(),
                error.code.as_str(),
                error.task.as_deref()
            ),
            (409, "question", Some("0197"))
        );
    }

    #[test]
    fn what_the_sdks_look_for_is_there() {
        let unauthorized = ApiError::from(Problem::unauthorized());
        assert_eq!(
            (
                unauthorized.status.as_u16(),
                unauthorized.object()["code"].clone()
            ),
            (401, json!("invalid_api_key"))
        );
        let unknown = ApiError::about_model(HubError::new(Code::NotFound, "x"), "nobody");
        assert_eq!(
            (
                unknown.object()["code"].clone(),
                unknown.object()["param"].clone()
            ),
            (json!("model_not_found"), json!("model"))
        );
        let full = ApiError::from(HubError::new(Code::QueueFull, "x")).into_response();
        assert!(
            full.headers().contains_key(RETRY_AFTER)
                && !full.headers().contains_key("x-should-retry")
        );
    }
}
