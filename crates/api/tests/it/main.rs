//! Sets of manifests as people write them, and what comes of them: a fleet, or the sentences a person reads.
//!
//! One `check` for all tables. Facts are fixed here: one model has a price, one file exists.
#![allow(
    clippy::disallowed_methods,
    reason = "what is refused must be refused soon: tests look at the clock"
)]

mod agent;
mod crd;
mod document;
mod field;
mod foreign;
mod home;
mod lenient;
mod provider;
mod robust;
mod rule;
mod set;
mod tool;
mod whole;

use api::fleet::{ModelFacts, Price};
use api::{Document, Facts, Problems, Resolved};
use std::path::Path;

/// Splits at lines `=== path`; what comes before the first is `fleet.yaml`.
fn documents(set: &str) -> Vec<Document> {
    let mut parts = set.trim_start_matches('\n').split("=== ");
    let first = parts.next().filter(|text| !text.is_empty());
    let named = parts.map(|part| part.split_once('\n').expect("a path and a text"));
    let named = named.map(|(path, text)| Document::named(path, text));
    first
        .map(|text| Document::named("fleet.yaml", text))
        .into_iter()
        .chain(named)
        .collect()
}

/// The facts of all tests: one model has a price, one file exists.
fn facts<T>(with: impl FnOnce(&Facts<'_>) -> T) -> T {
    let model = |_: &str, model: &str| {
        (model == "gpt-5.1").then_some(ModelFacts {
            price: Some(Price {
                input: 1.25,
                output: 10.0,
                cache_read: Some(0.125),
                cache_write: None,
            }),
            context: Some(400_000),
        })
    };
    let read = |path: &Path| match path.to_str() {
        Some("transcript.yaml" | "fleets/transcript.yaml") => Ok("rules: []".to_owned()),
        Some("wrong.yaml") => Ok("rulez: []".to_owned()),
        _ => Err("no such file".to_owned()),
    };
    let mut facts = Facts::new(&model, &read);
    let expression = |text: &str| {
        if text.contains("((") {
            Err("unbalanced".to_owned())
        } else {
            Ok(())
        }
    };
    facts.check_expression = &expression;
    let schema = |schema: &serde_json::Value| match &schema["properties"]["x"]["type"] {
        kind if kind == "strin" => Err("\"strin\" is no type".to_owned()),
        _ => Ok(()),
    };
    facts.check_schema = &schema;
    let script = |text: &str| {
        if text.contains("rules") {
            Ok(())
        } else {
            Err("line 1: `rulez` is no field".to_owned())
        }
    };
    facts.check_script = &script;
    with(&facts)
}

fn resolve_documents(documents: &[Document]) -> Result<Resolved, Problems> {
    facts(|facts| api::resolve(documents, facts))
}

fn resolve(set: &str) -> Result<Resolved, Problems> {
    resolve_documents(&documents(set))
}

fn resolved(set: &str) -> Resolved {
    resolve(set).expect("a set without problems")
}

/// What a person reads.
fn check(set: &str) -> String {
    match resolve(set) {
        Ok(resolved) if resolved.warnings.is_empty() => "ok".to_owned(),
        Ok(resolved) => format!("ok, with warnings:\n{}", Problems(resolved.warnings)),
        Err(problems) => problems.to_string(),
    }
}
