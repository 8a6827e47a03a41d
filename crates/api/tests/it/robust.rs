//! Hostile and broken input: bounded in time, never a panic, never a sentence of the machine's.

use crate::whole::EVERYTHING;
use crate::{check, resolve};
use proptest::prelude::*;
use std::time::{Duration, Instant};

fn head(spec: &str) -> String {
    format!("apiVersion: mainstay.dev/v1alpha1\nkind: Agent\nmetadata: {{name: a}}\nspec: {spec}\n")
}

#[test]
fn an_alias_bomb_is_refused_before_it_grows() {
    let mut spec = "\n  l0: &l0 [a, a, a, a, a, a, a, a, a, a]\n".to_owned();
    for level in 1..12 {
        let before = format!("*l{}, ", level - 1).repeat(10);
        spec.push_str(&format!(
            "  l{level}: &l{level} [{}]\n",
            before.trim_end_matches(", ")
        ));
    }
    let started = Instant::now();
    let said = check(&head(&spec));
    assert!(
        said.contains("the file has more than 100000 values, aliases included"),
        "{said}"
    );
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn deep_nesting_is_refused() {
    for (open, why) in [
        ("[", "nested deeper than 64 levels"),
        ("{a: ", "nested deeper than 64 levels"),
        ("- ", "this is not YAML"),
    ] {
        let said = check(&head(&open.repeat(10_000)));
        assert!(said.contains(why), "{open}: {said}");
    }
    let mut spec = "\n  l0: &l0 [a]\n".to_owned();
    for level in 1..80 {
        spec.push_str(&format!("  l{level}: &l{level} [*l{}]\n", level - 1));
    }
    let said = check(&head(&spec));
    assert!(said.contains("nested deeper than 64 levels"), "{said}");
}

#[test]
fn a_flood_of_problems_ends() {
    let fields: Vec<String> = (0..20_000).map(|index| format!("x{index}: 1")).collect();
    let started = Instant::now();
    let problems =
        resolve(&head(&format!("{{{}}}", fields.join(", ")))).expect_err("unknown fields");
    assert!(problems.0.len() <= 102, "{}", problems.0.len());
    let twice = "a: 1, ".repeat(20_000);
    let problems = resolve(&head(&format!("{{{twice}}}"))).expect_err("written twice");
    assert!(problems.0.len() <= 110, "{}", problems.0.len());
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

/// A set that is mostly right: the schema must catch what serde would refuse.
fn mutated() -> impl Strategy<Value = String> {
    let edit = (
        any::<prop::sample::Index>(),
        0_usize..12,
        prop::sample::select(PIECES),
    );
    prop::collection::vec(edit, 1..6).prop_map(|edits| {
        let mut text: Vec<char> = EVERYTHING.chars().collect();
        for (at, removed, piece) in edits {
            let at = at.index(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece.chars());
        }
        text.into_iter().collect()
    })
}

const PIECES: &[&str] = &[
    "",
    "null",
    "~",
    "-1",
    "1e400",
    "99999999999999999999",
    "0.5",
    "[]",
    "{}",
    "true",
    "\"",
    "'",
    ": ",
    ", ",
    "\n",
    "- ",
    "&a ",
    "*a",
    "!!str ",
    "---\n",
    "{stepId}",
    "/",
    "é",
    "\u{1b}",
    "\t",
    "| \n",
    "#",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        let _ = check(&text.replace("=== ", ""));
    }

    #[test]
    fn no_yaml_like_text_makes_it_panic(text in "[a-c:\\-{}\\[\\],&*!|>'\"#% \n\t?]{0,120}") {
        let _ = check(&head(&text));
    }

    #[test]
    fn a_damaged_set_is_a_fleet_or_a_set_of_sentences(text in mutated()) {
        if let Err(problems) = resolve(&text) {
            for problem in problems.0 {
                let serde_only = problem.message.starts_with("this ") && problem.message.contains(" can't be read: ");
                prop_assert!(!serde_only, "{problem}");
                prop_assert!(problem.line > 0 && !problem.excerpt.is_empty(), "{problem}");
            }
        }
    }
}
