//! What comes is kept whole or not at all, and as long as somebody needs it.
#![allow(
    clippy::disallowed_methods,
    reason = "tests write what a killed hub would leave"
)]

use std::path::Path;

use contract::artifact::Writer;

use super::*;

fn packed(text: &str) -> (Vec<u8>, String) {
    let mut archive = Vec::new();
    let mut writer = Writer::new(&mut archive).unwrap();
    let path = Path::new("agent.py");
    let length = text.len() as u64;
    writer.file(path, false, length, text.as_bytes()).unwrap();
    let name = writer.finish().unwrap();
    (archive, name)
}

fn put(artifacts: &Artifacts, name: &str, archive: &[u8]) -> Result<(), HubError> {
    artifacts.put(name, archive.len() as u64, archive)
}

fn files(state: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(state.join("artifacts")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_artifact_is_kept_over_a_restart_and_may_come_twice() {
    let state = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(state.path()).unwrap();
    let (archive, name) = packed("one");
    assert!(!artifacts.has(&name));
    assert!(artifacts.get(&name).unwrap().is_none());
    put(&artifacts, &name, &archive).unwrap();
    put(&artifacts, &name, &archive).unwrap();
    let again = Artifacts::open(state.path()).unwrap();
    assert!(again.has(&name));
    let mut kept = Vec::new();
    let mut file = again.get(&name).unwrap().unwrap();
    file.read_to_end(&mut kept).unwrap();
    assert_eq!(kept, archive);
    assert_eq!(files(state.path()), [name]);
}

#[tokio::test]
async fn what_is_not_it_leaves_nothing() {
    let state = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(state.path()).unwrap();
    let (archive, name) = packed("one");
    let (other, _) = packed("two");
    let refused = |name: &str, archive: &[u8]| put(&artifacts, name, archive).unwrap_err().code;
    assert_eq!(refused(&name, &other), Code::Invalid);
    assert_eq!(refused(&name, &archive[..archive.len() - 1]), Code::Invalid);
    assert_eq!(refused(&name, b"PK"), Code::Invalid);
    assert_eq!(refused("../../log.db", &archive), Code::Invalid);
    let long = artifacts.put(&name, u64::MAX, &archive[..]).unwrap_err();
    assert_eq!(long.code, Code::TooLarge);
    let full = artifacts.put(&name, MAX_ARCHIVE_BYTES, &archive[..]);
    // On a disk with room for it this is one like any other.
    assert!(full.is_ok() || full.unwrap_err().code == Code::NoSpace);
    artifacts.tidy(&BTreeSet::new()).unwrap();
    assert!(artifacts.get("../artifacts").unwrap().is_none());
    assert!(files(state.path()).iter().all(|file| *file == name));
}

#[tokio::test]
async fn what_a_killed_hub_left_is_cleared() {
    let state = tempfile::tempdir().unwrap();
    let (archive, name) = packed("one");
    put(&Artifacts::open(state.path()).unwrap(), &name, &archive).unwrap();
    let half = state.path().join("artifacts").join(format!("{COMING}0"));
    std::fs::write(half, &archive[..20]).unwrap();
    let _artifacts = Artifacts::open(state.path()).unwrap();
    assert_eq!(files(state.path()), [name]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_named_stays_and_another_only_for_a_while() {
    let state = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(state.path()).unwrap();
    let [(first, one), (second, two)] = [packed("one"), packed("two")];
    put(&artifacts, &one, &first).unwrap();
    put(&artifacts, &two, &second).unwrap();
    let named = BTreeSet::from([one.clone()]);
    artifacts.tidy(&named).unwrap();
    assert!(artifacts.has(&two), "its manifest may be on its way");
    tokio::time::advance(UNNAMED * 2).await;
    artifacts.tidy(&named).unwrap();
    assert!(!artifacts.has(&two));
    assert_eq!(files(state.path()), [one]);
}
