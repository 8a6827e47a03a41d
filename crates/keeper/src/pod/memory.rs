//! How full the container's memory is, by its own cgroup: what the hub scales by.
//!
//! Counted as the kubelet and autoscalers do: without the files that the kernel would give up first.
//! It's told in steps, because whoever is told opens connections to say it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where a container sees its own cgroup.
const CGROUP: &str = "/sys/fs/cgroup";
const PACE: Duration = Duration::from_secs(10);
/// Less than this, in percent of the limit, is no news.
const STEP: u8 = 5;

/// What is looked at now and then.
#[derive(Debug)]
pub(super) struct Memory {
    cgroup: PathBuf,
    due: Instant,
    told: Option<u8>,
}

impl Memory {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            cgroup: PathBuf::from(CGROUP),
            due: now + PACE,
            told: None,
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// The percentage of the limit in use, when it is due and news.
    pub(super) fn news(&mut self, now: Instant) -> Option<u8> {
        if now < self.due {
            return None;
        }
        self.due = now + PACE;
        let percent = percent(&self.cgroup)?;
        let is_news = self.told.is_none_or(|told| told.abs_diff(percent) >= STEP);
        self.told = is_news.then_some(percent).or(self.told);
        is_news.then_some(percent)
    }
}

/// Nothing without a limit.
fn percent(cgroup: &Path) -> Option<u8> {
    let (used, limit, cache) = version_2(cgroup).or_else(|| version_1(&cgroup.join("memory")))?;
    let used = used.saturating_sub(cache).min(limit);
    u8::try_from(used * 100 / limit.max(1)).ok()
}

fn version_2(cgroup: &Path) -> Option<(u64, u64, u64)> {
    Some((
        number(cgroup, "memory.current")?,
        number(cgroup, "memory.max")?,
        cache(cgroup, "inactive_file")?,
    ))
}

fn version_1(cgroup: &Path) -> Option<(u64, u64, u64)> {
    /// The first version has no word for no limit, but its largest number.
    const NO_LIMIT: u64 = 1 << 60;
    let limit = number(cgroup, "memory.limit_in_bytes")?;
    Some((
        number(cgroup, "memory.usage_in_bytes")?,
        Some(limit).filter(|limit| *limit < NO_LIMIT)?,
        cache(cgroup, "total_inactive_file")?,
    ))
}

fn number(cgroup: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(cgroup.join(file))
        .ok()?
        .trim()
        .parse()
        .ok()
}

fn cache(cgroup: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(cgroup.join("memory.stat")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroup(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn check(files: &[(&str, &str)], expected: Option<u8>) {
        assert_eq!(percent(cgroup(files).path()), expected, "{files:?}");
    }

    #[test]
    fn what_the_kernel_would_give_up_is_not_in_use() {
        let second = |limit| {
            [
                ("memory.current", "900\n"),
                ("memory.max", limit),
                (
                    "memory.stat",
                    "anon 700\ninactive_file 200\nactive_file 0\n",
                ),
            ]
        };
        check(&second("1000\n"), Some(70));
        check(&second("max\n"), None);
        let first = |limit| {
            [
                ("memory/memory.usage_in_bytes", "900\n"),
                ("memory/memory.limit_in_bytes", limit),
                (
                    "memory/memory.stat",
                    "inactive_file 1\ntotal_inactive_file 200\n",
                ),
            ]
        };
        check(&first("1000\n"), Some(70));
        check(&first("9223372036854771712\n"), None);
        check(&[], None);
    }

    #[test]
    fn only_a_step_is_news() {
        let dir = cgroup(&[("memory.max", "100"), ("memory.stat", "inactive_file 0\n")]);
        let start = Instant::now();
        let mut memory = Memory {
            cgroup: dir.path().to_owned(),
            ..Memory::new(start)
        };
        let mut at = |used: &str, seconds| {
            fs::write(dir.path().join("memory.current"), used).unwrap();
            memory.news(start + Duration::from_secs(seconds))
        };
        assert_eq!(at("50", 1), None, "it isn't due");
        assert_eq!(at("50", 10), Some(50));
        assert_eq!(at("54", 20), None);
        assert_eq!(at("55", 30), Some(55));
        assert_eq!(at("40", 31), None, "it isn't due");
        assert_eq!(at("40", 40), Some(40));
    }
}
