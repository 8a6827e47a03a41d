//! What becomes of manifests before a cluster is asked.

use std::path::PathBuf;

use super::*;

fn manifests(text: &str) -> (tempfile::TempDir, Manifests) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fleet.yaml");
    std::fs::write(&path, text).unwrap();
    std::fs::create_dir(directory.path().join("agent")).unwrap();
    std::fs::write(directory.path().join("agent/agent.py"), "print(1)\n").unwrap();
    let manifests = Manifests::read(&[path]).unwrap();
    (directory, manifests)
}

fn target(named: Option<&str>) -> Target {
    Target {
        cluster: KubeAddress {
            kubeconfig: Some(PathBuf::from("/nowhere")),
            context: None,
        },
        workspace: named.unwrap_or("default").to_owned(),
        is_named: named.is_some(),
    }
}

fn set(named: Option<&str>, text: &str) -> Result<Set, String> {
    let (_directory, manifests) = manifests(text);
    Set::of(&target(named), &manifests).map_err(|failure| failure.to_string())
}

const AGENT: &str = "apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: helper}
spec:
  source: ./agent
  runtime: {exec: {command: [python3, agent.py]}}
";

#[test]
fn an_agent_is_applied_as_written_with_what_its_source_was_sent_as() {
    let set = set(Some("acme"), AGENT).unwrap();
    let [packed] = &set.packed[..] else {
        panic!("{} sources", set.packed.len())
    };
    assert_eq!(packed.namespace, "acme");
    let sent = format!("{}  ./agent", packed.name);
    assert_eq!(
        set.others,
        [json!({
            "apiVersion": "mainstay.dev/v1alpha1",
            "kind": "Agent",
            "metadata": {
                "name": "helper", "namespace": "acme",
                "annotations": {"mainstay.dev/source": sent},
            },
            "spec": {
                "source": "./agent",
                "runtime": {"exec": {"command": ["python3", "agent.py"]}},
            },
        })]
    );
}

#[test]
fn what_names_another_namespace_or_writes_what_another_writes_is_refused_by_its_field() {
    let other = AGENT.replace("helper", "helper, namespace: beta");
    let refused = set(Some("acme"), &other).err().unwrap();
    assert!(refused.contains("-n says acme"), "{refused}");
    assert!(set(None, &other).is_ok());
    let both = format!("{AGENT}  replicas: 2\n  scale: {{max: 3}}\n");
    let refused = set(None, &both).err().unwrap();
    assert!(refused.contains("`spec.replicas`"), "{refused}");
    let absent = AGENT.replace("./agent", "./gone");
    let refused = set(None, &absent).err().unwrap();
    assert!(refused.contains("`spec.source` can't be"), "{refused}");
}

#[test]
fn what_lies_in_a_workspace_of_the_same_files_waits_for_it() {
    let workspace = "apiVersion: mainstay.dev/v1alpha1\nkind: Workspace\nmetadata: {name: acme}\n";
    let builtin = AGENT.replace("  source: ./agent\n", "");
    let awaited = |named, text: &str| {
        let set = set(named, text).unwrap();
        let awaited = set.awaited().into_iter();
        awaited
            .map(|(name, needs_hub)| (name.to_owned(), needs_hub))
            .collect::<Vec<_>>()
    };
    let both = format!("{AGENT}---\n{workspace}");
    assert_eq!(awaited(Some("acme"), &both), [("acme".to_owned(), true)]);
    let both = format!("{builtin}---\n{workspace}");
    assert_eq!(awaited(Some("acme"), &both), [("acme".to_owned(), false)]);
    assert_eq!(awaited(Some("beta"), &both), []);
    assert_eq!(awaited(Some("acme"), AGENT), []);
}
