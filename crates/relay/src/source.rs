//! An agent's code, brought from the hub before anything of the agent's is started.
//!
//! One try: what is worth another is the caller's to see, who also unpacks what comes.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use contract::frame::Decoder;
use contract::pod::{Pod, Purpose, ToPod, ToRelay};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::RelayError;
use crate::door::{Door, DoorError, Tls, chain, hear};

/// A hub that sends nothing for so long won't any more.
const SILENCE: Duration = Duration::from_secs(20);
const BUFFER: usize = 64 * 1024;

/// Why nothing came, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{reason}")]
    Refused { reason: String, retry: bool },
    #[error("the hub is not reached: {0}")]
    Away(String),
    #[error("the hub broke off")]
    BrokenOff(#[source] io::Error),
    #[error("what came can't be handed on")]
    HandOn(#[source] io::Error),
    #[error(transparent)]
    Relay(#[from] RelayError),
}

impl SourceError {
    /// Whether another try can end otherwise.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Refused { retry, .. } => *retry,
            Self::Away(_) | Self::BrokenOff(_) => true,
            Self::HandOn(_) | Self::Relay(_) => false,
        }
    }
}

impl From<DoorError> for SourceError {
    fn from(error: DoorError) -> Self {
        Self::Away(chain(&error))
    }
}

/// Asks the pod's hub for its source, and hands on what comes, to the clean end.
pub fn fetch(pod: &Pod, root: &Path, to: &mut impl Write) -> Result<(), SourceError> {
    let text = &pod.hub;
    let address: SocketAddr = text
        .parse()
        .map_err(|_| RelayError::Address { text: text.clone() })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(RelayError::Runtime)?;
    runtime.block_on(bring(&Door::new(address, root, pod), to))
}

async fn bring(door: &Door, to: &mut impl Write) -> Result<(), SourceError> {
    let offered = ToRelay::default();
    let (mut tls, hello) = door.dial(Purpose::Source, &offered).await?;
    let away = |error: io::Error| SourceError::Away(error.to_string());
    tls.write_all(&hello).await.map_err(away)?;
    tls.flush().await.map_err(away)?;
    let mut decoder = Decoder::default();
    let said = tokio::time::timeout(SILENCE, hear(&mut tls, &mut decoder)).await;
    match said.map_err(|late| away(late.into()))?.map_err(away)? {
        ToPod::Welcome { .. } => pass(tls, decoder.into_rest(), to).await,
        ToPod::Refused { reason, retry } => Err(SourceError::Refused { reason, retry }),
        ToPod::Ready { .. } | ToPod::Open { .. } => Err(SourceError::Refused {
            reason: "the hub takes this for another connection".to_owned(),
            retry: false,
        }),
    }
}

async fn pass(mut tls: Tls, first: Vec<u8>, to: &mut impl Write) -> Result<(), SourceError> {
    to.write_all(&first).map_err(SourceError::HandOn)?;
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = tokio::time::timeout(SILENCE, tls.read(&mut buffer)).await;
        let read = read.map_err(|late| SourceError::BrokenOff(late.into()))?;
        match read.map_err(SourceError::BrokenOff)? {
            0 => return to.flush().map_err(SourceError::HandOn),
            count => to
                .write_all(&buffer[..count])
                .map_err(SourceError::HandOn)?,
        }
    }
}
