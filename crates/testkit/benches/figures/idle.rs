//! What it holds in memory when nothing happens: keeper, hub, shims, and open WebSockets.
//!
//! Figures are PSS (`/proc/PID/smaps_rollup`): pages that processes share are counted once.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use testkit::{Fleet, Up, processes};

use crate::report::Report;

const INSTANCES: u32 = 50;
/// The goal; a hub takes three quarters of its open files, and the table says how many that were.
const SOCKETS: u32 = 20_000;

pub(crate) fn memory(report: &mut Report) {
    report.line("PSS in MiB, a minute of nothing after start not waited for.");
    report.line("");
    report.line("| fleet | keeper | hub | shims, together | keeper + hub |");
    report.line("|---|---|---|---|---|");
    for instances in [0, INSTANCES] {
        let up = Up::start(fleet(instances));
        testkit::until("all instances to run", Duration::from_secs(60), || {
            (up.agents().len() >= instances as usize).then_some(())
        });
        // Start-up's own work is over when two looks a second apart agree.
        std::thread::sleep(Duration::from_secs(2));
        let hub = up.hub_pid().unwrap();
        let keeper = up.keeper_pid();
        let agents: Vec<_> = up.agents().iter().map(|agent| agent.pid).collect();
        let tree = processes::tree(keeper);
        let others = tree.iter().filter(|pid| **pid != keeper && **pid != hub);
        let shims = others.filter(|pid| !agents.contains(pid));
        let sum: u64 = shims.filter_map(|pid| processes::pss_kib(*pid)).sum();
        let (keeper, hub) = (pss(keeper), pss(hub));
        report.line(format!(
            "| {instances} instances of a service | {keeper:.1} | {hub:.1} | {:.1} | {:.1} |",
            sum as f64 / 1024.0,
            keeper + hub
        ));
    }
}

pub(crate) fn websockets(report: &mut Report) {
    let up = Up::start(fleet(1));
    let hub = up.hub_pid().unwrap();
    let before = pss(hub);
    let token = up.token();
    let sockets: Vec<_> = (0..SOCKETS)
        .map_while(|number| open(&up, &token, number))
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let after = pss(hub);
    let opened = sockets.len();
    report.line(
        "| idle WebSocket sessions, without TLS | hub before, MiB | hub after, MiB | KiB each |",
    );
    report.line("|---|---|---|---|");
    report.line(format!(
        "| {opened} | {before:.1} | {after:.1} | {:.2} |",
        (after - before) * 1024.0 / opened as f64
    ));
}

fn pss(pid: i32) -> f64 {
    processes::pss_kib(pid).map_or(f64::NAN, |kib| kib as f64 / 1024.0)
}

/// A WebSocket after its handshake; nothing when the server takes no more.
fn open(up: &Up, token: &str, number: u32) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", up.port())).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    let head = format!(
        "GET /ws/idle?session=s{number} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nauthorization: Bearer {token}\r\n\
         upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        up.port()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut status = String::new();
    BufReader::with_capacity(1, &stream)
        .read_line(&mut status)
        .ok()?;
    status.contains(" 101 ").then_some(stream)
}

fn fleet(replicas: u32) -> Fleet {
    let command = serde_json::json!([env!("CARGO_BIN_EXE_testkit-idle")]);
    Fleet::new().with(
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
  replicas: {replicas}
"#
        ),
    )
}
