//! Pages of the program's own file. A start touches many that a process never needs again; mapped
//! they count as its memory for as long as it lives.

use std::fs;
use std::io;

/// Unmaps what is mapped of this program's code and constants, and says how many bytes that was. Of
/// these, what is needed again comes back from the file at its next use; what was ever written stays.
///
/// For a process of one thread: another could put a mapping of its own where the program's file was
/// mapped a moment ago.
pub fn let_go_of_program() -> io::Result<u64> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/smaps")?;
    let mut released = 0;
    for found in unwritten(&maps, &program.to_string_lossy()) {
        // SAFETY: the range is a mapping of a file, cannot be written to, and has no page of its own
        // in memory or swapped out, so each of its pages reads the same after it was dropped.
        let advised = unsafe {
            rustix::mm::madvise(
                std::ptr::with_exposed_provenance_mut(found.start),
                found.bytes,
                rustix::mm::Advice::LinuxDontNeed,
            )
        };
        advised?;
        released += found.resident;
    }
    Ok(released)
}

#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    start: usize,
    bytes: usize,
    resident: u64,
}

/// Mappings of that file that nobody may write to and of which no page was written to.
fn unwritten(maps: &str, program: &str) -> Vec<Mapping> {
    let mut found = Vec::new();
    let mut current: Option<Mapping> = None;
    let mut holds_none = false;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(field) = first.strip_suffix(':') {
            let kib = words.next().and_then(|text| text.parse::<u64>().ok());
            match (field, kib, &mut current) {
                ("Rss", Some(kib), Some(mapping)) => mapping.resident = kib * 1024,
                // Without both lines nothing is known, and it stays: a page of its own is in one of them,
                // where the loader's relocations were swapped out too.
                ("Anonymous", Some(0), Some(_)) => holds_none = true,
                ("Swap", Some(0), Some(_)) if holds_none => found.extend(current.take()),
                ("Anonymous" | "Swap", ..) => current = None,
                _ => {}
            }
            continue;
        }
        let permissions = words.next().unwrap_or_default();
        let path = words.nth(3).unwrap_or_default();
        let is_candidate =
            path == program && permissions.starts_with('r') && !permissions.contains('w');
        current = range(first).filter(|_| is_candidate);
        holds_none = false;
    }
    found
}

fn range(text: &str) -> Option<Mapping> {
    let (start, end) = text.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    Some(Mapping {
        start,
        bytes: end.checked_sub(start)?,
        resident: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_never_written_goes() {
        let maps = "\
1000-3000 r--p 00000000 fe:00 12 /bin/it
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
3000-6000 r-xp 00002000 fe:00 12 /bin/it
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
6000-7000 r--p 00005000 fe:00 12 /bin/it
Rss:                   4 kB
Anonymous:             4 kB
Swap:                  0 kB
7000-8000 rw-p 00006000 fe:00 12 /bin/it
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
8000-9000 r-xp 00000000 fe:00 13 /lib/other
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
9000-a000 r-xp 00000000 00:00 0 [vdso]
Rss:                   4 kB
Anonymous:             0 kB
Swap:                  0 kB
a000-b000 r--p 00009000 fe:00 12 /bin/it
Rss:                   0 kB
Anonymous:             0 kB
Swap:                  4 kB
b000-c000 r--p 0000a000 fe:00 12 /bin/it
Rss:                   4 kB
Anonymous:             0 kB
c000-d000 r--p 0000b000 fe:00 12 /bin/it
Rss:                   4 kB
Swap:                  0 kB
";
        let mapping = |start, bytes, resident| Mapping {
            start,
            bytes,
            resident,
        };
        let found = unwritten(maps, "/bin/it");
        assert_eq!(
            found,
            [mapping(0x1000, 0x2000, 8192), mapping(0x3000, 0x3000, 4096)]
        );
    }

    #[test]
    fn a_process_goes_on_without_the_pages() {
        let released = let_go_of_program().unwrap();
        assert!(released > 0);
        // Code, constants and what the loader wrote are all as they were.
        assert_eq!(
            format!("{:?}", "a constant".to_uppercase()),
            "\"A CONSTANT\""
        );
        assert!(let_go_of_program().unwrap() < released);
    }
}
