//! The rules between fields: each is kept and broken by a case, and the box and CEL agree on every case.

use crate::facts;
use api::rule::{Rule, TABLE, broken};
use api::{Document, Problems};
use serde_json::Value;

const CASES: &str = include_str!("sets/rules.yaml");
const BREAKS: &str = "example.com/breaks";

/// An object, and the rule that it breaks.
struct Case {
    document: Document,
    breaks: Option<&'static Rule>,
}

fn cases() -> Vec<Case> {
    let texts = CASES.split("\n---\n").enumerate();
    texts
        .map(|(index, text)| {
            let annotation = text.split_once(BREAKS).map(|(_, rest)| {
                let line = rest.lines().next().unwrap_or_default();
                line.trim_matches(|c| " :\"{}".contains(c)).to_owned()
            });
            let kind = text.lines().find_map(|line| line.strip_prefix("kind: "));
            let breaks = annotation.map(|annotation| {
                let rules: Vec<&Rule> = TABLE
                    .iter()
                    .filter(|rule| {
                        Some(rule.kind.name()) == kind && said(rule).starts_with(&annotation)
                    })
                    .collect();
                assert_eq!(rules.len(), 1, "{kind:?} {annotation}: {rules:?}");
                rules[0]
            });
            Case {
                document: Document::named(format!("case-{index}.yaml"), text),
                breaks,
            }
        })
        .collect()
}

/// As the annotations have it.
fn said(rule: &Rule) -> String {
    let place = match (rule.path, rule.field) {
        ("", field) => field.to_owned(),
        (path, "") => path.to_owned(),
        (path, field) => format!("{path}.{field}"),
    };
    format!("{place} {}", rule.message)
}

fn is_there(value: &Value, path: &str) -> bool {
    let Some((name, rest)) = path
        .split_once('.')
        .or(Some((path, "")))
        .filter(|_| !path.is_empty())
    else {
        return true;
    };
    match name.strip_suffix("[]") {
        Some(name) => value[name]
            .as_array()
            .is_some_and(|items| items.iter().any(|item| is_there(item, rest))),
        None => value.get(name).is_some_and(|value| is_there(value, rest)),
    }
}

#[test]
fn every_rule_is_kept_by_one_case_and_broken_by_another() {
    let cases = cases();
    for rule in TABLE {
        let breaks = |case: &&Case| case.breaks.is_some_and(|broken| std::ptr::eq(broken, rule));
        assert_eq!(cases.iter().filter(breaks).count(), 1, "{}", said(rule));
        let keeps = cases
            .iter()
            .filter(|case| case.breaks.is_none())
            .any(|case| {
                let objects =
                    api::parse(std::slice::from_ref(&case.document)).expect("a good object");
                objects[0].kind() == rule.kind && is_there(&objects[0].to_json(), rule.path)
            });
        assert!(keeps, "{}", said(rule));
    }
}

#[test]
fn the_box_and_cel_agree_on_every_case() {
    let cases = cases();
    let good: Vec<Document> = cases
        .iter()
        .filter(|case| case.breaks.is_none())
        .map(|case| case.document.clone())
        .collect();
    resolve(&good).expect("good objects");
    for case in &cases {
        let Some(rule) = case.breaks else { continue };
        let mut set = good.clone();
        // The object takes the place of the good one of its name.
        set.retain(|document| head(&document.text) != head(&case.document.text));
        set.push(case.document.clone());
        let problems = resolve(&set).expect_err(&said(rule));
        let own = problems
            .0
            .iter()
            .filter(|problem| problem.path == case.document.path);
        let messages: Vec<&str> = own.map(|problem| problem.message.as_str()).collect();
        assert!(!messages.is_empty(), "{}", said(rule));
        if !rule.worded {
            assert_eq!(messages.len(), 1, "{}: {messages:?}", said(rule));
            assert!(
                messages[0].ends_with(rule.message),
                "{}: {messages:?}",
                said(rule)
            );
        }
    }
}

#[test]
fn cel_finds_the_broken_rule_of_each_case_and_no_other() {
    for case in cases() {
        // What the box refuses in its own words can't be parsed into an object: CEL is asked about the manifest.
        let value = json(&case.document);
        let kind = api::Kind::parse(value["kind"].as_str().expect("a kind")).expect("a kind");
        let found: Vec<String> = broken(kind, &value)
            .iter()
            .map(|one| said(one.rule))
            .collect();
        let expected: Vec<String> = case.breaks.map(said).into_iter().collect();
        assert_eq!(found, expected, "{}", case.document.text);
    }
}

fn resolve(set: &[Document]) -> Result<api::Resolved, Problems> {
    facts(|facts| api::resolve(set, facts))
}

fn head(text: &str) -> Option<(&str, &str)> {
    let line = |start: &str| text.lines().find(|line| line.starts_with(start));
    Some((
        line("kind: ")?,
        line("metadata: ")?.split(',').next()?.trim_end_matches('}'),
    ))
}

fn json(document: &Document) -> Value {
    serde_saphyr::from_str(&document.text).expect("YAML")
}
