//! What docs/guarantees.md promises to programs that ask in unusual ways: equal calls in parallel,
//! retries inside the SDK, the time in a prompt, a checkpoint of the agent's own.

use std::time::Duration;

use serde_json::Value;
use testkit::{Fleet, Provider, Reply, Up, processes, sdk, until};

const BOUND: Duration = Duration::from_secs(180);

/// One `exec` agent from a file under `tests/agents`, with a volume.
fn start(file: &str, provider: &Provider) -> Option<Up> {
    let python = sdk::python(file)?;
    let command = serde_json::json!([python, file]);
    let fleet = Fleet::new()
        .with(&format!("agent/{file}"), &sdk::agent_source(file))
        .with(
            "fleet.yaml",
            &format!(
                r#"apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: fake}}
spec: {{type: openai, baseUrl: "{}"}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: worker}}
spec:
  models: [fake/fake-1]
  runtime: {{exec: {{command: {command}}}}}
  source: ./agent
  volume: {{size: 16Mi}}
  env: {{TESTKIT_FLEET: "{{{{mark}}}}"}}
"#,
                provider.openai_url()
            ),
        );
    Some(Up::start(fleet))
}

fn finish(up: &Up, id: &str) -> Value {
    let ends = ["completed", "failed", "input-required"];
    let shown = up.wait_state(id, &ends, BOUND);
    assert_eq!(shown["state"], "completed", "{shown}\n{:?}", up.steps(id));
    shown
}

/// Kills the agent once the provider has seen that many requests of this kind.
fn kill_after(up: &Up, provider: &Provider, requests: usize) {
    until("requests before the kill", BOUND, || {
        (provider.calls().len() >= requests).then_some(())
    });
    let agent = until("an agent to kill", BOUND, || up.agents().into_iter().next());
    processes::kill(agent.pid);
}

#[test]
fn equal_calls_in_parallel_are_as_many_steps_and_a_new_attempt_gets_them_all() {
    let provider = Provider::start(|call| {
        if call.conversation.ends_with("draft") {
            return Reply::text("draft").after(Duration::from_millis(100));
        }
        Reply::text("chosen").after(Duration::from_millis(800))
    });
    let Some(up) = start("parallel_equal.py", &provider) else {
        return;
    };
    let id = up.submit("worker", "poem");
    kill_after(&up, &provider, 9);
    let shown = finish(&up, &id);
    assert_eq!(shown["output"], "chosen");
    assert_eq!(shown["steps"], 9, "{shown}");
    assert_eq!(shown["attempts"], 2, "{shown}");
    assert_eq!(
        provider.calls().len(),
        9,
        "the eight and the one, once each"
    );
}

#[test]
fn a_retry_inside_the_sdk_joins_the_call_that_is_in_flight() {
    let provider = Provider::start(|_| Reply::text("late").after(Duration::from_millis(2500)));
    let Some(up) = start("impatient.py", &provider) else {
        return;
    };
    let id = up.submit("worker", "hurry");
    let shown = finish(&up, &id);
    assert_eq!(shown["output"], "late");
    assert_eq!(shown["steps"], 1, "{shown}");
    assert_eq!(
        provider.calls().len(),
        1,
        "asked once, however often the SDK asked"
    );
}

#[test]
fn the_time_in_a_prompt_does_not_make_a_replayed_request_a_new_one() {
    let provider = Provider::start(|call| {
        Reply::text(&format!("turn {}", call.turn)).after(Duration::from_millis(400))
    });
    let Some(up) = start("clock_in_prompt.py", &provider) else {
        return;
    };
    let id = up.submit("worker", "clock");
    kill_after(&up, &provider, 4);
    let shown = finish(&up, &id);
    assert_eq!(shown["output"], "turn 5");
    assert_eq!(shown["attempts"], 2, "{shown}");
    assert_eq!(shown["divergedAt"], Value::Null, "{shown}");
    let counts = provider.counts();
    assert!(counts.values().all(|times| *times == 1), "{counts:?}");
}

#[test]
fn an_agent_that_resumes_from_its_own_file_skips_ahead_without_a_divergence() {
    let provider = Provider::start(|call| {
        Reply::text(&format!("turn {}", call.turn)).after(Duration::from_millis(200))
    });
    let Some(up) = start("own_checkpoint.py", &provider) else {
        return;
    };
    let id = up.submit("worker", "file");
    kill_after(&up, &provider, 4);
    let shown = finish(&up, &id);
    assert_eq!(shown["output"], "turn 5");
    assert_eq!(shown["attempts"], 2, "{shown}");
    assert_eq!(shown["divergedAt"], Value::Null, "{shown}");
    let counts = provider.counts();
    assert!(counts.values().all(|times| *times == 1), "{counts:?}");
    assert_eq!(counts.len(), 6, "{counts:?}");
}
