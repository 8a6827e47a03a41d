//! `mainstay shim --fetch-source`: an init container that brings an agent's code from the hub.
//!
//! What comes is unpacked as it comes and counts only if it is what the pod was told. A hub that is
//! away, or that doesn't have it yet, is asked again for a while; then the container ends with the
//! reason, and Kubernetes starts it again.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use contract::pod::{Pod, SOURCE_DIR, below};
use keeper::UnpackError;
use relay::SourceError;

use crate::exit::{Exit, Failure, Outcome};

/// How long the hub is asked again.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(500);

/// Why one try came to nothing.
enum Failed {
    Fetch(SourceError),
    Unpack(UnpackError),
}

pub(super) fn fetch(pod: &Pod, root: &Path) -> Outcome {
    let Some(source) = &pod.source else {
        return Err(Failure::usage("this pod has no source"));
    };
    let started = Instant::now();
    loop {
        let (failure, may_pass) = match once(pod, source, root) {
            Ok(()) => return Ok(Exit::Done),
            Err(Failed::Fetch(error)) => {
                let may_pass = error.may_pass();
                (failure(error), may_pass)
            }
            Err(Failed::Unpack(error)) => (failure(error), false),
        };
        if !may_pass || started.elapsed() >= PATIENCE {
            return Err(failure);
        }
        std::thread::sleep(PAUSE);
    }
}

fn once(pod: &Pod, source: &str, root: &Path) -> Result<(), Failed> {
    let into = below(root, SOURCE_DIR);
    let pipe = std::io::pipe().map_err(|error| Failed::Fetch(SourceError::HandOn(error)));
    let (archive, mut to) = pipe?;
    std::thread::scope(|scope| {
        let fetching = scope.spawn(move || {
            let fetched = relay::fetch(pod, root, &mut to);
            // Whoever reads sees the end.
            let _flushed = to.flush();
            fetched
        });
        let unpacked = keeper::unpack(archive, source, &into);
        let fetched = fetching.join();
        // What was not brought whole is not unpacked whole either: the first is the reason. What
        // can't be unpacked is not taken any more, which is then what the other one says.
        match (fetched, unpacked) {
            (Ok(Err(error)), _) if !matches!(error, SourceError::HandOn(_)) => {
                Err(Failed::Fetch(error))
            }
            (_, unpacked) => unpacked.map_err(Failed::Unpack),
        }
    })
}

fn failure(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Exit::Failed, "failed to bring the agent's source").because(error)
}
