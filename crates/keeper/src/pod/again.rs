//! The first process of the hub's pod: starts the hub again when it dies.
//!
//! Kubernetes would do that after ten seconds, then twenty, then forty; here the first time is at
//! once. The hub is forked without exec, so this costs next to nothing. What dies again and again by
//! its own word, and what ended in order, ends the container, so that Kubernetes shows it.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Instant;

use sandbox::fork::Forked;
use sandbox::process::{Ended, Reaped};
use sandbox::signals::SignalFd;

use super::restart::{FalseStarts, Restart};
use super::signal;
use crate::hub::words;
use crate::reactor::Reactor;

/// The exit code of what a signal ended, as shells have it.
const BY_SIGNAL: i32 = 128;

/// Runs `body` in a process of its own, and again when that dies, until it ends in order or is told
/// to by SIGTERM or SIGINT, which are passed on. Returns the code to end with.
pub fn again(body: &dyn Fn() -> i32) -> io::Result<i32> {
    sandbox::process::become_subreaper()?;
    let signals = SignalFd::new(&[signal::CHLD, signal::TERM, signal::INT])?;
    let reactor = Reactor::new()?;
    reactor.add(&signals)?;
    let mut restart = Restart::default();
    let mut false_starts = FalseStarts::default();
    let mut child: Option<Forked> = None;
    let mut is_asked = false;
    loop {
        if child.is_none() && restart.is_due(Instant::now()) {
            child = Some(sandbox::fork::fork(|| settled(body))?);
            restart.started(Instant::now());
        }
        let due = restart.due().filter(|_| child.is_none());
        let events = reactor.wait(due)?;
        if !events
            .iter()
            .any(|event| event.fd == signals.as_fd().as_raw_fd())
        {
            continue;
        }
        while let Some((number, _)) = signals.take()? {
            if number != signal::CHLD {
                is_asked = true;
                if let Some(child) = &child {
                    let _gone = sandbox::process::signal(child.pidfd.as_fd(), number);
                }
            }
        }
        while let Reaped::Child(pid, ended) = sandbox::process::reap_any()? {
            // Orphans of it come to us too.
            if child.as_ref().is_none_or(|child| child.pid != pid) {
                continue;
            }
            child = None;
            restart.died(Instant::now());
            if let Some(code) = last(ended, is_asked, &mut false_starts) {
                return Ok(code);
            }
            tracing::warn!("the hub ended {}; the next one starts", words(ended));
        }
        if is_asked && child.is_none() {
            return Ok(0);
        }
    }
}

/// The code to end with, if this end is the last one.
fn last(ended: Ended, is_asked: bool, false_starts: &mut FalseStarts) -> Option<i32> {
    let code = match ended {
        Ended::Code(code) => code,
        Ended::Signal(number) => BY_SIGNAL + number,
    };
    if is_asked || code == 0 {
        return Some(code);
    }
    // A kill from outside says nothing about the hub.
    let is_its_own = matches!(ended, Ended::Code(_));
    (is_its_own && false_starts.note(Instant::now()).is_some()).then_some(code)
}

/// In the child: nothing of the parent's but its standard streams.
fn settled(body: &dyn Fn() -> i32) -> i32 {
    sandbox::descriptors::close_all_but(&[]);
    sandbox::signals::unblock_all();
    body()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_is_never_the_last_end_and_an_order_always_is() {
        let mut starts = FalseStarts::default();
        for _ in 0..50 {
            assert_eq!(last(Ended::Signal(9), false, &mut starts), None);
        }
        assert_eq!(last(Ended::Signal(9), true, &mut starts), Some(137));
        assert_eq!(last(Ended::Code(0), false, &mut starts), Some(0));
    }

    #[test]
    fn what_fails_by_its_own_word_five_times_in_a_minute_ends_the_container() {
        let mut starts = FalseStarts::default();
        let ends: Vec<_> = (0..5)
            .map(|_| last(Ended::Code(3), false, &mut starts))
            .collect();
        assert_eq!(ends, [None, None, None, None, Some(3)]);
    }
}
