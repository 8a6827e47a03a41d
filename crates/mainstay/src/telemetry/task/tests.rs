//! Entries in, spans out: each story is written as a person would tell it, and so are its spans.
#![allow(clippy::cast_possible_wrap, reason = "a story has few entries")]

use std::collections::HashMap;

use mainstay_core::step::{Digest, Effect, StepKind};
use mainstay_core::task::{Parent, ResumeAs, apply, create};
use mainstay_core::usage::{Cost, Usage};
use opentelemetry::trace::{SpanId, Status};
use opentelemetry_sdk::trace::Sampler;

use super::super::trace::step_span;
use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn submitted() -> Event {
    Event::TaskSubmitted {
        agent: "helper".into(),
        session: "s1".into(),
        deadline_ms: None,
        parent: None,
        idempotency: None,
        ambient: false,
    }
}

fn started(attempt: u32) -> Event {
    Event::AttemptStarted {
        attempt,
        instance: "helper-0".into(),
        generation: 1,
    }
}

fn exited(attempt: u32, class: Class) -> Event {
    let exit = Exit {
        class,
        code: None,
        signal: None,
    };
    Event::AttemptEnded { attempt, exit }
}

fn intended(n: u32, kind: StepKind, name: &str) -> Event {
    Event::StepIntended {
        n,
        id: format!("step-{n}"),
        kind,
        name: name.into(),
        key: Digest([0; 32]),
        masked: None,
        effect: Effect::Pure,
        attempt: 1,
        incarnation: 1,
        proposed_by: None,
        reserved_tokens: 0,
        reserved_micro_usd: 0,
    }
}

fn finished(n: u32, model: Option<&str>, is_error: bool) -> Event {
    let usage = Usage {
        input_tokens: 10,
        output_tokens: 5,
        cache_read_tokens: 4,
        ..Usage::default()
    };
    Event::StepFinished {
        n,
        status: 200,
        content_type: "application/json".into(),
        usage: if model.is_some() {
            usage
        } else {
            Usage::default()
        },
        cost: Cost::from_usd(Some(0.25)),
        model: model.map(str::to_owned),
        marks: Vec::new(),
        proposals: Vec::new(),
        is_error,
        attempt: 1,
    }
}

fn failed(n: u32, status: u16, broken: bool) -> Event {
    Event::StepFailed {
        n,
        status,
        content_type: String::new(),
        broken,
        usage: Usage::default(),
        cost: Cost::default(),
    }
}

fn repeated(n: u32, attempt: u32) -> Event {
    Event::StepRepeated {
        n,
        attempt,
        incarnation: 2,
        doubtful: true,
    }
}

fn completed() -> Event {
    Event::TaskCompleted {
        content_type: "text/plain".into(),
        diverged_at: None,
    }
}

fn tasks() -> Tasks {
    Tasks::new(Box::new(Sampler::ParentBased(Box::new(Sampler::AlwaysOn))))
}

/// Each event is entry `i` at `i` seconds. `new_hub_at` forgets everything before that entry.
fn told_by(
    tasks: &mut Tasks,
    trace: Option<Trace>,
    events: &[Event],
    new_hub_at: Option<usize>,
) -> Vec<SpanData> {
    let mut spans = Vec::new();
    let mut record: Option<TaskRecord> = None;
    for (i, event) in events.iter().enumerate() {
        let (seq, ms) = (i as u64, i as i64 * 1000);
        match &mut record {
            None => record = create("t1", seq, ms, event),
            Some(record) => apply(record, seq, ms, event),
        }
        if new_hub_at == Some(i) {
            tasks.open.clear();
        }
        if tasks.must_meet("t1", event) {
            let trace = trace.clone().unwrap_or_else(|| tasks.begin("t1", None));
            tasks.meet(record.as_ref().unwrap(), trace);
        }
        let at = At {
            seq,
            time: super::super::wall(ms),
        };
        spans.extend(tasks.entry(at, "t1", event));
    }
    spans
}

fn told(events: &[Event]) -> Vec<SpanData> {
    told_by(&mut tasks(), None, events, None)
}

/// `name < parent [from..to] !error`, with ids named by the spans that have them.
fn shown(spans: &[SpanData]) -> Vec<String> {
    let mut names: HashMap<SpanId, &str> = HashMap::new();
    for span in spans {
        let before = names.insert(span.span_context.span_id(), &span.name);
        assert_eq!(before, None, "two spans have one id: {spans:#?}");
    }
    let seconds = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        since.as_secs()
    };
    let line = |span: &SpanData| {
        let parent = match span.parent_span_id {
            SpanId::INVALID => "-",
            id => names.get(&id).copied().unwrap_or("?"),
        };
        let error = attribute(span, names::ERROR).map(|class| format!(" !{class}"));
        assert_eq!(
            error.is_some(),
            span.status == Status::error(""),
            "{span:?}"
        );
        format!(
            "{} < {parent} [{}..{}]{}",
            span.name,
            seconds(span.start_time),
            seconds(span.end_time),
            error.unwrap_or_default()
        )
    };
    spans.iter().map(line).collect()
}

fn attribute(span: &SpanData, name: &str) -> Option<String> {
    let found = span.attributes.iter().find(|a| a.key.as_str() == name);
    found.map(|attribute| attribute.value.to_string())
}

fn attributes(span: &SpanData) -> Vec<String> {
    let shown = |a: &opentelemetry::KeyValue| format!("{}={}", a.key, a.value);
    span.attributes.iter().map(shown).collect()
}

#[track_caller]
fn check(events: &[Event], expect: &[&str]) {
    assert_eq!(shown(&told(events)), expect);
}

#[test]
fn a_task_is_a_tree_of_attempt_and_steps() {
    let spans = told(&[
        submitted(),
        started(1),
        intended(1, StepKind::Model, "claude/claude-sonnet-5"),
        finished(1, Some("claude/claude-sonnet-5"), false),
        intended(2, StepKind::Tool, "refund"),
        finished(2, None, false),
        exited(1, Class::Done),
        completed(),
    ]);
    assert_eq!(
        shown(&spans),
        [
            "chat claude-sonnet-5 < attempt 1 [2..3]",
            "execute_tool refund < attempt 1 [4..5]",
            "attempt 1 < invoke_agent helper [1..6]",
            "invoke_agent helper < - [0..7]",
        ]
    );
    assert_eq!(
        attributes(&spans[0]),
        [
            "gen_ai.operation.name=chat",
            "gen_ai.provider.name=claude",
            "gen_ai.request.model=claude-sonnet-5",
            "gen_ai.response.model=claude-sonnet-5",
            "gen_ai.usage.input_tokens=10",
            "gen_ai.usage.output_tokens=5",
            "gen_ai.usage.cache_read.input_tokens=4",
            "mainstay.cost.usd=0.25",
            "gen_ai.agent.name=helper",
            "gen_ai.conversation.id=s1",
            "mainstay.task.id=t1",
            "mainstay.step.id=step-1",
            "mainstay.step.number=1",
            "mainstay.attempt=1",
        ]
    );
    assert_eq!(
        attributes(&spans[1])[..4],
        [
            "gen_ai.operation.name=execute_tool",
            "gen_ai.tool.name=refund",
            "gen_ai.tool.type=extension",
            "gen_ai.tool.call.id=step-2",
        ]
    );
    assert_eq!(
        attributes(&spans[3]),
        [
            "gen_ai.operation.name=invoke_agent",
            "gen_ai.agent.name=helper",
            "gen_ai.conversation.id=s1",
            "mainstay.task.id=t1",
            "mainstay.task.state=completed",
            "mainstay.attempts=1",
        ]
    );
    let kinds: Vec<_> = spans.iter().map(|span| &span.span_kind).collect();
    use opentelemetry::trace::SpanKind::{Client, Internal};
    assert_eq!(kinds, [&Client, &Internal, &Internal, &Internal]);
    assert!(spans.iter().all(|span| {
        let (one, other) = (&span.span_context, &spans[3].span_context);
        one.trace_id() == other.trace_id() && one.is_sampled()
    }));
}

#[test]
fn a_model_that_was_not_asked_for_is_named_as_what_served() {
    let spans = told(&[
        submitted(),
        intended(1, StepKind::Model, "gpt-4o"),
        finished(1, Some("claude/claude-sonnet-5"), false),
    ]);
    assert_eq!(spans[0].name, "chat gpt-4o");
    let named = |name| attribute(&spans[0], name);
    assert_eq!(named(names::PROVIDER).as_deref(), Some("claude"));
    assert_eq!(
        named(names::RESPONSE_MODEL).as_deref(),
        Some("claude-sonnet-5")
    );
}

#[test]
fn a_killed_attempt_is_an_error_and_the_task_is_none() {
    check(
        &[
            submitted(),
            started(1),
            exited(1, Class::KilledFromOutside),
            started(2),
            exited(2, Class::Done),
            completed(),
        ],
        &[
            "attempt 1 < invoke_agent helper [1..2] !killed_from_outside",
            "attempt 2 < invoke_agent helper [3..4]",
            "invoke_agent helper < - [0..5]",
        ],
    );
}

#[test]
fn a_failed_task_names_its_code_and_never_its_message() {
    let failed = Event::TaskFailed {
        code: "budget".into(),
        message: "secret".into(),
        diverged_at: None,
    };
    let spans = told(&[submitted(), failed]);
    assert_eq!(shown(&spans), ["invoke_agent helper < - [0..1] !budget"]);
    assert!(!format!("{spans:?}").contains("secret"));
    check(
        &[submitted(), Event::TaskCanceled],
        &["invoke_agent helper < - [0..1]"],
    );
}

#[test]
fn each_call_of_a_step_is_a_span_of_its_own() {
    check(
        &[
            submitted(),
            intended(1, StepKind::Model, "p/m"),
            failed(1, 429, false),
            repeated(1, 1),
            failed(1, 200, true),
            repeated(1, 1),
            finished(1, Some("p/m"), false),
        ],
        &[
            "chat m < ? [1..2] !429",
            "chat m < ? [3..4] !broken",
            "chat m < ? [5..6]",
        ],
    );
}

#[test]
fn a_call_whose_outcome_nobody_knows_ends_where_it_was_lost() {
    let begun = [
        submitted(),
        intended(1, StepKind::Tool, "refund"),
        Event::StepUnknown { n: 1 },
    ];
    let with = |more: &[Event]| [&begun[..], more].concat();
    // Sent again.
    check(
        &with(&[repeated(1, 1), finished(1, None, true)]),
        &[
            "execute_tool refund < ? [1..2] !unknown",
            "execute_tool refund < ? [3..4] !tool_error",
        ],
    );
    // Read back: it had arrived.
    check(
        &with(&[finished(1, None, false)]),
        &["execute_tool refund < ? [1..3]"],
    );
    // Settled by a person.
    let resolved = |how| Event::StepResolved {
        n: 1,
        how,
        status: 200,
        content_type: String::new(),
    };
    let spans = told(&with(&[resolved(ResumeAs::Done)]));
    assert_eq!(shown(&spans), ["execute_tool refund < ? [1..3]"]);
    assert_eq!(
        attribute(&spans[0], names::RESOLVED).as_deref(),
        Some("done")
    );
    check(
        &with(&[resolved(ResumeAs::Fail)]),
        &["execute_tool refund < ? [1..2] !unknown"],
    );
    // Never settled.
    check(
        &with(&[Event::TaskCanceled]),
        &[
            "execute_tool refund < ? [1..2] !unknown",
            "invoke_agent helper < - [0..3]",
        ],
    );
}

#[test]
fn a_call_that_was_held_is_none_until_it_is_let_go() {
    check(
        &[
            submitted(),
            intended(1, StepKind::Tool, "refund"),
            Event::StepHeld { n: 1 },
            Event::TaskResumed,
            repeated(1, 1),
            finished(1, None, false),
        ],
        &["execute_tool refund < ? [4..5]"],
    );
}

#[test]
fn a_call_parked_behind_an_agents_task_ends_there_and_is_another_when_it_goes_on() {
    let task = "child".to_owned();
    check(
        &[
            submitted(),
            intended(1, StepKind::Tool, "ask-writer"),
            Event::StepParked { n: 1, task },
            Event::TaskResumed,
            repeated(1, 2),
            finished(1, None, false),
        ],
        &[
            "execute_tool ask-writer < ? [1..2] !parked",
            "execute_tool ask-writer < ? [4..5]",
        ],
    );
}

#[test]
fn a_retried_task_is_told_below_its_first_telling() {
    check(
        &[
            submitted(),
            started(1),
            exited(1, Class::Final),
            Event::TaskFailed {
                code: "agent".into(),
                message: String::new(),
                diverged_at: None,
            },
            Event::TaskRetried,
            started(2),
            exited(2, Class::Done),
            completed(),
        ],
        &[
            "attempt 1 < invoke_agent helper [1..2] !final",
            "invoke_agent helper < - [0..3] !agent",
            "attempt 2 < invoke_agent helper [5..6]",
            "invoke_agent helper < invoke_agent helper [4..7]",
        ],
    );
}

#[test]
fn a_hub_that_comes_in_the_middle_tells_the_same_spans() {
    let story = [
        submitted(),
        started(1),
        intended(1, StepKind::Model, "p/m"),
        finished(1, Some("p/m"), false),
        intended(2, StepKind::Tool, "refund"),
        Event::StepUnknown { n: 2 },
        exited(1, Class::CutOff),
        started(2),
        repeated(2, 2),
        finished(2, None, false),
        exited(2, Class::Done),
        completed(),
    ];
    let whole = told(&story);
    for middle in 1..story.len() {
        let again = told_by(&mut tasks(), None, &story, Some(middle));
        let ids = |spans: &[SpanData]| -> Vec<_> {
            let ids = spans.iter().map(|span| span.span_context.span_id());
            ids.collect()
        };
        assert_eq!(ids(&again), ids(&whole), "a new hub at entry {middle}");
        assert_eq!(
            shown(&again).last(),
            shown(&whole).last(),
            "a new hub at entry {middle}"
        );
    }
}

#[test]
fn a_task_that_was_done_before_it_is_read_is_told_whole() {
    let story = [
        submitted(),
        started(1),
        intended(1, StepKind::Model, "p/m"),
        failed(1, 500, false),
        repeated(1, 1),
        finished(1, Some("p/m"), false),
        exited(1, Class::Done),
        completed(),
    ];
    let mut tasks = tasks();
    let mut record = create("t1", 0, 0, &story[0]).unwrap();
    for (i, event) in story.iter().enumerate().skip(1) {
        apply(&mut record, i as u64, i as i64 * 1000, event);
    }
    let mut spans = Vec::new();
    for (i, event) in story.iter().enumerate() {
        if tasks.must_meet("t1", event) {
            tasks.meet(&record, tasks.begin("t1", None));
        }
        let at = At {
            seq: i as u64,
            time: super::super::wall(i as i64 * 1000),
        };
        spans.extend(tasks.entry(at, "t1", event));
    }
    assert_eq!(spans, told(&story));
    assert!(tasks.open.is_empty());
}

#[test]
fn nothing_is_kept_of_a_task_that_has_ended() {
    let mut tasks = tasks();
    // Ended by the hub; its process ends after it.
    let story = [submitted(), started(1), Event::TaskCanceled];
    told_by(&mut tasks, None, &story, None);
    assert_eq!(tasks.open.len(), 1);
    let at = At {
        seq: 3,
        time: super::super::wall(3000),
    };
    let late = tasks.entry(at, "t1", &exited(1, Class::Asked));
    assert_eq!(late.len(), 1);
    assert!(tasks.open.is_empty());
    let noted = Event::Noted {
        attempt: 1,
        what: String::new(),
    };
    assert!(!tasks.must_meet("t1", &noted));
}

#[test]
fn a_task_in_a_clients_trace_hangs_from_the_clients_span() {
    let mut tasks = tasks();
    let trace = tasks.begin("t1", Some(PARENT));
    let spans = told_by(&mut tasks, Some(trace), &[submitted(), completed()], None);
    let root = &spans[0];
    assert_eq!(root.parent_span_id.to_string(), "b7ad6b7169203331");
    assert!(root.parent_span_is_remote);
    let id = root.span_context.trace_id().to_string();
    assert_eq!(id, "0af7651916cd43dd8448eb211c80319c");
}

#[test]
fn a_task_below_another_tasks_step_hangs_from_that_step() {
    let mut tasks = tasks();
    let mut child = submitted();
    if let Event::TaskSubmitted { parent, .. } = &mut child {
        *parent = Some(Parent {
            task: "t0".into(),
            step: "step-9".into(),
        });
    }
    let above = tasks.begin("t0", None);
    let trace = above.below("step-9");
    let spans = told_by(&mut tasks, Some(trace), &[child, completed()], None);
    assert_eq!(spans[0].parent_span_id, step_span("step-9"));
    assert_eq!(spans[0].span_context.trace_id(), above.id);
    assert!(!spans[0].parent_span_is_remote);
}

#[test]
fn a_services_calls_outside_tasks_are_each_a_trace() {
    let mut ambient = submitted();
    if let Event::TaskSubmitted { ambient, .. } = &mut ambient {
        *ambient = true;
    }
    let spans = told(&[
        ambient,
        intended(1, StepKind::Model, "p/m"),
        finished(1, Some("p/m"), false),
        intended(2, StepKind::Local, "look"),
        finished(2, None, false),
        Event::TaskCanceled,
    ]);
    assert_eq!(
        shown(&spans),
        ["chat m < - [1..2]", "execute_tool look < - [3..4]"]
    );
    let trace = |at: usize| spans[at].span_context.trace_id();
    assert_ne!(trace(0), trace(1));
    assert_eq!(attribute(&spans[0], names::CONVERSATION), None);
    assert_eq!(
        attribute(&spans[1], names::TOOL_TYPE).as_deref(),
        Some("function")
    );
}

#[test]
fn a_trace_that_is_not_sampled_has_no_spans() {
    let story = [
        submitted(),
        started(1),
        intended(1, StepKind::Model, "p/m"),
        finished(1, Some("p/m"), false),
        exited(1, Class::Done),
        completed(),
    ];
    let mut off = Tasks::new(Box::new(Sampler::AlwaysOff));
    assert_eq!(told_by(&mut off, None, &story, None), []);
}

#[test]
fn a_services_endless_steps_are_not_kept() {
    let mut tasks = tasks();
    let mut ambient = submitted();
    if let Event::TaskSubmitted { ambient, .. } = &mut ambient {
        *ambient = true;
    }
    told_by(&mut tasks, None, &[ambient], None);
    let at = At {
        seq: 1,
        time: super::super::wall(1000),
    };
    for n in 1..=30_000 {
        tasks.entry(at, "t1", &intended(n, StepKind::Model, "p/m"));
        tasks.entry(at, "t1", &failed(n, 500, false));
    }
    assert!(tasks.open["t1"].steps.len() <= MAX_STEPS);
    tasks.entry(at, "t1", &intended(30_001, StepKind::Model, "p/m"));
    let before = tasks.open["t1"].steps.len();
    let span = tasks.entry(at, "t1", &finished(30_001, Some("p/m"), false));
    assert_eq!(span.len(), 1);
    assert_eq!(tasks.open["t1"].steps.len(), before - 1);
}
