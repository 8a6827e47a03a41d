//! What a fleet may say that pods can't do.

use super::*;

fn agent(spec: &str) -> Agent {
    let text = format!(
        "apiVersion: mainstay.dev/v1alpha1\nkind: Provider\nmetadata: {{name: openai}}\nspec: {{}}\n---\n\
         apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: helper}}\nspec: {{models: [openai/gpt-5.1], {spec}}}\n"
    );
    let nowhere = |_: &std::path::Path| Err("no such file".to_owned());
    let unknown = |_: &str, _: &str| None;
    let mut facts = api::Facts::new(&unknown, &nowhere);
    facts.home = api::Home::Kubernetes;
    let resolved = api::resolve(&[api::Document::named("a.yaml", text)], &facts).unwrap();
    resolved.fleet.agents["helper"].clone()
}

fn check(spec: &str, reason: Option<&str>, named: &str) {
    let verdict = unrunnable(&agent(spec), spec.contains("builtin"));
    assert_eq!(
        verdict.as_ref().map(|it| it.reason.as_str()),
        reason,
        "{spec}"
    );
    let message = verdict.map(|it| it.message).unwrap_or_default();
    assert!(message.contains(named), "{spec}: {message}");
}

#[test]
fn what_cannot_run_in_a_pod_is_refused_by_its_field() {
    check("source: ./agent", Some("SourceNotHere"), "spec.source");
    check(
        "image: a:1",
        Some("CommandUnknown"),
        "spec.runtime.exec.command",
    );
    check(
        "runtime: {exec: {command: [a]}}",
        Some("ImageMissing"),
        "spec.image",
    );
    check(
        "source: ./agent, runtime: {exec: {command: [python3, a.py]}}",
        Some("SourceNotHere"),
        "mainstay -n NAMESPACE apply",
    );
    check(
        "runtime: {service: {command: [a]}}",
        Some("ImageMissing"),
        "spec.image",
    );
    check("image: a:1, runtime: {builtin: {}}", None, "");
    check("image: a:1, runtime: {exec: {command: [a]}}", None, "");
    check("instructions: Answer.", None, "");
}

#[test]
fn a_name_of_mainstays_own_objects_is_refused() {
    let named = |name: &str| Agent {
        name: name.to_owned(),
        ..agent("instructions: Answer.")
    };
    for name in ["mainstay-hub", "mainstay-tool-0123456789ab"] {
        let verdict = unrunnable(&named(name), false).unwrap();
        assert_eq!(verdict.reason, "NameTaken", "{name}");
        assert!(verdict.message.contains("another name"), "{verdict:?}");
    }
    assert_eq!(unrunnable(&named("mainstay"), false), None);
}
