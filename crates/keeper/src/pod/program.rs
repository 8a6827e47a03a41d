//! Whether the image has the program at all, asked before anything is started.
//!
//! An agent of tasks starts nothing until there is one: without this a wrong command would look like a
//! healthy pod until then.

use std::path::Path;

use contract::shim::Spec;
use rustix::fs::{Access, FileType};

use super::PodError;

pub(super) fn check(spec: &Spec) -> Result<(), PodError> {
    let program = spec.command.first().map_or("", String::as_str);
    let path = spec.env.get("PATH").map_or("", String::as_str);
    let found = match program.contains('/') {
        true => runs(&Path::new(&spec.current_dir).join(program)),
        false => path.split(':').any(|at| runs(&Path::new(at).join(program))),
    };
    match found {
        true => Ok(()),
        false => Err(PodError::NoProgram {
            program: program.to_owned(),
            place: match program.contains('/') {
                true => format!("from {}", spec.current_dir),
                false => format!("in PATH, {path}"),
            },
        }),
    }
}

fn runs(file: &Path) -> bool {
    let is_file = rustix::fs::stat(file)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    is_file && rustix::fs::access(file, Access::EXEC_OK).is_ok()
}
