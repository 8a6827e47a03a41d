//! What the agents' volumes hold, beside what their manifests mean them to hold.
//!
//! A size is nothing that is enforced yet, so `doctor` is where too much shows. An agent fills its
//! volume as it likes: links are not followed, and counting stops at a number of entries.

use std::path::{Path, PathBuf};

use api::fleet::Agent;

use super::Finding;

/// Entries that are looked at per volume.
const MAX_ENTRIES: usize = 1_000_000;
const HINT: &str = "remove what is not needed, or write a larger `volume.size`: it is not enforced";

/// One finding per volume that has a size and is there.
pub(super) fn look(state: &Path, agents: &[&Agent]) -> Vec<Finding> {
    let volumes = crate::place::workspace_dir(state).join("volumes");
    let mut findings = Vec::new();
    for agent in agents {
        let Some(size) = agent.volume.as_ref().and_then(|volume| volume.size_bytes) else {
            continue;
        };
        for index in 0..agent.replicas {
            let instance = format!("{}-{index}", agent.name);
            let directory = volumes.join(&instance);
            if directory.exists() {
                findings.push(one(&format!("volume {instance}"), directory, size));
            }
        }
    }
    findings
}

fn one(check: &str, directory: PathBuf, size: u64) -> Finding {
    match held(directory, MAX_ENTRIES) {
        Ok(bytes) if bytes > size => Finding::warn(
            check,
            format!("holds {}, meant for {}", mib(bytes), mib(size)),
            HINT,
        ),
        Ok(bytes) => Finding::ok(check, format!("holds {} of {}", mib(bytes), mib(size))),
        Err(error) => Finding::warn(
            check,
            format!("can't be measured: {error}"),
            "call as root or as the user that runs `mainstay up`",
        ),
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// The lengths of all files under it, as far as the first so many entries.
fn held(directory: PathBuf, mut entries_left: usize) -> std::io::Result<u64> {
    let mut bytes: u64 = 0;
    let mut open = vec![directory];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory)? {
            let Some(left) = entries_left.checked_sub(1) else {
                return Err(std::io::Error::other("it has too many files"));
            };
            entries_left = left;
            let entry = entry?;
            // Of the entry itself: a link counts for its own length and leads nowhere.
            let about = match entry.metadata() {
                Ok(about) => about,
                // The agent may be at work.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if about.is_dir() {
                open.push(entry.path());
            } else {
                bytes = bytes.saturating_add(about.len());
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_measured_without_following_links() {
        let home = tempfile::tempdir().unwrap();
        let outside = home.path().join("outside");
        std::fs::write(&outside, vec![0; 5 << 20]).unwrap();
        let volume = home.path().join("volume");
        std::fs::create_dir_all(volume.join("deep/er")).unwrap();
        std::fs::write(volume.join("deep/er/file"), vec![0; 3 << 20]).unwrap();
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        std::os::unix::fs::symlink(home.path(), volume.join("up")).unwrap();
        let bytes = held(volume.clone(), 10).unwrap();
        assert!((3 << 20..4 << 20).contains(&bytes), "{bytes}");
        assert!(held(volume.clone(), 4).is_err());
        assert_eq!(one("v", volume.clone(), 2 << 20).state, "warn");
        assert_eq!(one("v", volume, 4 << 20).state, "ok");
    }
}
