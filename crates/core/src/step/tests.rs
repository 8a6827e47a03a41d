//! Tables for matching: which step does a request take?

use proptest::prelude::*;

use super::*;
use crate::event::Event;
use crate::task::{TaskRecord, apply, create};

/// A task driven by events, as the hub drives it.
struct Played {
    record: TaskRecord,
    seq: u64,
}

fn key(name: char) -> Digest {
    Digest([u8::try_from(u32::from(name) & 0xff).unwrap(); 32])
}

impl Played {
    fn new() -> Self {
        let event = Event::TaskSubmitted {
            agent: "a".into(),
            session: "s".into(),
            deadline_ms: None,
            parent: None,
            idempotency: None,
            ambient: false,
        };
        Self {
            record: create("t", 1, 0, &event).unwrap(),
            seq: 1,
        }
    }

    fn event(&mut self, event: &Event) -> &mut Self {
        self.seq += 1;
        apply(
            &mut self.record,
            self.seq,
            i64::try_from(self.seq).unwrap(),
            event,
        );
        self
    }

    fn attempt(&mut self, attempt: u32) -> &mut Self {
        self.event(&Event::AttemptStarted {
            attempt,
            instance: "a-0".into(),
            generation: 1,
        })
    }

    fn intend(&mut self, name: char, effect: Effect) -> u32 {
        let n = u32::try_from(self.record.steps.len()).unwrap() + 1;
        let kind = if name.is_uppercase() {
            StepKind::Tool
        } else {
            StepKind::Model
        };
        let attempt = self.record.task.attempt;
        let proposed_by = proposer(&self.record.steps, key(name));
        self.event(&Event::StepIntended {
            n,
            id: format!("step-{n}"),
            kind,
            name: if kind == StepKind::Tool {
                "tool".into()
            } else {
                "model".into()
            },
            key: key(name),
            masked: None,
            effect,
            attempt,
            incarnation: 1,
            proposed_by,
            reserved_tokens: 0,
            reserved_micro_usd: 0,
        });
        n
    }

    fn finish(&mut self, n: u32, proposes: &[char]) -> &mut Self {
        let attempt = self.record.task.attempt;
        self.event(&Event::StepFinished {
            n,
            status: 200,
            content_type: "application/json".into(),
            usage: Usage::default(),
            cost: Cost::default(),
            model: None,
            marks: vec![Digest([u8::try_from(n).unwrap(); 32])],
            proposals: proposes.iter().copied().map(key).collect(),
            is_error: false,
            attempt,
        })
    }

    fn fail(&mut self, n: u32) -> &mut Self {
        self.event(&Event::StepFailed {
            n,
            status: 500,
            content_type: "application/json".into(),
            broken: false,
            usage: Usage::default(),
            cost: Cost::default(),
        })
    }

    fn mark(&mut self, n: u32, delivered: bool) -> &mut Self {
        let attempt = self.record.task.attempt;
        let replayed = self.record.step(n).unwrap().sent_in < attempt;
        let mark = StepMark {
            n,
            used: true,
            delivered,
            passed: false,
            replayed,
        };
        self.event(&Event::StepsMarked {
            attempt,
            marks: vec![mark],
        })
    }

    fn call(&mut self, name: char) -> u32 {
        let n = self.intend(name, Effect::Opaque);
        self.finish(n, &[]).mark(n, true);
        n
    }

    fn ask(&self, name: char, retry: bool, live: &[u32]) -> Match {
        let live = |n: u32| live.contains(&n);
        let ask = Ask {
            attempt: self.record.task.attempt,
            key: key(name),
            masked: None,
            retry,
            live: &live,
        };
        found(&self.record.steps, &ask)
    }
}

fn found(steps: &[Step], ask: &Ask<'_>) -> Match {
    let mut index = Index::default();
    // In two parts, as a task grows.
    index.catch_up(&steps[..steps.len() / 2]);
    index.catch_up(steps);
    find(steps, &index, ask)
}

#[test]
fn a_new_attempt_takes_the_steps_of_the_one_before_in_any_order() {
    let mut played = Played::new();
    played.attempt(1);
    for name in ['a', 'b', 'a'] {
        played.call(name);
    }
    played.attempt(2);
    assert_eq!(played.ask('b', false, &[]), Match::Replay(2));
    played.mark(2, true);
    assert_eq!(played.ask('a', false, &[]), Match::Replay(1));
    played.mark(1, true);
    assert_eq!(played.ask('a', false, &[]), Match::Replay(3));
    played.mark(3, true);
    assert_eq!(played.ask('a', false, &[]), Match::New);
}

#[test]
fn an_answer_that_did_not_arrive_is_given_again_to_whoever_asks() {
    let mut played = Played::new();
    played.attempt(1);
    let n = played.intend('A', Effect::Opaque);
    assert_eq!(
        played.ask('A', true, &[]),
        Match::Join(n),
        "its connection is gone"
    );
    assert_eq!(
        played.ask('A', false, &[n]),
        Match::New,
        "an equal call in parallel is a call of its own"
    );
    assert_eq!(played.ask('A', true, &[n]), Match::Join(n), "a retry joins");
    played.finish(n, &[]);
    assert_eq!(
        played.ask('A', false, &[]),
        Match::Replay(n),
        "finished and still owed"
    );
    played.mark(n, true);
    assert_eq!(
        played.ask('A', true, &[]),
        Match::New,
        "delivered: the next occurrence"
    );
}

#[test]
fn a_failure_is_tried_again_unless_the_agent_went_past_it() {
    let mut played = Played::new();
    played.attempt(1);
    let n = played.intend('a', Effect::Pure);
    let parallel = played.intend('b', Effect::Pure);
    played.fail(n).mark(n, true);
    assert_eq!(
        played.ask('a', true, &[]),
        Match::Retry(n),
        "a parallel branch is no going past"
    );
    played.finish(parallel, &[]).mark(parallel, true);
    played.call('c');
    played.attempt(2);
    assert_eq!(
        played.ask('a', false, &[]),
        Match::Replay(n),
        "the agent lived with it once"
    );
}

#[test]
fn a_call_in_flight_outlives_its_agent_and_is_joined() {
    let mut played = Played::new();
    played.attempt(1);
    let n = played.intend('A', Effect::Opaque);
    played.attempt(2);
    assert_eq!(played.ask('A', false, &[]), Match::Join(n));
    played.event(&Event::StepUnknown { n });
    assert_eq!(played.ask('A', false, &[]), Match::Unknown(n));
}

#[test]
fn a_masked_body_matches_only_when_no_exact_one_does() {
    let mut played = Played::new();
    played.attempt(1);
    let n = played.intend('a', Effect::Pure);
    played.finish(n, &[]);
    played.record.steps[0].masked = Some(key('m'));
    played.attempt(2);
    let ask = |key_: char, masked: Option<Digest>| {
        let ask = Ask {
            attempt: 2,
            key: key(key_),
            masked,
            retry: false,
            live: &|_| false,
        };
        found(&played.record.steps, &ask)
    };
    assert_eq!(ask('z', Some(key('m'))), Match::Replay(n));
    assert_eq!(ask('z', None), Match::New);
    assert_eq!(ask('a', Some(key('x'))), Match::Replay(n));
}

#[test]
fn an_agent_that_resumes_from_its_own_file_passes_what_came_before() {
    let mut played = Played::new();
    played.attempt(1);
    let first = played.intend('a', Effect::Pure);
    played.finish(first, &['A']).mark(first, true);
    let tool = played.call('A');
    let second = played.intend('b', Effect::Pure);
    played.finish(second, &[]).mark(second, true);
    played.attempt(2);
    // Its next request contains the second answer.
    let marks = implied_marks(
        &played.record.steps,
        2,
        &[Digest([u8::try_from(second).unwrap(); 32])],
    );
    played.event(&Event::StepsMarked { attempt: 2, marks });
    assert_eq!(diverged_at(&played.record.steps, 2), None);
    let mark = played.record.step(tool).unwrap().mark_in(2);
    assert!(mark.passed && !mark.used, "{mark:?}");
}

#[test]
fn a_live_call_is_suspicious_while_one_to_the_same_tool_is_unaccounted_for() {
    let mut played = Played::new();
    played.attempt(1);
    let model = played.intend('a', Effect::Pure);
    played.finish(model, &['A', 'B']).mark(model, true);
    let done = played.call('A');
    played.attempt(2);
    let check = |played: &Played, proposed_by| {
        suspicious(&played.record.steps, 2, "tool", Effect::Opaque, proposed_by)
    };
    assert_eq!(check(&played, None), Some(done));
    assert_eq!(
        suspicious(&played.record.steps, 2, "tool", Effect::Pure, None),
        None
    );
    played.mark(model, true);
    assert_eq!(proposer(&played.record.steps, key('B')), Some(model));
    assert_eq!(
        check(&played, Some(model)),
        None,
        "a replayed answer proposed it"
    );
    played.mark(done, true);
    assert_eq!(check(&played, None), None);
}

proptest! {
    /// A faithful agent, cut anywhere and started again any number of times, repeats no call, and
    /// each attempt sees the same answers.
    #[test]
    fn a_faithful_agent_repeats_nothing(plan in proptest::collection::vec(0_u8..4, 1..24), cuts in proptest::collection::vec(0_usize..24, 0..6)) {
        let mut played = Played::new();
        let ends = cuts.into_iter().map(|cut| cut.min(plan.len())).chain([plan.len()]);
        for (attempt, end) in (1..).zip(ends) {
            played.attempt(attempt);
            for (index, name) in plan.iter().take(end).enumerate() {
                let name = char::from(b'A' + name);
                let expected = u32::try_from(index).unwrap() + 1;
                let n = match played.ask(name, false, &[]) {
                    Match::New => {
                        let n = played.intend(name, Effect::Opaque);
                        played.finish(n, &[]);
                        n
                    }
                    Match::Replay(n) => n,
                    other => return Err(TestCaseError::fail(format!("{other:?}"))),
                };
                // The k-th call of a key takes the k-th step of that key.
                let rank = |upto: usize| plan[..upto].iter().filter(|known| char::from(b'A' + **known) == name).count();
                let of_key: Vec<u32> = played.record.steps.iter().filter(|step| step.key == key(name)).map(|step| step.n).collect();
                prop_assert_eq!(of_key[rank(index)], n);
                prop_assert!(n <= expected.max(u32::try_from(played.record.steps.len()).unwrap()));
                played.mark(n, true);
            }
        }
        prop_assert_eq!(played.record.steps.len(), plan.len());
        prop_assert_eq!(diverged_at(&played.record.steps, played.record.task.attempt), None);
    }
}

#[test]
fn a_call_parked_behind_its_agents_task_is_looked_for_again_under_its_own_step() {
    let mut played = Played::new();
    played.attempt(1);
    let n = played.intend('T', Effect::Keyed);
    let task = "child".to_owned();
    played.event(&Event::StepParked { n, task }).attempt(2);
    let nobody = |_: u32| false;
    let ask = Ask {
        attempt: 2,
        key: key('T'),
        masked: None,
        retry: false,
        live: &nobody,
    };
    assert_eq!(found(&played.record.steps, &ask), Match::Parked(n));
}

#[test]
fn only_a_model_call_that_fails_is_its_providers_failure() {
    let mut played = Played::new();
    played.attempt(1);
    let tool = played.intend('T', Effect::Pure);
    played.fail(tool);
    assert_eq!(played.record.task.cut_off, None);
    assert_eq!(played.record.task.provider_failed, None);
    let model = played.intend('m', Effect::Pure);
    played.fail(model);
    assert_eq!(played.record.task.cut_off, Some(1));
    assert_eq!(played.record.task.provider_failed, Some(1));
}

#[test]
fn the_time_between_a_failure_and_its_retry_is_no_work() {
    let mut played = Played::new();
    played.attempt(1).event(&Event::TaskFailed {
        code: "budget".into(),
        message: "time".into(),
        diverged_at: None,
    });
    played.seq += 1000;
    played.event(&Event::TaskRetried);
    assert_eq!(played.record.task.waited_ms, 1001);
    played.attempt(2).event(&Event::TaskCanceled);
    played.seq += 100;
    played.event(&Event::TaskRetried);
    assert_eq!(played.record.task.waited_ms, 1102);
}
