//! Against an exporter that a test holds, and against a collector on loopback.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::Sampler;
use prost::Message;

use super::*;
use crate::telemetry::span::Draft;
use crate::telemetry::trace::{Trace, task_span};

fn span(name: &str) -> SpanData {
    let trace = Trace::begin(name, None, &Sampler::AlwaysOn);
    let now = SystemTime::UNIX_EPOCH;
    Draft::new(&trace, task_span(name), name, now)
        .text(crate::telemetry::names::AGENT, "helper")
        .number(crate::telemetry::names::INPUT_TOKENS, 3)
        .end(now, &InstrumentationScope::default())
}

fn settings(batch: usize, delay: Duration) -> Settings {
    Settings {
        queue: 100,
        batch,
        delay,
        timeout: Duration::from_millis(500),
        certificate: None,
    }
}

/// What was exported, in batches; refuses the first so many.
#[derive(Clone, Debug, Default)]
struct Held {
    refuse: usize,
    batches: Arc<Mutex<Vec<Vec<String>>>>,
}

impl SpanExporter for Held {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let names = batch.iter().map(|span| span.name.to_string()).collect();
        let mut batches = self.batches.lock().unwrap();
        batches.push(names);
        if batches.len() > self.refuse {
            Ok(())
        } else {
            Err(OTelSdkError::InternalFailure("away".into()))
        }
    }
}

async fn sent(exporter: &Held, settings: &Settings, names: &[&str]) -> (u64, Option<String>) {
    let (queue_tx, queue_rx) = mpsc::channel(settings.queue);
    for (seq, name) in names.iter().enumerate() {
        let spans = vec![span(name)];
        let seq = seq as u64;
        queue_tx.send(Spans { seq, spans }).await.unwrap();
    }
    drop(queue_tx);
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("traces.sent");
    let (loss, cursor) = (Loss::default(), Cursor::new(path.clone()));
    send(queue_rx, exporter, settings, &loss, &cursor).await;
    (loss.total(), std::fs::read_to_string(path).ok())
}

#[tokio::test]
async fn spans_go_in_batches_and_the_rest_goes_at_the_end() {
    let exporter = Held::default();
    let (lost, cursor) = sent(
        &exporter,
        &settings(2, Duration::from_secs(600)),
        &["a", "b", "c"],
    )
    .await;
    assert_eq!(
        *exporter.batches.lock().unwrap(),
        [vec!["a", "b"], vec!["c"]]
    );
    assert_eq!((lost, cursor.as_deref()), (0, Some("2\n")));
}

#[tokio::test]
async fn a_batch_that_is_refused_is_counted_and_the_next_goes_on() {
    let exporter = Held {
        refuse: 1,
        ..Held::default()
    };
    let (lost, cursor) = sent(
        &exporter,
        &settings(2, Duration::from_secs(600)),
        &["a", "b", "c"],
    )
    .await;
    assert_eq!((lost, cursor.as_deref()), (2, Some("2\n")));
    let never = Held {
        refuse: 9,
        ..Held::default()
    };
    let (lost, cursor) = sent(&never, &settings(1, Duration::ZERO), &["a", "b"]).await;
    assert_eq!((lost, cursor), (2, None));
}

#[tokio::test]
async fn a_batch_waits_no_longer_than_its_delay() {
    let (queue_tx, mut queue_rx) = mpsc::channel(10);
    let spans = vec![span("a")];
    queue_tx.send(Spans { seq: 5, spans }).await.unwrap();
    let settings = settings(10, Duration::from_millis(1));
    // The queue stays open: only the delay can end this batch.
    let (seq, batch) = next_batch(&mut queue_rx, &settings).await.unwrap();
    assert_eq!((seq, batch.len()), (5, 1));
    drop(queue_tx);
    assert!(next_batch(&mut queue_rx, &settings).await.is_none());
}

type Requests = Arc<Mutex<Vec<(HeaderMap, Bytes)>>>;

async fn collector(answers: &'static [u16]) -> (String, Requests) {
    let requests = Requests::default();
    let take = async move |State(requests): State<Requests>, headers: HeaderMap, body: Bytes| {
        let mut requests = requests.lock().unwrap();
        let status = answers.get(requests.len()).copied().unwrap_or(200);
        requests.push((headers, body));
        StatusCode::from_u16(status).unwrap()
    };
    let router = axum::Router::new()
        .route("/v1/traces", axum::routing::post(take))
        .with_state(Arc::clone(&requests));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}/v1/traces"), requests)
}

fn exporter(endpoint: &str) -> opentelemetry_otlp::SpanExporter {
    let client = crate::telemetry::client(&settings(1, Duration::ZERO)).unwrap();
    crate::telemetry::builder(client)
        .with_endpoint(endpoint)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_collector_gets_protobuf_that_says_what_the_span_says() {
    let (endpoint, requests) = collector(&[503]).await;
    // The first answer says to come again: the exporter does.
    exporter(&endpoint).export(vec![span("a")]).await.unwrap();
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    let (headers, body) = &requests[1];
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let got = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!(got.name, "a");
    assert_eq!(got.span_id, task_span("a").to_bytes());
    let keys: Vec<_> = got.attributes.iter().map(|a| a.key.as_str()).collect();
    assert_eq!(keys, ["gen_ai.agent.name", "gen_ai.usage.input_tokens"]);
}

#[tokio::test]
async fn a_collector_that_is_away_or_sends_elsewhere_is_an_error_in_bounded_time() {
    let begun = std::time::Instant::now();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let away = format!("http://{}/v1/traces", closed.local_addr().unwrap());
    // It takes connections and never answers.
    assert!(exporter(&away).export(vec![span("a")]).await.is_err());
    drop(closed);
    assert!(exporter(&away).export(vec![span("a")]).await.is_err());
    let (elsewhere, requests) = collector(&[307]).await;
    assert!(exporter(&elsewhere).export(vec![span("a")]).await.is_err());
    assert_eq!(requests.lock().unwrap().len(), 1);
    assert!(begun.elapsed() < Duration::from_secs(60));
}
