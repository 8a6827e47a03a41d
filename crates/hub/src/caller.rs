//! Who calls at the gateway: a token names one process incarnation of one instance.

use std::collections::HashMap;
use std::sync::Arc;

use api::fleet::{Agent, Fleet};
use mainstay_core::task::Task;

use crate::keys::{Claim, TaskKey};
use crate::shared::{ServiceIdentity, Shared, read, write};
use crate::tx::Tx;
use crate::{Code, Hub, HubError, Refusal};

/// An identified caller. `fleet` is the pinned generation of its task (code, prompts, models and
/// tool definitions); `today` has the current credentials, addresses and limits.
#[derive(Clone)]
pub struct Caller {
    pub instance: String,
    pub agent: Arc<Agent>,
    pub fleet: Arc<Fleet>,
    pub today: Arc<Fleet>,
    /// The task this token acts for; the instance's ambient task when it acts for none.
    pub task: String,
    pub attempt: u32,
    /// Metered, budgeted and logged, not replayed.
    pub ambient: bool,
    /// Times in a request between this and now are masked (unix ms).
    pub attempt_started_ms: i64,
    /// The task's input as text: values in it are never masked.
    pub input_text: Arc<str>,
    pub(crate) key: TaskKey,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            instance,
            task,
            attempt,
            ambient,
            ..
        } = self;
        write!(f, "Caller({instance} {task} #{attempt} ambient={ambient})")
    }
}

impl Caller {
    /// The agent as it is today: its budgets and limits are never pinned.
    #[must_use]
    pub fn agent_today(&self) -> &Agent {
        self.today
            .agents
            .get(&self.agent.name)
            .unwrap_or(&self.agent)
    }
}

/// The task is held as it was when its caller was published: nothing to do for most events.
pub(crate) fn is_published(shared: &Shared, task: &Task) -> bool {
    let Some(lease) = &task.lease else {
        return false;
    };
    !task.state.is_terminal()
        && !task.state.is_parked()
        && read(&shared.callers)
            .get(&task.id)
            .is_some_and(|known| known.attempt == lease.attempt && known.instance == lease.instance)
}

/// Publishes or withdraws the caller of a task after an event.
pub(crate) fn publish(tx: &mut Tx<'_>, id: &str) {
    let caller = of_task(tx, id);
    let mut services = write(&tx.shared.services);
    for service in services.values_mut() {
        if service.task.as_deref() == Some(id) {
            service.task = None;
        }
    }
    if let Some(caller) = &caller
        && let Some(service) = services.get_mut(&caller.instance)
        && service.concurrency == 1
        && !caller.ambient
    {
        service.task = Some(id.to_owned());
    }
    drop(services);
    let mut callers = write(&tx.shared.callers);
    match caller {
        Some(caller) => callers.insert(id.to_owned(), caller),
        None => callers.remove(id),
    };
}

fn of_task(tx: &Tx<'_>, id: &str) -> Option<Caller> {
    let open = tx.state.tasks.get(id)?;
    let task = &open.record.task;
    let lease = task.lease.as_ref()?;
    if task.state.is_terminal() || task.state.is_parked() {
        return None;
    }
    let fleet = tx.state.fleet(task.generation?)?;
    Some(Caller {
        instance: lease.instance.clone(),
        agent: Arc::new(fleet.agents.get(&task.agent)?.clone()),
        fleet,
        today: Arc::clone(&read(&tx.shared.today)),
        task: id.to_owned(),
        attempt: lease.attempt,
        ambient: task.ambient,
        attempt_started_ms: lease.started_ms,
        input_text: Arc::clone(&open.input_text),
        key: open.key,
    })
}

enum Known {
    Caller(Box<Caller>),
    /// The shim started the next attempt and its facts are still on their way.
    Newer,
    Older,
    Nobody,
}

impl Hub {
    /// Token to caller. The first use of a newer attempt's token fences the attempt before.
    pub async fn identify(&self, token: &str) -> Result<Caller, Refusal> {
        let claim = self.shared.keys.claim(token).ok_or_else(|| {
            HubError::new(
                Code::Unauthorized,
                "no valid token: use MAINSTAY_TOKEN, it is set in each agent's environment",
            )
        })?;
        match claim {
            Claim::Attempt {
                task,
                attempt,
                instance,
            } => self.identify_attempt(&task, attempt, &instance).await,
            Claim::Service {
                instance,
                incarnation,
            } => self.identify_service(&instance, incarnation).await,
        }
    }

    async fn identify_attempt(
        &self,
        task: &str,
        attempt: u32,
        instance: &str,
    ) -> Result<Caller, Refusal> {
        if let Known::Newer = self.known(task, attempt, instance) {
            let id = task.to_owned();
            self.writer
                .run(move |tx| tx.attempt_seen(&id, attempt))
                .await?;
        }
        match self.known(task, attempt, instance) {
            Known::Caller(caller) => Ok(*caller),
            Known::Older | Known::Newer => Err(HubError::new(
                Code::Fenced,
                format!(
                    "attempt {attempt} of task {task} was replaced by a newer one; this process is to end"
                ),
            )),
            Known::Nobody => Err(HubError::new(
                Code::Fenced,
                format!("task {task} is not running: it has ended or waits for a person"),
            )),
        }
    }

    fn known(&self, task: &str, attempt: u32, instance: &str) -> Known {
        let callers = read(&self.shared.callers);
        let Some(caller) = callers.get(task) else {
            return Known::Nobody;
        };
        if caller.instance != instance {
            // Another instance holds the task now, whatever number this one got to.
            return Known::Older;
        }
        match attempt.cmp(&caller.attempt) {
            std::cmp::Ordering::Less => Known::Older,
            std::cmp::Ordering::Greater => Known::Newer,
            std::cmp::Ordering::Equal => {
                let today = Arc::clone(&read(&self.shared.today));
                Known::Caller(Box::new(Caller {
                    today,
                    ..caller.clone()
                }))
            }
        }
    }

    async fn identify_service(&self, instance: &str, incarnation: u32) -> Result<Caller, Refusal> {
        let identity = {
            let mut services = write(&self.shared.services);
            newest(&mut services, instance, incarnation)
        };
        let identity = identity.ok_or_else(|| {
            HubError::new(
                Code::Fenced,
                format!("this process of {instance} was replaced by a newer one"),
            )
        })?;
        if let Some(task) = &identity.task {
            let callers = read(&self.shared.callers);
            if let Some(caller) = callers.get(task) {
                let today = Arc::clone(&read(&self.shared.today));
                return Ok(Caller {
                    today,
                    ..caller.clone()
                });
            }
        }
        self.ambient(instance, identity, incarnation).await
    }

    /// The instance's ambient task of this incarnation.
    async fn ambient(
        &self,
        instance: &str,
        identity: ServiceIdentity,
        incarnation: u32,
    ) -> Result<Caller, Refusal> {
        let caller = |id: &str| read(&self.shared.callers).get(id).cloned();
        if let Some(caller) = identity.ambient.as_deref().and_then(caller) {
            return Ok(self.with_today(caller));
        }
        let (instance, agent) = (instance.to_owned(), identity.agent);
        let id = self
            .writer
            .run(move |tx| tx.ambient_begin(&instance, &agent, incarnation))
            .await??;
        caller(&id)
            .map(|caller| self.with_today(caller))
            .ok_or_else(|| HubError::new(Code::Unavailable, "the ambient task could not be opened"))
    }

    fn with_today(&self, caller: Caller) -> Caller {
        let today = Arc::clone(&read(&self.shared.today));
        Caller { today, ..caller }
    }
}

fn newest(
    services: &mut HashMap<String, ServiceIdentity>,
    instance: &str,
    incarnation: u32,
) -> Option<ServiceIdentity> {
    let identity = services.get_mut(instance)?;
    if incarnation < identity.incarnation {
        return None;
    }
    if incarnation > identity.incarnation {
        identity.ambient = None;
    }
    identity.incarnation = incarnation;
    Some(identity.clone())
}
