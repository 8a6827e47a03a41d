//! One call: its session, its task, and waiting for the task's end.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};
use hub::task::SubmitTask;
use hub::view::TaskView;
use serde_json::{Map, Value};

use super::ApiError;
use crate::auth::Author;
use crate::decode::{header, session_name};
use crate::door::Door;
use crate::problem::Problem;
use crate::submit;

/// Names the session of a call, and of its answer.
const SESSION: HeaderName = HeaderName::from_static("mainstay-session");
/// Names the task of an answer.
const TASK: HeaderName = HeaderName::from_static("mainstay-task");
/// One wait; as many follow each other as the task takes.
const WAIT: Duration = Duration::from_secs(600);

/// A submitted call.
pub(super) struct Call {
    pub(super) task: String,
    session: String,
    /// Unix seconds.
    pub(super) created: i64,
}

/// The session that a call continues.
pub(super) fn session(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(SESSION) else {
        return Ok(None);
    };
    let name = header(headers, SESSION.as_str())
        .ok_or_else(|| Problem::invalid(format!("Mainstay-Session is not text: {value:?}")))?;
    session_name(name)?;
    Ok(Some(name.to_owned()))
}

/// Refuses the first of these fields that is set to more than nothing.
pub(super) fn refuse(
    rest: &Map<String, Value>,
    fields: &[(&'static str, &str)],
) -> Result<(), ApiError> {
    let is_set = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::String(text) => !matches!(text.as_str(), "" | "none" | "auto" | "disabled"),
        _ => true,
    };
    match fields
        .iter()
        .find(|(name, _)| rest.get(*name).is_some_and(is_set))
    {
        Some((name, why)) => Err(ApiError::field(
            name,
            format!("`{name}` can't be honoured: {why}"),
        )),
        None => Ok(()),
    }
}

impl Call {
    pub(super) async fn submit(
        door: &Door,
        author: &Author,
        headers: &HeaderMap,
        agent: &str,
        input: Value,
    ) -> Result<Self, ApiError> {
        let base = submit::from_headers(author, headers)?;
        let submit = SubmitTask {
            agent: agent.to_owned(),
            input,
            session: session(headers)?,
            ..base
        };
        let task = door
            .hub
            .task_submit(submit)
            .await
            .map_err(|e| ApiError::about_model(e, agent))?;
        Ok(Self {
            created: unix_seconds(&task.created),
            session: task.session,
            task: task.id,
        })
    }

    /// The task once it is completed; anything else that stands is an error.
    pub(super) async fn completed(&self, door: &Door) -> Result<TaskView, ApiError> {
        let mut stop = door.stop.clone();
        loop {
            let task = tokio::select! {
                task = door.hub.task_wait(&self.task, WAIT) => task?,
                () = stop.raised() => return Err(ApiError::stopping(&self.task)),
            };
            match task.state.as_str() {
                "completed" => return Ok(task),
                "submitted" | "working" => {}
                _ => return Err(ApiError::of_task(&task)),
            }
        }
    }

    /// The answer, with session and task named.
    pub(super) fn name(&self, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        for (name, value) in [(SESSION, &self.session), (TASK, &self.task)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

fn unix_seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>()
        .map_or(0, jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_session_header_is_a_session_name() {
        let headers = |value: &'static [u8]| {
            HeaderMap::from_iter([(SESSION, HeaderValue::from_bytes(value).unwrap())])
        };
        assert_eq!(session(&HeaderMap::new()).unwrap(), None);
        assert_eq!(session(&headers(b"s-1")).unwrap().as_deref(), Some("s-1"));
        assert!(session(&headers(b"a b")).is_err());
        assert!(session(&headers(b"\xff")).is_err());
    }

    #[test]
    fn a_field_is_refused_by_name_unless_it_says_nothing() {
        let fields = [("tools", "why"), ("store", "why")];
        let check = |body: Value| refuse(body.as_object().unwrap(), &fields);
        for harmless in [
            json!({}),
            json!({"tools": []}),
            json!({"tools": null}),
            json!({"store": false}),
            json!({"temperature": 1}),
        ] {
            assert!(check(harmless.clone()).is_ok(), "{harmless}");
        }
        assert_eq!(
            check(json!({"tools": [{}]})).unwrap_err().param,
            Some("tools")
        );
    }

    #[test]
    fn times_become_unix_seconds() {
        assert_eq!(unix_seconds("2026-01-02T03:04:05Z"), 1_767_323_045);
    }
}
