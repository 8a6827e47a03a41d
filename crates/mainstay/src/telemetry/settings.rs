//! What the `OTEL_*` variables ask for, as far as the exporter doesn't read them by itself.
//!
//! The exporter reads endpoint, headers and compression, the SDK reads resource and sampler. Here
//! stands whether anything is sent at all, the batch's sizes, and what the HTTP client needs. A
//! value that makes no sense is its default, as OpenTelemetry's specification has it; a protocol
//! that isn't spoken is an error, since spans would go to a port that can't read them.

use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_sdk::trace as sdk;

/// The specification's default for `OTEL_EXPORTER_OTLP_TIMEOUT`.
const TIMEOUT_MS: u64 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Entries whose spans may wait; more are dropped and counted.
    pub queue: usize,
    /// Spans in one request.
    pub batch: usize,
    /// How long a batch waits to fill.
    pub delay: Duration,
    pub timeout: Duration,
    /// Certificates to trust besides the system's.
    pub certificate: Option<PathBuf>,
}

/// The protocol asked for isn't spoken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("OTLP over {0} is not spoken, only http/protobuf")]
pub struct Unspoken(String);

impl Settings {
    /// `None` when no traces are wanted.
    pub fn read(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Self>, Unspoken> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let of_traces = |name: &str| {
            set(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"))
                .or_else(|| set(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let disabled = set("OTEL_SDK_DISABLED").is_some_and(|is| is.eq_ignore_ascii_case("true"));
        let exporter = set("OTEL_TRACES_EXPORTER").unwrap_or_else(|| "otlp".to_owned());
        if disabled || exporter.trim() != "otlp" || of_traces("ENDPOINT").is_none() {
            return Ok(None);
        }
        if let Some(protocol) = of_traces("PROTOCOL").filter(|is| is.trim() != "http/protobuf") {
            return Err(Unspoken(protocol));
        }
        let number = |name: &str| set(name)?.trim().parse::<usize>().ok().filter(|n| *n > 0);
        let queue = number(sdk::OTEL_BSP_MAX_QUEUE_SIZE)
            .unwrap_or(sdk::OTEL_BSP_MAX_QUEUE_SIZE_DEFAULT)
            // A channel's own bound; nobody means more.
            .min(1 << 20);
        let batch = number(sdk::OTEL_BSP_MAX_EXPORT_BATCH_SIZE)
            .unwrap_or(sdk::OTEL_BSP_MAX_EXPORT_BATCH_SIZE_DEFAULT);
        let delay = set(sdk::OTEL_BSP_SCHEDULE_DELAY).and_then(|ms| ms.trim().parse().ok());
        let timeout = of_traces("TIMEOUT").and_then(|ms| ms.trim().parse().ok());
        Ok(Some(Self {
            queue,
            batch: batch.min(queue),
            delay: delay.map_or(sdk::OTEL_BSP_SCHEDULE_DELAY_DEFAULT, Duration::from_millis),
            timeout: Duration::from_millis(timeout.unwrap_or(TIMEOUT_MS)),
            certificate: of_traces("CERTIFICATE").map(PathBuf::from),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, Unspoken> {
        Settings::read(&|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn traces_are_sent_where_an_endpoint_is_named_and_nobody_says_no() {
        let check = |more: &[(&str, &str)], expect: bool| {
            let mut variables = vec![ENDPOINT];
            variables.extend(more);
            assert_eq!(read(&variables).unwrap().is_some(), expect, "{more:?}");
        };
        check(&[], true);
        check(&[("OTEL_TRACES_EXPORTER", "otlp")], true);
        check(&[("OTEL_TRACES_EXPORTER", "")], true);
        check(&[("OTEL_TRACES_EXPORTER", "none")], false);
        check(&[("OTEL_SDK_DISABLED", "True")], false);
        check(&[("OTEL_SDK_DISABLED", "false")], true);
        assert_eq!(read(&[]), Ok(None));
        let only_traces = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1/x")];
        assert!(read(&only_traces).unwrap().is_some());
    }

    #[test]
    fn a_protocol_that_is_not_spoken_is_an_error() {
        let check = |name: &'static str, value: &'static str, spoken: bool| {
            assert_eq!(read(&[ENDPOINT, (name, value)]).is_ok(), spoken, "{value}");
        };
        check("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", true);
        check("OTEL_EXPORTER_OTLP_PROTOCOL", "", true);
        check("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", false);
        check("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", false);
    }

    #[test]
    fn numbers_are_read_and_nonsense_is_the_default() {
        let plain = read(&[ENDPOINT]).unwrap().unwrap();
        assert_eq!(
            (plain.queue, plain.batch, plain.delay, plain.timeout),
            (2048, 512, Duration::from_secs(5), Duration::from_secs(10))
        );
        let nonsense = [
            ENDPOINT,
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ];
        assert_eq!(read(&nonsense).unwrap().unwrap(), plain);
        let set = read(&[
            ENDPOINT,
            ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
            ("OTEL_BSP_SCHEDULE_DELAY", "20"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "700"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"),
        ]);
        let set = set.unwrap().unwrap();
        assert_eq!((set.queue, set.batch), (100, 100));
        assert_eq!(
            (set.delay, set.timeout),
            (Duration::from_millis(20), Duration::from_millis(700))
        );
        assert_eq!(set.certificate, Some(PathBuf::from("/etc/ca.pem")));
    }
}
