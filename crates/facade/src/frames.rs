//! Frames of one task as clients get them, for SSE, WebSocket and OpenAI alike.
//!
//! Only the JSON around a frame is made here; what a frame says is the hub's.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use hub::stream::{Frame, FrameId, FrameKind};
use hub::{Hub, HubError};
use serde::Serialize;

/// The frames after `last`, or from the start of what is kept.
pub(crate) async fn of_task(
    hub: &Hub,
    task: &str,
    last: Option<FrameId>,
) -> Result<BoxStream<'static, Frame>, HubError> {
    let frames = hub.task_frames(task, last).await?;
    Ok(stream::unfold(frames, |mut frames| async move {
        frames.next().await.map(|frame| (frame, frames))
    })
    .boxed())
}

/// Without what a client that saw `last` has seen.
pub(crate) fn unseen(
    frames: BoxStream<'static, Frame>,
    last: Option<FrameId>,
) -> BoxStream<'static, Frame> {
    match last {
        Some(last) => frames
            .filter(move |frame| std::future::ready(is_unseen(frame, last)))
            .boxed(),
        None => frames,
    }
}

/// A hub that was restarted numbers a task's end anew, so an end counts as seen only by its very id:
/// it may come twice, but it is never missed.
pub(crate) fn is_unseen(frame: &Frame, last: FrameId) -> bool {
    frame.id > last || (frame.kind.is_last() && frame.id != last)
}

#[derive(Serialize)]
struct WithId<'a> {
    id: &'a str,
    #[serde(flatten)]
    kind: &'a FrameKind,
}

/// A frame's JSON: its own fields, `type` and `id`.
pub(crate) fn json(frame: &Frame) -> String {
    json_as(&frame.id.to_string(), &frame.kind)
}

/// The same under another id.
pub(crate) fn json_as(id: &str, kind: &FrameKind) -> String {
    text(&WithId { id, kind })
}

/// A value as JSON text.
pub(crate) fn text(value: &impl Serialize) -> String {
    // The views have string keys and finite numbers only.
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}

/// The `type` word, which is also the SSE event's name.
pub(crate) fn word(kind: &FrameKind) -> &'static str {
    match kind {
        FrameKind::Message { .. } => "message",
        FrameKind::Chunk { .. } => "chunk",
        FrameKind::ToolCall { .. } => "tool_call",
        FrameKind::ToolResult { .. } => "tool_result",
        FrameKind::Question { .. } => "question",
        FrameKind::Done { .. } => "done",
        FrameKind::Error { .. } => "error",
        FrameKind::Restart => "restart",
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hub::view::{CostView, TaskView, UsageView};
    use serde_json::{Value, json};

    /// A completed task.
    pub(crate) fn task() -> TaskView {
        TaskView {
            id: "0197".into(),
            agent: "helper".into(),
            session: "s-1".into(),
            state: "completed".into(),
            output: json!("the answer"),
            attempts: 1,
            steps: 2,
            replayed: 0,
            repeated: 0,
            diverged_at: None,
            usage: UsageView {
                input_tokens: 21,
                output_tokens: 4,
                cache_read_tokens: 5,
                cache_write_tokens: 0,
                estimated: false,
            },
            cost: CostView { usd: Some(0.004) },
            reason: None,
            error: None,
            input: json!("question"),
            created: "2026-01-02T03:04:05Z".into(),
            updated: "2026-01-02T03:04:06Z".into(),
            generation: Some(1),
            asked_step: None,
            parent: None,
        }
    }

    pub(crate) fn every_kind() -> Vec<FrameKind> {
        vec![
            FrameKind::Message {
                role: "user",
                text: "hi".into(),
            },
            FrameKind::Chunk {
                text: "a\nb".into(),
            },
            FrameKind::ToolCall {
                step: 1,
                name: "t".into(),
                arguments: json!({"x": 1}),
            },
            FrameKind::ToolResult {
                step: 1,
                name: "t".into(),
                result: "r".into(),
                is_error: false,
            },
            FrameKind::Question {
                step: Some(2),
                reason: "question".into(),
                text: "?".into(),
            },
            FrameKind::Done {
                task: Box::new(task()),
            },
            FrameKind::Error {
                code: "internal".into(),
                message: "m".into(),
            },
            FrameKind::Restart,
        ]
    }

    #[test]
    fn every_frame_has_its_type_and_id() {
        for (k, kind) in (0..).zip(every_kind()) {
            let word = word(&kind);
            let value: Value = serde_json::from_str(&json(&Frame {
                id: FrameId { seq: 12, k },
                kind,
            }))
            .unwrap();
            assert_eq!(value["type"], word);
            assert_eq!(value["id"], format!("12-{k}"));
        }
    }

    #[test]
    fn what_was_seen_is_not_sent_again_and_an_end_is_never_missed() {
        let last = FrameId { seq: 5, k: 3 };
        let chunk = |k| Frame {
            id: FrameId { seq: 5, k },
            kind: FrameKind::Chunk { text: "x".into() },
        };
        let done = |k| Frame {
            id: FrameId { seq: 5, k },
            kind: FrameKind::Done {
                task: Box::new(task()),
            },
        };
        assert!(!is_unseen(&chunk(3), last) && is_unseen(&chunk(4), last));
        assert!(
            is_unseen(&done(1), last) && is_unseen(&done(4), last) && !is_unseen(&done(3), last)
        );
    }

    #[test]
    fn done_carries_the_task_as_the_api_prints_it() {
        let frame = Frame {
            id: FrameId::default(),
            kind: FrameKind::Done {
                task: Box::new(task()),
            },
        };
        let value: Value = serde_json::from_str(&json(&frame)).unwrap();
        assert_eq!(value["task"]["output"], "the answer");
        assert_eq!(value["task"]["usage"]["inputTokens"], 21);
    }
}
