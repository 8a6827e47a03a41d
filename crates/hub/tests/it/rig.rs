//! A hub in a world of its own, on one thread and in virtual time: agents, shims, a keeper and a
//! person around a real log in a temporary directory.
//!
//! What is real: the hub's code as it ships, SQLite and its files. What is not: time (tokio's
//! paused clock, which moves on when nothing else can happen), chance, the pipes to shims, agents'
//! processes (tasks of this thread), and the hub's own process (its tasks, which `Process` ends
//! all at once). The same seed gives the same log, to the byte.

pub(crate) mod agent;
pub(crate) mod fold;
pub(crate) mod ground;
pub(crate) mod invariant;
pub(crate) mod keeper;
pub(crate) mod shim;
pub(crate) mod world;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::fleet::Fleet;
use hub::task::{Resume, SubmitTask};
use hub::view::TaskView;
use hub::{Code, HubError};
use mainstay_core::task::ResumeAs;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

use ground::Outside;
use keeper::Keeper;
use shim::SimShim;
use world::World;

/// Virtual time in which whatever is waited for must have come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(7200);
/// How long after something was looked at it is looked at again, at first and at last.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));

/// Runs on one thread, with a clock that moves when nothing else can happen.
pub(crate) fn in_virtual_time<T>(history: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(history)
}

/// Everything around one state.
pub(crate) struct Rig {
    pub(crate) world: Arc<World>,
    pub(crate) outside: Arc<Outside>,
    pub(crate) shims: Vec<SimShim>,
    pub(crate) keeper: Keeper,
    state: TempDir,
}

impl Rig {
    /// Starts a hub whose first generation is the fleet, with so many instances of each agent.
    pub(crate) async fn start(
        world: Arc<World>,
        outside: Arc<Outside>,
        fleet: Fleet,
        instances: u32,
    ) -> Self {
        let state = directory();
        let of = |owner: &str, index| SimShim::start(&world, &outside, state.path(), owner, index);
        let shims: Vec<SimShim> = (fleet.agents.keys())
            .flat_map(|owner| (0..instances).map(move |index| of(owner, index)))
            .collect();
        let listed = shims.iter().map(|shim| shim.instance.clone()).collect();
        let keeper = Keeper::start(&world, &outside, state.path(), listed);
        let rig = Self {
            world,
            outside,
            shims,
            keeper,
            state,
        };
        rig.keeper.propose(fleet);
        rig.keeper.committed(1).await;
        rig
    }

    pub(crate) fn log(&self) -> PathBuf {
        log_of(self.state.path())
    }

    pub(crate) fn system(&self) -> PathBuf {
        self.state.path().join("system")
    }

    /// A client that asks again until it is told, under one key.
    pub(crate) async fn submit(&self, submit: SubmitTask) -> TaskView {
        let task = self
            .told(|hub| {
                let submit = submit.clone();
                async move { hub.task_submit(submit).await }
            })
            .await;
        task.unwrap_or_else(|error| panic!("a task is refused: {error}"))
    }

    /// A command: asked again while there is no hub, and in a double world once more after it was
    /// done. Where an answer got lost, a conflict says that it was done.
    pub(crate) async fn command<F>(&self, what: &str, ask: impl Fn(hub::Hub) -> F)
    where
        F: Future<Output = Result<TaskView, HubError>>,
    {
        for _ in 0..=u32::from(self.world.is_double) {
            match self.told(&ask).await {
                Ok(_) => {}
                Err(error) if error.code == Code::Conflict => {}
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }

    async fn told<F>(&self, ask: impl Fn(hub::Hub) -> F) -> Result<TaskView, HubError>
    where
        F: Future<Output = Result<TaskView, HubError>>,
    {
        let mut look = Look::default();
        loop {
            match ask(self.world.hub().await).await {
                Err(error) if is_passing(&error) && !look.is_over() => look.again().await,
                told => return told,
            }
        }
    }

    pub(crate) async fn task(&self, id: &str) -> TaskView {
        let found = self.told(|hub| async move { hub.task_get(id).await }).await;
        found.unwrap_or_else(|error| panic!("task {id} was acknowledged and is lost: {error}"))
    }

    /// Waits until a task is as wanted.
    pub(crate) async fn until(&self, id: &str, wanted: impl Fn(&TaskView) -> bool) -> TaskView {
        let mut look = Look::default();
        loop {
            let task = self.task(id).await;
            if wanted(&task) {
                return task;
            }
            let wrong = self.wrong();
            assert!(wrong.is_empty(), "{wrong:#?}");
            if look.is_over() {
                panic!("it waits for ever: {task:#?}\n{}", self.history(id).await);
            }
            look.again().await;
        }
    }

    /// A person's word.
    pub(crate) async fn resume(&self, id: &str, step: u32, how: ResumeAs, result: Option<&str>) {
        let word = Resume {
            step,
            how,
            result: result.map(|result| json!(result)),
            author: "owner".into(),
        };
        self.command("resume", |hub| {
            let word = word.clone();
            async move { hub.task_resume(id, word).await }
        })
        .await;
    }

    pub(crate) async fn retry(&self, id: &str) {
        self.command(
            "retry",
            |hub| async move { hub.task_retry(id, "owner").await },
        )
        .await;
    }

    /// What has gone wrong so far.
    pub(crate) fn wrong(&self) -> Vec<String> {
        [self.world.watch.wrong(), self.world.wrong()].concat()
    }

    /// The end of a task's history, for a person.
    pub(crate) async fn history(&self, task: &str) -> String {
        let told = fold::told(&self.log());
        let of_task: Vec<_> = told.iter().filter(|line| line.contains(task)).collect();
        let from = of_task.len().saturating_sub(40);
        let lines = of_task[from..].iter().map(|line| {
            let at = line.find(" Some(").unwrap_or(0);
            line[at..].to_owned()
        });
        let instances = self.world.hub().await.instance_list().await.unwrap().items;
        format!("{}\n{instances:#?}", lines.collect::<Vec<_>>().join("\n"))
    }

    /// Ends the hub in good order, and holds the log against itself.
    pub(crate) async fn end(self) -> (TempDir, Vec<String>) {
        let (log, system) = (self.log(), self.system());
        self.keeper.end().await;
        fold::rows_are_what_the_entries_say(&log);
        for log in [log, system] {
            store::verify(&log, &store::VerifyOptions::default()).unwrap();
        }
        let wrong = [self.world.watch.wrong(), self.world.wrong()].concat();
        (self.state, wrong)
    }
}

/// Looks again and again, less and less often.
pub(crate) struct Look {
    until: Instant,
    next: Duration,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            until: Instant::now() + PATIENCE,
            next: LOOK.0,
        }
    }
}

impl Look {
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() > self.until
    }

    pub(crate) async fn again(&mut self) {
        tokio::time::sleep(self.next).await;
        self.next = (self.next * 2).min(LOOK.1);
    }
}

/// The hub is ending, or has no room: it will pass.
fn is_passing(error: &HubError) -> bool {
    matches!(
        error.code,
        Code::Unavailable | Code::NoSpace | Code::QueueFull
    )
}

pub(crate) fn log_of(state: &Path) -> PathBuf {
    state.join("workspaces/default")
}

/// In memory where the machine has such a place: thousands of histories flush a lot.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory)
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}
