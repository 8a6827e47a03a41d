//! Custom resources of which some are wrong: what is left of the set, and what each refused object is told.

use crate::{documents, facts};
use api::kubernetes::{Lenient, resolve_lenient};
use api::{Document, Kind};

const HEAD: &str = "apiVersion: mainstay.dev/v1alpha1\nkind: ";

fn provider(name: &str, spec: &str) -> Document {
    let text = format!("{HEAD}Provider\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    Document::named(format!("Provider/{name}"), text)
}

fn agent(name: &str, spec: &str) -> Document {
    let text = format!("{HEAD}Agent\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    Document::named(format!("Agent/{name}"), text)
}

fn registry(name: &str, agent: &str) -> Document {
    let spec = format!("{{tools: [{{name: ask, agent: {agent}, description: Ask.}}]}}");
    let text = format!("{HEAD}ToolRegistry\nmetadata: {{name: {name}}}\nspec: {spec}\n");
    Document::named(format!("ToolRegistry/{name}"), text)
}

fn lenient(documents: &[Document], good: &[Document]) -> Lenient {
    let last_good = |kind: Kind, name: &str| {
        let path = format!("{kind}/{name}");
        good.iter().find(|document| document.path == path).cloned()
    };
    facts(|facts| resolve_lenient(documents, facts, &last_good))
}

/// The agents and providers of the fleet, and a line for each refusal.
fn check(documents: &[Document], good: &[Document]) -> (Vec<String>, Vec<String>) {
    let lenient = lenient(documents, good);
    let fleet = &lenient.resolved.fleet;
    let names = fleet.providers.keys().chain(fleet.agents.keys());
    let refused = lenient.refused.iter().map(|refused| {
        let kept = if refused.kept { "kept" } else { "out" };
        let messages: Vec<&str> = refused
            .problems
            .iter()
            .map(|problem| problem.message.as_str())
            .collect();
        format!(
            "{} {} {kept}: {}",
            refused.kind,
            refused.name,
            messages.join("; ")
        )
    });
    (names.cloned().collect(), refused.collect())
}

#[test]
fn a_malformed_object_stops_nothing_but_what_needs_it() {
    let set = [
        provider("openai", "{}"),
        provider("claude", "{type: anthropic, limits: {concurrency: 0}}"),
        agent("fine", "{models: [openai/gpt-5.1]}"),
        agent("needs", "{models: [claude/x]}"),
    ];
    let (names, refused) = check(&set, &[]);
    assert_eq!(names, ["openai", "fine"]);
    assert_eq!(
        refused,
        [
            "Provider claude out: `spec.limits.concurrency` is 0; it must be between 1 and 10000",
            "Agent needs out: Provider `claude` can't be used now",
        ]
    );
}

#[test]
fn the_last_good_document_stands_in() {
    let good = [provider("claude", "{type: anthropic}")];
    let set = [
        provider("claude", "{type: anthropic, limits: {concurrency: 0}}"),
        agent("needs", "{models: [claude/x]}"),
    ];
    let (names, refused) = check(&set, &good);
    assert_eq!(names, ["claude", "needs"]);
    assert_eq!(
        refused,
        ["Provider claude kept: `spec.limits.concurrency` is 0; it must be between 1 and 10000"]
    );
}

#[test]
fn a_last_good_document_that_no_longer_fits_is_left_out() {
    let good = [agent("a", "{models: [gone/x]}")];
    let set = [agent("a", "{models: [gone/x], replicas: 1000}")];
    let (names, refused) = check(&set, &good);
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(refused[0].starts_with("Agent a out: "), "{refused:?}");
}

#[test]
fn who_closes_a_circle_stands_back_and_nobody_else() {
    let a = agent("a", "{models: [openai/gpt-5.1], tools: [to-b/ask]}");
    let b = agent("b", "{models: [openai/gpt-5.1]}");
    let rest = [
        provider("openai", "{}"),
        registry("to-a", "a"),
        registry("to-b", "b"),
    ];
    let good: Vec<Document> = [a.clone(), b].into_iter().chain(rest.clone()).collect();
    let closing = agent("b", "{models: [openai/gpt-5.1], tools: [to-a/ask]}");
    let set: Vec<Document> = [a, closing].into_iter().chain(rest).collect();
    let (names, refused) = check(&set, &good);
    assert_eq!(names, ["openai", "a", "b"]);
    assert_eq!(
        refused,
        ["Agent b kept: the agents call each other in a circle: a → b → a"]
    );
}

#[test]
fn what_is_no_manifest_at_all_is_left_out() {
    let mut set = documents("=== Agent/x\n{{{\n=== Foo/y\nkind: Foo\n");
    set.push(provider("openai", "{}"));
    let (names, refused) = check(&set, &[]);
    assert_eq!(names, ["openai"]);
    assert_eq!(refused.len(), 1, "{refused:?}");
}
