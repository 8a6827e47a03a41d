//! The fault sweep, written once and applied to every multi-step flow.
//!
//! A [`Flow`] is a fleet, what goes wrong in its world, and a script: what a client, a person and
//! the keeper do. It is run once undisturbed, and then once for every point: at each of its
//! commits the disk fails before and after it is durable, the process ends between the commit and
//! its actions, and the hub ends in good order; and once with every command, fact and proposal
//! delivered twice. Each time the next hub starts on the same directory and the script goes on.
//! In the end the tasks, what was done outside, the log and its projections are compared.
//!
//! `MAINSTAY_SWEEP_POINT` runs one point of every flow whose name it begins with: `NAME`, or
//! `NAME: POINT` as a failure prints it.

mod apply;
mod moving;
mod parking;
mod restart;
mod step;
mod task;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use api::fleet::Fleet;
use hub::task::SubmitTask;
use hub::view::TaskView;
use mainstay_core::task::ResumeAs;
use serde_json::{Value, json};
use store::Stage;

use crate::rig::ground::{Fault, Outside};
use crate::rig::world::{Fate, Results, World};
use crate::rig::{Look, Rig, in_virtual_time};

/// What a script does, and the tasks that are compared in the end.
type Script = for<'a> fn(&'a Rig) -> Pin<Box<dyn Future<Output = Vec<String>> + 'a>>;

/// A multi-step flow.
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    pub(crate) fleet: fn() -> Fleet,
    pub(crate) instances: u32,
    /// What becomes of calls, by request; the rest is answered.
    pub(crate) fates: &'static [(&'static str, &'static [Fate])],
    pub(crate) script: Script,
}

/// What is compared.
#[derive(Debug, PartialEq)]
struct Outcome {
    tasks: Vec<Value>,
    /// Requests that were performed, each with the number of steps that were.
    effects: BTreeMap<String, usize>,
}

impl Outcome {
    /// Marks of what an attempt has used die with a hub that is killed, and `steps` may tell fewer.
    /// So nobody says of an attempt that outlived a hub that it diverged.
    fn forgive(&mut self, undisturbed: &Self, point: Point) {
        let Point::At(_, fault) = point else { return };
        for (task, undisturbed) in self.tasks.iter_mut().zip(&undisturbed.tasks) {
            if task["divergedAt"].is_null() {
                task["divergedAt"] = undisturbed["divergedAt"].clone();
            }
            if fault != Fault::Orderly && task["steps"].as_u64() < undisturbed["steps"].as_u64() {
                task["steps"] = undisturbed["steps"].clone();
            }
        }
    }
}

/// One way to run a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    Undisturbed,
    Twice,
    At(u64, Fault),
}

/// A flow of more commits is swept at every second of them, or third …
const MOST: u64 = 24;

const FAULTS: [Fault; 5] = [
    Fault::Disk(Stage::Begin),
    Fault::Disk(Stage::Committed),
    Fault::Disk(Stage::Headed),
    Fault::Told,
    Fault::Orderly,
];

/// What is true: it was done, or it is to be sent again.
pub(crate) fn the_truth(_reason: &str, was_done: bool) -> ResumeAs {
    if was_done {
        ResumeAs::Done
    } else {
        ResumeAs::Repeat
    }
}

/// Sweeps every flow, and says how many points there were.
pub(crate) fn sweep(flows: &[Flow]) {
    let wanted = std::env::var("MAINSTAY_SWEEP_POINT").unwrap_or_default();
    for flow in flows {
        // `FLOW`, or `FLOW: POINT` as a failure names it; flows' names have no colon.
        let (flow_wanted, point_wanted) = match wanted.split_once(": ") {
            Some((name, point)) => (name, Some(point)),
            None => (wanted.as_str(), None),
        };
        if !flow.name.starts_with(flow_wanted) {
            continue;
        }
        let (undisturbed, commits) = run(flow, Point::Undisturbed);
        let stride = usize::try_from(commits / MOST).unwrap() + 1;
        let at = (1..=commits).step_by(stride);
        let at = at.flat_map(|n| FAULTS.map(|fault| Point::At(n, fault)));
        let points = std::iter::once(Point::Twice).chain(at);
        let mut count = 0;
        for point in points {
            if point_wanted.is_none_or(|only| only == name(point)) {
                let (mut outcome, _) = run(flow, point);
                outcome.forgive(&undisturbed, point);
                assert_eq!(outcome, undisturbed, "{}: {}", flow.name, name(point));
                count += 1;
            }
        }
        assert!(count > 0, "{} has no such point", flow.name);
        println!("sweep: {}: {commits} commits, {count} points", flow.name);
    }
}

fn name(point: Point) -> String {
    match point {
        Point::Undisturbed => "undisturbed".into(),
        Point::Twice => "everything twice".into(),
        Point::At(n, fault) => format!("at {n} {fault:?}"),
    }
}

/// Runs a flow through one point; also says how many commits it took.
fn run(flow: &Flow, point: Point) -> (Outcome, u64) {
    let ran = std::panic::catch_unwind(AssertUnwindSafe(|| in_virtual_time(perform(flow, point))));
    ran.unwrap_or_else(|panic| {
        eprintln!("failed: {}: {}", flow.name, name(point));
        std::panic::resume_unwind(panic);
    })
}

async fn perform(flow: &Flow, point: Point) -> (Outcome, u64) {
    let world = World::new(1, Results::ByRequest, point == Point::Twice);
    for (request, fates) in flow.fates {
        world.will(request, fates);
    }
    let outside = Outside::new(1);
    let rig = Rig::start(world, outside, (flow.fleet)(), flow.instances).await;
    let before = rig.outside.commits();
    if let Point::At(n, fault) = point {
        rig.outside.fail_at(before + n, fault);
    }
    let ids = (flow.script)(&rig).await;
    let commits = rig.outside.commits() - before;
    if matches!(point, Point::At(..)) {
        let waits = "the fault never came: the flow takes fewer commits than undisturbed";
        assert!(!rig.outside.is_to_fail(), "{waits}");
        rig.keeper.hubs(2).await;
    }
    let mut tasks = Vec::new();
    for id in &ids {
        tasks.push(comparable(&rig, id, &ids).await);
    }
    let effects = effects(&rig);
    let (_state, wrong) = rig.end().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    (Outcome { tasks, effects }, commits)
}

/// A task as it is printed, less what may differ: ids, times, and what tells of the disturbance.
async fn comparable(rig: &Rig, id: &str, ids: &[String]) -> Value {
    let view = rig.task(id).await;
    let mut value = serde_json::to_value(&view).unwrap();
    let fields = value.as_object_mut().unwrap();
    let told = [
        "id", "session", "created", "updated", "attempts", "replayed", "repeated",
    ];
    for field in told {
        fields.remove(field);
    }
    let mut text = value.to_string();
    for (n, id) in ids.iter().enumerate() {
        text = text.replace(id, &format!("task {n}"));
    }
    serde_json::from_str(&text).unwrap()
}

/// What was done outside. A step that was performed more than once must be one that may be.
fn effects(rig: &Rig) -> BTreeMap<String, usize> {
    let effects = rig.world.effects();
    for (request, times) in &effects {
        let once = ["queryable", "opaque", "local"];
        let once = once.iter().any(|verb| request.starts_with(verb));
        for (step, times) in times {
            let may = !once || *times == 1 || rig.world.watch.has_leave(step);
            assert!(may, "{request} was done {times} times");
        }
    }
    effects
        .into_iter()
        .map(|(request, steps)| (request, steps.len()))
        .collect()
}

impl Rig {
    /// A task for the helper, under a key of its own.
    pub(crate) async fn give(&self, key: &str, input: &str) -> TaskView {
        self.give_in(None, key, input).await
    }

    pub(crate) async fn give_in(&self, session: Option<&str>, key: &str, input: &str) -> TaskView {
        let submit = SubmitTask {
            agent: "helper".into(),
            input: json!(input),
            session: session.map(str::to_owned),
            idempotency_key: Some(key.into()),
            author: "test".into(),
            ..Default::default()
        };
        if self.world.is_double {
            let again = self.submit(submit.clone()).await;
            let task = self.submit(submit).await;
            assert_eq!(task.id, again.id);
            return task;
        }
        self.submit(submit).await
    }

    pub(crate) async fn until_state(&self, id: &str, state: &str) -> TaskView {
        self.until(id, |task| task.state == state).await
    }

    /// A person who answers whatever is asked about a task until it has ended. Told why it waits
    /// and whether the step in question was done, `how` says what to answer.
    pub(crate) async fn person(&self, id: &str, how: fn(&str, bool) -> ResumeAs) -> TaskView {
        let mut look = Look::default();
        loop {
            let is_asked = |task: &TaskView| task.asked_step.is_some();
            let over = ["completed", "failed", "canceled"];
            let task = self
                .until(id, |task| {
                    is_asked(task) || over.contains(&task.state.as_str())
                })
                .await;
            let Some(step) = task.asked_step else {
                return task;
            };
            let Some(done) = self.was_done(id, step).await else {
                assert!(!look.is_over(), "no hub tells of step {step} of {id}");
                look.again().await;
                continue;
            };
            let reason = task.reason.unwrap_or_default();
            let how = how(&reason, done.is_some());
            self.resume(id, step, how, done.as_deref()).await;
        }
    }

    /// What a step's performance gave, if it was performed; `None` while no hub can say which.
    async fn was_done(&self, id: &str, step: u32) -> Option<Option<String>> {
        let steps = self.world.hub().await.task_steps(id).await.ok()?;
        let step = steps.items.into_iter().find(|known| known.n == step)?;
        Some(self.world.result_of(&step.id))
    }

    pub(crate) async fn until_parked(&self, id: &str, reason: &str) -> TaskView {
        let parked = |task: &TaskView| {
            task.state.ends_with("-required") && task.reason.as_deref() == Some(reason)
        };
        self.until(id, parked).await
    }
}
