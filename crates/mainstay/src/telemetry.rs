//! OTLP traces of tasks, attempts and steps, where the standard `OTEL_*` variables ask for them.
//!
//! The log is the source: it is followed like any client follows it, and each entry that ends
//! something becomes a span of past times (`task`, `step`, `span`, `trace`). So no call in the hub
//! waits for telemetry, spans outlive the hub's death, and nothing is in them that isn't an event:
//! no prompt, no answer, no error text. What a collector doesn't take is dropped and counted.

mod cursor;
mod follow;
mod names;
mod send;
mod settings;
mod span;
mod step;
mod task;
mod trace;

use std::path::Path;
use std::time::{Duration, SystemTime};

use hub::Hub;
use opentelemetry_otlp::{
    ExporterBuildError, HttpExporterBuilderSet, Protocol, SpanExporterBuilder, WithExportConfig,
    WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter;
use tokio::sync::mpsc;

use cursor::Cursor;
use send::Loss;
use settings::{Settings, Unspoken};
use task::Tasks;

/// What a stopping hub leaves for the last batch. The next hub sends what was not taken.
const LAST_BATCH: Duration = Duration::from_secs(1);
/// Beside the log of the workspace whose spans it counts.
const CURSOR: &str = "traces.sent";

/// Why no traces are sent although they are wanted.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    #[error(transparent)]
    Protocol(#[from] Unspoken),
    #[error("failed to read the certificates in {path}")]
    Certificate {
        path: String,
        source: std::io::Error,
    },
    #[error("failed to make an HTTP client for traces")]
    Client(#[source] reqwest::Error),
    #[error("failed to make an exporter of traces")]
    Exporter(#[source] ExporterBuildError),
}

/// Begins to send traces if the environment asks for it. The hub works as well without.
pub fn start(hub: &Hub, workspace_dir: &Path) {
    let ready = Settings::read(&|name| std::env::var(name).ok())
        .map_err(Unfit::from)
        .and_then(|wanted| {
            let ready = wanted.map(|settings| Ok((exporter(&settings)?, settings)));
            ready.transpose()
        });
    match ready {
        Ok(None) => {}
        Ok(Some((exporter, settings))) => {
            let sampler = opentelemetry_sdk::trace::Config::default().sampler;
            let cursor = Cursor::new(workspace_dir.join(CURSOR));
            let run = run(hub.clone(), Tasks::new(sampler), exporter, settings, cursor);
            hub.spawn("traces", run);
        }
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "no traces are sent"
            );
        }
    }
}

/// Follows the log until the hub stops, and sends beside it.
async fn run(
    hub: Hub,
    mut tasks: Tasks,
    exporter: impl SpanExporter,
    settings: Settings,
    cursor: Cursor,
) {
    let loss = Loss::default();
    let (queue_tx, queue_rx) = mpsc::channel(settings.queue);
    let sending = send::send(queue_rx, &exporter, &settings, &loss, &cursor);
    tokio::pin!(sending);
    tokio::select! {
        () = &mut sending => return,
        () = follow::follow(&hub, &mut tasks, queue_tx, &loss, &cursor) => {}
    }
    if tokio::time::timeout(LAST_BATCH, sending).await.is_err() {
        tracing::info!("the collector did not take the last spans in time");
    }
}

fn exporter(settings: &Settings) -> Result<opentelemetry_otlp::SpanExporter, Unfit> {
    let built = builder(client(settings)?).build();
    let mut exporter = built.map_err(Unfit::Exporter)?;
    exporter.set_resource(&resource());
    Ok(exporter)
}

/// Reads endpoint, headers and compression from the environment when it builds.
fn builder(client: reqwest::Client) -> SpanExporterBuilder<HttpExporterBuilderSet> {
    opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(client)
}

fn client(settings: &Settings) -> Result<reqwest::Client, Unfit> {
    // As for models: no proxy and no other server learns the headers, which may hold a key.
    let mut client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(settings.timeout);
    if let Some(path) = &settings.certificate {
        let unreadable = |source| Unfit::Certificate {
            path: path.display().to_string(),
            source,
        };
        let pem = std::fs::read(path).map_err(unreadable)?;
        let trusted = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| unreadable(std::io::Error::other(error)))?;
        client = client.tls_certs_merge(trusted);
    }
    client.build().map_err(Unfit::Client)
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`; called `mainstay` where they name nothing.
fn resource() -> Resource {
    let name = opentelemetry::Key::new("service.name");
    let found = Resource::builder().build();
    let named = found
        .get(&name)
        .is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    if named {
        found
    } else {
        Resource::builder().with_service_name("mainstay").build()
    }
}

/// The log's milliseconds as a time.
fn wall(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}
