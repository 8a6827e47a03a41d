//! Chat Completions.

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

/// Fields that would change the answer.
const REFUSED: [(&str, &str); 8] = [
    ("tools", "the agent has its own tools"),
    ("functions", "the agent has its own tools"),
    ("logprobs", "an agent's answer has none"),
    ("top_logprobs", "an agent's answer has none"),
    ("audio", "an agent answers in text"),
    ("prediction", "an agent's answer is not predicted"),
    ("web_search_options", "the agent has its own tools"),
    (
        "response_format",
        "what an agent answers is the agent's choice",
    ),
];

#[derive(Deserialize)]
pub(super) struct Request {
    model: String,
    messages: Vec<Value>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    n: Option<u32>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

impl Request {
    fn check(&mut self) -> Result<(), ApiError> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(ApiError::field("n", "an agent gives one answer"));
        }
        if self
            .rest
            .get("response_format")
            .is_some_and(|format| format["type"] == "text")
        {
            self.rest.remove("response_format");
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
    let turns = conversation::from_messages(request.messages)?;
    let input = conversation::input(turns, call::session(&headers)?.is_some(), "messages")?;
    let call = Call::submit(&door, &author, &headers, &request.model, input).await?;
    if request.stream {
        let usage = request
            .stream_options
            .is_some_and(|options| options.include_usage);
        let writer = Chunks {
            id: id(&call.task),
            created: call.created,
            model: request.model,
            usage,
        };
        return stream::respond(door, call, writer).await;
    }
    let task = call.completed(&door).await?;
    Ok(call.name(Json(completion(&task, call.created))))
}

fn id(task: &str) -> String {
    format!("chatcmpl-{task}")
}

fn completion(task: &TaskView, created: i64) -> Value {
    let message =
        json!({"role": "assistant", "content": output(task), "refusal": null, "annotations": []});
    json!({
        "id": id(&task.id),
        "object": "chat.completion",
        "created": created,
        "model": task.agent,
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"}],
        "usage": usage(&task.usage),
    })
}

fn usage(usage: &UsageView) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens.saturating_add(usage.output_tokens),
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
    })
}

/// Writes `chat.completion.chunk`s.
struct Chunks {
    id: String,
    created: i64,
    model: String,
    /// The client asked for the usage.
    usage: bool,
}

impl Chunks {
    fn chunk(&self, choices: Value) -> Value {
        json!({"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model, "choices": choices})
    }

    fn delta(&self, delta: Value, finish_reason: Option<&str>) -> Bytes {
        let chunk = self.chunk(
            json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}]),
        );
        sse::event(None, None, &chunk.to_string())
    }
}

impl Writer for Chunks {
    fn open(&mut self) -> Bytes {
        self.delta(
            json!({"role": "assistant", "content": "", "refusal": null}),
            None,
        )
    }

    fn text(&mut self, text: &str) -> Bytes {
        self.delta(json!({"content": text}), None)
    }

    fn close(&mut self, task: &TaskView, _sent: &str) -> Bytes {
        let mut end = self.delta(json!({}), Some("stop")).to_vec();
        if self.usage {
            let mut chunk = self.chunk(json!([]));
            chunk["usage"] = usage(&task.usage);
            end.extend_from_slice(&sse::event(None, None, &chunk.to_string()));
        }
        end.extend_from_slice(&sse::event(None, None, "[DONE]"));
        end.into()
    }

    fn fail(&mut self, error: &ApiError) -> Bytes {
        sse::event(None, None, &json!({"error": error.object()}).to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::task;
    use crate::openai::stream::tests::written;
    use hub::stream::FrameKind;

    fn writer(usage: bool) -> Chunks {
        Chunks {
            id: "chatcmpl-0197".into(),
            created: 7,
            model: "helper".into(),
            usage,
        }
    }

    /// The data of each event, in order.
    fn data(text: &str) -> Vec<Value> {
        text.split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }

    #[test]
    fn a_completion_has_openais_shape() {
        let body = completion(&task(), 7);
        assert_eq!(body["choices"][0]["message"]["content"], "the answer");
        assert_eq!(
            (
                body["id"].as_str(),
                body["model"].as_str(),
                body["object"].as_str()
            ),
            (
                Some("chatcmpl-0197"),
                Some("helper"),
                Some("chat.completion")
            )
        );
        assert_eq!(
            (
                body["usage"]["total_tokens"].as_u64(),
                body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64()
            ),
            (Some(25), Some(5))
        );
    }

    #[tokio::test]
    async fn a_stream_is_a_role_text_a_stop_and_done() {
        let kinds = vec![
            FrameKind::Chunk {
                text: "the ".into(),
            },
            FrameKind::Done {
                task: Box::new(task()),
            },
        ];
        let (text, reset) = written(kinds, writer(true)).await;
        let chunks = data(&text);
        let content: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!((content.as_str(), reset), ("the answer", false));
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
        assert_eq!(chunks[4]["usage"]["prompt_tokens"], 21);
        assert!(text.ends_with("data: [DONE]\n\n"));
    }

    #[tokio::test]
    async fn the_usage_chunk_comes_only_when_asked_for() {
        let (text, _) = written(
            vec![FrameKind::Done {
                task: Box::new(task()),
            }],
            writer(false),
        )
        .await;
        assert!(!text.contains("usage"));
    }

    #[tokio::test]
    async fn a_failed_stream_has_an_error_object_and_no_done() {
        let (text, reset) = written(
            vec![FrameKind::Chunk { text: "x".into() }, FrameKind::Restart],
            writer(true),
        )
        .await;
        assert_eq!(data(&text).last().unwrap()["error"]["code"], "interrupted");
        assert!(reset && !text.contains("[DONE]"));
    }

    fn check(body: Value) -> Result<(), ApiError> {
        serde_json::from_value::<Request>(body).unwrap().check()
    }

    #[test]
    fn hints_are_left_aside_and_what_changes_the_answer_is_refused() {
        let request = |more: Value| {
            let mut body = json!({"model": "m", "messages": []});
            body.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            body
        };
        for fine in [
            json!({"temperature": 0, "max_tokens": 5, "user": "u", "tools": [], "n": 1}),
            json!({"response_format": {"type": "text"}, "store": true}),
        ] {
            assert!(check(request(fine.clone())).is_ok(), "{fine}");
        }
        for (bad, field) in [
            (json!({"n": 2}), "n"),
            (json!({"tools": [{}]}), "tools"),
            (
                json!({"response_format": {"type": "json_object"}}),
                "response_format",
            ),
            (json!({"logprobs": true}), "logprobs"),
        ] {
            assert_eq!(check(request(bad)).unwrap_err().param, Some(field));
        }
    }
}
