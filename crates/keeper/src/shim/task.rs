//! Attempts of `exec` tasks: one process each, the next prepared one after a crash, in order.
//!
//! The order after an end: the whole tree ends, the next attempt starts, the fact is written, the
//! hub is told. A restart needs no hub: its tokens are held in advance.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use contract::shim::{Attempt, Exit, Fact, Running};
use mainstay_core::restart::{Backoff, Evidence, Kind, decide};
use sandbox::process::Ended;

use super::process::{Ends, Family, Made, Process, StartFailure, Who, never_started};
use super::spool::Spool;
use super::{ANY_GENERATION, Shim, spec_for};

/// Tasks whose highest started attempt is remembered after their end, against repeated orders.
const REMEMBERED_TASKS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Tasks {
    by_id: BTreeMap<String, Task>,
    /// Highest attempt number ever started, by task; oldest first in `remembered`.
    started: BTreeMap<String, u32>,
    remembered: VecDeque<String>,
}

#[derive(Debug)]
struct Task {
    generation: u64,
    hold_restart: bool,
    waiting: VecDeque<Attempt>,
    running: Option<(u32, Process)>,
    /// A restart is due then.
    start_at: Option<Instant>,
    backoff: Backoff,
    slot: u32,
    ended_by_hub: bool,
}

impl Tasks {
    /// Knows which attempts a dead shim of this instance had started.
    pub(super) fn resume(spool: &Spool) -> Self {
        let mut tasks = Self::default();
        for fact in spool.unacknowledged().chain(spool.running()) {
            if let Fact::AttemptStarted { task, attempt, .. }
            | Fact::AttemptEnded { task, attempt, .. } = fact
            {
                tasks.remember(task, *attempt);
            }
        }
        tasks
    }

    fn remember(&mut self, task: &str, attempt: u32) {
        let known = self.started.get(task).copied();
        if known.is_none() {
            self.remembered.push_back(task.to_owned());
        }
        self.started
            .insert(task.to_owned(), attempt.max(known.unwrap_or(0)));
        let excess = self.remembered.len().saturating_sub(REMEMBERED_TASKS);
        for oldest in self.remembered.drain(..excess) {
            if !self.by_id.contains_key(&oldest) {
                self.started.remove(&oldest);
            }
        }
    }

    pub(super) fn owns(&self, pid: u32) -> bool {
        self.task_of(pid).is_some()
    }

    fn task_of(&self, pid: u32) -> Option<String> {
        let found = self.by_id.iter().find(|(_, task)| {
            task.running
                .as_ref()
                .is_some_and(|(_, process)| process.pid == pid)
        });
        found.map(|(id, _)| id.clone())
    }

    pub(super) fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        self.by_id
            .values_mut()
            .filter_map(|task| task.running.as_mut().map(|(_, process)| process))
    }

    pub(super) fn running(&self) -> Vec<Running> {
        let running = |(id, task): (&String, &Task)| {
            let (attempt, process) = task.running.as_ref()?;
            Some(Running {
                task: id.clone(),
                attempt: *attempt,
                pid: process.pid,
            })
        };
        self.by_id.iter().filter_map(running).collect()
    }

    pub(super) fn prepare(&mut self, id: &str, attempt: Attempt) {
        if let Some(task) = self.by_id.get_mut(id) {
            let started = self.started.get(id).copied().unwrap_or(0);
            task.queue(started, vec![attempt]);
        }
    }

    /// Ends a task's process and forgets what was prepared for it.
    pub(super) fn end(&mut self, id: &str, grace: Duration, now: Instant) {
        if let Some(task) = self.by_id.get_mut(id) {
            task.waiting.clear();
            task.start_at = None;
            task.ended_by_hub = true;
            match &mut task.running {
                Some((_, process)) => process.end(grace, now),
                None => {
                    self.by_id.remove(id);
                }
            }
        }
    }

    pub(super) fn end_all(&mut self, grace: Duration, now: Instant) {
        for id in self.by_id.keys().cloned().collect::<Vec<_>>() {
            self.end(&id, grace, now);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.by_id.values().all(|task| task.running.is_none())
    }

    pub(super) fn forget_crashes(&mut self) {
        for task in self.by_id.values_mut() {
            task.backoff = Backoff::default();
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let kill = |task: &Task| {
            task.running
                .as_ref()
                .and_then(|(_, process)| process.deadline())
        };
        self.by_id
            .values()
            .filter_map(|task| [task.start_at, kill(task)].into_iter().flatten().min())
            .min()
    }

    fn free_slot(&self) -> u32 {
        (0..)
            .find(|slot| self.by_id.values().all(|task| task.slot != *slot))
            .unwrap_or(0)
    }

    fn families(&self) -> Vec<Family> {
        self.by_id
            .values()
            .filter_map(|task| task.running.as_ref().map(|(_, process)| process.family()))
            .collect()
    }
}

impl Task {
    /// Adds attempts that neither started nor wait yet.
    fn queue(&mut self, started: u32, attempts: Vec<Attempt>) {
        for attempt in attempts {
            let newest = self.waiting.back().map_or(started, |last| last.number);
            if attempt.number > newest.max(started) {
                self.waiting.push_back(attempt);
            }
        }
    }
}

/// Facts for attempts that a dead shim had running: the keeper killed them with it.
pub(super) fn lost(spool: &Spool) -> impl Iterator<Item = Fact> {
    spool.running().filter_map(|fact| match fact {
        Fact::AttemptStarted { task, attempt, .. } => Some(Fact::AttemptEnded {
            task: task.clone(),
            attempt: *attempt,
            exit: killed_with_the_shim(),
            will_restart: false,
            delay_ms: 0,
        }),
        _ => None,
    })
}

/// A process that ended because its shim did: a kill from outside.
pub(super) fn killed_with_the_shim() -> Exit {
    Exit {
        signal: Some(super::process::libc_signal::KILL),
        spawn_error: None,
        ..never_started(String::new())
    }
}

impl Shim {
    pub(super) fn assign(
        &mut self,
        id: String,
        generation: u64,
        attempts: Vec<Attempt>,
        hold_restart: bool,
    ) -> io::Result<()> {
        if self.stopping {
            return Ok(());
        }
        let started = self.tasks.started.get(&id).copied().unwrap_or(0);
        let slot = self.tasks.free_slot();
        let task = self.tasks.by_id.entry(id.clone()).or_insert(Task {
            generation,
            hold_restart,
            waiting: VecDeque::new(),
            running: None,
            start_at: None,
            backoff: Backoff::default(),
            slot,
            ended_by_hub: false,
        });
        task.hold_restart = hold_restart;
        task.queue(started, attempts);
        if task.running.is_none() && task.start_at.is_none() {
            self.start_next(&id)?;
        }
        Ok(())
    }

    /// Starts the next attempt and writes what came of it.
    fn start_next(&mut self, id: &str) -> io::Result<()> {
        match self.launch_next(id) {
            Some(fact) => self.attempt_started(id, fact),
            None => {
                self.tasks.by_id.remove(id);
                Ok(())
            }
        }
    }

    /// Starts the next prepared attempt, if there is one; nothing is written yet.
    fn launch_next(&mut self, id: &str) -> Option<Fact> {
        let task = self.tasks.by_id.get_mut(id)?;
        let attempt = task.waiting.pop_front()?;
        task.start_at = None;
        let unusable = [task.generation, ANY_GENERATION];
        let unusable = unusable.iter().find_map(|number| self.unusable.get(number));
        let started = match spec_for(&mut self.specs, task.generation) {
            Some(prepared) => launch(prepared, &attempt, task.slot),
            None => Err(StartFailure(match unusable {
                Some(reason) => format!("the agent can't be prepared: {reason}"),
                None => format!("generation {} is not known here any more", task.generation),
            })),
        };
        let number = attempt.number;
        match started {
            Ok(process) => {
                let pid = process.pid;
                task.running = Some((number, process));
                Some(Fact::AttemptStarted {
                    task: id.to_owned(),
                    attempt: number,
                    pid,
                })
            }
            Err(StartFailure(reason)) => Some(Fact::AttemptEnded {
                task: id.to_owned(),
                attempt: number,
                exit: never_started(reason),
                will_restart: false,
                delay_ms: 0,
            }),
        }
    }

    /// Watches a started process, or forgets a task that couldn't be started; writes the fact.
    fn attempt_started(&mut self, id: &str, fact: Fact) -> io::Result<()> {
        let (Fact::AttemptStarted { attempt, .. } | Fact::AttemptEnded { attempt, .. }) = &fact
        else {
            return Ok(());
        };
        self.tasks.remember(id, *attempt);
        let header = format!("attempt {attempt} of task {id}");
        if let Fact::AttemptEnded { exit, .. } = &fact {
            self.tasks.by_id.remove(id);
            let reason = exit.spawn_error.as_deref().unwrap_or_default();
            self.stderr_log.header(&format!("{header}: {reason}"));
            self.tell_false_start(reason);
        } else {
            self.tell_of_use();
            self.stdout_log.header(&header);
            self.stderr_log.header(&header);
        }
        if let Some(task) = self.tasks.by_id.get_mut(id)
            && let Some((_, process)) = &mut task.running
        {
            watch(&self.reactor, process)?;
        }
        self.record(fact, Duration::ZERO)
    }

    /// The first process of an attempt has ended. `alone`: nothing else of it can be left.
    pub(super) fn attempt_ended(&mut self, pid: u32, ended: Ended, alone: bool) -> io::Result<()> {
        let Some(id) = self.tasks.task_of(pid) else {
            return Ok(());
        };
        let Some(task) = self.tasks.by_id.get_mut(&id) else {
            return Ok(());
        };
        let Some((attempt, mut process)) = task.running.take() else {
            return Ok(());
        };
        if !alone {
            let others = self.tasks.families();
            let helpers: Vec<u32> = self.helpers.iter().copied().collect();
            self.reaped.extend(process.end_tree(&others, &helpers));
        }
        self.finish_output(&mut process);
        let exit = process.exit(ended, &mut self.memory);
        let delay_ms = self.decide_restart(&id, &exit);
        let next = match delay_ms {
            Some(0) => self.launch_next(&id),
            _ => None,
        };
        let fact = Fact::AttemptEnded {
            task: id.clone(),
            attempt,
            exit,
            will_restart: delay_ms.is_some(),
            delay_ms: delay_ms.unwrap_or(0),
        };
        self.record(fact, Duration::ZERO)?;
        match (next, delay_ms) {
            (Some(next), _) => self.attempt_started(&id, next),
            (None, Some(delay_ms)) => {
                if let Some(task) = self.tasks.by_id.get_mut(&id) {
                    task.start_at = Some(Instant::now() + Duration::from_millis(delay_ms));
                }
                Ok(())
            }
            (None, None) => {
                self.tasks.by_id.remove(&id);
                Ok(())
            }
        }
    }

    /// After how long the next prepared attempt starts by itself; `None` if it doesn't.
    fn decide_restart(&mut self, id: &str, exit: &Exit) -> Option<u64> {
        let held = self.hold || self.stopping;
        let task = self.tasks.by_id.get_mut(id)?;
        let evidence = Evidence {
            code: exit.code,
            signal: exit.signal,
            oom: exit.oom,
            asked: exit.asked || task.ended_by_hub,
            cut_off: false,
            ready: true,
        };
        let decision = decide(Kind::Attempt, &evidence, task.backoff, true);
        task.backoff = decision.backoff;
        // An answer that is too long is so in every attempt.
        let held = held || exit.stdout_truncated;
        let goes_on = decision.restart && !held && !task.hold_restart && !task.waiting.is_empty();
        goes_on.then_some(decision.delay_ms)
    }

    /// Reads what a dead process had still written and closes its pipes.
    pub(super) fn finish_output(&mut self, process: &mut Process) {
        let stdout = process
            .stdout
            .as_mut()
            .map(|output| (output, &mut self.stdout_log));
        let both = stdout
            .into_iter()
            .chain([(&mut process.stderr, &mut self.stderr_log)]);
        for (output, log) in both {
            output.drain(log);
            if let Some(pipe) = output.fd() {
                self.reactor.remove(pipe);
            }
            output.close();
        }
    }

    pub(super) fn tick_tasks(&mut self, now: Instant) -> io::Result<()> {
        for process in self.tasks.processes_mut() {
            process.kill_if_due(now);
        }
        let due = |task: &Task| task.start_at.is_some_and(|at| at <= now);
        let ids: Vec<String> = self
            .tasks
            .by_id
            .iter()
            .filter(|(_, task)| due(task))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.start_next(&id)?;
        }
        Ok(())
    }
}

fn launch(
    prepared: &mut super::Prepared,
    attempt: &Attempt,
    slot: u32,
) -> Result<Process, StartFailure> {
    let stdin = sandbox::descriptors::sealed_memfd("stdin", attempt.stdin.as_bytes())
        .map_err(|error| StartFailure(format!("standard input can't be prepared: {error}")))?;
    let who = Who {
        token: Some(&attempt.token),
        hub_env: &attempt.env,
        slot,
        says_ready: false,
    };
    let made = Made::new(prepared, &who, true)?;
    let ends = Ends {
        stdin: stdin.as_fd(),
        stdout: None,
        ready: None,
    };
    Process::start(prepared, made, &ends)
}

/// Reads the process's output as it comes.
pub(super) fn watch(reactor: &crate::reactor::Reactor, process: &Process) -> io::Result<()> {
    if let Some(pipe) = process.stdout.as_ref().and_then(super::output::Output::fd) {
        reactor.add(pipe)?;
    }
    match process.stderr.fd() {
        Some(pipe) => reactor.add(pipe),
        None => Ok(()),
    }
}
