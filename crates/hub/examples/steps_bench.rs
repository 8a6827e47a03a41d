//! Durable steps per second in process: intent and result of each are committed before the next.
//!
//! `cargo run --release -p hub --example steps_bench -- [DIR] [TASKS] [STEPS] [BYTES]`

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measurement stops where it fails, has its own clock, and counts little"
)]

use std::path::PathBuf;
use std::time::Instant;

use api::fleet::{Agent, Fleet, OnDivergence, Runtime, TaskBudget};
use bytes::Bytes;
use contract::Versions;
use contract::frame::{self, Decoder};
use contract::keeper::{Instance, InstanceKind, ToHub};
use contract::shim::{FromShim, ToShim};
use hub::home::{HomeEvent, HomeLink};
use hub::step::{Effect, Request, Reserve, Settled, StepAsk, StepKind, StepTurn};
use hub::task::SubmitTask;
use hub::{Hub, Options};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

fn argument(n: usize, default: usize) -> usize {
    std::env::args()
        .nth(n)
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let dir = std::env::args().nth(1).map_or_else(
        || std::env::temp_dir().join("mainstay-steps-bench"),
        PathBuf::from,
    );
    let (tasks, steps, bytes) = (argument(2, 64), argument(3, 200), argument(4, 512));
    let _ = std::fs::remove_dir_all(&dir);
    let (hub, mut tokens) = start(&dir, tasks).await;
    for n in 0..tasks {
        submit(&hub, n).await;
    }
    let mut callers = Vec::new();
    while callers.len() < tasks {
        callers.push(hub.identify(&tokens.recv().await.unwrap()).await.unwrap());
    }
    let begun = Instant::now();
    let running: Vec<_> = callers
        .into_iter()
        .map(|caller| {
            let hub = hub.clone();
            tokio::spawn(async move {
                let mut slowest = Vec::with_capacity(steps);
                for n in 0..steps {
                    let started = Instant::now();
                    one(&hub, &caller, n, bytes).await;
                    slowest.push(started.elapsed().as_micros());
                }
                slowest
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in running {
        all.extend(task.await.unwrap());
    }
    let seconds = begun.elapsed().as_secs_f64();
    all.sort_unstable();
    let at = |part: f64| all[((all.len() - 1) as f64 * part) as usize];
    println!(
        "{} steps of {bytes} B by {tasks} tasks in {seconds:.2} s: {:.0} steps/s; p50 {} µs, p99 {} µs",
        all.len(),
        all.len() as f64 / seconds,
        at(0.5),
        at(0.99)
    );
    std::process::exit(0);
}

/// Submits a task; the fleet may not have arrived yet.
async fn submit(hub: &Hub, n: usize) {
    let work = || SubmitTask {
        agent: "bench".into(),
        input: serde_json::json!(format!("task {n}")),
        author: "bench".into(),
        ..Default::default()
    };
    for _ in 0..1000 {
        if hub.task_submit(work()).await.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("the fleet never arrived");
}

async fn one(hub: &Hub, caller: &hub::caller::Caller, n: usize, bytes: usize) {
    let body = format!("{n:08}").repeat(bytes / 8);
    let ask = StepAsk {
        kind: StepKind::Model,
        name: "m".into(),
        canonical: body.clone().into_bytes(),
        masked: None,
        effect: Effect::Pure,
        retry: false,
        marks: Vec::new(),
        request: Request {
            envelope: b"{}".to_vec(),
            messages: vec![body.into_bytes()],
        },
        reserve: Reserve::default(),
    };
    let StepTurn::Run(mut run, mut stream) = hub.step_begin(caller, ask).await.unwrap() else {
        unreachable!("each call is new")
    };
    run.head(200, "application/json");
    run.push(Bytes::from(vec![b'x'; bytes]), true, None)
        .unwrap();
    run.finish(Settled::default()).await;
    stream.head().await.unwrap();
    while stream.next().await.is_some() {}
    stream.delivered();
}

/// A hub with one instance that can take all tasks; yields each attempt's token.
async fn start(dir: &std::path::Path, tasks: usize) -> (Hub, mpsc::Receiver<String>) {
    let mut fleet = Fleet::empty("default");
    let concurrency = u32::try_from(tasks).unwrap();
    fleet.agents.insert("bench".into(), agent(concurrency));
    let generation = dir.join("generations/001");
    std::fs::create_dir_all(&generation).unwrap();
    std::fs::write(
        generation.join("fleet.json"),
        serde_json::to_vec(&fleet).unwrap(),
    )
    .unwrap();
    let socket = dir.join("bench-0.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (events, events_rx) = mpsc::channel(16);
    let (commands, commands_rx) = mpsc::unbounded_channel();
    std::mem::forget((events.clone(), commands_rx));
    let (hub, _) = Hub::start(Options {
        home: HomeLink {
            events: events_rx,
            commands,
        },
        pid: std::process::id(),
        state_key: [1; 32],
        state_dir: dir.to_owned(),
        workspace: "default".into(),
    })
    .await
    .unwrap();
    let instance = Instance {
        name: "bench-0".into(),
        owner: "bench".into(),
        kind: InstanceKind::Exec,
        index: 0,
        socket: socket.to_str().unwrap().into(),
        shim_pid: 0,
        gateway_port: 0,
        isolation: "none".into(),
        service_port: None,
    };
    events
        .send(HomeEvent::Message(ToHub::GenerationProposed {
            number: 1,
            hash: "h".into(),
        }))
        .await
        .unwrap();
    events
        .send(HomeEvent::Message(ToHub::Instances {
            instances: vec![instance],
        }))
        .await
        .unwrap();
    let (tokens, tokens_rx) = mpsc::channel(tasks);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let hello = FromShim::Hello {
            versions: Versions::OURS,
            instance: "bench-0".into(),
            pid: 1,
            running: vec![],
            service: None,
        };
        stream
            .write_all(&frame::encode(&hello).unwrap())
            .await
            .unwrap();
        let (mut decoder, mut bytes, mut seen) = (
            Decoder::default(),
            vec![0; 65536],
            std::collections::HashSet::new(),
        );
        loop {
            let read = stream.read(&mut bytes).await.unwrap();
            decoder.push(&bytes[..read]);
            while let Some(message) = decoder.next::<ToShim>().unwrap() {
                if let ToShim::Assign { task, attempts, .. } = message
                    && seen.insert(task)
                {
                    tokens.send(attempts[0].token.clone()).await.unwrap();
                }
            }
        }
    });
    (hub, tokens_rx)
}

fn agent(concurrency: u32) -> Agent {
    Agent {
        name: "bench".into(),
        labels: Default::default(),
        models: Vec::new(),
        model_facts: Default::default(),
        instructions: String::new(),
        prompt: None,
        tools: Vec::new(),
        runtime: Runtime::Exec {
            command: vec!["true".into()],
        },
        source: None,
        image: None,
        env: Default::default(),
        secret_env: Default::default(),
        replicas: 1,
        scale: None,
        concurrency,
        queue_max: 10_000,
        volume: None,
        resources: Default::default(),
        placement: Default::default(),
        max_attempts: 10,
        grace_ms: 1000,
        on_divergence: OnDivergence::Ask,
        mask: Default::default(),
        budget: TaskBudget::default(),
    }
}
