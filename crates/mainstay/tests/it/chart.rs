//! The Helm chart says what the program says. Needs a Helm, named in MAINSTAY_TEST_HELM.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

const NAMESPACE: &str = "chart-test";

fn helm() -> Option<PathBuf> {
    let helm = std::env::var_os("MAINSTAY_TEST_HELM").map(PathBuf::from);
    if helm.is_none() {
        eprintln!("left out: MAINSTAY_TEST_HELM names no Helm");
    }
    helm
}

fn chart() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy/helm/mainstay")
}

fn run(command: &mut Command) -> (bool, String) {
    let home = tempfile::tempdir().unwrap();
    let output = command.env("HOME", home.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => (true, said),
        false => (false, format!("{said}{complained}")),
    }
}

fn template(helm: &PathBuf, values: &[&str]) -> (bool, String) {
    let mut command = Command::new(helm);
    command
        .args(["template", "mainstay"])
        .arg(chart())
        .args(["--namespace", NAMESPACE]);
    command.args(values.iter().flat_map(|value| ["--set", value]));
    run(&mut command)
}

type Named = BTreeMap<String, Value>;

fn named(objects: impl IntoIterator<Item = Value>) -> Named {
    let name = |object: &Value| format!("{} {}", object["kind"], object["metadata"]["name"]);
    objects
        .into_iter()
        .map(|object| (name(&object), object))
        .collect()
}

fn templated(helm: &PathBuf, values: &[&str]) -> Named {
    let (ok, text) = template(helm, values);
    assert!(ok, "{text}");
    let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    for object in &mut objects {
        if object["kind"] == "CustomResourceDefinition" {
            let annotations = object["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("annotations");
            assert_eq!(annotations.unwrap()["helm.sh/resource-policy"], "keep");
        }
    }
    named(objects)
}

fn installed(image: &str, replicas: u32) -> Named {
    let options = operator::install::Options {
        namespace: NAMESPACE.to_owned(),
        replicas,
        ..operator::install::Options::new(image.to_owned())
    };
    let objects = operator::install::objects(&options, api::crd::all());
    let of_helm = |object: &Value| object["kind"] != "Namespace" && object["kind"] != "Workspace";
    named(objects.into_iter().filter(of_helm))
}

#[test]
fn the_chart_installs_what_the_program_installs() {
    let Some(helm) = helm() else { return };
    let cases: [(&[&str], Named); 2] = [
        (&[], installed(&operator::install::image(None), 1)),
        (
            &[
                "replicas=2",
                "image.prefix=registry.example/team",
                "image.tag=7",
            ],
            installed("registry.example/team/mainstay:7", 2),
        ),
    ];
    for (values, expected) in cases {
        let found = templated(&helm, values);
        for (name, object) in &expected {
            assert_eq!(found.get(name), Some(object), "{name} with {values:?}");
        }
        assert_eq!(found.len(), expected.len(), "{:?}", found.keys());
    }
}

#[test]
fn the_chart_is_what_helm_wants_and_takes_no_wrong_value() {
    let Some(helm) = helm() else { return };
    let (ok, said) = run(Command::new(&helm).args(["lint", "--strict"]).arg(chart()));
    assert!(ok, "{said}");
    for wrong in [
        "replicas=0",
        "replicas=two",
        "image.prefix=a/",
        "imagge.tag=1",
        "image.pullPolicy=Often",
    ] {
        let (ok, said) = template(&helm, &[wrong]);
        assert!(!ok, "{wrong}: {said}");
    }
    let (ok, said) = template(
        &helm,
        &["nodeSelector.pool=cpu", "imagePullSecrets[0].name=registry"],
    );
    assert!(
        ok && said.contains("pool: cpu") && said.contains("name: registry"),
        "{said}"
    );
}

#[test]
fn the_charts_version_is_the_programs() {
    let text = std::fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let chart: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
}
