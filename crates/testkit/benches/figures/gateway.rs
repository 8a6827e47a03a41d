//! What the gateway adds to a model call, and how many durable steps a second go through it.
//!
//! The load generator is `testkit-load`, run as an agent; the provider is testkit's, answering at
//! once. The same generator asks the provider without the gateway for comparison, and through
//! LiteLLM's proxy where that is installed.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Fleet, Provider, Reply, Up};

use crate::litellm::Proxy;
use crate::report::Report;

const BOUND: Duration = Duration::from_secs(300);
/// Of each path, once to warm up and once measured.
const CALLS: u32 = 2000;

pub(crate) fn latency(report: &mut Report) {
    let provider = Provider::start(|_| Reply::text("ok"));
    let up = up(&provider, 1);
    let port = port_of(&provider);
    let plan = |name: &str, direct: Option<u16>| json!({"name": name, "calls": CALLS, "clients": 1, "bytes": 1024, "direct": direct});
    load(&up, &plan("warm", None));
    let direct = load(&up, &plan("direct", Some(port)));
    let through = load(&up, &plan("through", None));
    let mut rows = vec![
        ("straight to the provider".to_owned(), columns(&direct)),
        (
            "through the gateway, journaled".to_owned(),
            columns(&through),
        ),
    ];
    let mut added = vec![("added by the gateway".to_owned(), over(&through, &direct))];
    match Proxy::start(&provider) {
        Ok(proxy) => {
            let plan = |name: &str| {
                let mut plan = plan(name, Some(proxy.port));
                plan["token"] = Proxy::KEY.into();
                plan
            };
            load(&up, &plan("warm-litellm"));
            let beside = load(&up, &plan("litellm"));
            let name = format!("LiteLLM's proxy {}", proxy.version);
            rows.push((format!("through {name}"), columns(&beside)));
            added.push((format!("added by {name}"), over(&beside, &direct)));
            proxy.stop();
        }
        Err(why) => rows.push((format!("LiteLLM's proxy {why}: left out"), "| |".to_owned())),
    }
    report.line(format!(
        "One client, one connection, {CALLS} Chat Completions of 1 KiB in turn, each with its own \
         text, after as many unmeasured; load generator `testkit-load`, provider testkit's fake, \
         answering at once. LiteLLM's proxy runs with one worker and without a database: it \
         forwards, and writes nothing down."
    ));
    report.line("");
    report.line("| path | p50 ms | p90 ms | p99 ms |");
    report.line("|---|---|---|---|");
    for (name, columns) in rows.into_iter().chain(added) {
        report.line(format!("| {name} | {columns} |"));
    }
}

pub(crate) fn throughput(report: &mut Report) {
    let provider = Provider::start(|_| Reply::text("ok"));
    let up = up(&provider, 4);
    report.line(
        "Durable steps through HTTP: Chat Completions of 4 KiB, every intent and every result \
         flushed before it is acted on; load generator `testkit-load` and testkit's provider on \
         the same machine.",
    );
    report.line("");
    report.line("| tasks × clients | steps | steps/s | p50 ms | p99 ms |");
    report.line("|---|---|---|---|---|");
    for (tasks, clients, calls) in [(1, 1, 1000), (1, 16, 5000), (4, 16, 2500)] {
        let plan = |task: u64| {
            let name = format!("load-{tasks}-{clients}-{task}");
            json!({"name": name, "calls": calls, "clients": clients, "bytes": 4096})
        };
        let results: Vec<Value> = std::thread::scope(|scope| {
            let up = &up;
            let threads: Vec<_> = (0..tasks)
                .map(|task| {
                    let plan = plan(task);
                    scope.spawn(move || load(up, &plan))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let steps: f64 = results.iter().map(|result| number(result, "calls")).sum();
        let seconds = results
            .iter()
            .map(|result| number(result, "seconds"))
            .fold(0.0, f64::max);
        let worst = |name| {
            results
                .iter()
                .map(|result| number(result, name))
                .fold(0.0, f64::max)
                / 1e3
        };
        report.line(format!(
            "| {tasks} × {clients} | {steps} | {:.0} | {:.3} | {:.3} |",
            steps / seconds,
            worst("p50"),
            worst("p99")
        ));
    }
}

fn up(provider: &Provider, replicas: u32) -> Up {
    let command = json!([env!("CARGO_BIN_EXE_testkit-load")]);
    let fleet = Fleet::new().with(
        "fleet.yaml",
        &format!(
            r#"apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: fake}}
spec: {{type: openai, baseUrl: "{}", limits: {{concurrency: 1000}}}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: load}}
spec:
  models: [fake/fake-1]
  runtime: {{exec: {{command: {command}}}}}
  replicas: {replicas}
"#,
            provider.openai_url()
        ),
    );
    Up::start(fleet)
}

fn load(up: &Up, plan: &Value) -> Value {
    let id = up.submit("load", &plan.to_string());
    let shown = up.wait_state(&id, &["completed", "failed", "input-required"], BOUND);
    assert_eq!(shown["state"], "completed", "{shown}");
    serde_json::from_str(shown["output"].as_str().unwrap_or_default()).unwrap()
}

fn port_of(provider: &Provider) -> u16 {
    let url = provider.anthropic_url();
    url.rsplit(':')
        .next()
        .and_then(|port| port.parse().ok())
        .unwrap_or(0)
}

fn number(result: &Value, name: &str) -> f64 {
    result[name].as_f64().unwrap_or(f64::NAN)
}

fn columns(result: &Value) -> String {
    let of = |name| number(result, name) / 1e3;
    format!("{:.3} | {:.3} | {:.3}", of("p50"), of("p90"), of("p99"))
}

/// What a path takes longer than another.
fn over(longer: &Value, shorter: &Value) -> String {
    let of = |name| (number(longer, name) - number(shorter, name)) / 1e3;
    format!("{:.3} | {:.3} | {:.3}", of("p50"), of("p90"), of("p99"))
}
