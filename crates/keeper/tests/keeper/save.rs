//! Saves at the wrong moment: none is missed.

use crate::fleet::{Fleet, exec_agent, wait_for};

fn exists(fleet: &Fleet, name: &str) -> Option<()> {
    fleet.state().join(name).exists().then_some(())
}

fn agent_with(fields: &str) -> String {
    exec_agent("a", "exit 0").replace("spec: {", &format!("spec: {{{fields}, "))
}

fn is_copying(fleet: &Fleet) -> Option<()> {
    let entries = std::fs::read_dir(fleet.state().join("artifacts")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name());
    let mut parts = names.filter(|name| name.to_string_lossy().starts_with(".new-"));
    parts.next().map(|_| ())
}

#[test]
fn a_manifest_saved_while_sources_are_copied_is_taken() {
    let fleet = Fleet::up(&exec_agent("b", "exit 0"));
    let code = fleet.directory().join("code");
    std::fs::create_dir(&code).unwrap();
    for n in 0..400 {
        std::fs::write(code.join(n.to_string()), vec![b'x'; 16 * 1024]).unwrap();
    }
    fleet.write("fleet.yaml", &agent_with("source: ./code"));
    wait_for("the copying", || is_copying(&fleet));
    fleet.write("fleet.yaml", &agent_with("source: ./code, replicas: 2"));
    assert!(is_copying(&fleet).is_some(), "saved in the middle of it");
    fleet.instance("a-1");
}

#[test]
fn a_source_that_comes_after_its_manifest_is_taken() {
    let fleet = Fleet::up(&exec_agent("b", "exit 0"));
    fleet.write("fleet.yaml", &agent_with("source: ./code"));
    wait_for("the problem", || {
        fleet
            .errors()
            .contains("what runs keeps running")
            .then_some(())
    });
    std::fs::create_dir(fleet.directory().join("code")).unwrap();
    fleet.instance("a-0");
}

#[test]
fn a_save_that_is_taken_back_before_the_hub_has_it_is_back() {
    let missing = "secretEnv: {WORD: {secretRef: {name: n, key: k}}}";
    let before = agent_with(missing);
    let fleet = Fleet::up(&before);
    let looked = || fleet.errors().matches("WORD is left out").count();
    assert_eq!(looked(), 1);
    let hold = fleet.state().join("system/hold");
    std::fs::write(&hold, "").unwrap();
    fleet.write("fleet.yaml", &exec_agent("b", "exit 0"));
    wait_for("the proposal", || exists(&fleet, "generations/002"));
    fleet.write("fleet.yaml", &before);
    wait_for("the old manifest", || (looked() == 2).then_some(()));
    std::fs::remove_file(hold).unwrap();
    wait_for("the way back", || exists(&fleet, "generations/003"));
    fleet.instance("a-0");
}
