//! What each part of a start costs: `start_cost PROGRAM` prints medians of 300 starts each.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use sandbox::spawn::{Launch, Start};

fn main() -> std::io::Result<()> {
    let program = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "/bin/true".to_owned());
    let program = CString::new(program)?;
    let root = rustix::process::geteuid().is_root();
    let user = root.then_some((61_234, 61_234));
    let closed = std::path::PathBuf::from("/root");
    let view = || match user {
        Some(user) => sandbox::reach::view(std::slice::from_ref(&closed), user),
        None => Ok(None),
    };
    let rules = sandbox::confine::ruleset(&[], &["/".into()])?;
    measure("plain", &program, None, None, None)?;
    measure("user", &program, user, None, None)?;
    measure("user, mount namespace", &program, user, view()?, None)?;
    measure("landlock", &program, None, None, rules)
}

fn measure(
    what: &str,
    program: &CString,
    user: Option<(u32, u32)>,
    mounts: Option<OwnedFd>,
    ruleset: Option<OwnedFd>,
) -> std::io::Result<()> {
    let launch = Launch {
        programs: vec![program.clone()],
        arguments: vec![program.clone()],
        current_dir: c"/".to_owned(),
        user,
        ruleset,
        mounts,
        no_new_privileges: true,
        umask: 0o022,
    };
    let null: OwnedFd = std::fs::File::open("/dev/null")?.into();
    let start = Start {
        environment: &[],
        descriptors: &[null.as_fd(), null.as_fd(), null.as_fd()],
    };
    let mut times = Vec::new();
    for _ in 0..300 {
        let before = Instant::now();
        let spawned = sandbox::spawn::spawn(&launch, &start).map_err(std::io::Error::other)?;
        times.push(before.elapsed());
        sandbox::process::signal(spawned.pidfd.as_fd(), 9)?;
        sandbox::process::reap(spawned.pid)?;
    }
    times.sort();
    let (median, late): (Duration, Duration) = (times[150], times[296]);
    println!("{what}: p50 {median:?} p99 {late:?}");
    Ok(())
}
