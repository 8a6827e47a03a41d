//! Start-up: opens the logs, takes up open tasks, and says which calls nobody can know about.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::fleet::Fleet;
use contract::keeper::GenerationRef;
use mainstay_core::event::Event;
use mainstay_core::step::StepState;
use mainstay_core::task::TaskRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Log, OpenError, Options, Place, Reader, SigningKey, StoreError};

use crate::ground::Ground;
use crate::keys::Keys;
use crate::projection;
use crate::state::{Clocks, Map, Open, State};
use crate::tx::Tx;
use crate::{Code, HubError};

/// How long a log may still be held by a hub that is ending.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How often a hub that stands by looks whether the lease is free.
const LEASE_LOOK: Duration = Duration::from_millis(200);

/// What the system log's state rows hold.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Incarnation {
    pub(crate) number: u64,
    pub(crate) pid: u32,
}

/// Opens a log, waiting for a predecessor that is ending.
#[allow(
    clippy::disallowed_methods,
    reason = "another process is waited for, before this hub has time of its own"
)]
pub(crate) fn open_log(
    ground: &Arc<dyn Ground>,
    place: &Place,
    workspace: &str,
    keys: &Keys,
    address: Option<&str>,
) -> Result<Log, HubError> {
    let deadline = std::time::Instant::now() + LOCK_WAIT;
    let mut stands_by = false;
    loop {
        let key = SigningKey::from_seed(keys.log_seed()).map_err(|error| {
            HubError::new(
                Code::Internal,
                format!("the log's key can't be made: {error}"),
            )
        })?;
        let options = Options {
            workspace: workspace.to_owned(),
            key,
            create: true,
            previous_head: None,
            address: address.map(str::to_owned),
            now_ms: ground.now_ms(),
        };
        match Log::open_at(Arc::clone(ground) as Arc<dyn store::Ground>, place, options) {
            Ok(log) => return Ok(log),
            Err(OpenError::LogLocked { .. }) if std::time::Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            // Another hub writes: this one is its replacement, for as long as that takes.
            Err(error @ OpenError::LeaseHeld { .. }) => {
                if !std::mem::replace(&mut stands_by, true) {
                    tracing::warn!(%error, "standing by");
                }
                std::thread::sleep(LEASE_LOOK);
            }
            Err(error) => return Err(refused(&error)),
        }
    }
}

fn refused(error: &OpenError) -> HubError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    HubError::new(Code::Unavailable, text)
}

/// Reads the state from both logs.
pub(crate) fn state(
    mut log: Log,
    system: Log,
    state_dir: &Path,
    clocks: Clocks,
) -> Result<State, HubError> {
    let failed = |error: store::StoreError| {
        HubError::new(Code::Internal, format!("failed to read the log: {error}"))
    };
    catch_up(&mut log)?;
    let reader = system.read();
    let incarnation = reader
        .state("hub", "incarnation")
        .map_err(failed)?
        .and_then(|row| projection::decode::<Incarnation>(&row.body))
        .map_or(0, |known| known.number);
    let generation = reader
        .state("generation", "current")
        .map_err(failed)?
        .and_then(|row| projection::decode::<GenerationRef>(&row.body));
    let stopped: BTreeSet<String> = reader
        .states("stopped")
        .map_err(failed)?
        .into_iter()
        .map(|row| row.key)
        .collect();
    let mut tasks = Map::default();
    for row in log.read().open_tasks().map_err(failed)? {
        let Some((record, seq)) = projection::load(log.read(), &row.id).map_err(failed)? else {
            continue;
        };
        let open = open_task(log.read(), record, seq, clocks).map_err(failed)?;
        let Some(open) = open else { continue };
        tasks.insert(row.id, open);
    }
    let mut fleets = HashMap::new();
    let pinned = tasks
        .values()
        .filter_map(|open| open.record.task.generation);
    for number in pinned
        .chain(generation.iter().map(|current| current.number))
        .collect::<BTreeSet<_>>()
    {
        if let Some(fleet) = read_fleet(state_dir, number) {
            fleets.insert(number, Arc::new(fleet));
        }
    }
    Ok(State {
        log,
        system,
        incarnation: incarnation + 1,
        tasks,
        unwritten: Default::default(),
        queues: BTreeMap::new(),
        sessions: HashMap::new(),
        leases: Map::default(),
        instances: BTreeMap::new(),
        pods: None,
        stopped,
        generation,
        fleets,
        ahead_ms: None,
        low_space: false,
        low_space_checked: None,
        ends: false,
    })
}

/// Writes the rows that the hub before left for later and didn't get to.
fn catch_up(log: &mut Log) -> Result<(), HubError> {
    if log.watermark() == log.size() {
        return Ok(());
    }
    let failed = |error: &dyn std::fmt::Display| {
        HubError::new(
            Code::Internal,
            format!("failed to fold the entries after the watermark: {error}"),
        )
    };
    let (from, size) = (log.watermark(), log.size());
    let rows = projection::tail(log.read(), from).map_err(|error| failed(&error))?;
    tracing::info!(from, size, rows = rows.len(), "rows were left to write");
    let batch = store::Batch {
        rows,
        ..store::Batch::default()
    };
    log.append(&batch).map(drop).map_err(|error| failed(&error))
}

/// A task with what matching its requests needs.
pub(crate) fn open_task(
    reader: &Reader,
    record: TaskRecord,
    updated_seq: u64,
    clocks: Clocks,
) -> Result<Option<Open>, StoreError> {
    let task = &record.task;
    let key = reader.payload(task.input_seq, "key")?;
    let Some(key) = key.and_then(|key| key.try_into().ok()) else {
        return Ok(None);
    };
    let input = crate::input::payload_json(reader, task.input_seq, "input")?;
    let due_ms = task.deadline_ms.map(|deadline| clocks.boot_time(deadline));
    let born_ms = clocks.boot_time(task.created_ms);
    let blobs = record
        .steps
        .iter()
        .flat_map(|step| macs(reader, step.intent_seq))
        .collect::<HashSet<_>>();
    let inherited = record.task.lease.as_ref().map(|lease| lease.attempt);
    Ok(Some(Open {
        input_text: input_text(&input),
        record,
        updated_seq,
        key,
        blobs,
        index: Default::default(),
        pending_marks: BTreeMap::new(),
        inherited,
        unheard: inherited,
        born_ms,
        due_ms,
        rests_until: None,
    }))
}

fn macs(reader: &Reader, intent_seq: u64) -> Vec<[u8; 32]> {
    let entry = reader.entry(intent_seq).ok().flatten();
    let names = entry
        .into_iter()
        .flat_map(|entry| entry.payloads.into_iter().map(|payload| payload.name));
    names
        .filter_map(|name| {
            hex::decode(name.strip_prefix("blob:")?)
                .ok()?
                .try_into()
                .ok()
        })
        .collect()
}

/// All text of an input, for telling what must not be masked.
pub(crate) fn input_text(input: &Value) -> Arc<str> {
    match input {
        Value::String(text) => text.as_str().into(),
        other => other.to_string().into(),
    }
}

/// Reads a generation that the keeper wrote.
pub(crate) fn read_fleet(state_dir: &Path, number: u64) -> Option<Fleet> {
    let path = state_dir
        .join("generations")
        .join(format!("{number:03}"))
        .join("fleet.json");
    let text = std::fs::read(&path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(fleet) => Some(fleet),
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "a generation can't be read");
            None
        }
    }
}

/// The first job: names this hub in the log and marks what its predecessor left in flight.
pub(crate) fn take_over(tx: &mut Tx<'_>, pid: u32) {
    let number = tx.state.incarnation;
    let body = projection::encode(&Incarnation { number, pid });
    let row = store::Row::State(store::StateRow {
        kind: "hub".into(),
        key: "incarnation".into(),
        body: body.clone(),
    });
    tx.system("hub.started", "hub", body, row);
    let ids: Vec<String> = tx.state.tasks.keys().cloned().collect();
    for id in ids {
        tx.refresh(&id);
        let in_flight: Vec<u32> = tx.state.tasks.get(&id).map_or_else(Vec::new, |open| {
            let steps = open.record.steps.iter();
            steps
                .filter(|step| step.state == StepState::InFlight)
                .map(|step| step.n)
                .collect()
        });
        for n in in_flight {
            tx.emit(&id, "hub", Event::StepUnknown { n });
        }
    }
    // A generation is journaled before what follows from it: its predecessor may have ended between.
    tx.adopt_orphans();
}
