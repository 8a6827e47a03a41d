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

    /// Reads the counters now; a machine's that can't be read counts as zero.
    pub fn read(&mut self) -> OomCounters {
        let Self {
            machine,
            cgroup,
            buffer,
        } = self;
        let mut read = |file: &Option<File>| file.as_ref().and_then(|file| counter(file, buffer));
        OomCounters {
            machine: read(machine).unwrap_or(0),
            cgroup: read(cgroup),
        }
    }
}

/// Counters to compare before and after a death.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomCounters {
    /// `oom_kill` of `/proc/vmstat`: the whole machine.
    pub machine: u64,
    /// `oom_kill` of this process's own memory cgroup, v2 or v1, where there is one.
    pub cgroup: Option<u64>,
}

impl OomCounters {
    /// Whether an out-of-memory kill of ours happened since an earlier reading. The group's counter
    /// counts every kill in it, whatever ran out; the machine's counts other people's too, and
    /// stands in where there is no other.
    #[must_use]
    pub fn rose_since(self, earlier: Self) -> bool {
        match self.cgroup.zip(earlier.cgroup) {
            Some((now, before)) => now > before,
            None => self.machine > earlier.machine,
        }
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
    let candidates = groups.lines().flat_map(counters_of);
    candidates
        .into_iter()
        .find(|file| std::path::Path::new(file).exists())
}

/// Where the counters of a line of `/proc/self/cgroup` may be. In a container the line names the
/// group as the machine sees it, while the group's own files are what is mounted there.
fn counters_of(line: &str) -> Vec<String> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (mounted, file) = if controllers.split(',').any(|name| name == "memory") {
        ("/sys/fs/cgroup/memory", "memory.oom_control")
    } else if controllers.is_empty() {
        ("/sys/fs/cgroup", "memory.events")
    } else {
        return Vec::new();
    };
    let path = path.trim_end_matches('/');
    vec![
        format!("{mounted}{path}/{file}"),
        format!("{mounted}/{file}"),
    ]
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
    fn the_counter_of_the_group_outweighs_the_machines() {
        let counters = |machine, cgroup| OomCounters { machine, cgroup };
        let before = counters(1, Some(0));
        assert!(counters(1, Some(1)).rose_since(before));
        assert!(!counters(2, Some(0)).rose_since(before), "somebody else's");
        assert!(counters(2, None).rose_since(counters(1, None)));
        assert!(!counters(1, None).rose_since(counters(1, None)));
    }

    #[test]
    fn a_container_finds_its_group_where_it_is_mounted() {
        let check = |line, expected: &[&str]| assert_eq!(counters_of(line), expected, "{line}");
        check(
            "4:memory:/kubepods/pod1/c1",
            &[
                "/sys/fs/cgroup/memory/kubepods/pod1/c1/memory.oom_control",
                "/sys/fs/cgroup/memory/memory.oom_control",
            ],
        );
        check(
            "0::/",
            &[
                "/sys/fs/cgroup/memory.events",
                "/sys/fs/cgroup/memory.events",
            ],
        );
        check("3:cpuset:/kubepods", &[]);
    }
}
