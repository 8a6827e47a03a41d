//! What is packed comes out the same; what was never packed is refused.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::*;

/// Everything that was handed on, a line each.
#[derive(Debug, Default)]
struct Lines(Vec<String>);

impl Sink for Lines {
    fn directory(&mut self, path: &Path) -> io::Result<()> {
        self.0.push(format!("{}/", path.display()));
        Ok(())
    }

    fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        self.0
            .push(format!("{} -> {}", path.display(), target.display()));
        Ok(())
    }

    fn file(&mut self, path: &Path, is_program: bool, content: &mut dyn Read) -> io::Result<()> {
        let mut text = String::new();
        content.read_to_string(&mut text)?;
        let program = if is_program { "*" } else { "" };
        self.0.push(format!("{}{program} {text}", path.display()));
        Ok(())
    }
}

/// Reads nothing of what it is given.
struct Nothing;

impl Sink for Nothing {
    fn directory(&mut self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn link(&mut self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn file(&mut self, _: &Path, _: bool, _: &mut dyn Read) -> io::Result<()> {
        Ok(())
    }
}

fn packed() -> (Vec<u8>, String) {
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive).unwrap();
    let file = |writer: &mut Writer<&mut Vec<u8>>, path: &str, is_program, text: &str| {
        let length = text.len() as u64;
        let written = writer.file(Path::new(path), is_program, length, text.as_bytes());
        written.unwrap();
    };
    writer.directory(Path::new("lib")).unwrap();
    file(&mut writer, "lib/a.py", false, "import os\n");
    file(&mut writer, "lib-2", false, "");
    writer
        .link(Path::new("link"), Path::new("../elsewhere"))
        .unwrap();
    file(&mut writer, "run", true, "#!/bin/sh\n");
    let name = writer.finish().unwrap();
    (archive, name)
}

#[test]
fn what_is_packed_comes_out_the_same_under_the_same_name() {
    let (archive, name) = packed();
    assert!(is_name(&name), "{name}");
    let mut lines = Lines::default();
    assert_eq!(read(&archive[..], &mut lines).unwrap(), name);
    assert_eq!(
        lines.0,
        [
            "lib/",
            "lib/a.py import os\n",
            "lib-2 ",
            "link -> ../elsewhere",
            "run* #!/bin/sh\n"
        ]
    );
    assert_eq!(read(&archive[..], &mut Nothing).unwrap(), name);
    assert_eq!(packed(), (archive, name), "one content has one form");
}

#[test]
fn any_changed_byte_gives_another_name_or_none() {
    let (archive, name) = packed();
    for at in 0..archive.len() {
        let mut changed = archive.clone();
        changed[at] ^= 1;
        if let Ok(found) = read(&changed[..], &mut Nothing) {
            assert_ne!(found, name, "byte {at}");
        }
    }
}

#[test]
fn what_is_cut_off_or_added_to_is_refused() {
    let (mut archive, _) = packed();
    for length in 0..archive.len() {
        let cut = read(&archive[..length], &mut Nothing);
        assert!(matches!(cut, Err(ReadError::Cut)), "{length}: {cut:?}");
    }
    archive.push(END);
    let longer = read(&archive[..], &mut Nothing);
    assert!(matches!(longer, Err(ReadError::Longer)), "{longer:?}");
}

/// An archive that only somebody else writes.
fn forged(entries: &[(u8, &[u8], &[u8])]) -> Vec<u8> {
    let mut archive = BEGINNING.to_vec();
    for (kind, path, rest) in entries {
        archive.push(*kind);
        archive.extend(u32::try_from(path.len()).unwrap().to_be_bytes());
        archive.extend(*path);
        archive.extend(*rest);
    }
    archive.push(END);
    archive
}

const EMPTY: &[u8] = &[0; 8];

#[test]
fn a_path_that_leads_elsewhere_is_refused() {
    let long = vec![b'x'; 5000];
    for path in [
        &b"/etc/passwd"[..],
        b"..",
        b"../a",
        b"a/../../b",
        b".",
        b"./a",
        b"a/",
        b"a//b",
        b"a/./b",
        b"a\0b",
        b"",
        b"none/a",
        &long,
    ] {
        let archive = forged(&[(DIRECTORY, b"a", b""), (FILE, path, EMPTY)]);
        let mut lines = Lines::default();
        assert!(read(&archive[..], &mut lines).is_err(), "{path:?}");
        assert_eq!(lines.0, ["a/"], "{path:?}");
    }
}

#[test]
fn nothing_is_put_through_a_link_or_a_file_and_nothing_comes_twice() {
    let target = [&4u32.to_be_bytes()[..], b"/etc"].concat();
    for before in [(LINK, &b"a"[..], &target[..]), (FILE, b"a", EMPTY)] {
        let archive = forged(&[before, (FILE, b"a/b", EMPTY)]);
        let refused = read(&archive[..], &mut Nothing);
        let expected = PathBuf::from("a/b");
        assert!(
            matches!(&refused, Err(ReadError::Path(path)) if *path == expected),
            "{refused:?}"
        );
        for second in [&b"a"[..], b"A"] {
            let archive = forged(&[before, (FILE, second, EMPTY)]);
            let refused = read(&archive[..], &mut Nothing);
            assert!(matches!(refused, Err(ReadError::Order(_))), "{refused:?}");
        }
    }
}

#[test]
fn more_than_may_be_is_refused_before_it_is_read() {
    let large = (MAX_BYTES + 1).to_be_bytes();
    let refused = read(&forged(&[(FILE, b"a", &large)])[..], &mut Nothing);
    assert!(matches!(refused, Err(ReadError::TooLarge)), "{refused:?}");
    let two = [(FILE, &b"a"[..], &u64::MAX.to_be_bytes()[..])];
    let refused = read(&forged(&two)[..], &mut Nothing);
    assert!(matches!(refused, Err(ReadError::TooLarge)), "{refused:?}");
    let names: Vec<String> = (0..=MAX_ENTRIES).map(|n| format!("{n:06}")).collect();
    let many: Vec<(u8, &[u8], &[u8])> = names
        .iter()
        .map(|name| (DIRECTORY, name.as_bytes(), &b""[..]))
        .collect();
    let refused = read(&forged(&many)[..], &mut Nothing);
    assert!(matches!(refused, Err(ReadError::TooMany)), "{refused:?}");
}

#[test]
fn a_file_that_grows_or_shrinks_while_it_is_packed_is_refused() {
    for length in [3, 5] {
        let mut writer = Writer::new(Vec::new()).unwrap();
        let written = writer.file(Path::new("a"), false, length, &b"four"[..]);
        assert!(written.is_err(), "{length}");
    }
}
