//! A fleet as objects of other homes, by the real binary.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::house::House;

const FLEET: &str = "apiVersion: mainstay.dev/v1alpha1\nkind: Provider\nmetadata: {name: openai}\n\
    spec: {credential: {secretRef: {name: openai, key: apiKey}}}\n---\n\
    apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {name: helper}\n\
    spec: {models: [openai/gpt-5.1], instructions: 'yes'}\n";

fn fleet(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fleet.yaml");
    std::fs::write(&path, text).unwrap();
    (directory, path.display().to_string())
}

#[test]
fn a_fleet_is_printed_as_custom_resources_and_the_installation_before_it() {
    let house = House::new();
    let (_directory, path) = fleet(FLEET);
    let said = house
        .run(&["render", "--to", "kubernetes", &path])
        .expect(0)
        .out;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&said).unwrap();
    assert_eq!(objects.len(), 2, "{said}");
    let agent = objects
        .iter()
        .find(|object| object["kind"] == "Agent")
        .unwrap();
    assert_eq!(agent["metadata"]["namespace"], "default");
    assert_eq!(agent["spec"]["instructions"], "yes");
    let more = [
        "render",
        "--to",
        "kubernetes",
        "--install",
        "-n",
        "elsewhere",
        &path,
    ];
    let said = house.run(&more).expect(0).out;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&said).unwrap();
    assert_eq!(objects[0]["metadata"]["name"], "elsewhere");
    assert!(objects.iter().any(|object| object["kind"] == "Deployment"));
    assert_eq!(
        objects
            .iter()
            .filter(|object| object["kind"] == "Agent")
            .count(),
        1
    );
}

#[test]
fn what_is_wrong_or_missing_has_its_exit_code() {
    let house = House::new();
    let (_directory, path) = fleet(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {name: a}\nspec: {modles: []}\n",
    );
    for to in ["kubernetes", "compose", "systemd"] {
        let said = house.run(&["render", "--to", to, &path]).expect(3).err;
        assert!(said.contains("modles"), "{said}");
    }
    let _said = house.run(&["render", "--to", "compose"]).expect(2);
    let _said = house
        .run(&["render", "--to", "systemd", "--install", &path])
        .expect(2);
}

#[test]
fn what_a_cluster_cannot_read_is_refused_by_the_fields_name() {
    let house = House::new();
    let (_directory, path) = fleet(&FLEET.replace(
        "secretRef: {name: openai, key: apiKey}",
        "env: OPENAI_API_KEY",
    ));
    let said = house
        .run(&["render", "--to", "kubernetes", &path])
        .expect(3)
        .err;
    assert!(said.contains("credential.env"), "{said}");
    let said = house
        .run(&["render", "--to", "compose", &path])
        .expect(0)
        .out;
    assert!(said.contains("OPENAI_API_KEY"), "{said}");
}

#[test]
fn systemd_takes_the_unit() {
    let analyze = PathBuf::from("/usr/bin/systemd-analyze");
    if !analyze.exists() {
        eprintln!("left out: there is no systemd-analyze");
        return;
    }
    let house = House::new();
    let (directory, path) = fleet(FLEET);
    let said = house
        .run(&["render", "--to", "systemd", &path])
        .expect(0)
        .out;
    // The program lies elsewhere here.
    let unit = said.replace("/usr/local/bin/mainstay", "/bin/true");
    let file = directory.path().join("mainstay.service");
    std::fs::write(&file, unit).unwrap();
    let output = Command::new(analyze)
        .arg("verify")
        .arg(&file)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    let about_it = complaint
        .lines()
        .filter(|line| line.contains("mainstay.service"));
    assert_eq!(about_it.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
    assert!(output.status.success(), "{complaint}");
}
