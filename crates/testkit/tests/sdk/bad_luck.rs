//! Providers that fail in every way, seen from a task: it goes on, or it says why it can't.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use testkit::provider::{Kind, loop_of};
use testkit::{Call, Fleet, Provider, Reply, Up};

use crate::agents::CHAT_STREAM;
use crate::world::{TURNS, World};

const BOUND: Duration = Duration::from_secs(180);
const ENDS: [&str; 4] = ["completed", "failed", "input-required", "auth-required"];

/// A compiled agent whose provider is `first`, with `second` as its fallback.
fn start(first: &Provider, second: &Provider) -> Up {
    let command = serde_json::json!([env!("CARGO_BIN_EXE_testkit-steps")]);
    let fleet = Fleet::new().with(
        "fleet.yaml",
        &format!(
            r#"apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: first}}
spec: {{type: openai, baseUrl: "{}", fallback: [second/fake-1], limits: {{timeout: 3s}}}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: second}}
spec: {{type: openai, baseUrl: "{}"}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: worker}}
spec:
  models: [first/fake-1]
  runtime: {{exec: {{command: {command}}}}}
"#,
            first.openai_url(),
            second.openai_url()
        ),
    );
    Up::start(fleet)
}

fn falls_back(failing: impl Fn(&Call) -> Reply + Send + Sync + 'static) {
    let first = Provider::start(failing);
    let second = Provider::start(loop_of(3, "note"));
    let up = start(&first, &second);
    let id = up.submit("worker", "fallback");
    let shown = up.wait_state(&id, &ENDS, BOUND);
    assert_eq!(shown["state"], "completed", "{shown}");
    assert_eq!(shown["output"], "done: fallback", "{shown}");
    assert_eq!(second.calls().len(), 3, "the second serves each call once");
    assert!(!first.calls().is_empty(), "the first was asked");
    assert_eq!(
        shown["repeated"], 0,
        "a definite failure is no doubt: {shown}"
    );
}

#[test]
fn a_provider_that_answers_500_is_stood_in_for() {
    falls_back(|_| Reply::error(500));
}

#[test]
fn a_provider_that_answers_429_is_stood_in_for() {
    falls_back(|_| Reply::error(429));
}

#[test]
fn a_provider_that_answers_with_a_web_page_is_stood_in_for() {
    falls_back(|_| Reply::html(200));
}

#[test]
fn a_provider_that_answers_with_garbage_is_stood_in_for() {
    falls_back(|_| {
        Reply::from(Kind::Raw {
            status: 200,
            content_type: "application/json".to_owned(),
            body: "{\"choices\": 7".to_owned(),
        })
    });
}

#[test]
fn a_provider_that_never_answers_is_stood_in_for() {
    falls_back(|_| Kind::Stall.into());
}

#[test]
fn a_key_that_is_refused_parks_the_task_for_a_person() {
    let provider = Provider::start(|_| Reply::error(401));
    let up = start(&provider, &provider);
    let id = up.submit("worker", "key");
    let shown = up.wait_state(&id, &ENDS, BOUND);
    assert_eq!(shown["state"], "auth-required", "{shown}");
    assert_eq!(shown["reason"], "credential", "{shown}");
    provider.set_script(loop_of(3, "note"));
    let retried = up.cli(&["task", "retry", &id]);
    assert_eq!(retried.code, 0, "{retried:?}");
    let shown = up.wait_state(&id, &["completed", "failed"], BOUND);
    assert_eq!(shown["state"], "completed", "{shown}");
}

/// The third turn's stream fails once; the task completes with that call made twice.
fn survives_a_broken_stream(broken: fn(String) -> Kind) {
    let Some(world) = World::start(&CHAT_STREAM, 1) else {
        return;
    };
    let script = loop_of(TURNS, "record");
    let failures = AtomicUsize::new(0);
    world.provider.set_script(move |call| {
        if call.turn == 2 && failures.fetch_add(1, Ordering::SeqCst) == 0 {
            return broken("some words that never come to an end".to_owned()).into();
        }
        script(call)
    });
    let task = world.submit(1).remove(0);
    let shown = world.up.wait_state(&task.id, &ENDS, BOUND);
    assert_eq!(
        shown["state"],
        "completed",
        "{shown}\n{:?}",
        world.up.steps(&task.id)
    );
    let shown = world.assert_completed(&task);
    let mut expected = vec![1; TURNS as usize];
    expected[2] = 2;
    assert_eq!(world.model_calls(&task), expected, "{shown}");
    assert_eq!(shown["divergedAt"], Value::Null, "{shown}");
    world.assert_effects_once(&task);
}

#[test]
fn a_stream_that_breaks_off_is_asked_for_again_under_the_same_step() {
    survives_a_broken_stream(|text| Kind::BreakOff(text, 4));
}

#[test]
fn a_stream_that_ends_early_is_not_taken_for_an_answer() {
    survives_a_broken_stream(|text| Kind::EndEarly(text, 4));
}
