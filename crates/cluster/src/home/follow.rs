//! The fleet, followed: objects that change become generations, and their Secrets are read first.
//!
//! Changes come in bursts (`kubectl apply -f .`), so a little is waited for more of them. A
//! generation is proposed once its Secrets were asked for: an agent that is switched to finds its
//! provider's key. Without the API server nothing is proposed, and nothing is taken away.

use std::time::Duration;

use api::Fleet;
use contract::keeper::{GenerationRef, ToHub};
use hub::home::HomeEvent;
use kube::Client;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fleet::Fleets;
use crate::generation;
use crate::objects::Objects;
use crate::secrets::Secrets;

/// Nothing changed for this long: the burst is over.
const QUIET: Duration = Duration::from_millis(200);
/// And it is taken as it is after this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Secrets have no watch that the hub's rights would allow: they are read this often.
const SECRETS: Duration = Duration::from_secs(20);
/// The same while one is missing: it comes, or the leave to read it does.
const MISSING: Duration = Duration::from_secs(2);

/// What the hub says about generations.
#[derive(Debug)]
pub(crate) enum Said {
    Begin(Option<GenerationRef>),
    Committed(u64),
    Refused(u64),
    Pins(Vec<u64>),
}

/// The task.
pub(crate) struct Follow {
    pub(crate) fleets: Fleets,
    pub(crate) objects: Objects,
    pub(crate) secrets: Secrets,
    pub(crate) said: mpsc::Receiver<Said>,
    pub(crate) events: mpsc::Sender<HomeEvent>,
    pub(crate) client: Option<Client>,
    pub(crate) namespace: String,
    pub(crate) workspace: String,
    /// What was proposed, until the hub has answered.
    pub(crate) coming: Option<Fleet>,
}

impl Follow {
    pub(crate) async fn run(mut self) {
        // Its log comes first: what is current decides what is new.
        loop {
            match self.said.recv().await {
                Some(Said::Begin(current)) => break self.fleets.begin(current),
                Some(_) => {}
                None => return,
            }
        }
        let objects = self.objects.clone();
        // Ends with this.
        let mut watching = JoinSet::new();
        if let Some(client) = self.client.clone() {
            let (namespace, workspace) = (self.namespace.clone(), self.workspace.clone());
            watching.spawn(objects.clone().watch(client, namespace, workspace));
        }
        let mut changes = objects.changes();
        let mut burst: Option<(Instant, Instant)> = None;
        let mut secrets = Instant::now();
        loop {
            let due = burst.map(|(quiet, last)| quiet.min(last));
            tokio::select! {
                said = self.said.recv() => match said {
                    Some(said) => self.said(said),
                    None => return,
                },
                Ok(()) = changes.changed() => {
                    let now = Instant::now();
                    let last = burst.map_or(now + PATIENCE, |(_, last)| last);
                    burst = Some((now + QUIET, last));
                }
                () = until(due) => {
                    let is_done = self.propose(&objects).await;
                    let again = Instant::now() + PATIENCE;
                    burst = (!is_done).then_some((again, again));
                }
                () = tokio::time::sleep_until(secrets) => {
                    let pace = if self.read_secrets().await { SECRETS } else { MISSING };
                    secrets = Instant::now() + pace;
                }
            }
        }
    }

    fn said(&mut self, said: Said) {
        match said {
            Said::Begin(_) => {}
            Said::Committed(number) => {
                self.fleets.committed(number);
                self.coming = None;
            }
            Said::Refused(number) => {
                self.fleets.answered(number);
                self.coming = None;
            }
            Said::Pins(pins) => self.fleets.pinned(pins),
        }
    }

    /// Whether nothing is left to do: a disk that is full may not stay so.
    async fn propose(&mut self, objects: &Objects) -> bool {
        let Some(all) = objects.all() else {
            return true;
        };
        let proposed = match self.fleets.propose(&all) {
            Ok(Some(proposed)) => proposed,
            Ok(None) => return true,
            Err(error) => {
                tracing::error!(%error, "a generation can't be written");
                return false;
            }
        };
        self.coming = generation::load(self.fleets.state_dir(), proposed.number);
        self.read_secrets().await;
        let (number, hash) = (proposed.number, proposed.hash);
        let message = ToHub::GenerationProposed { number, hash };
        // The hub is gone only when the process ends.
        let _gone = self.events.send(HomeEvent::Message(message)).await;
        true
    }

    /// Of today's fleet, and of the one that may be next; whether all were there.
    async fn read_secrets(&mut self) -> bool {
        let Some(client) = &self.client else {
            return true;
        };
        let today = self.fleets.today().borrow().clone();
        let fleets: Vec<&Fleet> = self.coming.iter().chain([&*today]).collect();
        self.secrets.follow(client, &self.namespace, &fleets).await
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
