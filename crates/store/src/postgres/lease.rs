//! The lease: one row that says who may write, until when by the server's clock, and with which epoch.
//!
//! A writer's every transaction begins by changing this row under its epoch. So a writer whose lease was taken can't
//! append, whatever it believes; transactions of two writers wait for one another at the row; and one that broke off is
//! over, or can never begin, once its writer has taken a new epoch. A thread with a connection of its own renews the
//! lease, so that neither a long batch nor an idle writer loses it. Time decides only who may take what nobody renews.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use tokio_postgres::types::Type;
use tracing::{debug, error};

use super::link::{Call, Link};
use super::server::Server;
use crate::database::{DatabaseError, Param};
use crate::error::StoreError;
use crate::health::{Health, Trouble};

const RENEWED_EVERY: Duration = Duration::from_secs(1);

/// Five seconds: a server that stalls for a few doesn't cost its writer the lease.
const TAKE: &str = "UPDATE lease SET epoch = epoch + 1, holder = ?1, address = ?2, name = ?3, \
    expires = clock_timestamp() + interval '5 s' \
    WHERE holder = ?1 OR expires < clock_timestamp() RETURNING epoch";
const CHECK: &str =
    "UPDATE lease SET expires = clock_timestamp() + interval '5 s' WHERE epoch = ?1";
/// By its holder, because a writer that comes back takes a new epoch meanwhile.
const RENEW: &str =
    "UPDATE lease SET expires = clock_timestamp() + interval '5 s' WHERE holder = ?1";
const REGAIN: &str = "UPDATE lease SET epoch = epoch + 1, \
    expires = clock_timestamp() + interval '5 s' WHERE holder = ?1 RETURNING epoch";
const RELEASE: &str = "UPDATE lease SET expires = clock_timestamp() WHERE epoch = ?1";
const HELD_BY: &str = "SELECT name, address, \
    (extract(epoch FROM expires - clock_timestamp()) * 1000)::bigint FROM lease";

/// Who wants the lease.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    /// Of the directory beside the log. Whoever has locked it is alone with it, so a lease that bears this id is of one
    /// that has ended: it needn't be waited for after a crash.
    id: String,
    /// Who it is, for people.
    name: String,
    /// Where others find it.
    address: Option<String>,
}

impl Holder {
    /// The caller holds the lock on the directory.
    pub(crate) fn of(dir: &Path, address: Option<String>) -> io::Result<Holder> {
        let host = rustix::system::uname();
        let host = host.nodename().to_string_lossy().into_owned();
        Ok(Holder {
            id: holder_of(&dir.join("holder"))?,
            name: format!("{host}, process {}", std::process::id()),
            address,
        })
    }
}

/// An id and the file that it is in: a copy of the directory is another's.
fn holder_of(path: &Path) -> io::Result<String> {
    let id = id_of(path)?;
    let file = std::fs::metadata(path)?;
    Ok(format!("{id} {:x}:{:x}", file.dev(), file.ino()))
}

/// Reads the id, or makes one. A file that was being made when its writer was killed is made again.
fn id_of(path: &Path) -> io::Result<String> {
    let known = match std::fs::read_to_string(path) {
        Ok(known) => known,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    if known.len() == uuid::fmt::Hyphenated::LENGTH {
        return Ok(known);
    }
    let id = uuid::Uuid::now_v7().to_string();
    std::fs::write(path, &id)?;
    Ok(id)
}

/// A lease that was taken, and the thread that renews it.
#[derive(Debug)]
pub(super) struct Lease {
    holder: Holder,
    epoch: AtomicI64,
    health: Health,
    /// The thread ends when this does.
    _renewing: Sender<()>,
}

impl Lease {
    pub(super) fn take(
        link: &Link,
        server: &Server,
        holder: &Holder,
        health: &Health,
    ) -> Result<Lease, DatabaseError> {
        let params = [
            Param::Text(&holder.id),
            Param::OptionalText(holder.address.as_deref()),
            Param::Text(&holder.name),
        ];
        let Some(epoch) = number(link, TAKE, &params)? else {
            return Err(held(link));
        };
        let (stop, stopped) = mpsc::channel();
        let (server, id) = (server.clone(), holder.id.clone());
        let told = health.clone();
        std::thread::Builder::new()
            .name("lease".into())
            .spawn(move || renew(&server, &id, &told, &stopped))
            .map_err(DatabaseError::Runtime)?;
        Ok(Lease {
            holder: holder.clone(),
            epoch: AtomicI64::new(epoch),
            health: health.clone(),
            _renewing: stop,
        })
    }

    /// The first statement of every transaction: it changes one row, or the lease is lost.
    pub(super) fn check(&self) -> Call<'_> {
        Call {
            sql: CHECK,
            types: vec![Type::INT8],
            values: vec![Box::new(self.epoch.load(Ordering::SeqCst))],
        }
    }

    /// After a connection broke: with a new epoch nothing of the old one can be written any more, and what was written
    /// is there to be seen.
    pub(super) fn regain(&self, link: &Link) -> Result<(), DatabaseError> {
        match number(link, REGAIN, &[Param::Text(&self.holder.id)])? {
            Some(epoch) => {
                self.epoch.store(epoch, Ordering::SeqCst);
                Ok(())
            }
            None => Err(self.lost(link)),
        }
    }

    /// Says who has it now.
    pub(super) fn lost(&self, link: &Link) -> DatabaseError {
        self.health.set(Trouble::Lost);
        // The transaction that found out can't be asked any more.
        let _over = link.run("ROLLBACK");
        match held(link) {
            DatabaseError::LeaseHeld { holder, .. } => DatabaseError::LeaseLost { holder },
            error => error,
        }
    }

    /// Whoever waits for it needn't wait for time.
    pub(super) fn release(&self, link: &Link) -> Result<(), DatabaseError> {
        let epoch = self.epoch.load(Ordering::SeqCst);
        link.execute(RELEASE, &[Param::Integer(epoch)]).map(drop)
    }
}

fn renew(server: &Server, id: &str, health: &Health, stopped: &mpsc::Receiver<()>) {
    let mut link = None;
    while stopped.recv_timeout(RENEWED_EVERY) == Err(RecvTimeoutError::Timeout) {
        match renewed(server, id, &mut link) {
            Ok(true) => {}
            Ok(false) => {
                error!(%server, "the lease of the log is another's: this writer ends");
                health.set(Trouble::Lost);
                return;
            }
            // The writer says it; until its lease has run out nothing is lost.
            Err(why) => {
                debug!(%server, error = &why as &dyn std::error::Error, "the lease is not renewed");
                link = None;
            }
        }
    }
}

fn renewed(server: &Server, id: &str, link: &mut Option<Link>) -> Result<bool, DatabaseError> {
    let link = match link {
        Some(link) => link,
        none => none.insert(Link::connect(server)?),
    };
    Ok(link.execute(RENEW, &[Param::Text(id)])? == 1)
}

fn held(link: &Link) -> DatabaseError {
    let mut found = DatabaseError::NoLease;
    let looked = link.query(HELD_BY, &[], &mut |row| {
        found = DatabaseError::LeaseHeld {
            holder: row.text(0)?.to_owned(),
            address: row.optional_text(1)?.map(str::to_owned),
            left_ms: row.integer(2)?,
        };
        Ok(std::ops::ControlFlow::Break(()))
    });
    match looked {
        Err(StoreError::Read(error)) => error,
        _ => found,
    }
}

fn number(link: &Link, sql: &str, params: &[Param<'_>]) -> Result<Option<i64>, DatabaseError> {
    let mut found = None;
    let asked = link.query(sql, params, &mut |row| {
        found = Some(row.integer(0)?);
        Ok(std::ops::ControlFlow::Continue(()))
    });
    match asked {
        Err(StoreError::Read(error)) => Err(error),
        _ => Ok(found),
    }
}
