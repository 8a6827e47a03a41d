//! What a command needs to find on this machine: the files it names, and what belongs to them.
//!
//! Agents run as users of their own, often below a home that only root may enter. What is listed
//! here is made reachable for them where it lies; what stays out of their reach all the same is
//! told in a sentence. The agent's own `source` is a copy and needs none of this.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use contract::shim::Spec;
use sandbox::reach::{Barred, Use};

/// Links followed from one file; more are a loop.
const MAX_LINKS: usize = 40;

/// Files and directories that a command's user has to reach: those of its PATH, and what the
/// command names with what that needs beside it.
pub(crate) fn wanted(command: &[String], path: &str, current_dir: &Path) -> BTreeSet<PathBuf> {
    let directories = directories(path);
    let mut wanted: BTreeSet<PathBuf> = directories
        .iter()
        .flat_map(|directory| installation(directory))
        .collect();
    for file in named(command, &directories, current_dir) {
        wanted.extend(file.parent().into_iter().flat_map(installation));
        wanted.extend(around(&file));
    }
    if let Some(program) = program(command, &directories, current_dir) {
        wanted.extend(interpreter(&program).iter().flat_map(|file| around(file)));
    }
    wanted
}

/// What the user of this spec can't use of what its command and variables name, in sentences;
/// first what its program needs.
pub(crate) fn complaints(spec: &Spec, mounts: Option<BorrowedFd<'_>>) -> Vec<String> {
    let Some(user) = spec.uid.zip(spec.gid) else {
        return Vec::new();
    };
    let questions = questions(spec);
    match sandbox::reach::barred(&questions, user, mounts) {
        Ok(mut barred) => {
            // One for each obstacle: the links of a program all end at the same one.
            let mut seen = BTreeSet::new();
            barred.retain(|barred| seen.insert(barred.by.clone()));
            let told = barred.iter().map(|barred| sentence(barred, user.0));
            told.collect()
        }
        Err(error) => {
            tracing::warn!(%error, "cannot ask what the agent's user can reach");
            Vec::new()
        }
    }
}

fn questions(spec: &Spec) -> Vec<(PathBuf, Use)> {
    let directories = directories(spec.env.get("PATH").map_or("", String::as_str));
    let current_dir = Path::new(&spec.current_dir);
    let program = program(&spec.command, &directories, current_dir);
    let interpreter = program.as_deref().and_then(interpreter);
    let run = program.into_iter().chain(interpreter);
    let run = run.flat_map(|file| links(&file)).collect::<Vec<_>>();
    let mut questions: Vec<(PathBuf, Use)> =
        run.into_iter().map(|file| (file, Use::Execute)).collect();
    let arguments = spec.command.get(1..).unwrap_or_default();
    let read = named(arguments, &[], current_dir).into_iter();
    for path in read.chain(in_variables(&spec.env)) {
        let what = if path.is_dir() {
            Use::Execute
        } else {
            Use::Read
        };
        questions.push((path, what));
    }
    questions
}

fn sentence(barred: &Barred, uid: u32) -> String {
    let (path, by) = (barred.path.display(), barred.by.display());
    let mode = std::fs::metadata(&barred.by).map_or(0, |found| found.permissions().mode() & 0o7777);
    let reason = match barred.path == barred.by {
        true => format!("its mode is {mode:04o}"),
        false => format!("{by} is closed to it (mode {mode:04o})"),
    };
    let open = match barred.by.is_dir() {
        true => format!("or outside of {by}, or open that directory (chmod o+x {by})"),
        false => format!("or change its mode (chmod o+rx {by})"),
    };
    format!(
        "{path} can't be used by the agent's user {uid}: {reason}; put what the agent needs into its `source`, {open}"
    )
}

fn directories(path: &str) -> Vec<PathBuf> {
    let absolute = path.split(':').filter(|part| part.starts_with('/'));
    absolute.map(PathBuf::from).collect()
}

/// The program's file, as a start will find it.
fn program(command: &[String], directories: &[PathBuf], current_dir: &Path) -> Option<PathBuf> {
    named(command.get(..1)?, directories, current_dir)
        .into_iter()
        .next()
}

/// Existing paths that arguments name: whole, as a name in one of the directories, or within
/// (`--config=/etc/x`, `sh -c '/opt/tool …'`).
fn named(arguments: &[String], directories: &[PathBuf], current_dir: &Path) -> Vec<PathBuf> {
    let mut named = Vec::new();
    for argument in arguments {
        let whole = match argument.contains('/') {
            true => Some(current_dir.join(argument)).filter(|path| path.exists()),
            false => directories
                .iter()
                .map(|directory| directory.join(argument))
                .find(|candidate| candidate.is_file()),
        };
        match whole {
            Some(file) => named.push(file),
            None => named.extend(absolute_parts(argument)),
        }
    }
    named
}

fn absolute_parts(text: &str) -> impl Iterator<Item = PathBuf> {
    let ends = |c: char| c.is_whitespace() || "'\"=;:|&<>(),`".contains(c);
    text.split(ends)
        .filter(|part| part.starts_with('/') && part.len() > 1)
        .map(PathBuf::from)
        .filter(|path| path.exists())
}

/// Paths in variables; those of PATH may be missing, and are looked up one by one.
fn in_variables(env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let others = env.iter().filter(|(name, _)| *name != "PATH");
    others
        .filter(|(_, value)| value.starts_with('/'))
        .flat_map(|(_, value)| absolute_parts(value))
        .collect()
}

/// A file, each link from it on, and where they end.
fn links(file: &Path) -> Vec<PathBuf> {
    let mut found = vec![file.to_owned()];
    let mut at = file.to_owned();
    while found.len() < MAX_LINKS
        && let Ok(target) = std::fs::read_link(&at)
    {
        at = at.parent().unwrap_or(Path::new("/")).join(target);
        found.push(at.clone());
    }
    found.extend(file.canonicalize().ok());
    found.dedup();
    found
}

/// What a file needs beside it: each of its links, and the installation where they end.
fn around(file: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for link in links(file) {
        let in_installation = link.parent().filter(|parent| is_of_programs(parent));
        found.extend(in_installation.into_iter().flat_map(installation));
        found.push(link);
    }
    found
}

/// What the first line of an executable script names. A name that `env` looks up is in PATH.
fn interpreter(script: &Path) -> Option<PathBuf> {
    use std::io::Read as _;
    let mut line = Vec::new();
    let file = crate::state::open_file(script).ok()?;
    file.take(256).read_to_end(&mut line).ok()?;
    let line = line
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let name = std::str::from_utf8(line).ok()?.split_whitespace().next()?;
    let path = PathBuf::from(name);
    let found = std::fs::metadata(&path).ok()?;
    (path.is_absolute() && found.permissions().mode() & 0o111 != 0).then_some(path)
}

fn is_of_programs(directory: &Path) -> bool {
    let name = directory.file_name().unwrap_or_default();
    name == "bin" || name == "shims"
}

/// The directories that programs in a `bin` directory need: the whole virtual environment or
/// version manager, else the libraries beside it.
fn installation(directory: &Path) -> Vec<PathBuf> {
    let Some(prefix) = directory.parent().filter(|_| is_of_programs(directory)) else {
        return vec![directory.to_owned()];
    };
    if directory.ends_with("shims") || prefix.join("pyvenv.cfg").exists() {
        return vec![prefix.to_owned()];
    }
    ["bin", "lib", "lib64", "libexec", "include"]
        .iter()
        .map(|part| prefix.join(part))
        .filter(|path| path.is_dir())
        .collect()
}
