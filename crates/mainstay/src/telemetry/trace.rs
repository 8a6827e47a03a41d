//! Which trace a task belongs to, and the ids of its spans.
//!
//! Ids are digests of names that the log holds, never random: a hub that reads an entry again makes
//! the same span again, and a child can name its parent before that has ended. A submission's
//! `traceparent` is a client's word: it places the task in that client's trace and does no more.

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample};
use sha2::{Digest, Sha256};

use super::names::INVOKE_AGENT;

/// A task's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    pub id: TraceId,
    /// Above the task's own first span; invalid where there is none.
    pub parent: SpanContext,
    pub sampled: bool,
}

impl Trace {
    /// For a task that a client submitted.
    pub fn begin(task: &str, traceparent: Option<&str>, sampler: &dyn ShouldSample) -> Self {
        let parent = traceparent.and_then(parse);
        let id = parent.as_ref().map_or_else(
            || TraceId::from_bytes(digest(&["trace", task])),
            SpanContext::trace_id,
        );
        let parent = parent.unwrap_or(SpanContext::NONE);
        let around = opentelemetry::Context::new().with_remote_span_context(parent.clone());
        let around = parent.is_valid().then_some(&around);
        let asked = sampler.should_sample(around, id, INVOKE_AGENT, &SpanKind::Internal, &[], &[]);
        Self {
            id,
            parent,
            sampled: asked.decision == SamplingDecision::RecordAndSample,
        }
    }

    /// For a task that is another task's step.
    pub fn below(&self, step: &str) -> Self {
        Self {
            id: self.id,
            parent: self.context(step_span(step), false),
            sampled: self.sampled,
        }
    }

    /// A span of this trace.
    pub fn context(&self, span: SpanId, is_remote: bool) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(self.sampled);
        SpanContext::new(self.id, span, flags, is_remote, TraceState::NONE)
    }
}

/// The task's own span.
pub fn task_span(task: &str) -> SpanId {
    SpanId::from_bytes(digest(&["task", task]))
}

/// A task tried again as a whole, by the entry that ended it.
pub fn retry_span(task: &str, ended_by: u64) -> SpanId {
    SpanId::from_bytes(digest(&["retry", task, &ended_by.to_string()]))
}

pub fn attempt_span(task: &str, attempt: u32) -> SpanId {
    SpanId::from_bytes(digest(&["attempt", task, &attempt.to_string()]))
}

/// A step's first call. Tasks below it hang from this one.
pub fn step_span(step: &str) -> SpanId {
    SpanId::from_bytes(digest(&["step", step]))
}

/// A later call of a step, by the entry that ended it.
pub fn repeat_span(step: &str, ended_by: u64) -> SpanId {
    SpanId::from_bytes(digest(&["repeat", step, &ended_by.to_string()]))
}

/// The start of a digest over parts that can't run into each other.
fn digest<const N: usize>(parts: &[&str]) -> [u8; N] {
    let mut hash = Sha256::new_with_prefix("mainstay span");
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    std::array::from_fn(|at| hash[at])
}

/// W3C's `00-<trace>-<span>-<flags>`; zeros and version `ff` are invalid by its text.
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut parts = traceparent.split('-');
    let mut hex = |digits: usize| {
        let part = parts.next()?;
        let fits = part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then_some(part)
    };
    let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    if version.eq_ignore_ascii_case("ff") || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let sampled = u8::from_str_radix(flags, 16).ok()? & TraceFlags::SAMPLED.to_u8() != 0;
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::default().with_sampled(sampled),
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_sdk::trace::Sampler;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_as_its_text_says() {
        let check = |text: &str, expect: Option<bool>| {
            let read = parse(text);
            assert_eq!(read.as_ref().map(SpanContext::is_sampled), expect, "{text}");
        };
        check(PARENT, Some(true));
        check(&PARENT.replace("-01", "-00"), Some(false));
        check(&PARENT.replacen("00", "cc", 1), Some(true));
        check(
            &format!("{}-later", PARENT.replacen("00", "01", 1)),
            Some(true),
        );
        check(&format!("{PARENT}-more"), None);
        check(&PARENT.replacen("00", "ff", 1), None);
        check(
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            None,
        );
        check(
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            None,
        );
        check(
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            None,
        );
        check("00-é", None);
        check("", None);
    }

    #[test]
    fn a_task_joins_its_clients_trace_or_has_the_same_one_of_its_own_each_time() {
        let all = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        let joined = Trace::begin("t1", Some(PARENT), &all);
        assert_eq!(joined.id.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(joined.parent.span_id().to_string(), "b7ad6b7169203331");
        let own = Trace::begin("t1", None, &all);
        assert_eq!(own, Trace::begin("t1", Some("nonsense"), &all));
        assert_ne!(own.id, Trace::begin("t2", None, &all).id);
        assert!(own.sampled && !own.parent.is_valid());
    }

    #[test]
    fn a_task_below_a_step_stays_in_its_trace() {
        let above = Trace::begin("t1", Some(PARENT), &Sampler::AlwaysOn);
        let below = above.below("s1");
        assert_eq!((below.id, below.sampled), (above.id, true));
        assert_eq!(below.parent.span_id(), step_span("s1"));
        assert!(!below.parent.is_remote());
    }

    #[test]
    fn the_sampler_and_the_clients_flag_decide() {
        let by_parent = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
        let silent = PARENT.replace("-01", "-00");
        assert!(!Trace::begin("t", Some(&silent), &by_parent).sampled);
        assert!(Trace::begin("t", Some(&silent), &Sampler::AlwaysOn).sampled);
        assert!(!Trace::begin("t", Some(PARENT), &Sampler::AlwaysOff).sampled);
    }

    #[test]
    fn ids_of_different_things_differ() {
        let ids = [
            task_span("a"),
            step_span("a"),
            attempt_span("a", 1),
            attempt_span("a", 2),
            attempt_span("a1", 1),
            retry_span("a", 1),
            repeat_span("a", 1),
        ];
        let distinct: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
