//! Every example is a fleet that resolves, and those that need no key run.

use std::path::{Path, PathBuf};

use api::{Document, Facts};

use crate::house::House;

fn examples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut found: Vec<PathBuf> = std::fs::read_dir(root.canonicalize().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.retain(|path| path.is_dir());
    found.sort();
    found
}

#[test]
fn every_example_resolves_without_a_warning() {
    assert!(examples().len() >= 5);
    for example in examples() {
        let path = example.join("fleet.yaml");
        let document = Document::named(
            path.display().to_string(),
            std::fs::read_to_string(&path).unwrap(),
        );
        let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
        let facts = Facts::new(&|_, _| None, &read);
        let resolved =
            api::resolve(&[document], &facts).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(resolved.warnings, [], "{}", path.display());
        assert!(!resolved.fleet.agents.is_empty());
    }
}

fn run(name: &str, agent: &str, input: &str, expect: &str) {
    let example = examples()
        .into_iter()
        .find(|path| path.ends_with(name))
        .unwrap();
    let mut house = House::new();
    house.up(&[&example]);
    let ran = house.run(&["run", agent, input]).expect(0);
    assert!(ran.out.contains(expect), "{ran:?}\n{}", house.said());
    house.stop();
    house.run(&["log", "verify"]).expect(0);
    house.run(&["log", "rebuild", "--check"]).expect(0);
}

#[test]
fn hello_answers() {
    run("hello", "hello", "good morning", "You said: good morning");
}

#[test]
fn tools_keep_a_note() {
    run("tools", "secretary", "buy milk", "buy milk");
}

#[test]
fn a_service_answers() {
    run(
        "service",
        "counter",
        "rivers",
        "A sentence about rivers. (task 1 of this process)",
    );
}

#[test]
fn an_editor_has_a_writer() {
    run(
        "handoff",
        "editor",
        "Rain",
        "The writer says: Rain is worth a sentence.",
    );
}
