//! The custom resource definitions before a real API server: it takes them, it takes every example,
//! and it decides every case of the rules between fields as the box does.
//!
//! Nothing is left in the cluster but the definitions: objects are applied by dry run only.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::house::House;

/// Held against the box by a test of `api`.
const CASES: &str = include_str!("../../../api/tests/it/sets/rules.yaml");
const BREAKS: &str = "example.com/breaks: ";
const NAMESPACE: &str = "default";

/// The cluster's kubectl, where there is a cluster.
fn kubectl(test: &str) -> Option<impl Fn(&[&str], &str) -> Output> {
    let Some(kubeconfig) = std::env::var_os("MAINSTAY_TEST_CLUSTER") else {
        eprintln!("{test} is left out: MAINSTAY_TEST_CLUSTER is not set");
        return None;
    };
    let program = std::env::var_os("MAINSTAY_TEST_KUBECTL").unwrap_or_else(|| "kubectl".into());
    Some(move |arguments: &[&str], input: &str| {
        let mut command = Command::new(&program);
        command.env("KUBECONFIG", &kubeconfig).args(arguments);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
        drop(stdin);
        child.wait_with_output().unwrap()
    })
}

/// Applies the definitions as a person would, and waits until they are served.
fn install(kubectl: &impl Fn(&[&str], &str) -> Output) {
    let definitions = House::new().run(&["schema", "--crd"]).expect(0).out;
    // As the installer, so that the two never quarrel.
    let manager = "--field-manager=mainstay-install";
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        manager,
        "-f",
        "-",
    ];
    done(&kubectl(&apply, &definitions));
    let names = [
        "agents",
        "providers",
        "promptpacks",
        "toolregistries",
        "workspaces",
    ];
    for name in names {
        let name = format!("crd/{name}.mainstay.dev");
        done(&kubectl(
            &[
                "wait",
                "--for=condition=Established",
                "--timeout=60s",
                &name,
            ],
            "",
        ));
    }
}

fn done(output: &Output) {
    assert!(output.status.success(), "{}", said(output));
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

const DRY: [&str; 6] = [
    "apply",
    "--server-side",
    "--dry-run=server",
    "-n",
    NAMESPACE,
    "-f",
];

#[test]
fn the_definitions_are_printed_as_a_list() {
    let list = House::new().run(&["schema", "--crd"]).expect(0).json();
    let kinds = list["items"].as_array().unwrap().iter();
    let kinds: Vec<&str> = kinds
        .map(|item| item["spec"]["names"]["kind"].as_str().unwrap())
        .collect();
    let all: Vec<&str> = api::Kind::ALL.iter().map(|kind| kind.name()).collect();
    assert_eq!(kinds, all);
    assert_eq!(list["kind"], "List");
}

#[test]
fn the_api_server_decides_every_case_as_the_box_does() {
    let Some(kubectl) = kubectl("the_api_server_decides_every_case_as_the_box_does") else {
        return;
    };
    install(&kubectl);
    let (bad, good): (Vec<&str>, Vec<&str>) = CASES
        .split("\n---\n")
        .partition(|text| text.contains(BREAKS));
    done(&kubectl(
        &[&DRY[..], &["-"]].concat(),
        &good.join("\n---\n"),
    ));

    let refused = said(&kubectl(&[&DRY[..], &["-"]].concat(), &bad.join("\n---\n")));
    assert!(!refused.contains("serverside-applied"), "{refused}");
    assert_eq!(
        refused.matches(" is invalid: ").count(),
        bad.len(),
        "{refused}"
    );
    for rule in api::rule::TABLE {
        let hint = rule
            .hint
            .map(|hint| format!("; {hint}"))
            .unwrap_or_default();
        let message = format!("{}{hint}", rule.message);
        let place = match (rule.path, rule.field) {
            (path, "") => path.to_owned(),
            ("", field) => field.to_owned(),
            (path, field) => format!("{path}.{field}"),
        };
        let place = place.replace("[]", "[0]");
        let expected = match rule.field {
            "metadata.name" => format!("{}` {message}", rule.field),
            _ => format!("{place}: Invalid value: {message}"),
        };
        assert!(
            refused.contains(&expected),
            "{expected}\nis not in\n{refused}"
        );
    }
}

#[test]
fn the_api_server_takes_every_example_and_refuses_a_wrong_field_by_its_name() {
    let test = "the_api_server_takes_every_example_and_refuses_a_wrong_field_by_its_name";
    let Some(kubectl) = kubectl(test) else { return };
    install(&kubectl);
    let examples = fleets();
    assert!(examples.len() > 3, "{examples:?}");
    for path in &examples {
        let path = path.to_str().unwrap();
        let taken = kubectl(&[&DRY[..], &[path]].concat(), "");
        assert!(taken.status.success(), "{path}: {}", said(&taken));
    }
    let wrong = "{apiVersion: mainstay.dev/v1alpha1, kind: Agent, metadata: {name: a}, \
                 spec: {modles: [a/b], models: [a/b]}}";
    let refused = kubectl(&[&DRY[..], &["-"]].concat(), wrong);
    assert!(!refused.status.success(), "{}", said(&refused));
    assert!(said(&refused).contains("modles"), "{}", said(&refused));
    let wrong = wrong.replace("modles: [a/b], models: [a/b]", "models: [a], replicas: -1");
    let refused = said(&kubectl(&[&DRY[..], &["-"]].concat(), &wrong));
    assert!(refused.contains("spec.models[0]"), "{refused}");
    assert!(refused.contains("spec.replicas"), "{refused}");
}

/// The manifests of all examples.
fn fleets() -> Vec<PathBuf> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let entries = std::fs::read_dir(examples).unwrap();
    let fleets = entries.map(|entry| entry.unwrap().path().join("fleet.yaml"));
    fleets.filter(|path| path.exists()).collect()
}
