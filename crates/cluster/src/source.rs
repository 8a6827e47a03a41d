//! Agents' code on its way to their pods: to each the artifact that its own agent names now, and to
//! nobody another one's.
//!
//! A command line brought it (`hub::artifact`). An agent's object that names it may be here before
//! its generation is, and a pod before both: it is told to try again.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::Duration;

use api::Fleet;
use contract::pod::FromPod;
use hub::artifact::Artifacts;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::door::Refused;
use crate::offer::Stream;

/// Sent at once; further pods wait for their turn.
const AT_ONCE: usize = 32;
/// A pod that takes nothing for so long is cut off.
const SILENCE: Duration = Duration::from_secs(20);
const PIECE_BYTES: usize = 256 * 1024;
/// Read ahead of what the pod takes.
const PIECES: usize = 2;

/// What pods are sent from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sources {
    artifacts: Artifacts,
    today: watch::Receiver<Arc<Fleet>>,
    turns: Arc<Semaphore>,
}

impl Sources {
    /// From these artifacts, by what the present fleet says.
    #[must_use]
    pub fn new(artifacts: Artifacts, today: watch::Receiver<Arc<Fleet>>) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self {
            artifacts,
            today,
            turns,
        }
    }

    /// What a pod of this agent asks for.
    pub(crate) fn find(&self, agent: &str, asked: &FromPod) -> Result<Option<File>, Refused> {
        let asked = asked.source.as_deref().unwrap_or_default();
        let fleet = self.today.borrow().clone();
        let source = fleet.agents.get(agent).and_then(|it| it.source.as_ref());
        let named = source.and_then(|source| source.hash.as_deref());
        if named != Some(asked) {
            let reason = match named {
                Some(_) => "its agent has another source now".to_owned(),
                None => format!("the hub knows of no source of {agent}"),
            };
            return Err(later(reason));
        }
        match self.artifacts.get(asked) {
            Ok(Some(file)) => Ok(Some(file)),
            Ok(None) => Err(later(format!(
                "the hub has no source {asked}: send it once more with `mainstay apply`"
            ))),
            Err(error) => {
                tracing::error!(%error, artifact = asked, "an artifact can't be read");
                Err(later("the hub can't read it".to_owned()))
            }
        }
    }

    /// Sends it, to the clean end.
    pub(crate) async fn send(&self, file: Option<File>, mut stream: Stream) -> io::Result<()> {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let (pieces_tx, mut pieces) = mpsc::channel(PIECES);
        let reading = tokio::task::spawn_blocking(move || read(file, &pieces_tx));
        while let Some(piece) = pieces.recv().await {
            let sent = tokio::time::timeout(SILENCE, stream.write_all(&piece));
            sent.await??;
        }
        // Ended before its end it is not ended cleanly, and the pod sees that.
        reading.await.map_err(io::Error::other)??;
        tokio::time::timeout(SILENCE, stream.shutdown()).await?
    }
}

fn read(mut file: File, pieces: &mpsc::Sender<Vec<u8>>) -> io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let count = (&mut file)
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)?;
        if count == 0 {
            return Ok(());
        }
        if pieces.blocking_send(piece).is_err() {
            return Ok(());
        }
    }
}

fn later(reason: String) -> Refused {
    Refused {
        reason,
        retry: true,
    }
}
