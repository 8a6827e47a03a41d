//! Server-sent events: encoding, keep-alive, and a reset where a stream can't be completed.
//!
//! A stream that ends early is broken off, never ended cleanly: clients take a clean end for the
//! whole. That holds for a hub that stops, too; a client comes back with `Last-Event-ID`.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use crate::door::Stop;

/// Between comments, so that proxies and clients see a living connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The stream can't be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stream broke off")
    }
}

impl std::error::Error for Broken {}

/// What a stream is made of.
pub(crate) type Piece = Result<Bytes, Broken>;

/// One event. `data` is JSON text and so has no line break; name and id lose theirs.
pub(crate) fn event(name: Option<&str>, id: Option<&str>, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + 64);
    for (field, value) in [("event", name), ("id", id)] {
        if let Some(value) = value {
            text.push_str(field);
            text.push_str(": ");
            text.extend(value.chars().filter(|c| !c.is_control()));
            text.push('\n');
        }
    }
    for line in data.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

/// Answers with `pieces` as they come.
pub(crate) fn respond(stop: Stop, pieces: impl Stream<Item = Piece> + Send + 'static) -> Response {
    let body = Body::from_stream(kept_alive(stop, pieces.boxed(), KEEP_ALIVE));
    (
        [
            (CONTENT_TYPE, "text/event-stream"),
            (CACHE_CONTROL, "no-store"),
        ],
        [("x-accel-buffering", "no")],
        body,
    )
        .into_response()
}

fn kept_alive(
    stop: Stop,
    pieces: BoxStream<'static, Piece>,
    pause: Duration,
) -> impl Stream<Item = Piece> + Send {
    // `None` after a break: nothing may follow it.
    stream::unfold(Some((stop, pieces)), move |state| async move {
        let (mut stop, mut pieces) = state?;
        let piece = tokio::select! {
            biased;
            piece = pieces.next() => piece?,
            () = stop.raised() => Err(Broken),
            () = tokio::time::sleep(pause) => Ok(Bytes::from_static(b": still here\n\n")),
        };
        let rest = piece.is_ok().then_some((stop, pieces));
        Some((piece, rest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_its_lines_and_an_empty_one() {
        assert_eq!(
            event(Some("chunk"), Some("12-0"), "{}"),
            "event: chunk\nid: 12-0\ndata: {}\n\n"
        );
        assert_eq!(event(None, None, "[DONE]"), "data: [DONE]\n\n");
    }

    #[test]
    fn nothing_can_forge_a_line() {
        assert_eq!(
            event(Some("a\ndata: x"), Some("1\r\n"), "b\nid: 9\rc"),
            "event: adata: x\nid: 1\ndata: b\ndata: id: 9\ndata: c\n\n"
        );
    }

    async fn collect(stream: impl Stream<Item = Piece>) -> Vec<Piece> {
        stream.collect().await
    }

    #[tokio::test]
    async fn a_stream_ends_cleanly_after_its_last_piece() {
        let (_raise, stop) = Stop::new();
        let pieces =
            stream::iter([Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))]).boxed();
        let got = collect(kept_alive(stop, pieces, KEEP_ALIVE)).await;
        assert_eq!(
            got,
            [Ok(Bytes::from_static(b"a")), Ok(Bytes::from_static(b"b"))]
        );
    }

    #[tokio::test]
    async fn nothing_follows_a_break() {
        let (_raise, stop) = Stop::new();
        let pieces = stream::iter([Err(Broken), Ok(Bytes::from_static(b"b"))]).boxed();
        assert_eq!(
            collect(kept_alive(stop, pieces, KEEP_ALIVE)).await,
            [Err(Broken)]
        );
    }

    #[tokio::test]
    async fn a_silent_stream_gets_comments_and_breaks_off_when_the_hub_stops() {
        let (raise, stop) = Stop::new();
        let mut stream = std::pin::pin!(kept_alive(
            stop,
            stream::pending().boxed(),
            Duration::from_millis(1)
        ));
        assert_eq!(
            stream.next().await,
            Some(Ok(Bytes::from_static(b": still here\n\n")))
        );
        raise.send(true).unwrap();
        loop {
            match stream.next().await {
                Some(Ok(comment)) => assert!(comment.starts_with(b":")),
                end => break assert_eq!(end, Some(Err(Broken))),
            }
        }
        assert_eq!(stream.next().await, None);
    }
}
