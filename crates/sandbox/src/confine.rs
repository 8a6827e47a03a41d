//! Landlock: the files a child may touch, prepared once and entered at each start.
//!
//! Best effort on purpose: a kernel without Landlock gives `None`, and the caller says so where
//! people look. The child reports whether the rules really came into force.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

const NEWEST_USED: ABI = ABI::V6;

/// Rules that allow reading and executing below `read`, everything below `write`, and signals
/// only within the child's own family. Paths that don't exist are skipped.
pub fn ruleset(read: &[PathBuf], write: &[PathBuf]) -> io::Result<Option<OwnedFd>> {
    let all = AccessFs::from_all(NEWEST_USED);
    let mut created = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|ruleset| ruleset.scope(Scope::Signal | Scope::AbstractUnixSocket))
        .and_then(Ruleset::create)
        .map_err(io::Error::other)?;
    let only_read = AccessFs::from_read(NEWEST_USED);
    let rules = read.iter().map(|path| (path, only_read));
    for (path, access) in rules.chain(write.iter().map(|path| (path, all))) {
        let Ok(opened) = PathFd::new(path) else {
            continue;
        };
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(NEWEST_USED)
        };
        created = created
            .add_rule(PathBeneath::new(opened, access))
            .map_err(io::Error::other)?;
    }
    Ok(created.into())
}

/// Every path that together covers the machine's files but for `hidden` and, of its ancestors,
/// what is created beside the path later. Landlock can only allow, so hiding is allowing the rest.
#[must_use]
pub fn all_but(hidden: &Path) -> Vec<PathBuf> {
    let mut allowed = Vec::new();
    let mut at = PathBuf::from("/");
    for component in hidden.components().skip(1) {
        let kept = at.join(component);
        let entries = std::fs::read_dir(&at).into_iter().flatten().flatten();
        allowed.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| *path != kept && !path.is_symlink()),
        );
        at = kept;
    }
    allowed.sort();
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_but_the_hidden_path_is_allowed() {
        let root = std::env::temp_dir().join(format!("all-but-{}", std::process::id()));
        std::fs::create_dir_all(root.join("state/run")).unwrap();
        std::fs::create_dir_all(root.join("code")).unwrap();
        let root = root.canonicalize().unwrap();
        let allowed = all_but(&root.join("state"));
        assert!(allowed.contains(&root.join("code")));
        assert!(
            !allowed
                .iter()
                .any(|path| root.join("state").starts_with(path))
        );
        assert!(allowed.contains(&PathBuf::from("/usr")));
        std::fs::remove_dir_all(root).unwrap();
    }
}
