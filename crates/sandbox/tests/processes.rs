//! The kernel does what the wrappers promise: real children, real namespaces, real rules.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::ffi::CString;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sandbox::process::Ended;
use sandbox::spawn::{Launch, Spawned, Start, Step};

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn shell(script: &str) -> Launch {
    Launch {
        programs: vec![c("/nonexistent/sh"), c("/bin/sh")],
        arguments: vec![c("sh"), c("-c"), c(script)],
        current_dir: c("/"),
        user: None,
        ruleset: None,
        mounts: None,
        no_new_privileges: true,
        umask: 0o077,
    }
}

fn run(launch: &Launch) -> (Ended, String, Spawned) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdin = sandbox::descriptors::sealed_memfd("stdin", b"from stdin").unwrap();
    let environment = [c("PATH=/usr/bin:/bin"), c("WORD=hello")];
    let descriptors = [stdin.as_fd(), writer.as_fd(), writer.as_fd()];
    let start = Start {
        environment: &environment,
        descriptors: &descriptors,
    };
    let spawned = sandbox::spawn::spawn(launch, &start).unwrap();
    drop(writer);
    let mut output = String::new();
    std::fs::File::from(reader)
        .read_to_string(&mut output)
        .unwrap();
    (
        sandbox::process::reap(spawned.pid).unwrap(),
        output,
        spawned,
    )
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("sandbox-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path.canonicalize().unwrap()
}

#[test]
fn a_child_gets_what_it_was_given_and_nothing_else() {
    let _leak: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let (ended, output, _) = run(&shell(
        "cat; echo \" $WORD\"; ls /proc/self/fd | wc -l; umask; exit 7",
    ));
    assert_eq!(ended, Ended::Code(7));
    // 0, 1, 2 and the directory that `ls` itself reads.
    assert_eq!(output, "from stdin hello\n4\n0077\n");
}

#[test]
fn a_program_that_does_not_exist_is_reported_with_its_step() {
    let launch = Launch {
        programs: vec![c("/nonexistent/program")],
        ..shell("")
    };
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let start = Start {
        environment: &[],
        descriptors: &[null.as_fd()],
    };
    let error = sandbox::spawn::spawn(&launch, &start).unwrap_err();
    assert_eq!(error.step, Step::Execute);
    assert_eq!(error.source.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_pidfd_kills_and_reports_the_end() {
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let start = Start {
        environment: &[c("PATH=/bin:/usr/bin")],
        descriptors: &[null.as_fd()],
    };
    let spawned = sandbox::spawn::spawn(&shell("sleep 100"), &start).unwrap();
    assert!(!sandbox::process::wait_ended(spawned.pidfd.as_fd(), Duration::ZERO).unwrap());
    sandbox::process::signal(spawned.pidfd.as_fd(), libc::SIGKILL).unwrap();
    assert!(sandbox::process::wait_ended(spawned.pidfd.as_fd(), Duration::from_secs(5)).unwrap());
    assert_eq!(
        sandbox::process::reap(spawned.pid).unwrap(),
        Ended::Signal(libc::SIGKILL)
    );
}

#[test]
fn a_user_of_its_own_takes_the_rights_away() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let launch = Launch {
        user: Some((61_234, 61_234)),
        ..shell("id -u; id -G; cat /etc/shadow 2>/dev/null")
    };
    let (_, output, spawned) = run(&launch);
    assert!(spawned.user_changed);
    assert_eq!(output, "61234\n61234\n");
}

#[test]
fn landlock_hides_a_directory_and_leaves_the_rest() {
    let root = scratch("landlock");
    std::fs::create_dir_all(root.join("state")).unwrap();
    std::fs::create_dir_all(root.join("beside")).unwrap();
    std::fs::write(root.join("state/key"), "secret").unwrap();
    std::fs::write(root.join("beside/code"), "open").unwrap();
    let write = sandbox::confine::all_but(&root.join("state"));
    let ruleset = sandbox::confine::ruleset(&[], &write).unwrap();
    let supported = ruleset.is_some();
    let script = format!(
        "cat {0}/beside/code; cat {0}/state/key 2>/dev/null; echo x > {0}/beside/new",
        root.display()
    );
    let (_, output, spawned) = run(&Launch {
        ruleset,
        ..shell(&script)
    });
    assert_eq!(spawned.landlocked, supported);
    assert_eq!(output, if supported { "open" } else { "opensecret" });
    assert!(root.join("beside/new").exists());
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_view_reaches_wanted_paths_below_a_closed_directory_and_nothing_else_there() {
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let root = scratch("reach");
    std::fs::create_dir_all(root.join("a/wanted")).unwrap();
    std::fs::write(root.join("a/wanted/file"), "reached").unwrap();
    std::fs::write(root.join("other"), "hidden").unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o700)).unwrap();
    let user = (61_234, 61_234);
    std::fs::write(root.join("one"), " and one file").unwrap();
    let mounts = match sandbox::reach::view(&[root.join("a/wanted"), root.join("one")], user) {
        Ok(mounts) => mounts,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return,
        Err(error) => panic!("{error}"),
    };
    assert!(mounts.is_some());
    let script = format!(
        "cat {0}/a/wanted/file {0}/one; cat {0}/other 2>/dev/null; echo x > {0}/y",
        root.display()
    );
    let (_, output, _) = run(&Launch {
        mounts,
        user: Some(user),
        ..shell(&format!("exec 2>/dev/null; {script}"))
    });
    assert_eq!(output, "reached and one file");
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn closed_directories_within_each_other_are_bridged_and_the_one_that_bars_is_named() {
    use sandbox::reach::{Barred, Use, barred};
    use std::os::unix::fs::PermissionsExt;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let root = scratch("nested");
    let mode = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::create_dir_all(root.join("home/shut")).unwrap();
    for (name, text) in [("home/beside", "beside "), ("home/shut/file", "file")] {
        std::fs::write(root.join(name), text).unwrap();
    }
    std::fs::write(root.join("home/own"), "x").unwrap();
    mode(&root.join("home/own"), 0o600);
    mode(&root.join("home/shut"), 0o700);
    mode(&root, 0o700);
    let user = (61_234, 61_234);
    let wanted = ["home", "home/shut", "home/shut/file"].map(|name| root.join(name));
    let mounts = match sandbox::reach::view(&wanted, user) {
        Ok(mounts) => mounts,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return,
        Err(error) => panic!("{error}"),
    };
    let ask = |name: &str, mounts: Option<&OwnedFd>| {
        let asked = [(root.join(name), Use::Read)];
        barred(&asked, user, mounts.map(AsFd::as_fd)).unwrap()
    };
    let by = |name: &str, by: &std::path::Path| {
        let (path, by) = (root.join(name), by.to_owned());
        vec![Barred { path, by }]
    };
    assert_eq!(ask("home/shut/file", mounts.as_ref()), []);
    assert_eq!(ask("home/shut/file", None), by("home/shut/file", &root));
    assert_eq!(
        ask("home/own", mounts.as_ref()),
        by("home/own", &root.join("home/own"))
    );
    assert_eq!(
        ask("home/missing", None),
        [],
        "nobody is shut out of nothing"
    );
    let script = format!("cat {0}/home/beside {0}/home/shut/file", root.display());
    let (_, output, _) = run(&Launch {
        mounts,
        user: Some(user),
        ..shell(&script)
    });
    assert_eq!(output, "beside file");
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn a_start_is_quick_even_from_a_process_that_has_much_memory() {
    let ballast = vec![1u8; 256 * 1024 * 1024];
    let mut launch = shell("");
    launch.programs = vec![c("/bin/true")];
    launch.arguments = vec![c("true")];
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let start = Start {
        environment: &[],
        descriptors: &[null.as_fd(), null.as_fd(), null.as_fd()],
    };
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let before = Instant::now();
            let spawned = sandbox::spawn::spawn(&launch, &start).unwrap();
            let took = before.elapsed();
            sandbox::process::reap(spawned.pid).unwrap();
            took
        })
        .collect();
    times.sort();
    assert!(ballast.len() > 1, "keeps the ballast alive");
    // A fork of this process would copy page tables for 256 MiB; generous for a busy machine.
    assert!(
        times[25] < Duration::from_millis(20),
        "median {:?}",
        times[25]
    );
}

#[test]
fn descriptors_travel_over_a_socket() {
    let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
    let secret = sandbox::descriptors::sealed_memfd("key", b"0123").unwrap();
    sandbox::descriptors::send_with(left.as_fd(), b"frame", &[secret.as_fd()]).unwrap();
    let (mut buffer, mut fds) = ([0; 16], Vec::new());
    let count = sandbox::descriptors::receive_with(right.as_fd(), &mut buffer, &mut fds).unwrap();
    assert_eq!((&buffer[..count], fds.len()), (&b"frame"[..], 1));
    let mut text = String::new();
    std::fs::File::from(fds.remove(0))
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "0123");
    assert!(rustix::io::write(&secret, b"x").is_err(), "sealed");
    assert_eq!(sandbox::peer::of(&right).unwrap().pid, std::process::id());
}
