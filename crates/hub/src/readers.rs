//! A small pool of read connections to the workspace's log.
//!
//! Reads of a log on a server wait while it is away, as the writer does: an agent that asks for its
//! input meanwhile gets it late, and no error that it would have to live with.

use std::sync::Mutex;
use std::time::Duration;

use store::{Place, Reader, StoreError};
use tokio::sync::Semaphore;

use crate::shared::lock;
use crate::{Code, HubError};

/// How many reads run at once.
const READERS: usize = 4;
/// Tries to reach a server that is away, and what lies between them: half a minute.
const TRIES: u32 = 300;
const PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct Readers {
    idle: Mutex<Vec<Reader>>,
    pub(crate) permits: Semaphore,
    place: Place,
}

impl Readers {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            idle: Mutex::default(),
            permits: Semaphore::new(READERS),
            place,
        }
    }

    /// Runs a read on a connection of its own. It blocks.
    #[allow(
        clippy::disallowed_methods,
        reason = "a server is waited for on a thread that is there for it"
    )]
    pub(crate) fn run<T>(
        &self,
        job: impl FnOnce(&Reader) -> Result<T, StoreError>,
    ) -> Result<T, HubError> {
        let mut job = Some(job);
        let mut tries = 0;
        loop {
            let read = self.try_run(&mut job);
            let may_return = matches!(self.place, Place::Server { .. }) && tries < TRIES;
            if read.is_ok() || job.is_none() || !may_return {
                return read;
            }
            tries += 1;
            std::thread::sleep(PAUSE);
        }
    }

    /// The job is left where the log could not be asked at all.
    fn try_run<T, F>(&self, job: &mut Option<F>) -> Result<T, HubError>
    where
        F: FnOnce(&Reader) -> Result<T, StoreError>,
    {
        let failed = |code, error: &dyn std::fmt::Display| {
            HubError::new(code, format!("failed to read the log: {error}"))
        };
        let idle = lock(&self.idle).pop();
        let reader = match idle {
            Some(reader) => reader,
            None => Reader::open_at(&self.place).map_err(|error| match &self.place {
                Place::Directory(_) => HubError::new(Code::Internal, error.to_string()),
                Place::Server { .. } => failed(Code::Unavailable, &error),
            })?,
        };
        let mut value = None;
        let read = reader.snapshot(|reader| {
            value = job.take().map(|job| job(reader)).transpose()?;
            Ok(())
        });
        read.map_err(|error| failed(Code::Internal, &error))?;
        lock(&self.idle).push(reader);
        value.ok_or_else(|| failed(Code::Internal, &"nothing was asked"))
    }
}
