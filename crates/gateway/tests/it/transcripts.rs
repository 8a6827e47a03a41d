//! Every transcript in the repository is one that the script provider can play.

use std::path::{Path, PathBuf};

fn transcripts(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            transcripts(&path, found);
        } else if path.file_name().is_some_and(|name| name == "script.yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_transcript_of_the_examples_and_the_demo_can_be_played() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    transcripts(&crates.parent().unwrap().join("examples"), &mut found);
    transcripts(&crates.join("mainstay/src/demo"), &mut found);
    assert!(found.len() > 1, "{found:?}");
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(gateway::script::check(&text), Ok(()), "{}", path.display());
    }
}
