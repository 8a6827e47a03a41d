//! Files that are met in a directory: which are passed over, and which are manifests that went wrong.

use crate::resolve_documents;
use api::Document;

fn check(found: bool, text: &str, expect: Option<&str>) {
    let document = Document {
        path: "f".into(),
        text: text.into(),
        found,
    };
    let said = resolve_documents(&[document])
        .err()
        .map(|problems| problems.0[0].message.clone());
    assert_eq!(said.as_deref(), expect, "{text}");
}

#[test]
fn what_does_not_look_like_a_manifest_is_passed_over_in_a_directory() {
    check(
        true,
        "{\"name\": \"my-agent\", \"version\": \"1.0.0\"}",
        None,
    );
    check(true, "rules: [{reply: hello}]", None);
    check(
        true,
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}",
        None,
    );
    check(
        true,
        "apiVersion: kagent.dev/v1\nkind: Agent\nmetadata: {name: x}",
        None,
    );
    check(true, "{{ .Values.helm }}: [", None);
    check(true, "// a comment\n{\"a\": 1,}", None);
    check(true, &"x".repeat(5 << 20), None);
}

#[test]
fn what_means_to_be_a_manifest_is_reported_in_a_directory() {
    let five = "Provider, PromptPack, ToolRegistry, Agent, Workspace";
    check(
        true,
        "kind: Workspace\nmetadata: {name: default}",
        Some("`apiVersion` is missing"),
    );
    check(
        true,
        "apiVersion: mainstay.dev/v1alpha1\nkind: Agnet",
        Some(&format!("`kind` is `Agnet`, which is none of {five}")),
    );
    check(
        true,
        "apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nspec: {",
        Some("this is not YAML: unclosed bracket '{'"),
    );
}

#[test]
fn a_named_file_is_a_manifest_or_a_mistake() {
    check(
        false,
        "rules: []",
        Some("`kind` is missing: one of Provider, PromptPack, ToolRegistry, Agent, Workspace"),
    );
    check(false, "[", Some("this is not YAML: unclosed bracket '['"));
    check(
        false,
        &"x".repeat(5 << 20),
        Some("the file is larger than 4 MiB"),
    );
}

#[test]
fn a_file_named_twice_is_read_once() {
    let text = "apiVersion: mainstay.dev/v1alpha1\nkind: Workspace\nmetadata: {name: default}\n";
    let documents = [
        Document::named("a.yaml", text),
        Document::found("a.yaml", text),
    ];
    assert_eq!(
        resolve_documents(&documents)
            .expect("one workspace")
            .objects
            .len(),
        1
    );
}
