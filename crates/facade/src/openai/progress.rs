//! What a task's frames mean for a protocol in which text can't be taken back.
//!
//! Pure: frames in, notes out. The text that was sent is kept to compare it with the output, which
//! is the task's word: an agent may say things between tool calls that its output doesn't repeat,
//! or answer without having streamed anything.

use hub::stream::FrameKind;
use hub::view::TaskView;

use super::ApiError;

/// What the client should be told.
#[derive(Debug)]
pub(super) enum Note {
    Text(String),
    /// The end; the text that was not sent yet, and the task.
    Finished(String, Box<TaskView>),
    Failed(ApiError),
}

/// What was sent so far.
#[derive(Debug)]
pub(super) struct Progress {
    task: String,
    sent: String,
    /// A tool was used since the last text.
    gap: bool,
}

impl Progress {
    pub(super) fn new(task: String) -> Self {
        Self {
            task,
            sent: String::new(),
            gap: false,
        }
    }

    pub(super) fn sent(&self) -> &str {
        &self.sent
    }

    /// The note of one frame, if it has one.
    pub(super) fn take(&mut self, kind: FrameKind) -> Option<Note> {
        match kind {
            FrameKind::Message { .. } | FrameKind::ToolResult { .. } => None,
            FrameKind::ToolCall { .. } => {
                self.gap = !self.sent.is_empty();
                None
            }
            FrameKind::Chunk { text } if text.is_empty() => None,
            FrameKind::Chunk { text } => Some(Note::Text(self.send(text))),
            FrameKind::Restart if self.sent.is_empty() => None,
            FrameKind::Restart => Some(Note::Failed(ApiError::interrupted(
                &self.task,
                "the text so far is void: a new attempt began",
            ))),
            FrameKind::Question { reason, text, .. } => {
                Some(Note::Failed(ApiError::parked(&self.task, &reason, &text)))
            }
            FrameKind::Error { code, message } => {
                Some(Note::Failed(ApiError::failed(&self.task, code, &message)))
            }
            FrameKind::Done { task } if task.state == "completed" => {
                Some(Note::Finished(self.rest(&task), task))
            }
            FrameKind::Done { task } => Some(Note::Failed(ApiError::of_task(&task))),
        }
    }

    /// The frames had no last one.
    pub(super) fn ended_early(&self) -> Note {
        Note::Failed(ApiError::interrupted(
            &self.task,
            "the stream ended early; the task goes on",
        ))
    }

    fn send(&mut self, text: String) -> String {
        let text = if std::mem::take(&mut self.gap) {
            format!("\n\n{text}")
        } else {
            text
        };
        self.sent.push_str(&text);
        text
    }

    /// What is missing to the output.
    fn rest(&mut self, task: &TaskView) -> String {
        let output = output(task);
        if self.sent.ends_with(&output) {
            return String::new();
        }
        let rest = match output.strip_prefix(self.sent.as_str()) {
            Some(rest) => rest.to_owned(),
            None => format!("\n\n{output}"),
        };
        self.sent.push_str(&rest);
        rest
    }
}

/// A task's output as text: JSON is written out.
pub(super) fn output(task: &TaskView) -> String {
    match &task.output {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::tests::task;
    use serde_json::json;

    fn chunk(text: &str) -> FrameKind {
        FrameKind::Chunk { text: text.into() }
    }

    fn done() -> FrameKind {
        FrameKind::Done {
            task: Box::new(task()),
        }
    }

    fn call() -> FrameKind {
        FrameKind::ToolCall {
            step: 1,
            name: "t".into(),
            arguments: json!({}),
        }
    }

    /// The text a client has in the end, or the error's code.
    fn read(kinds: Vec<FrameKind>) -> Result<String, String> {
        let mut progress = Progress::new("0197".into());
        let mut text = String::new();
        for kind in kinds {
            match progress.take(kind) {
                Some(Note::Text(more)) => text.push_str(&more),
                Some(Note::Finished(rest, _)) => return Ok(text + &rest),
                Some(Note::Failed(error)) => return Err(error.code),
                None => {}
            }
        }
        panic!("the frames have no end");
    }

    #[test]
    fn whatever_was_streamed_the_client_ends_up_with_the_output() {
        assert_eq!(read(vec![done()]).unwrap(), "the answer");
        assert_eq!(
            read(vec![chunk("the "), chunk("answer"), done()]).unwrap(),
            "the answer"
        );
        assert_eq!(read(vec![chunk("the "), done()]).unwrap(), "the answer");
        assert_eq!(
            read(vec![
                chunk("let me see"),
                call(),
                chunk("the answer"),
                done()
            ])
            .unwrap(),
            "let me see\n\nthe answer"
        );
        assert_eq!(
            read(vec![chunk("let me see"), done()]).unwrap(),
            "let me see\n\nthe answer"
        );
    }

    #[test]
    fn a_new_attempt_is_nothing_before_text_and_an_error_after() {
        assert_eq!(
            read(vec![FrameKind::Restart, chunk("the answer"), done()]).unwrap(),
            "the answer"
        );
        assert_eq!(
            read(vec![chunk("the"), FrameKind::Restart, done()]).unwrap_err(),
            "interrupted"
        );
    }

    #[test]
    fn a_task_that_fails_or_waits_is_an_error() {
        let failed = TaskView {
            state: "failed".into(),
            reason: Some("budget".into()),
            ..task()
        };
        assert_eq!(
            read(vec![FrameKind::Done {
                task: Box::new(failed)
            }])
            .unwrap_err(),
            "budget"
        );
        let question = FrameKind::Question {
            step: Some(1),
            reason: "question".into(),
            text: "did it happen?".into(),
        };
        assert_eq!(read(vec![question]).unwrap_err(), "question");
        assert_eq!(
            read(vec![FrameKind::Error {
                code: "internal".into(),
                message: "x".into()
            }])
            .unwrap_err(),
            "internal"
        );
    }

    #[test]
    fn json_output_is_written_out() {
        assert_eq!(
            output(&TaskView {
                output: json!({"a": 1}),
                ..task()
            }),
            "{\"a\":1}"
        );
    }
}
