//! A task's frames as an OpenAI stream, whichever of the two protocols writes it.
//!
//! For a moment the status line is held back, so that a task that fails at once is a proper HTTP
//! error; after that it is 200 and errors travel in the stream, which is then reset.

use std::time::Duration;

use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use hub::stream::Frame;
use hub::view::TaskView;

use super::ApiError;
use super::call::Call;
use super::progress::{Note, Progress};
use crate::door::Door;
use crate::frames;
use crate::sse::{self, Broken, Piece};

/// How long the status line waits for something to say.
const HOLD: Duration = Duration::from_secs(5);

/// How one protocol writes a stream.
pub(super) trait Writer: Send + 'static {
    fn open(&mut self) -> Bytes;
    fn text(&mut self, text: &str) -> Bytes;
    /// `sent` is all of the text.
    fn close(&mut self, task: &TaskView, sent: &str) -> Bytes;
    fn fail(&mut self, error: &ApiError) -> Bytes;
}

/// Answers a submitted call with its stream.
pub(super) async fn respond(
    door: Door,
    call: Call,
    writer: impl Writer,
) -> Result<Response, ApiError> {
    let frames = frames::of_task(&door.hub, &call.task, None).await?;
    let mut notes = Notes {
        frames,
        progress: Progress::new(call.task.clone()),
    };
    let first = match tokio::time::timeout(HOLD, notes.next()).await {
        Ok(Note::Failed(error)) => return Err(error),
        Ok(note) => Some(note),
        Err(_) => None,
    };
    Ok(call.name(sse::respond(door.stop, write(notes, first, writer))))
}

struct Notes {
    frames: BoxStream<'static, Frame>,
    progress: Progress,
}

impl Notes {
    /// Loses nothing when it is dropped before it is done: frames without a note carry none.
    async fn next(&mut self) -> Note {
        while let Some(frame) = self.frames.next().await {
            if let Some(note) = self.progress.take(frame.kind) {
                return note;
            }
        }
        self.progress.ended_early()
    }
}

/// Pieces: the opening, text, and an end of one kind or the other.
fn write(
    notes: Notes,
    first: Option<Note>,
    mut writer: impl Writer,
) -> impl Stream<Item = Piece> + Send {
    let open = writer.open();
    let body = stream::unfold(Some((notes, first, writer)), |state| async move {
        let (mut notes, first, mut writer) = state?;
        let note = match first {
            Some(note) => note,
            None => notes.next().await,
        };
        let (pieces, goes_on) = pieces(&note, &mut writer, notes.progress.sent());
        Some((
            stream::iter(pieces),
            goes_on.then_some((notes, None, writer)),
        ))
    });
    stream::iter([Ok(open)]).chain(body.flatten())
}

fn pieces(note: &Note, writer: &mut impl Writer, sent: &str) -> (Vec<Piece>, bool) {
    match note {
        Note::Text(text) => (vec![Ok(writer.text(text))], true),
        Note::Finished(rest, task) if rest.is_empty() => {
            (vec![Ok(writer.close(task, sent))], false)
        }
        Note::Finished(rest, task) => (
            vec![Ok(writer.text(rest)), Ok(writer.close(task, sent))],
            false,
        ),
        Note::Failed(error) => (vec![Ok(writer.fail(error)), Err(Broken)], false),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::frames::tests::task;
    use hub::stream::{FrameId, FrameKind};

    /// All pieces of these frames in one protocol; the flag says that the stream was reset.
    pub(in crate::openai) async fn written(
        kinds: Vec<FrameKind>,
        writer: impl Writer,
    ) -> (String, bool) {
        let frames: Vec<_> = (0..)
            .zip(kinds)
            .map(|(k, kind)| Frame {
                id: FrameId { seq: 1, k },
                kind,
            })
            .collect();
        let notes = Notes {
            frames: stream::iter(frames).boxed(),
            progress: Progress::new("0197".into()),
        };
        let pieces: Vec<Piece> = write(notes, None, writer).collect().await;
        let reset = pieces.last().is_some_and(Result::is_err);
        (
            pieces
                .into_iter()
                .filter_map(Result::ok)
                .map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
                .collect(),
            reset,
        )
    }

    struct Plain;

    impl Writer for Plain {
        fn open(&mut self) -> Bytes {
            "<".into()
        }
        fn text(&mut self, text: &str) -> Bytes {
            text.to_owned().into()
        }
        fn close(&mut self, _: &TaskView, sent: &str) -> Bytes {
            format!("|{sent}>").into()
        }
        fn fail(&mut self, error: &ApiError) -> Bytes {
            format!("!{}", error.code).into()
        }
    }

    #[tokio::test]
    async fn a_completed_task_ends_its_stream_cleanly() {
        let kinds = vec![
            FrameKind::Chunk {
                text: "the ".into(),
            },
            FrameKind::Done {
                task: Box::new(task()),
            },
        ];
        assert_eq!(
            written(kinds, Plain).await,
            ("<the answer|the answer>".into(), false)
        );
    }

    #[tokio::test]
    async fn void_text_a_failure_and_an_early_end_reset_the_stream() {
        let text = || FrameKind::Chunk {
            text: "the ".into(),
        };
        assert_eq!(
            written(vec![text(), FrameKind::Restart], Plain).await,
            ("<the !interrupted".into(), true)
        );
        assert_eq!(
            written(vec![text()], Plain).await,
            ("<the !interrupted".into(), true)
        );
        let failed = TaskView {
            state: "failed".into(),
            ..task()
        };
        assert_eq!(
            written(
                vec![FrameKind::Done {
                    task: Box::new(failed)
                }],
                Plain
            )
            .await,
            ("<!failed".into(), true)
        );
    }
}
