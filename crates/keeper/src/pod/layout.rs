//! Where everything of ours lies in a pod, below one directory.
//!
//! `bin`, `ca`, `source` and `token` are mounted; `state` is this process's to fill. Agent and shim have one
//! user here, so modes keep nothing apart: Landlock does, where the kernel has it.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use contract::pod::{PROGRAM, SHIM_SOCKET, SOURCE_DIR, STATE_DIR, below};

use super::{PodError, at};

#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) root: PathBuf,
    /// The directory of this program's copy.
    pub(super) bin: PathBuf,
    /// Where the agent's code lies, if it has any.
    pub(super) source: PathBuf,
    pub(super) socket: PathBuf,
    pub(super) spool: PathBuf,
    pub(super) logs: PathBuf,
    /// The agent's home and temporary directory lie in it.
    pub(super) scratch: PathBuf,
}

impl Layout {
    /// Makes what is missing. A container that was restarted finds what the one before left.
    pub(super) fn prepare(root: &Path) -> Result<Self, PodError> {
        let state = below(root, STATE_DIR);
        let run = state.join("run");
        let program = below(root, PROGRAM);
        let layout = Self {
            root: root.to_owned(),
            bin: program.parent().unwrap_or(&program).to_owned(),
            source: below(root, SOURCE_DIR),
            socket: below(root, SHIM_SOCKET),
            spool: run.join("agent.spool"),
            logs: state.join("logs"),
            scratch: run.join("home"),
        };
        for directory in [&layout.logs, &layout.scratch] {
            make(directory).map_err(at("make the pod's directories"))?;
        }
        Ok(layout)
    }
}

fn make(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(directory)
}
