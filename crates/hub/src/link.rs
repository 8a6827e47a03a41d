//! Links to shims: one connection per instance, kept while the instance is in the keeper's list.
//!
//! Facts are acknowledged after the commit that holds them. A link that breaks is made again; the
//! shim then tells what runs and hands in what it kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contract::Versions;
use contract::frame::{self, Decoder};
use contract::shim::{FromShim, Role, Running, ToShim};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::ground::Pipe;
use crate::shared::lock;
use crate::{Hub, fact};

/// Pause before connecting again.
const RETRY: Duration = Duration::from_millis(50);
/// Facts kept while there was no link come right after the hello; then the lists are compared.
const SETTLE: Duration = Duration::from_millis(150);
/// A shim that says nothing for this long has handed in all it kept: it sends that with its hello.
const QUIET: Duration = Duration::from_millis(10);

/// Keeps the link to one instance until it is aborted.
pub(crate) async fn keep(hub: Hub, name: String, socket: PathBuf) {
    loop {
        match hub.shared.ground.connect(&socket).await {
            Ok(stream) => {
                if let Err(error) = speak(&hub, &name, stream).await {
                    tracing::debug!(instance = name, %error, "link to the shim broke");
                }
                lock(&hub.shared.links).remove(&name);
                let gone = name.clone();
                let _ = hub.writer.run(move |tx| tx.shim_gone(&gone)).await;
            }
            Err(error) => tracing::trace!(instance = name, %error, "shim can't be reached"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn speak(hub: &Hub, name: &str, stream: Box<dyn Pipe>) -> std::io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (outgoing, mut queue) = mpsc::unbounded_channel::<ToShim>();
    let hello = ToShim::Hello {
        versions: Versions::OURS,
        role: Role::Hub,
    };
    writer.write_all(&encoded(&hello)?).await?;
    lock(&hub.shared.links).insert(name.to_owned(), outgoing.clone());
    let sender = async move {
        while let Some(message) = queue.recv().await {
            writer.write_all(&encoded(&message)?).await?;
        }
        Ok::<(), std::io::Error>(())
    };
    let receiver = async {
        let mut decoder = Decoder::default();
        let mut bytes = vec![0; 64 * 1024];
        let mut is_settling = false;
        loop {
            let quiet = if is_settling { QUIET } else { Duration::MAX };
            let Ok(read) = tokio::time::timeout(quiet, reader.read(&mut bytes)).await else {
                is_settling = false;
                let owned = name.to_owned();
                let told = hub.writer.run(move |tx| tx.settled(&owned)).await;
                told.map_err(std::io::Error::other)?;
                continue;
            };
            let read = read?;
            if read == 0 {
                return Ok(());
            }
            decoder.push(&bytes[..read]);
            while let Some(message) = decoder.next::<FromShim>().map_err(std::io::Error::other)? {
                is_settling |= matches!(message, FromShim::Hello { .. });
                receive(hub, name, message, &outgoing).await?;
            }
        }
    };
    tokio::select! { biased; done = sender => done, done = receiver => done }
}

async fn receive(
    hub: &Hub,
    name: &str,
    message: FromShim,
    outgoing: &mpsc::UnboundedSender<ToShim>,
) -> std::io::Result<()> {
    let (mut record, mut greeted) = (None, None);
    match &message {
        FromShim::Record { record: number, .. } => record = Some(*number),
        FromShim::Hello {
            versions, running, ..
        } => {
            if Versions::OURS.agree(*versions).is_none() {
                return Err(std::io::Error::other("shim speaks no version of ours"));
            }
            greeted = Some(running.clone());
        }
        _ => {}
    }
    let owned = name.to_owned();
    let held = hub
        .writer
        .run(move |tx| fact::apply(tx, &owned, message))
        .await
        .map_err(std::io::Error::other)?;
    if let Some(running) = greeted {
        resync_later(hub, name, running, held);
    }
    if let Some(record) = record {
        let _ = outgoing.send(ToShim::Acknowledge { record });
    }
    Ok(())
}

fn resync_later(hub: &Hub, name: &str, running: Vec<Running>, held: Vec<fact::Held>) {
    let (hub, name) = (hub.clone(), name.to_owned());
    let ground = Arc::clone(&hub.shared.ground);
    ground.spawn(Box::pin(async move {
        tokio::time::sleep(SETTLE).await;
        let job = move |tx: &mut crate::tx::Tx<'_>| tx.resync(&name, &running, held);
        let _ = hub.writer.run(job).await;
    }));
}

fn encoded(message: &ToShim) -> std::io::Result<Vec<u8>> {
    frame::encode(message).map_err(std::io::Error::other)
}
