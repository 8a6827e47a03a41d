//! Responses.

use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use bytes::Bytes;
use http::HeaderMap;
use hub::view::{TaskView, UsageView};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ApiError;
use super::call::{self, Call};
use super::conversation;
use super::progress::output;
use super::stream::{self, Writer};
use crate::auth::Author;
use crate::decode::JsonBody;
use crate::door::Door;
use crate::problem::Problem;
use crate::sse;

/// Fields that would change the answer, or refer to what lies elsewhere.
const REFUSED: [(&str, &str); 6] = [
    ("tools", "the agent has its own tools"),
    (
        "background",
        "a task outlives its call anyway; submit it at /api/v1",
    ),
    (
        "previous_response_id",
        "continue a session with the header Mainstay-Session",
    ),
    (
        "conversation",
        "continue a session with the header Mainstay-Session",
    ),
    ("prompt", "prompts belong to the agent"),
    ("text", "what an agent answers is the agent's choice"),
];

#[derive(Deserialize)]
pub(super) struct Request {
    model: String,
    input: Value,
    instructions: Option<String>,
    #[serde(default)]
    stream: bool,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Request {
    fn check(&mut self) -> Result<(), ApiError> {
        let format = self.rest.get("text").map(|text| &text["format"]["type"]);
        if format.is_some_and(|kind| kind.is_null() || kind == "text") {
            self.rest.remove("text");
        }
        call::refuse(&self.rest, &REFUSED)
    }
}

pub(super) async fn create(
    State(door): State<Door>,
    Extension(author): Extension<Author>,
    headers: HeaderMap,
    body: Result<JsonBody<Request>, Problem>,
) -> Result<Response, ApiError> {
    let JsonBody(mut request) = body?;
    request.check()?;
    let turns = conversation::from_input(request.input, request.instructions)?;
    let input = conversation::input(turns, call::session(&headers)?.is_some(), "input")?;
    let call = Call::submit(&door, &author, &headers, &request.model, input).await?;
    if request.stream {
        let writer = Events {
            task: call.task.clone(),
            created: call.created,
            model: request.model,
            sequence: 0,
        };
        return stream::respond(door, call, writer).await;
    }
    let task = call.completed(&door).await?;
    let items = json!([item(&task.id, &output(&task), "completed")]);
    let mut response = response(&task.id, call.created, &task.agent, "completed", items);
    response["usage"] = usage(&task.usage);
    Ok(call.name(Json(response)))
}

fn response(task: &str, created: i64, model: &str, status: &str, output: Value) -> Value {
    json!({
        "id": format!("resp_{task}"),
        "object": "response",
        "created_at": created,
        "status": status,
        "model": model,
        "output": output,
        "error": null,
        "incomplete_details": null,
        "instructions": null,
        "metadata": {},
        "parallel_tool_calls": true,
        "tool_choice": "auto",
        "tools": [],
        "temperature": null,
        "top_p": null,
        "previous_response_id": null,
        "usage": null,
    })
}

fn item(task: &str, text: &str, status: &str) -> Value {
    let content = if status == "completed" {
        json!([part(text)])
    } else {
        json!([])
    };
    json!({"id": item_id(task), "type": "message", "role": "assistant", "status": status, "content": content})
}

fn item_id(task: &str) -> String {
    format!("msg_{task}")
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn usage(usage: &UsageView) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens.saturating_add(usage.output_tokens),
    })
}

/// Writes the events of one text item.
struct Events {
    task: String,
    created: i64,
    model: String,
    sequence: u64,
}

impl Events {
    fn event(&mut self, kind: &str, mut fields: Value) -> Bytes {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(self.sequence);
        self.sequence += 1;
        sse::event(Some(kind), None, &fields.to_string())
    }

    fn response(&self, status: &str, output: Value) -> Value {
        response(&self.task, self.created, &self.model, status, output)
    }

    /// The place of the one text part.
    fn at(&self, mut fields: Value) -> Value {
        fields["item_id"] = json!(item_id(&self.task));
        fields["output_index"] = json!(0);
        fields["content_index"] = json!(0);
        fields
    }
}

impl Writer for Events {
    fn open(&mut self) -> Bytes {
        let response = self.response("in_progress", json!([]));
        let added = json!({"output_index": 0, "item": item(&self.task, "", "in_progress")});
        let part_added = self.at(json!({"part": part("")}));
        [
            self.event("response.created", json!({"response": response})),
            self.event("response.in_progress", json!({"response": response})),
            self.event("response.output_item.added", added),
            self.event("response.content_part.added", part_added),
        ]
        .concat()
        .into()
    }

    fn text(&mut self, text: &str) -> Bytes {
        let delta = self.at(json!({"delta": text, "logprobs": []}));
        self.event("response.output_text.delta", delta)
    }

    fn close(&mut self, task: &TaskView, sent: &str) -> Bytes {
        let item = item(&self.task, sent, "completed");
        let mut response = self.response("completed", json!([item]));
        response["usage"] = usage(&task.usage);
        let (text, part) = (
            self.at(json!({"text": sent, "logprobs": []})),
            self.at(json!({"part": part(sent)})),
        );
        [
            self.event("response.output_text.done", text),
            self.event("response.content_part.done", part),
            self.event(
                "response.output_item.done",
                json!({"output_index": 0, "item": item}),
            ),
            self.event("response.completed", json!({"response": response})),
        ]
        .concat()
        .into()
    }

    fn fail(&mut self, error: &ApiError) -> Bytes {
        let mut response = self.response("failed", json!([]));
        response["error"] = json!({"code": error.code, "message": error.message});
        let failed = self.event("response.failed", json!({"response": response}));
        let fields = json!({"code": error.code, "message": error.message, "param": null, "error": error.object()});
        [failed, self.event("error", fields)].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::task;
    use crate::openai::stream::tests::written;
    use hub::stream::FrameKind;

    fn writer() -> Events {
        Events {
            task: "0197".into(),
            created: 7,
            model: "helper".into(),
            sequence: 0,
        }
    }

    fn events(text: &str) -> Vec<Value> {
        text.split("\n\n")
            .filter_map(|event| event.split_once("data: "))
            .map(|(_, data)| serde_json::from_str(data).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn the_events_come_in_openais_order_and_numbered() {
        let kinds = vec![
            FrameKind::Chunk {
                text: "the ".into(),
            },
            FrameKind::Done {
                task: Box::new(task()),
            },
        ];
        let (text, reset) = written(kinds, writer()).await;
        let events = events(&text);
        let kinds: Vec<_> = events
            .iter()
            .map(|event| {
                event["type"]
                    .as_str()
                    .unwrap()
                    .trim_start_matches("response.")
            })
            .collect();
        let expected = [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "completed",
        ];
        assert_eq!(kinds, expected);
        assert!(
            (0..)
                .zip(&events)
                .all(|(n, event)| event["sequence_number"] == n)
                && !reset
        );
        let completed = &events[9]["response"];
        assert_eq!(completed["output"][0]["content"][0]["text"], "the answer");
        assert_eq!(completed["usage"]["total_tokens"], 25);
    }

    #[tokio::test]
    async fn a_failed_stream_says_failed_and_is_reset() {
        let (text, reset) = written(
            vec![FrameKind::Chunk { text: "x".into() }, FrameKind::Restart],
            writer(),
        )
        .await;
        let events = events(&text);
        let failed = &events[events.len() - 2];
        assert_eq!(
            (
                failed["type"].as_str(),
                failed["response"]["error"]["code"].as_str()
            ),
            (Some("response.failed"), Some("interrupted"))
        );
        assert!(reset && !text.contains("response.completed"));
    }

    #[test]
    fn stored_conversations_and_formats_are_refused() {
        let check = |body: Value| serde_json::from_value::<Request>(body).unwrap().check();
        assert!(check(json!({"model": "m", "input": "x", "text": {"format": {"type": "text"}}, "store": true, "tools": []})).is_ok());
        for (bad, field) in [
            (
                json!({"model": "m", "input": "x", "previous_response_id": "resp_1"}),
                "previous_response_id",
            ),
            (
                json!({"model": "m", "input": "x", "background": true}),
                "background",
            ),
            (
                json!({"model": "m", "input": "x", "text": {"format": {"type": "json_schema"}}}),
                "text",
            ),
        ] {
            assert_eq!(check(bad).unwrap_err().param, Some(field));
        }
    }
}
