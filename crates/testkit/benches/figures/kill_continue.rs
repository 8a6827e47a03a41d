//! How soon a killed task goes on: from SIGKILL to the agent, to the provider seeing the next new
//! model call. The agent is compiled (`testkit-steps`), so an interpreter's start isn't measured.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::provider::loop_of;
use testkit::random::Random;
use testkit::{Fleet, Provider, Up, processes};

use crate::report::{Report, Samples};

const TASKS: usize = 100;
const TURNS: u32 = 20;
const THINKING: Duration = Duration::from_millis(5);

pub(crate) fn measure(report: &mut Report) {
    let arrivals: Arc<Mutex<BTreeMap<(String, u32), Instant>>> = Arc::default();
    let script = loop_of(TURNS, "note");
    let seen = Arc::clone(&arrivals);
    let provider = Provider::start(move |call| {
        let key = (call.conversation.clone(), call.turn);
        seen.lock().unwrap().entry(key).or_insert_with(Instant::now);
        script(call).after(THINKING)
    });
    let up = up(&provider);
    let mut random = Random::announced("kill-continue");
    let mut samples = Vec::new();
    let mut replayed = 0;
    for number in 0..TASKS {
        let input = format!("task-{number}");
        let id = up.submit("worker", &input);
        let turn = u32::try_from(random.between(2, u64::from(TURNS) - 2)).unwrap_or(2);
        let arrived = |turn: u32| {
            arrivals
                .lock()
                .unwrap()
                .get(&(input.clone(), turn))
                .copied()
        };
        let bound = Duration::from_secs(30);
        testkit::until("the turn to kill at", bound, || arrived(turn));
        let process = up
            .agents()
            .into_iter()
            .find(|process| process.task.as_deref() == Some(&id));
        let Some(process) = process else { continue };
        // What is asked before the kill lands belongs to the old process.
        let killed = Instant::now();
        processes::kill(process.pid);
        let next = testkit::until("the next new call", bound, || {
            let arrivals = arrivals.lock().unwrap();
            let later = arrivals
                .iter()
                .filter(|((of, _), at)| *of == input && **at > killed);
            later.map(|(_, at)| *at).min()
        });
        samples.push(next - killed);
        let shown = up.wait_state(&id, &["completed", "failed"], bound);
        assert_eq!(shown["state"], "completed", "{shown}");
        replayed += shown["replayed"].as_u64().unwrap_or(0);
    }
    let calls = provider.calls().len();
    let samples = Samples::new(samples);
    report.line(format!(
        "SIGKILL to the agent at a random one of {TURNS} model calls → the provider sees the next \
         new call. The model answers in {} ms; start of the new process, replay of what was done \
         and the call in flight are included.",
        THINKING.as_millis()
    ));
    report.line("");
    report
        .line("| tasks killed | p50 ms | p99 ms | worst ms | steps replayed | calls made twice |");
    report.line("|---|---|---|---|---|---|");
    report.line(format!(
        "| {} | {:.1} | {:.1} | {:.1} | {replayed} | {} |",
        samples.count(),
        samples.ms(500),
        samples.ms(990),
        samples.worst_ms(),
        calls.saturating_sub(TASKS * TURNS as usize)
    ));
}

fn up(provider: &Provider) -> Up {
    let command = serde_json::json!([env!("CARGO_BIN_EXE_testkit-steps")]);
    let fleet = Fleet::new().with(
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
  env: {{TESTKIT_FLEET: "{{{{mark}}}}"}}
"#,
            provider.openai_url()
        ),
    );
    Up::start(fleet)
}
