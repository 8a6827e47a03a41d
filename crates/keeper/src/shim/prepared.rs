//! A spec made ready to start children from: everything that can be done before a crash is.
//!
//! Between a crash and the next start only the environment's few changing entries are put together.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use contract::shim::Spec;
use sandbox::spawn::Launch;

use super::process::Who;

/// Variables that carry the one token.
const TOKEN_NAMES: [&str; 3] = ["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "MAINSTAY_TOKEN"];

#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) spec: Spec,
    pub(crate) launch: Launch,
    /// Directories to remove when there is time.
    trash: Vec<PathBuf>,
    trash_count: u64,
    /// What the user can't use of what the command names, in sentences.
    pub(crate) out_of_reach: Vec<String>,
    /// What the last start put in force: user, Landlock.
    pub(crate) enforced: Option<(bool, bool)>,
}

impl Prepared {
    pub(crate) fn new(spec: Spec) -> io::Result<Self> {
        let user = spec.uid.zip(spec.gid);
        let paths = |list: &[String]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mounts = match user {
            // Without it the start says which program or directory can't be reached.
            Some(user) => sandbox::reach::view(&paths(&spec.reach), user).unwrap_or_else(|error| {
                tracing::warn!(%error, "closed directories can't be bridged for the agent's user");
                None
            }),
            None => None,
        };
        let ruleset = if spec.read.is_empty() && spec.write.is_empty() {
            None
        } else {
            sandbox::confine::ruleset(&paths(&spec.read), &paths(&spec.write))?
        };
        let launch = Launch {
            programs: programs(&spec)?,
            arguments: spec
                .command
                .iter()
                .map(|argument| Ok(CString::new(argument.as_str())?))
                .collect::<io::Result<_>>()?,
            current_dir: c_path(Path::new(&spec.current_dir))?,
            user,
            ruleset,
            mounts,
            no_new_privileges: true,
            umask: 0o022,
        };
        let mounts = launch.mounts.as_ref().map(std::os::fd::AsFd::as_fd);
        let out_of_reach = crate::reach::complaints(&spec, mounts);
        let prepared = Self {
            spec,
            launch,
            out_of_reach,
            trash: Vec::new(),
            trash_count: 0,
            enforced: None,
        };
        prepared.make_scratch(0)?;
        Ok(prepared)
    }

    pub(crate) fn enforced(&mut self, user: bool, landlock: bool) {
        self.enforced = Some((user, landlock));
    }

    fn scratch(&self, slot: u32) -> [PathBuf; 2] {
        let at = |directory: &str| match slot {
            0 => PathBuf::from(directory),
            slot => PathBuf::from(format!("{directory}-{slot}")),
        };
        [at(&self.spec.home), at(&self.spec.tmp)]
    }

    /// An environment entry that only processes of this instance have.
    pub(crate) fn home_entry(&self, slot: u32) -> String {
        format!("TMPDIR={}", self.scratch(slot)[1].display())
    }

    fn make_scratch(&self, slot: u32) -> io::Result<()> {
        for directory in self.scratch(slot) {
            match std::fs::create_dir(&directory) {
                Ok(()) => own(&directory, self.spec.uid, self.spec.gid)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sees to it that home and temporary directory exist, and are empty if they should be.
    pub(crate) fn fresh_scratch(&mut self, slot: u32) -> io::Result<()> {
        if self.spec.fresh_scratch {
            for directory in self.scratch(slot) {
                let used =
                    std::fs::read_dir(&directory).is_ok_and(|mut entries| entries.next().is_some());
                if used {
                    self.trash_count += 1;
                    let name = format!(".trash-{}-{}", std::process::id(), self.trash_count);
                    let aside = directory.with_file_name(name);
                    std::fs::rename(&directory, &aside)?;
                    self.trash.push(aside);
                }
            }
        }
        self.make_scratch(slot)
    }

    pub(crate) fn take_trash(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.trash)
    }

    /// The child's whole environment.
    pub(crate) fn environment(&self, who: &Who<'_>) -> io::Result<Vec<CString>> {
        let mut entries: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in who.hub_env {
            if name.starts_with("MAINSTAY_") || self.spec.hub_env.contains(name) {
                entries.insert(name, value.clone());
            }
        }
        for (name, value) in &self.spec.env {
            entries.insert(name, value.clone());
        }
        let [home, tmp] = self.scratch(who.slot);
        entries.insert("HOME", home.display().to_string());
        entries.insert("TMPDIR", tmp.display().to_string());
        if let Some(token) = who.token {
            for name in TOKEN_NAMES {
                entries.insert(name, token.to_owned());
            }
        }
        if who.says_ready {
            entries.insert("MAINSTAY_READY_FD", "3".to_owned());
        }
        entries
            .into_iter()
            .map(|(name, value)| Ok(CString::new(format!("{name}={value}"))?))
            .collect()
    }
}

/// Gives a directory to the child's user, for itself alone.
fn own(directory: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))?;
    if uid.is_some() {
        std::os::unix::fs::lchown(directory, uid, gid)?;
    }
    Ok(())
}

/// The paths to try: the one written, or the name in each directory of the child's PATH.
fn programs(spec: &Spec) -> io::Result<Vec<CString>> {
    let program = spec
        .command
        .first()
        .ok_or_else(|| io::Error::other("the command is empty"))?;
    if program.contains('/') {
        return Ok(vec![c_path(Path::new(program))?]);
    }
    let path = spec.env.get("PATH").map_or("/usr/bin:/bin", String::as_str);
    let mut seen = BTreeSet::new();
    path.split(':')
        .filter(|directory| directory.starts_with('/') && seen.insert(*directory))
        .map(|directory| c_path(&Path::new(directory).join(program)))
        .collect()
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
