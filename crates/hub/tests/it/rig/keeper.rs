//! The keeper of a rig: starts a hub, starts the next when it dies, proposes generations until one
//! is committed or refused, and lists the instances.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::fleet::Fleet;
use contract::keeper::{Instance, ToHub, ToKeeper};
use hub::home::{HomeEvent, HomeLink};
use hub::{Hub, HubError, Options};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ground::{Outside, Process};
use super::world::World;
use super::{PATIENCE, log_of};
use crate::home::write_fleet;

/// What the test has the keeper do.
enum Order {
    /// There is a generation to propose.
    Propose,
    /// SIGKILL to the hub, and the next one so much later.
    Kill(Duration),
    /// SIGTERM to the keeper: the hub ends in good order, and no other comes.
    End,
}

/// What the hub said about a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Committed,
    Refused(Vec<String>),
}

#[derive(Default)]
struct Known {
    proposed: BTreeMap<u64, Fleet>,
    verdicts: BTreeMap<u64, Verdict>,
    hubs: u32,
}

/// The test's handle.
pub(crate) struct Keeper {
    orders: mpsc::UnboundedSender<Order>,
    known: Arc<Mutex<Known>>,
    lives: JoinHandle<()>,
}

struct Life {
    world: Arc<World>,
    outside: Arc<Outside>,
    state: PathBuf,
    instances: Vec<Instance>,
    known: Arc<Mutex<Known>>,
}

/// A hub and the keeper's ends of its link.
struct Served {
    process: Arc<Process>,
    events: mpsc::Sender<HomeEvent>,
    commands: mpsc::UnboundedReceiver<ToKeeper>,
    running: JoinHandle<Result<(), HubError>>,
}

enum After {
    Next(Duration),
    Nothing,
}

impl Keeper {
    pub(crate) fn start(
        world: &Arc<World>,
        outside: &Arc<Outside>,
        state: &Path,
        instances: Vec<Instance>,
    ) -> Self {
        let (orders, queue) = mpsc::unbounded_channel();
        let known = Arc::new(Mutex::new(Known::default()));
        let life = Life {
            world: Arc::clone(world),
            outside: Arc::clone(outside),
            state: state.to_owned(),
            instances,
            known: Arc::clone(&known),
        };
        Self {
            orders,
            known,
            lives: tokio::spawn(life.live(queue)),
        }
    }

    /// Proposes a fleet as the next generation.
    pub(crate) fn propose(&self, fleet: Fleet) -> u64 {
        let mut known = self.known.lock().unwrap();
        let number = known.proposed.len() as u64 + 1;
        known.proposed.insert(number, fleet);
        let _ = self.orders.send(Order::Propose);
        number
    }

    /// What a hub said about a generation, once one has.
    pub(crate) async fn verdict(&self, number: u64) -> Verdict {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(verdict) = self.known.lock().unwrap().verdicts.get(&number) {
                return verdict.clone();
            }
            assert!(
                tokio::time::Instant::now() < until,
                "nobody says anything about generation {number}"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) async fn committed(&self, number: u64) {
        assert_eq!(self.verdict(number).await, Verdict::Committed);
    }

    /// Waits until there were so many hubs.
    pub(crate) async fn hubs(&self, count: u32) {
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.known.lock().unwrap().hubs < count {
            assert!(tokio::time::Instant::now() < until, "no hub ended");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(crate) fn kill_hub(&self, away: Duration) {
        let _ = self.orders.send(Order::Kill(away));
    }

    pub(crate) async fn end(self) {
        let _ = self.orders.send(Order::End);
        self.lives.await.unwrap();
    }
}

impl Life {
    async fn live(self, mut orders: mpsc::UnboundedReceiver<Order>) {
        loop {
            let Some(mut served) = self.start().await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let after = self.serve(&mut served, &mut orders).await;
            served.process.kill();
            if !served.running.is_finished() {
                served.running.abort();
                let _ = served.running.await;
            }
            served.process.reap().await;
            self.world.calls_are_gone().await;
            match after {
                After::Next(away) => tokio::time::sleep(away).await,
                After::Nothing => return,
            }
        }
    }

    /// A hub that serves; `None` if it died before it did.
    async fn start(&self) -> Option<Served> {
        let (events, events_rx) = mpsc::channel(64);
        let (commands_tx, commands) = mpsc::unbounded_channel();
        let process = Process::new(&self.world, &self.outside, log_of(&self.state));
        let options = Options {
            home: HomeLink {
                events: events_rx,
                commands: commands_tx,
            },
            pid: 1,
            state_key: [7; 32],
            state_dir: self.state.clone(),
            workspace: "default".into(),
        };
        match Hub::start_on(
            Arc::clone(&process) as Arc<dyn hub::ground::Ground>,
            options,
        )
        .await
        {
            Ok((hub, running)) => {
                self.known.lock().unwrap().hubs += 1;
                self.world.hub_is(hub);
                Some(Served {
                    process,
                    events,
                    commands,
                    running,
                })
            }
            Err(_) => {
                process.kill();
                process.reap().await;
                None
            }
        }
    }

    async fn serve(
        &self,
        served: &mut Served,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) -> After {
        loop {
            tokio::select! {
                biased;
                () = served.process.died() => return After::Next(Duration::from_millis(5)),
                ended = &mut served.running => {
                    // Gone without a death: it could not go on.
                    tracing::debug!(?ended, "a hub ended");
                    return After::Next(Duration::from_millis(5));
                }
                command = served.commands.recv() => {
                    if let Some(command) = command {
                        self.hear(served, command).await;
                    }
                }
                order = orders.recv() => match order {
                    Some(Order::Propose) => self.propose(served, 0).await,
                    Some(Order::Kill(away)) => return After::Next(away),
                    Some(Order::End) | None => return self.let_end(served, After::Nothing).await,
                },
                () = served.process.orderly.notified() => {
                    return self.let_end(served, After::Next(Duration::from_millis(5))).await;
                }
            }
        }
    }

    /// The keeper goes, and the hub with it, in good order.
    async fn let_end(&self, served: &mut Served, after: After) -> After {
        let _ = served.events.send(HomeEvent::Gone).await;
        let _ = tokio::time::timeout(PATIENCE, &mut served.running).await;
        after
    }

    async fn hear(&self, served: &Served, command: ToKeeper) {
        match command {
            ToKeeper::Hello {
                current_generation, ..
            } => {
                let current = current_generation.map_or(0, |current| current.number);
                self.is_durable(current);
                self.propose(served, current).await;
            }
            ToKeeper::Ready => {
                let instances = self.instances.clone();
                self.say(served, ToHub::Instances { instances }).await;
            }
            ToKeeper::GenerationCommitted { number } => {
                let mut known = self.known.lock().unwrap();
                known.verdicts.insert(number, Verdict::Committed);
            }
            ToKeeper::GenerationRefused { number, problems } => {
                let mut known = self.known.lock().unwrap();
                let verdict = Verdict::Refused(problems);
                known.verdicts.entry(number).or_insert(verdict);
            }
            _ => {}
        }
    }

    /// A verdict that died with its hub is read from the log.
    fn is_durable(&self, current: u64) {
        let mut known = self.known.lock().unwrap();
        if known.proposed.contains_key(&current) {
            known.verdicts.insert(current, Verdict::Committed);
        }
    }

    /// Proposes the generations above one that nobody has said anything about.
    async fn propose(&self, served: &Served, above: u64) {
        let next: Vec<(u64, Fleet)> = {
            let known = self.known.lock().unwrap();
            let open = known.proposed.iter().filter(|(number, _)| **number > above);
            open.filter(|(number, _)| !known.verdicts.contains_key(number))
                .map(|(number, fleet)| (*number, fleet.clone()))
                .collect()
        };
        for (number, fleet) in next {
            write_fleet(&self.state, number, &fleet);
            let hash = format!("hash {number}");
            self.say(served, ToHub::GenerationProposed { number, hash })
                .await;
        }
    }

    async fn say(&self, served: &Served, message: ToHub) {
        for _ in 0..=u32::from(self.world.is_double) {
            let _ = served
                .events
                .send(HomeEvent::Message(message.clone()))
                .await;
        }
    }
}
