//! This program's copy for the pod, made by its init container: the agent's image has none.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{PodError, at};

/// Copies the running program to a path, for everybody to run; whole or not at all.
pub fn copy_program(to: &Path) -> Result<(), PodError> {
    let mut aside = to.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = Path::new(&aside);
    let copied = write(aside).and_then(|()| std::fs::rename(aside, to));
    copied.map_err(|error| {
        let _never_made = std::fs::remove_file(aside);
        at("copy this program")(error)
    })
}

fn write(path: &Path) -> io::Result<()> {
    let mut program = File::open("/proc/self/exe")?;
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(path)?;
    io::copy(&mut program, &mut file)?;
    // Whatever this process's umask is.
    file.set_permissions(Permissions::from_mode(0o755))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_this_program_and_may_be_run_by_everybody() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("mainstay");
        std::fs::write(&to, "an older one").unwrap();
        copy_program(&to).unwrap();
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(std::fs::read(&to).unwrap() == own);
        assert_eq!(
            std::fs::metadata(&to).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(copy_program(&directory.path().join("none/mainstay")).is_err());
    }
}
