//! Did the kernel kill for want of memory? Evidence after the fact, for the restart class.
//!
//! A process killed by SIGKILL looks the same whoever sent it; these counters tell.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

/// More than either file holds.
const BUFFER_BYTES: usize = 32 * 1024;

/// The files with the counters, held open: they are read between a crash and the next start.
#[derive(Debug, Default)]
pub struct OomWatch {
    machine: Option<File>,
    cgroup: Option<File>,
    buffer: Vec<u8>,
}

impl OomWatch {
    /// Opens what there is. This process is not moved to another cgroup later.
    #[must_use]
    pub fn open() -> Self {
        Self {
            machine: File::open("/proc/vmstat").ok(),
            cgroup: own_cgroup_file().and_then(|path| File::open(path).ok()),
            buffer: vec![0; BUFFER_BYTES],
        }
    }

    /// Reads the counters now; what can't be read counts as zero.
    pub fn read(&mut self) -> OomCounters {
        let Self {
            machine,
            cgroup,
            buffer,
        } = self;
        let mut read = |file: &Option<File>| file.as_ref().and_then(|file| counter(file, buffer));
        OomCounters {
            machine: read(machine).unwrap_or(0),
            cgroup: read(cgroup).unwrap_or(0),
        }
    }
}

/// Counters to compare before and after a death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomCounters {
    /// `oom_kill` of `/proc/vmstat`: the whole machine.
    pub machine: u64,
    /// `oom_kill` of this process's own memory cgroup, v2 or v1, where there is one.
    pub cgroup: u64,
}

impl OomCounters {
    /// Whether an out-of-memory kill happened since an earlier reading.
    #[must_use]
    pub fn rose_since(self, earlier: Self) -> bool {
        self.machine > earlier.machine || self.cgroup > earlier.cgroup
    }
}

/// These files are made anew by each read from their start, which gives all of them or an end.
fn counter(file: &File, buffer: &mut [u8]) -> Option<u64> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], filled as u64).ok()? {
            0 => break,
            count => filled += count,
        }
        if let Some(found) = find(std::str::from_utf8(&buffer[..filled]).ok()?, "oom_kill") {
            return Some(found);
        }
    }
    None
}

fn find(text: &str, name: &str) -> Option<u64> {
    // A last line without its end may go on in the next read.
    text.split_inclusive('\n').find_map(|line| {
        let (key, value) = line.strip_suffix('\n')?.split_once(' ')?;
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
