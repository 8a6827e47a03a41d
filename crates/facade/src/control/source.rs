//! Agents' code on its way to the hub, where the home is a cluster.
//!
//! One comes at a time, streamed to the disk; who comes meanwhile waits before his body is read.

use std::io::{self, Read};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use bytes::{Buf as _, Bytes};
use http::StatusCode;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use hub::artifact::Artifacts;
use hub::{Code, HubError};
use tokio::sync::{Semaphore, mpsc};

use crate::decode::{PathOf, header, swallow};
use crate::door::Door;
use crate::problem::Problem;

static UPLOADS: Semaphore = Semaphore::const_new(1);
/// A client that sends nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// A body that takes longer is given up: another may be waiting.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Pieces of a body that wait for the disk.
const PIECES: usize = 16;

type Piece = io::Result<Bytes>;

/// Whether the hub has it.
pub(super) async fn has(
    State(door): State<Door>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    match kept(&door)?.has(&name) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(HubError::new(Code::NotFound, format!("no artifact {name}")).into()),
    }
}

/// Keeps what comes. Once more is as good as once.
pub(super) async fn put(
    State(door): State<Door>,
    PathOf(name): PathOf<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let artifacts = kept(&door)?;
    let (parts, mut body) = request.into_parts();
    let announced = header(&parts.headers, CONTENT_LENGTH.as_str());
    let length = announced.and_then(|text| text.parse().ok());
    let length = length.ok_or_else(|| Problem::invalid("Content-Length is missing"))?;
    // It is never closed.
    let _one = UPLOADS.acquire().await;
    let (pieces_tx, pieces) = mpsc::channel(PIECES);
    let kept = tokio::task::spawn_blocking(move || {
        let archive = Pieces {
            pieces,
            current: Bytes::new(),
        };
        artifacts.put(&name, length, archive)
    });
    feed(&mut body, pieces_tx).await;
    let kept = kept.await.unwrap_or_else(|error| {
        let text = format!("the artifact was not kept: {error}");
        Err(HubError::new(Code::Internal, text))
    });
    if let Err(error) = kept {
        // Most clients look for the answer only once they have sent theirs.
        swallow(&mut body).await;
        return Err(error.into());
    }
    Ok(StatusCode::NO_CONTENT)
}

fn kept(door: &Door) -> Result<Artifacts, Problem> {
    let artifacts = door.options.artifacts.clone();
    artifacts.ok_or_else(|| {
        let text = "this hub takes no artifacts: on one server `apply` reads the files themselves";
        HubError::new(Code::NotFound, text).into()
    })
}

/// Hands on the body until its end, or until nobody takes it.
async fn feed(body: &mut Body, pieces: mpsc::Sender<Piece>) {
    let deadline = tokio::time::Instant::now() + LONGEST;
    loop {
        let within = deadline.min(tokio::time::Instant::now() + SILENCE);
        let frame = tokio::select! {
            frame = tokio::time::timeout_at(within, body.frame()) => frame,
            () = pieces.closed() => return,
        };
        let piece = match frame {
            Ok(None) => return,
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => Ok(bytes),
                Err(_trailers) => continue,
            },
            Ok(Some(Err(_))) | Err(_) => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        let is_last = piece.is_err();
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

/// The pieces as one stream, for a thread that may wait for them.
struct Pieces {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
