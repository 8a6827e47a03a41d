//! Did the kernel kill for want of memory? Evidence after the fact, for the restart class.
//!
//! A process killed by SIGKILL looks the same whoever sent it; these counters tell.

/// Counters to compare before and after a death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomCounters {
    /// `oom_kill` of `/proc/vmstat`: the whole machine.
    pub machine: u64,
    /// `oom_kill` of this process's own memory cgroup, v2 or v1, where there is one.
    pub cgroup: u64,
}

impl OomCounters {
    /// Reads the counters now; what can't be read counts as zero.
    #[must_use]
    pub fn read() -> Self {
        Self {
            machine: counter("/proc/vmstat", "oom_kill").unwrap_or(0),
            cgroup: OWN_CGROUP_FILE
                .get_or_init(own_cgroup_file)
                .as_ref()
                .and_then(|path| counter(path, "oom_kill"))
                .unwrap_or(0),
        }
    }

    /// Whether an out-of-memory kill happened since an earlier reading.
    #[must_use]
    pub fn rose_since(self, earlier: Self) -> bool {
        self.machine > earlier.machine || self.cgroup > earlier.cgroup
    }
}

/// A process is not moved to another cgroup after its start here.
static OWN_CGROUP_FILE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();

/// Read with one large buffer: this lies between a crash and the next start.
fn counter(path: &str, name: &str) -> Option<u64> {
    let mut file = std::fs::File::open(path).ok()?;
    let mut buffer = vec![0; 32 * 1024];
    let mut filled = 0;
    while filled < buffer.len() {
        match std::io::Read::read(&mut file, &mut buffer[filled..]).ok()? {
            0 => break,
            count => filled += count,
        }
    }
    find(std::str::from_utf8(&buffer[..filled]).ok()?, name)
}

fn find(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

fn own_cgroup_file() -> Option<String> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let file = if controllers.split(',').any(|name| name == "memory") {
            format!("/sys/fs/cgroup/memory{path}/memory.oom_control")
        } else if controllers.is_empty() {
            format!("/sys/fs/cgroup{path}/memory.events")
        } else {
            return None;
        };
        std::path::Path::new(&file).exists().then_some(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(find(text, "oom_kill"), Some(3));
        assert_eq!(find(text, "oom"), None);
    }

    #[test]
    fn a_rise_of_either_counter_is_an_event() {
        let before = OomCounters {
            machine: 1,
            cgroup: 0,
        };
        assert!(
            OomCounters {
                machine: 2,
                cgroup: 0
            }
            .rose_since(before)
        );
        assert!(
            OomCounters {
                machine: 1,
                cgroup: 1
            }
            .rose_since(before)
        );
        assert!(!before.rose_since(before));
    }
}
