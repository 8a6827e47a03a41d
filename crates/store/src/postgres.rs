//! A log's database on Postgres: a schema of its own, and a lease that says who may write.
//!
//! A reader asks on a connection that is made again when it broke. The writer waits: while the server is away, or has
//! no room, nothing of it goes on, so nothing happens that isn't recorded. What was asked while it broke off is looked
//! up before anything else is done, under a lease taken anew, which no earlier transaction outlives.

mod batch;
mod lease;
mod link;
mod row;
mod schema;
mod server;
mod tls;

use std::cell::RefCell;
use std::fmt;
use std::ops::ControlFlow;
use std::time::Duration;

use ledger::SignedHead;
use tracing::{error, info};

pub(crate) use schema::{FORMAT, Found};
pub use server::{Server, ServerError};

pub(crate) use self::lease::Holder;
use self::lease::Lease;
use self::link::{Link, Verdict, pause, verdict};
use crate::database::{Database, DatabaseError, Each, Param, Reach, Rows, Walk, Writing};
use crate::error::StoreError;
use crate::ground::Stage;
use crate::health::{Health, Trouble};
use crate::row::to_sql;

/// Between two tries of a batch for which the server has no room.
const FULL_PAUSE: Duration = Duration::from_secs(1);
/// Rows fetched at once where a whole table is walked.
const FETCHED: usize = 200;

/// A connection, and for the writer the lease.
pub(crate) struct Postgres {
    server: Server,
    /// `None` once it broke, until it is needed.
    link: RefCell<Option<Link>>,
    is_in_transaction: RefCell<bool>,
    lease: Option<Lease>,
    health: Health,
}

impl Postgres {
    /// Connects for reading.
    pub(crate) fn reader(server: &Server) -> Result<Postgres, DatabaseError> {
        Ok(Postgres::on(server, Link::connect(server)?, None))
    }

    /// Connects, makes what is missing of the schema, and takes the lease.
    pub(crate) fn writer(server: &Server, holder: &Holder) -> Result<Postgres, DatabaseError> {
        let link = Link::connect(server)?;
        schema::prepare(&link, server)?;
        let health = Health::default();
        let lease = Lease::take(&link, server, holder, &health)?;
        let mut postgres = Postgres::on(server, link, Some(lease));
        postgres.health = health;
        Ok(postgres)
    }

    fn on(server: &Server, link: Link, lease: Option<Lease>) -> Postgres {
        Postgres {
            server: server.clone(),
            link: RefCell::new(Some(link)),
            is_in_transaction: RefCell::new(false),
            lease,
            health: Health::default(),
        }
    }

    pub(crate) fn found(&self) -> Result<Found, DatabaseError> {
        self.with(|link| schema::found(link, &self.server))
    }

    pub(crate) fn health(&self) -> Health {
        self.health.clone()
    }

    /// Does something on the connection, which is made first where it broke.
    fn with<T>(
        &self,
        work: impl FnOnce(&Link) -> Result<T, DatabaseError>,
    ) -> Result<T, DatabaseError> {
        let is_broken = self.link.borrow().as_ref().is_none_or(Link::is_closed);
        if is_broken {
            // A transaction is gone with its connection, and so is a walk that is under way.
            let link = self.link.try_borrow_mut().ok();
            let mut link = link
                .filter(|_| self.may_return())
                .ok_or(DatabaseError::Closed)?;
            *link = None;
            *link = Some(self.connect()?);
        }
        let link = self.link.borrow();
        work(link.as_ref().ok_or(DatabaseError::Closed)?)
    }

    /// The writer's connection comes with a lease taken anew.
    fn connect(&self) -> Result<Link, DatabaseError> {
        let link = Link::connect(&self.server)?;
        match &self.lease {
            Some(lease) => lease.regain(&link).map(|()| link),
            None => Ok(link),
        }
    }

    /// Does something that may be done twice, until the server answers.
    fn insist<T, E: From<DatabaseError>>(
        &self,
        mut work: impl FnMut(&Link) -> Result<T, E>,
        is_away: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        loop {
            let mut done = None;
            let reached = self.with(|link| {
                done = Some(work(link));
                Ok(())
            });
            let done = match reached {
                Ok(()) => done.unwrap_or(Err(DatabaseError::Closed.into())),
                Err(error) => Err(error.into()),
            };
            match done {
                Err(error) if is_away(&error) && self.may_return() => self.return_to_server()?,
                done => return done,
            }
        }
    }

    fn may_return(&self) -> bool {
        !*self.is_in_transaction.borrow()
    }

    /// Waits until the server answers. A reader is told after one try; the writer waits as long as it takes, or until
    /// another has its lease.
    fn return_to_server(&self) -> Result<(), DatabaseError> {
        *self.link.borrow_mut() = None;
        if self.lease.is_none() {
            *self.link.borrow_mut() = Some(self.connect()?);
            return Ok(());
        }
        let mut tries = 0;
        loop {
            match self.connect() {
                Ok(link) => {
                    if tries > 0 {
                        info!(server = %self.server, "Postgres is back: the log goes on");
                    }
                    self.health.set(Trouble::None);
                    *self.link.borrow_mut() = Some(link);
                    return Ok(());
                }
                Err(lost @ DatabaseError::LeaseLost { .. }) => return Err(lost),
                Err(why) => {
                    if tries % 64 == 0 {
                        self.say_away(&why);
                    }
                    self.health.set(Trouble::Away);
                    tries += 1;
                    std::thread::sleep(pause(tries));
                }
            }
        }
    }

    fn say_away(&self, why: &DatabaseError) {
        error!(
            server = %self.server,
            error = why as &dyn std::error::Error,
            "Postgres is away: nothing is begun until it is back, and nothing that was recorded is lost; \
             see whether the server runs and takes connections"
        );
    }

    /// Writes in one transaction under the lease; what it says of the outcome is true unless the server went away.
    fn try_write(&self, writing: &Writing<'_>, reach: &Reach<'_>) -> Result<(), DatabaseError> {
        let Some(lease) = &self.lease else {
            return Err(DatabaseError::NoLease);
        };
        self.with(|link| {
            let mut calls = vec![lease.check()];
            calls.extend(batch::calls(writing));
            let changed = link.transaction(&calls);
            let written = changed.and_then(|changed| match changed.first() {
                Some(1) => reach(Stage::Written).map_err(DatabaseError::Ground),
                _ => Err(lease.lost(link)),
            });
            match written {
                Ok(()) => link.run("COMMIT"),
                Err(error) => {
                    if verdict(&error) != Verdict::Away {
                        link.run("ROLLBACK")?;
                    }
                    Err(error)
                }
            }
        })
    }

    /// Whether a batch is there whose commit broke off. It has a head that no other has.
    fn has(&self, number: u64, head: &SignedHead) -> Result<bool, StoreError> {
        let is_away = |error: &StoreError| match error {
            StoreError::Read(error) => verdict(error) == Verdict::Away,
            _ => false,
        };
        let sql = "SELECT size, root, signature FROM head WHERE number = ?1";
        let ours = head
            .signatures
            .first()
            .map(|line| line.signature.as_slice());
        let mut is_there = false;
        self.insist(
            |link| {
                link.query(sql, &[Param::Integer(to_sql(number))], &mut |row| {
                    is_there = row.integer(0)?.cast_unsigned() == head.head.size
                        && row.blob(1)? == head.head.root
                        && Some(row.blob(2)?) == ours;
                    Ok(ControlFlow::Break(()))
                })
            },
            is_away,
        )?;
        Ok(is_there)
    }

    fn say_full(&self, why: &DatabaseError) {
        if self.health.trouble() != Trouble::Full {
            error!(
                server = %self.server,
                error = why as &dyn std::error::Error,
                "Postgres has no room: nothing is begun, and results wait in this process, until it has; free space there"
            );
        }
        self.health.set(Trouble::Full);
    }
}

impl Database for Postgres {
    fn query(
        &self,
        sql: &str,
        params: &[Param<'_>],
        each: &mut Each<'_>,
    ) -> Result<(), StoreError> {
        let given = RefCell::new(false);
        let is_away = |error: &StoreError| match error {
            StoreError::Read(error) => verdict(error) == Verdict::Away && !*given.borrow(),
            _ => false,
        };
        self.insist(
            |link| {
                link.query(sql, params, &mut |row| {
                    *given.borrow_mut() = true;
                    each(row)
                })
            },
            is_away,
        )
    }

    fn execute(&self, sql: &str, params: &[Param<'_>]) -> Result<(), DatabaseError> {
        self.with(|link| link.execute(sql, params).map(drop))
    }

    fn walk(&self, queries: &[&str], walk: &mut Walk<'_>) -> Result<(), DatabaseError> {
        // Cursors live in a transaction; within a snapshot there is one.
        let is_own = !*self.is_in_transaction.borrow();
        self.with(|link| {
            if is_own {
                link.run(SNAPSHOT)?;
            }
            let mut cursors = Vec::with_capacity(queries.len());
            for (at, sql) in queries.iter().enumerate() {
                let name = format!("walk_{at}");
                link.run(&format!("DECLARE {name} NO SCROLL CURSOR FOR {sql}"))?;
                cursors.push(row::Cursor::new(link, &name, FETCHED));
            }
            let mut rows: Vec<&mut dyn Rows> = cursors
                .iter_mut()
                .map(|cursor| cursor as &mut dyn Rows)
                .collect();
            walk(&mut rows);
            if is_own {
                return link.run("ROLLBACK");
            }
            let names = (0..queries.len()).map(|at| format!("CLOSE walk_{at};"));
            link.run(&names.collect::<String>())
        })
    }

    fn snapshot(&self, read: &mut dyn FnMut() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let is_away = |error: &DatabaseError| verdict(error) == Verdict::Away;
        self.insist(|link| link.run(SNAPSHOT), is_away)?;
        *self.is_in_transaction.borrow_mut() = true;
        let done = read();
        *self.is_in_transaction.borrow_mut() = false;
        // A connection that broke took its transaction with it.
        let ended = self.with(|link| link.run("ROLLBACK"));
        done?;
        Ok(ended?)
    }

    fn write(&self, writing: &Writing<'_>, reach: &Reach<'_>) -> Result<(), DatabaseError> {
        batch::check(writing)?;
        reach(Stage::Begin).map_err(DatabaseError::Ground)?;
        loop {
            let error = match self.try_write(writing, reach) {
                Ok(()) => {
                    self.health.set(Trouble::None);
                    return Ok(());
                }
                Err(error) => error,
            };
            match verdict(&error) {
                Verdict::Away => {
                    self.return_to_server()?;
                    let (number, head) = (writing.prepared.head_number, &writing.prepared.head);
                    match self.has(number, head) {
                        Ok(true) => return Ok(()),
                        Ok(false) => {}
                        Err(StoreError::Read(error)) => return Err(error),
                        Err(_) => return Err(error),
                    }
                }
                Verdict::Full => {
                    self.say_full(&error);
                    std::thread::sleep(FULL_PAUSE);
                }
                Verdict::Refused => return Err(error),
            }
        }
    }

    fn begin_writing(&self) -> Result<(), DatabaseError> {
        Ok(())
    }

    fn begin(&self) -> Result<(), DatabaseError> {
        let Some(lease) = &self.lease else {
            return Err(DatabaseError::NoLease);
        };
        self.with(|link| match link.transaction(&[lease.check()])?[..] {
            [1] => Ok(()),
            _ => Err(lease.lost(link)),
        })?;
        *self.is_in_transaction.borrow_mut() = true;
        Ok(())
    }

    fn commit(&self) -> Result<(), DatabaseError> {
        *self.is_in_transaction.borrow_mut() = false;
        self.with(|link| link.run("COMMIT"))
    }

    /// Postgres checks pages as it reads them, where its owner has switched that on; tables are not ours to look into.
    fn structure(&self) -> Result<Option<String>, DatabaseError> {
        Ok(None)
    }

    /// Nothing here is flushed by closing.
    fn abandon(&self) -> Result<(), DatabaseError> {
        Ok(())
    }

    fn close(&self) -> Result<(), DatabaseError> {
        match &self.lease {
            Some(lease) => self.with(|link| lease.release(link)),
            None => Ok(()),
        }
    }
}

impl Drop for Postgres {
    /// Whoever waits for the lease needn't wait until it has run out. Where threads must not wait this one doesn't.
    fn drop(&mut self) {
        let link = self.link.get_mut().take();
        if let (Some(lease), Some(link)) = (&self.lease, link)
            && tokio::runtime::Handle::try_current().is_err()
        {
            let _over = link.run("ROLLBACK");
            if let Err(error) = lease.release(&link) {
                tracing::debug!(%error, "the lease runs out by itself");
            }
        }
    }
}

const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";

impl fmt::Debug for Postgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Postgres({})", self.server)
    }
}
