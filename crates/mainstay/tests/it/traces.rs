//! A hub that sends traces to a collector on loopback, told where by the standard variables.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::house::{House, signal, wait_for};

const PROGRAM: &str = r#"
import json, os, sys, urllib.request
task = json.load(sys.stdin)
for n in range(4):
    body = {"model": "script/demo", "messages": [{"role": "user", "content": f"{task['input']} {n}"}]}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
        {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"})
    urllib.request.urlopen(request).read()
print("kept to ourselves")
"#;

const MANIFEST: &str = "apiVersion: mainstay.dev/v1alpha1
kind: Provider
metadata: {name: script}
spec: {type: script, script: {file: script.yaml}}
---
apiVersion: mainstay.dev/v1alpha1
kind: Agent
metadata: {name: four}
spec:
  models: [script/demo]
  source: ./code
  runtime: {exec: {command: [python3, four.py]}}
";

/// What reached the collector.
#[derive(Default)]
struct Got {
    spans: Vec<Span>,
    services: Vec<String>,
    keys: Vec<Option<String>>,
    bytes: Vec<u8>,
}

struct Collector {
    endpoint: String,
    got: Arc<Mutex<Got>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let got = Arc::new(Mutex::new(Got::default()));
        let shared = Arc::clone(&got);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let got = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &got));
            }
        });
        Self { endpoint, got }
    }

    fn spans(&self) -> Vec<Span> {
        self.got.lock().unwrap().spans.clone()
    }

    fn count(&self, name: &str) -> usize {
        self.spans().iter().filter(|span| span.name == name).count()
    }
}

/// Takes requests of one connection until it ends.
fn answer(stream: TcpStream, got: &Mutex<Got>) {
    let mut reader = BufReader::new(stream);
    loop {
        let (mut length, mut key, mut line) = (0, None, String::new());
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        assert!(line.starts_with("POST /v1/traces "), "{line}");
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim().split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "x-key" => key = Some(value.to_owned()),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        keep(&body, key, &mut got.lock().unwrap());
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        reader.get_mut().write_all(ok).unwrap();
    }
}

fn keep(body: &[u8], key: Option<String>, got: &mut Got) {
    got.bytes.extend_from_slice(body);
    got.keys.push(key);
    for resource in ExportTraceServiceRequest::decode(body)
        .unwrap()
        .resource_spans
    {
        let attributes = resource.resource.unwrap().attributes;
        let service = attributes.iter().find(|a| a.key == "service.name").unwrap();
        let Some(Any::StringValue(service)) = service.value.clone().unwrap().value else {
            panic!("{service:?}");
        };
        got.services.push(service);
        for scope in resource.scope_spans {
            got.spans.extend(scope.spans);
        }
    }
}

fn house(endpoint: &str, delay_ms: u32) -> House {
    let house = House::new();
    let script = format!("rules:\n  - answer: {{text: \"secret\", delayMs: {delay_ms}}}\n");
    house.write("fleet/code/four.py", PROGRAM);
    house.write("fleet/script.yaml", &script);
    house.write("fleet/fleet.yaml", MANIFEST);
    let fleet = house.path("fleet");
    up(house, &fleet, endpoint)
}

fn up(mut house: House, fleet: &Path, endpoint: &str) -> House {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k1"),
        ("OTEL_SERVICE_NAME", "fleet-one"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
    ] {
        house.set(name, value);
    }
    house.up(&[fleet]);
    house
}

/// Every span but the first has its parent among the others, in one trace.
fn check_tree(spans: &[Span]) {
    for span in spans {
        assert_eq!(span.trace_id, spans[0].trace_id, "{spans:#?}");
        let parent = spans
            .iter()
            .any(|other| other.span_id == span.parent_span_id);
        let root = span.name == "invoke_agent four";
        assert!(
            root == span.parent_span_id.is_empty() && root != parent,
            "{spans:#?}"
        );
    }
}

#[test]
fn a_task_is_one_trace_at_the_collector_without_its_content() {
    let collector = Collector::start();
    let house = house(&collector.endpoint, 0);
    house.run(&["run", "four", "a private question"]).expect(0);
    wait_for("the task's span", || {
        (collector.count("invoke_agent four") == 1).then_some(())
    });
    let got = collector.got.lock().unwrap();
    let names: Vec<_> = got.spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "chat demo",
            "chat demo",
            "chat demo",
            "chat demo",
            "attempt 1",
            "invoke_agent four"
        ]
    );
    check_tree(&got.spans);
    assert!(got.services.iter().all(|name| name == "fleet-one"));
    assert!(got.keys.iter().all(|key| key.as_deref() == Some("k1")));
    let text = String::from_utf8_lossy(&got.bytes);
    for content in ["secret", "private", "ourselves"] {
        assert!(!text.contains(content), "{content}");
    }
}

#[test]
fn a_trace_is_whole_although_hub_and_agent_were_killed() {
    let collector = Collector::start();
    let house = house(&collector.endpoint, 300);
    let child = house
        .command(&["run", "four", "go"])
        .stdout(std::process::Stdio::null())
        .spawn();
    let mut child = child.unwrap();
    wait_for("a call", || {
        (collector.count("chat demo") >= 1).then_some(())
    });
    signal(house.agent_pid("four", None), "KILL");
    wait_for("the attempt's end", || {
        (collector.count("attempt 1") == 1).then_some(())
    });
    let seen = collector.count("chat demo");
    wait_for("another call", || {
        (collector.count("chat demo") > seen).then_some(())
    });
    signal(house.hub_pid(), "KILL");
    wait_for("the task's span", || {
        (collector.count("invoke_agent four") >= 1).then_some(())
    });
    assert!(child.wait().unwrap().success());
    // What the first hub had not been thanked for comes again, as the same span.
    let mut spans = collector.spans();
    spans.sort_by(|a, b| a.span_id.cmp(&b.span_id));
    spans.dedup();
    check_tree(&spans);
    let mut ids: Vec<_> = spans.iter().map(|span| span.span_id.clone()).collect();
    ids.dedup();
    assert_eq!(ids.len(), spans.len(), "{spans:#?}");
    let named = |name: &str| spans.iter().filter(|span| span.name == name).count();
    assert_eq!((named("attempt 1"), named("invoke_agent four")), (1, 1));
    assert!(named("chat demo") >= 4);
}

#[test]
fn a_collector_that_is_away_costs_nothing_but_its_spans() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let mut house = house(&endpoint, 0);
    house.run(&["run", "four", "go"]).expect(0);
    wait_for("the loss to be told", || {
        house.said().contains("spans were dropped").then_some(())
    });
    house.run(&["run", "four", "go"]).expect(0);
    house.stop();
}

#[test]
fn an_agent_and_the_one_it_calls_stand_in_the_trace_of_their_client() {
    let collector = Collector::start();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/handoff");
    let house = up(House::new(), &example, &collector.endpoint);
    submit(&house, "editor", CLIENT);
    wait_for("the task's span", || {
        (collector.count("invoke_agent editor") == 1).then_some(())
    });
    let spans = collector.spans();
    let id = |name: &str| {
        let mut named = spans.iter().filter(|span| span.name == name);
        let span = named.next().unwrap_or_else(|| panic!("{name}: {spans:#?}"));
        (hex(&span.span_id), hex(&span.parent_span_id))
    };
    let (editor, client) = id("invoke_agent editor");
    assert_eq!(client, &CLIENT[36..52]);
    let (tool, attempt) = id("execute_tool ask_writer");
    let attempts: Vec<_> = spans
        .iter()
        .filter(|span| hex(&span.span_id) == attempt)
        .map(|span| hex(&span.parent_span_id))
        .collect();
    assert_eq!(attempts, [editor]);
    let (_, above_writer) = id("invoke_agent writer");
    assert_eq!(above_writer, tool);
    assert!(
        spans
            .iter()
            .all(|span| hex(&span.trace_id) == CLIENT[3..35])
    );
}

const CLIENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A client of its own, since the command line sends no trace.
fn submit(house: &House, agent: &str, traceparent: &str) {
    let address = house.link.split_once("://").unwrap().1;
    let (address, _) = address.split_once('/').unwrap();
    let token = house.run(&["token"]).expect(0).out;
    let body = r#"{"input": "Rain"}"#;
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!(
        "POST /api/v1/agents/{agent}/tasks HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ntraceparent: {traceparent}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        token.trim(),
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
}
