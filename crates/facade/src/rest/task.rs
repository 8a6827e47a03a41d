//! Tasks over HTTP: submit, read, list, cancel, retry, resume, follow.
//!
//! A submission is durable before its 201; waiting for it (`Prefer: wait`) is a courtesy that ends
//! early when the hub stops, with the task as it then stands.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, StatusCode};
use hub::stream::{Frame, FrameId};
use hub::task::{Resume, SubmitTask, TaskFilter};
use hub::view::{Page, StepView, TaskView};
use hub::{Hub, HubError};
use mainstay_core::task::{ResumeAs, TaskState};
use serde::Deserialize;
use serde_json::Value;

use super::{Answer, CURSOR, LAST_EVENT, LIMIT, Method, Operation, header, query, read};
use crate::auth::Author;
use crate::decode::{JsonBody, PathOf, QueryOf, page_limit, session_name};
use crate::door::{Door, Stop};
use crate::problem::Problem;
use crate::sse::{self, Broken, Piece};
use crate::{decode, frames, submit};

/// The longest `Prefer: wait`, in seconds.
const MAX_WAIT_SECONDS: u64 = 600;

pub(super) fn operations() -> Vec<Operation> {
    let act = |path, id, summary, handler| Operation {
        method: Method::Post,
        errors: &[404, 409],
        ..read(path, id, summary, Answer::One("Task"), handler)
    };
    vec![
        Operation {
            method: Method::Post,
            parameters: const {
                &[
                    header(
                        "Idempotency-Key",
                        "The same key with the same request names the same task.",
                    ),
                    header(
                        "Prefer",
                        "`wait=60` waits up to so many seconds (600 at most) for the task to end or to park.",
                    ),
                ]
            },
            body: Some("SubmitTask"),
            errors: &[400, 404, 409, 413, 415, 429, 503, 507],
            ..read(
                "/api/v1/agents/{agent}/tasks",
                "task_submit",
                "Give an agent a task.",
                Answer::Created("Task"),
                || post(create),
            )
        },
        Operation {
            parameters: const {
                &[
                    query("agent", "Tasks of this agent only."),
                    query("state", "Tasks in this state only."),
                    CURSOR,
                    LIMIT,
                ]
            },
            errors: &[400],
            ..read(
                "/api/v1/tasks",
                "task_list",
                "Tasks, newest first.",
                Answer::List("Task"),
                || get(list),
            )
        },
        read(
            "/api/v1/tasks/{id}",
            "task_get",
            "A task.",
            Answer::One("Task"),
            || get(show),
        ),
        act(
            "/api/v1/tasks/{id}/cancel",
            "task_cancel",
            "Cancel a task.",
            || post(cancel),
        ),
        act(
            "/api/v1/tasks/{id}/retry",
            "task_retry",
            "Try a task again that failed or is parked.",
            || post(retry),
        ),
        Operation {
            body: Some("ResumeTask"),
            errors: &[400, 404, 409, 413, 415],
            ..act(
                "/api/v1/tasks/{id}/resume",
                "task_resume",
                "Say what became of the step that a task waits for.",
                || post(resume),
            )
        },
        Operation {
            parameters: const { &[LAST_EVENT] },
            errors: &[400, 404],
            ..read(
                "/api/v1/tasks/{id}/events",
                "task_events",
                "What happens in a task, until it ends.",
                Answer::Events("Frame"),
                || get(events),
            )
        },
        read(
            "/api/v1/tasks/{id}/steps",
            "task_steps",
            "The model and tool calls of a task.",
            Answer::List("Step"),
            || get(steps),
        ),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Submission {
    input: Value,
    session: Option<String>,
    /// RFC 3339.
    deadline: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    agent: Option<String>,
    state: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resumption {
    step: u32,
    #[serde(rename = "as")]
    how: ResumeAs,
    result: Option<Value>,
}

impl Submission {
    fn into_task(self, agent: String, base: SubmitTask) -> Result<SubmitTask, Problem> {
        submit::input(&self.input)?;
        self.session.as_deref().map_or(Ok(()), session_name)?;
        let deadline_ms = self.deadline.as_deref().map(unix_ms).transpose()?;
        Ok(SubmitTask {
            agent,
            input: self.input,
            session: self.session,
            deadline_ms,
            ..base
        })
    }
}

fn unix_ms(time: &str) -> Result<i64, Problem> {
    let parsed = time.parse().map(jiff::Timestamp::as_millisecond);
    parsed.map_err(|_| Problem::invalid("deadline is a time such as 2026-01-02T03:04:05Z"))
}

async fn create(
    State(door): State<Door>,
    PathOf(agent): PathOf<String>,
    Extension(author): Extension<Author>,
    headers: HeaderMap,
    JsonBody(submission): JsonBody<Submission>,
) -> Result<Response, Problem> {
    let base = submit::from_headers(&author, &headers)?;
    let task = door
        .hub
        .task_submit(submission.into_task(agent, base)?)
        .await?;
    let location = format!("/api/v1/tasks/{}", task.id);
    let Some(seconds) = preferred_wait(&headers) else {
        return Ok((StatusCode::CREATED, [(LOCATION, location)], Json(task)).into_response());
    };
    let task = wait(&door.hub, door.stop, task, seconds).await?;
    let applied = [
        (LOCATION, location),
        (
            HeaderName::from_static("preference-applied"),
            format!("wait={seconds}"),
        ),
    ];
    Ok((StatusCode::CREATED, applied, Json(task)).into_response())
}

async fn wait(
    hub: &Hub,
    mut stop: Stop,
    task: TaskView,
    seconds: u64,
) -> Result<TaskView, HubError> {
    tokio::select! {
        waited = hub.task_wait(&task.id, Duration::from_secs(seconds)) => waited,
        () = stop.raised() => Ok(task),
    }
}

/// `wait=60` among the preferences (RFC 7240), capped.
fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let preferences = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']));
    preferences
        .filter_map(|preference| preference.trim().split_once('='))
        .find_map(|(name, value)| {
            let seconds: u64 = value.trim().trim_matches('"').parse().ok()?;
            name.trim()
                .eq_ignore_ascii_case("wait")
                .then_some(seconds.min(MAX_WAIT_SECONDS))
        })
}

async fn list(
    State(hub): State<Hub>,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<Page<TaskView>>, Problem> {
    query.state.as_deref().map_or(Ok(()), state_word)?;
    let limit = page_limit(query.limit)?;
    let filter = TaskFilter {
        agent: query.agent,
        state: query.state,
        cursor: query.cursor,
        limit,
    };
    Ok(Json(hub.task_list(filter).await?))
}

pub(super) fn state_word(word: &str) -> Result<(), Problem> {
    use TaskState::{
        AuthRequired, Canceled, Completed, Failed, InputRequired, Rejected, Submitted, Working,
    };
    let words = [
        Submitted,
        Working,
        InputRequired,
        AuthRequired,
        Completed,
        Failed,
        Canceled,
        Rejected,
    ]
    .map(TaskState::word);
    if words.contains(&word) {
        return Ok(());
    }
    Err(Problem::invalid(format!(
        "state is one of {}",
        words.join(", ")
    )))
}

async fn show(
    State(hub): State<Hub>,
    PathOf(id): PathOf<String>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(hub.task_get(&id).await?))
}

async fn cancel(
    State(hub): State<Hub>,
    PathOf(id): PathOf<String>,
    Extension(author): Extension<Author>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(hub.task_cancel(&id, &author.0).await?))
}

async fn retry(
    State(hub): State<Hub>,
    PathOf(id): PathOf<String>,
    Extension(author): Extension<Author>,
) -> Result<Json<TaskView>, Problem> {
    Ok(Json(hub.task_retry(&id, &author.0).await?))
}

async fn resume(
    State(hub): State<Hub>,
    PathOf(id): PathOf<String>,
    Extension(author): Extension<Author>,
    JsonBody(body): JsonBody<Resumption>,
) -> Result<Json<TaskView>, Problem> {
    let resume = Resume {
        step: body.step,
        how: body.how,
        result: body.result,
        author: author.0.to_string(),
    };
    Ok(Json(hub.task_resume(&id, resume).await?))
}

async fn steps(
    State(hub): State<Hub>,
    PathOf(id): PathOf<String>,
) -> Result<Json<Page<StepView>>, Problem> {
    Ok(Json(hub.task_steps(&id).await?))
}

async fn events(
    State(door): State<Door>,
    PathOf(id): PathOf<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let last = last_event(&headers)?;
    let is_over = last.is_some() && is_terminal(&door.hub.task_get(&id).await?);
    let mut frames = frames::unseen(frames::of_task(&door.hub, &id, last).await?, last);
    if !is_over {
        return Ok(sse::respond(door.stop, encode(frames)));
    }
    // 204 is what stops an EventSource from coming back for ever.
    let Some(first) = frames.next().await else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    Ok(sse::respond(
        door.stop,
        encode(stream::iter([first]).chain(frames).boxed()),
    ))
}

fn is_terminal(task: &TaskView) -> bool {
    use TaskState::{Canceled, Completed, Failed, Rejected};
    [Canceled, Completed, Failed, Rejected]
        .iter()
        .any(|state| state.word() == task.state)
}

/// Each frame as an event; a stream without a last frame is broken off.
fn encode(frames: BoxStream<'static, Frame>) -> impl Stream<Item = Piece> + Send {
    stream::unfold(Some(frames), |frames| async move {
        let mut frames = frames?;
        let Some(frame) = frames.next().await else {
            return Some((Err(Broken), None));
        };
        let id = frame.id.to_string();
        let event = sse::event(
            Some(frames::word(&frame.kind)),
            Some(&id),
            &frames::json(&frame),
        );
        Some((Ok(event), (!frame.kind.is_last()).then_some(frames)))
    })
}

fn last_event(headers: &HeaderMap) -> Result<Option<FrameId>, Problem> {
    let last = decode::header(headers, "last-event-id").filter(|value| !value.is_empty());
    last.map(str::parse)
        .transpose()
        .map_err(|e| Problem::invalid(format!("Last-Event-ID is {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::every_kind;
    use hub::stream::FrameKind;
    use serde_json::json;

    fn prefer(value: &'static str) -> Option<u64> {
        preferred_wait(&HeaderMap::from_iter([(
            HeaderName::from_static("prefer"),
            http::HeaderValue::from_static(value),
        )]))
    }

    #[test]
    fn a_wait_is_found_among_preferences_and_capped() {
        assert_eq!(prefer("wait=60"), Some(60));
        assert_eq!(prefer("respond-async, WAIT=10"), Some(10));
        assert_eq!(prefer("wait=100000"), Some(600));
        assert_eq!(prefer("wait=soon"), None);
        assert_eq!(prefer("return=minimal"), None);
    }

    #[test]
    fn a_submission_is_decoded_to_the_letter() {
        let body = json!({"input": "x", "session": "s-1", "deadline": "2026-01-02T03:04:05Z"});
        let task = serde_json::from_value::<Submission>(body)
            .unwrap()
            .into_task("helper".into(), SubmitTask::default())
            .unwrap();
        assert_eq!(
            (
                task.agent.as_str(),
                task.session.as_deref(),
                task.deadline_ms
            ),
            ("helper", Some("s-1"), Some(1_767_323_045_000))
        );
    }

    #[test]
    fn a_submission_with_a_wrong_field_session_or_deadline_is_refused() {
        for bad in [
            json!({"input": "x", "sesion": "s"}),
            json!({"session": "s"}),
        ] {
            assert!(
                serde_json::from_value::<Submission>(bad.clone()).is_err(),
                "{bad}"
            );
        }
        for bad in [
            json!({"input": "x", "session": "a b"}),
            json!({"input": "x", "deadline": "tomorrow"}),
            json!({"input": 1}),
        ] {
            let submission: Submission = serde_json::from_value(bad.clone()).unwrap();
            let refused = submission.into_task("helper".into(), SubmitTask::default());
            assert_eq!(refused.unwrap_err().code, "invalid", "{bad}");
        }
    }

    #[test]
    fn a_resumption_is_done_repeat_or_fail() {
        for (word, how) in [
            ("done", ResumeAs::Done),
            ("repeat", ResumeAs::Repeat),
            ("fail", ResumeAs::Fail),
        ] {
            let resumption: Resumption =
                serde_json::from_value(json!({"step": 3, "as": word})).unwrap();
            assert_eq!((resumption.step, resumption.how), (3, how));
        }
        assert!(serde_json::from_value::<Resumption>(json!({"step": 3, "as": "skip"})).is_err());
    }

    #[test]
    fn a_state_that_does_not_exist_is_refused_with_those_that_do() {
        assert!(state_word("input-required").is_ok());
        assert!(
            state_word("parked")
                .unwrap_err()
                .detail
                .contains("input-required")
        );
    }

    async fn encoded(kinds: Vec<FrameKind>) -> Vec<Piece> {
        let frames = (0..).zip(kinds).map(|(k, kind)| Frame {
            id: FrameId { seq: 5, k },
            kind,
        });
        encode(stream::iter(frames.collect::<Vec<_>>()).boxed())
            .collect()
            .await
    }

    #[tokio::test]
    async fn events_carry_name_and_id_and_end_after_the_last_frame() {
        let kinds = vec![
            FrameKind::Chunk { text: "a".into() },
            FrameKind::Done {
                task: Box::new(frames::tests::task()),
            },
            FrameKind::Restart,
        ];
        let pieces = encoded(kinds).await;
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0], Ok("event: chunk\nid: 5-0\ndata: {\"id\":\"5-0\",\"type\":\"chunk\",\"text\":\"a\"}\n\n".into()));
        assert!(pieces[1].is_ok());
    }

    #[tokio::test]
    async fn a_stream_without_a_last_frame_is_broken_off() {
        let kinds = every_kind()
            .into_iter()
            .filter(|kind| !kind.is_last())
            .collect();
        assert_eq!(encoded(kinds).await.last(), Some(&Err(Broken)));
    }
}
