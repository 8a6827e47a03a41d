//! Asks the kernel, as the user and in its view, whether paths can be used; and says what bars.
//!
//! Modes alone don't tell: access lists, mounts and the view itself count too. A helper child
//! becomes the user and asks; by its effective ids alone, so that the user's processes can't stop
//! or end it.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::{c_path, first_closed, namespace};

/// A manifest may name any number of paths, and each that is barred costs a helper of its own.
const MOST: usize = 256;

/// What a path is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    Read,
    Execute,
}

/// A path that is there and that the user can't use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barred {
    pub path: PathBuf,
    /// The directory that shuts the user out, or the path itself if its own mode does.
    pub by: PathBuf,
}

/// Which of these paths exist and can't be used so by this user within `mounts`. Needs root.
pub fn barred(
    wanted: &[(PathBuf, Use)],
    user: (u32, u32),
    mounts: Option<BorrowedFd<'_>>,
) -> io::Result<Vec<Barred>> {
    let mut known = BTreeSet::new();
    let there: Vec<&(PathBuf, Use)> = wanted
        .iter()
        .filter(|(path, _)| known.insert(path) && path.exists())
        .take(MOST)
        .collect();
    if there.is_empty() {
        return Ok(Vec::new());
    }
    let questions: Vec<Question> = there
        .iter()
        .map(|(path, what)| question(path, *what))
        .collect::<io::Result<_>>()?;
    let answers = ask(&questions, user, mounts)?;
    let refused = there.iter().zip(answers).filter(|(_, errno)| *errno != 0);
    refused
        .map(|((path, _), _)| {
            Ok(Barred {
                path: path.clone(),
                by: barrier(path, user, mounts)?,
            })
        })
        .collect()
}

type Question = (CString, libc::c_int);

fn question(path: &Path, what: Use) -> io::Result<Question> {
    let mode = match what {
        Use::Read => libc::R_OK,
        Use::Execute => libc::X_OK,
    };
    Ok((c_path(path)?, mode))
}

/// What to name: the first directory that can't be entered, on the way as written or behind links;
/// else the path itself.
fn barrier(path: &Path, user: (u32, u32), mounts: Option<BorrowedFd<'_>>) -> io::Result<PathBuf> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut way: Vec<&Path> = Vec::new();
    for path in [path, &real] {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        way.extend(above);
    }
    way.push(&real);
    let questions: Vec<Question> = way
        .iter()
        .map(|path| question(path, Use::Execute))
        .collect::<io::Result<_>>()?;
    let answers = ask(&questions, user, mounts)?;
    let mut refused = way.iter().zip(answers).filter(|(_, errno)| *errno != 0);
    Ok(match refused.next() {
        // It is there, but not in the view: what stands in for a closed directory leaves it out.
        Some((at, libc::ENOENT)) => first_closed(at, user).unwrap_or_else(|| at.to_path_buf()),
        Some((at, _)) => at.to_path_buf(),
        None => real,
    })
}

/// One answer for each question: the error it meets, or 0.
fn ask(
    questions: &[Question],
    (uid, gid): (u32, u32),
    mounts: Option<BorrowedFd<'_>>,
) -> io::Result<Vec<i32>> {
    let (reader, writer) = namespace::pipe()?;
    // SAFETY: the child calls nothing but system calls on memory prepared before the fork and
    // leaves by `_exit`. The raw uid calls change this helper's one thread, which is all it has.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // SAFETY: as above.
        unsafe {
            let entered =
                mounts.is_none_or(|mounts| libc::setns(mounts.as_raw_fd(), libc::CLONE_NEWNS) == 0);
            let became = entered
                && libc::syscall(libc::SYS_setgroups, 0usize, std::ptr::null::<libc::gid_t>()) == 0
                && libc::syscall(libc::SYS_setresgid, -1, gid, -1) == 0
                && libc::syscall(libc::SYS_setresuid, -1, uid, -1) == 0;
            for (path, mode) in questions.iter().take(if became { usize::MAX } else { 0 }) {
                let errno =
                    match libc::faccessat(libc::AT_FDCWD, path.as_ptr(), *mode, libc::AT_EACCESS) {
                        0 => 0,
                        _ => *libc::__errno_location(),
                    };
                let answer = [u8::try_from(errno).unwrap_or(u8::MAX)];
                libc::write(writer.as_raw_fd(), answer.as_ptr().cast(), 1);
            }
            libc::_exit(0)
        }
    }
    drop(writer);
    let mut answers = Vec::new();
    let read = io::Read::read_to_end(&mut std::fs::File::from(reader), &mut answers);
    let _code = crate::process::reap(pid.unsigned_abs());
    read?;
    if answers.len() != questions.len() {
        return Err(io::Error::other("the helper could not become the user"));
    }
    Ok(answers.into_iter().map(i32::from).collect())
}
