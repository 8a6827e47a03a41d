//! What a hub stands on besides its home: the clock, chance, the disk's health, ways to shims, and
//! threads.
//!
//! The binary stands on [`Machine`]. Simulations and fault sweeps hand in a ground of their own:
//! one thread, time that passes when nothing else can happen, and a process that can be ended
//! between any two steps. Nothing here decides anything.
#![allow(
    clippy::disallowed_methods,
    reason = "the machine's own of what the others are told to ask for here"
)]

use std::io;
use std::path::Path;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

pub use store::Machine;

/// A way to a shim.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Pipe for T {}

/// A connection being made.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Pipe>>> + Send + 'a>>;

/// Work that goes on by itself.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The world below a hub. Monotonic time is tokio's, but for deadlines and time budgets.
pub trait Ground: store::Ground {
    /// Milliseconds on a clock that no wall jump moves and that goes on while the machine sleeps.
    fn boot_ms(&self) -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec * 1000 + now.tv_nsec / 1_000_000
    }

    /// The wall clock in Unix milliseconds.
    fn now_ms(&self) -> i64 {
        jiff::Timestamp::now().as_millisecond()
    }

    /// An id nobody has had; what gets one later sorts behind.
    fn new_id(&self) -> String {
        uuid::Uuid::now_v7().to_string()
    }

    /// Connects to the shim that listens there.
    fn connect<'a>(&'a self, socket: &'a Path) -> Connecting<'a> {
        Box::pin(async move {
            let stream = UnixStream::connect(socket).await?;
            Ok(Box::new(stream) as Box<dyn Pipe>)
        })
    }

    /// Begins work of the hub's process. It ends with the process at the latest.
    fn spawn(&self, work: Work) -> AbortHandle {
        tokio::spawn(work).abort_handle()
    }

    /// The writer and the readers have no threads of their own.
    fn is_one_thread(&self) -> bool {
        false
    }

    /// The hub can't go on: its process ends, at once and with this code.
    fn end(&self, code: i32) {
        std::process::exit(code)
    }
}

impl Ground for Machine {}
