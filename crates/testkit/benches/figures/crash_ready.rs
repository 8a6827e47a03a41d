//! How long after SIGKILL the next process is ready: ours over 1,000 kills, peers beside it.
//!
//! All run the same child (`child.c`). The clock runs from just before the kill to the first byte
//! on the ready descriptor, which the child itself times; where it is given none, to the place
//! where it would have written. The time until the harness has heard of it stands beside.

use std::time::Duration;

use testkit::random::Random;
use testkit::{Fleet, Up, processes};

use crate::peers::PEERS;
use crate::report::{Report, Samples};
use crate::socket::{Announced, Harness, now};

const KILLS: usize = 1000;
/// Others wait a second after a short life, so theirs is long, and the kills are fewer.
const PEER_KILLS: usize = 20;
const PEER_UPTIME: Duration = Duration::from_millis(1600);
const BOUND: Duration = Duration::from_secs(30);

pub(crate) fn measure(report: &mut Report) {
    report.line("SIGKILL → the next process's first byte on its ready descriptor; the same static child under each. Heard: until the harness has read the child's words from a socket.");
    report.line("");
    report.line(
        "| supervisor | life before the kill | kills | p50 ms | p99 ms | worst ms | heard p50 ms |",
    );
    report.line("|---|---|---|---|---|---|---|");
    let harness = Harness::new();
    let up = ours(&harness);
    let mut random = Random::announced("crash-ready");
    let short = move || Duration::from_millis(random.between(5, 30));
    row(report, "Mainstay", "5–30 ms", run(&harness, KILLS, short));
    row(
        report,
        "Mainstay",
        "1.6 s",
        run(&harness, PEER_KILLS, || PEER_UPTIME),
    );
    drop(up);
    for peer in PEERS {
        let harness = Harness::new();
        let Some(running) = peer.start(&harness) else {
            report.line(format!(
                "| {} | not installed here: left out | | | | | |",
                peer.name
            ));
            continue;
        };
        row(
            report,
            peer.name,
            "1.6 s",
            run(&harness, PEER_KILLS, || PEER_UPTIME),
        );
        running.stop();
    }
}

fn row(report: &mut Report, name: &str, life: &str, (ready, heard): (Samples, Samples)) {
    report.line(format!(
        "| {name} | {life} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
        ready.count(),
        ready.ms(500),
        ready.ms(990),
        ready.worst_ms(),
        heard.ms(500)
    ));
}

fn ours(harness: &Harness) -> Up {
    let command = serde_json::json!([harness.child(), harness.path()]);
    let fleet = Fleet::new().with(
        "fleet.yaml",
        &format!(
            r#"apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {{name: fake}}
spec: {{type: openai, baseUrl: "http://127.0.0.1:9/v1"}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {{name: idle}}
spec:
  models: [fake/fake-1]
  runtime: {{service: {{command: {command}, protocol: http}}}}
  env: {{TESTKIT_FLEET: "{{{{mark}}}}"}}
"#
        ),
    );
    Up::start(fleet)
}

/// Times until ready, and until the harness heard.
fn run(harness: &Harness, kills: usize, mut life: impl FnMut() -> Duration) -> (Samples, Samples) {
    let (mut ready, mut heard) = (Vec::with_capacity(kills), Vec::with_capacity(kills));
    let mut current: Announced = harness
        .next(BOUND)
        .unwrap_or_else(|| panic!("no first process"));
    for _ in 0..kills {
        std::thread::sleep(life());
        let killed = now();
        assert!(processes::kill(current.pid), "the process is gone already");
        current = harness
            .next(BOUND)
            .unwrap_or_else(|| panic!("no next process"));
        ready.push(current.ready.saturating_sub(killed));
        heard.push(current.heard.saturating_sub(killed));
    }
    // The last one goes on the way the next measurement expects it: newly announced.
    processes::kill(current.pid);
    (Samples::new(ready), Samples::new(heard))
}
