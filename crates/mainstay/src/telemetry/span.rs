//! One span as the exporter takes it, from what the log says about one thing that has ended.
//!
//! Names reach it from agents and manifests, so their length is bounded here. No field takes
//! content: an error is a class, never its text.

use std::time::SystemTime;

use mainstay_core::usage::{Cost, Usage};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::names;
use super::trace::Trace;

/// Longer names are cut.
const MAX_TEXT_BYTES: usize = 256;

pub struct Draft {
    context: SpanContext,
    parent: SpanContext,
    name: String,
    kind: SpanKind,
    started: SystemTime,
    attributes: Vec<KeyValue>,
    error: Option<String>,
}

impl Draft {
    pub fn new(trace: &Trace, id: SpanId, name: &str, started: SystemTime) -> Self {
        Self {
            context: trace.context(id, false),
            parent: SpanContext::NONE,
            name: clipped(name).to_owned(),
            kind: SpanKind::Internal,
            started,
            attributes: Vec::new(),
            error: None,
        }
    }

    pub fn below(mut self, parent: SpanContext) -> Self {
        self.parent = parent;
        self
    }

    /// It left for another server.
    pub fn outbound(mut self) -> Self {
        self.kind = SpanKind::Client;
        self
    }

    pub fn text(mut self, name: &'static str, value: &str) -> Self {
        if !value.is_empty() {
            let value = clipped(value).to_owned();
            self.attributes.push(KeyValue::new(name, value));
        }
        self
    }

    pub fn number(mut self, name: &'static str, value: u64) -> Self {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.attributes.push(KeyValue::new(name, value));
        self
    }

    pub fn used(self, usage: &Usage, cost: &Cost) -> Self {
        let mut used = self
            .number(names::INPUT_TOKENS, usage.input_tokens)
            .number(names::OUTPUT_TOKENS, usage.output_tokens);
        if usage.cache_read_tokens > 0 {
            used = used.number(names::CACHE_READ_TOKENS, usage.cache_read_tokens);
        }
        if usage.cache_write_tokens > 0 {
            used = used.number(names::CACHE_CREATION_TOKENS, usage.cache_write_tokens);
        }
        if let Some(usd) = cost.usd() {
            used.attributes.push(KeyValue::new(names::COST, usd));
        }
        used
    }

    /// It failed, and this is the kind of failure.
    pub fn error(mut self, class: Option<&str>) -> Self {
        self.error = class.map(str::to_owned);
        self
    }

    /// The wall clock may have jumped between: no span ends before it started.
    pub fn end(self, ended: SystemTime, scope: &InstrumentationScope) -> SpanData {
        let class = self.error.clone();
        let draft = match &class {
            Some(class) => self.text(names::ERROR, class),
            None => self,
        };
        SpanData {
            span_context: draft.context,
            parent_span_id: draft.parent.span_id(),
            parent_span_is_remote: draft.parent.is_remote(),
            span_kind: draft.kind,
            name: draft.name.into(),
            start_time: draft.started.min(ended),
            end_time: ended,
            attributes: draft.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: class.map_or(Status::Unset, |_| Status::error("")),
            instrumentation_scope: scope.clone(),
        }
    }
}

fn clipped(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_is_cut_between_characters() {
        assert_eq!(clipped("short"), "short");
        let long = "é".repeat(200);
        assert_eq!(clipped(&long), "é".repeat(128));
        assert_eq!(clipped(&format!("a{long}")).len(), 255);
    }
}
