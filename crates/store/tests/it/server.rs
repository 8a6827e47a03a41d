//! What only a server can do to a log: give its lease to another, go away in mid-commit, have no room, lose commits.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use store::{Ground, Log, Machine, OpenError, Place, Server, Stage, StoreError, Trouble};
use testkit::postgres::Postgres;

use crate::fixture::{Home, batch, chain, entry, fill, options, temp};

/// The same log from another machine: with a directory of its own.
fn elsewhere(home: &Home, dir: &Path) -> Place {
    let dir = dir.to_owned();
    match home.place() {
        Place::Server { server, .. } => Place::Server {
            server: server.clone(),
            dir,
        },
        Place::Directory(_) => Place::Directory(dir),
    }
}

fn open_at(place: &Place) -> Result<Log, OpenError> {
    Log::open_at(Arc::new(Machine), place, options())
}

#[test]
fn a_second_machine_waits_for_the_lease_and_goes_on_when_it_is_given_back_or_runs_out() {
    let Some(home) = Home::server() else { return };
    let other_dir = temp();
    let other = elsewhere(&home, other_dir.path());
    let mut log = home
        .try_open(store::Options {
            address: Some("10.1.2.3:7080".to_owned()),
            ..options()
        })
        .unwrap();
    fill(&mut log, 2);
    let error = open_at(&other).unwrap_err();
    let OpenError::LeaseHeld {
        address, left_ms, ..
    } = &error
    else {
        panic!("{}", chain(&error));
    };
    assert_eq!(address.as_deref(), Some("10.1.2.3:7080"));
    assert!(*left_ms <= 5_000, "{left_ms}");
    log.close().unwrap();

    let mut second = open_at(&other).unwrap();
    fill(&mut second, 2);
    // A writer that is killed gives nothing back: its lease runs out by the server's clock.
    std::mem::forget(second);
    home.sql("UPDATE lease SET holder = 'one that is dead'");
    let started = Instant::now();
    let third = soon("the lease has run out", || home.try_open(options()).ok());
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(third.read().head_count().unwrap(), 5);
    drop(third);
    home.examine().unwrap();
}

#[test]
fn a_writer_whose_lease_was_taken_can_append_nothing() {
    let Some(home) = Home::server() else { return };
    let mut log = home.open();
    fill(&mut log, 2);
    let before = home.dump();
    home.sql(
        "UPDATE lease SET epoch = epoch + 1, holder = 'a thief', name = 'a thief', expires = now() + interval '1 h'",
    );
    let next = batch(&log, vec![entry(9)]);
    let error = log.append(&next).unwrap_err();
    assert!(error.is_fatal());
    assert!(
        chain(&error).contains("lease is lost to a thief"),
        "{}",
        chain(&error)
    );
    assert!(matches!(log.append(&next), Err(StoreError::Failed)));
    assert_eq!(log.health().trouble(), Trouble::Lost);
    assert_eq!(home.dump(), before);
}

#[test]
fn an_idle_writer_whose_lease_was_taken_knows_it() {
    let Some(home) = Home::server() else { return };
    let log = home.open();
    home.sql("UPDATE lease SET holder = 'a thief', epoch = epoch + 1");
    let health = log.health();
    soon("it is told", || {
        (health.trouble() == Trouble::Lost).then_some(())
    });
}

/// Stands between a writer and its server, and can keep the server's answers to itself.
struct Between {
    dir: tempfile::TempDir,
    is_silent: Arc<AtomicBool>,
    cut: Arc<Mutex<Vec<UnixStream>>>,
}

impl Between {
    fn start(postgres: &Postgres) -> Between {
        let dir = temp();
        let server = postgres.dir().join(".s.PGSQL.5432");
        let listener = UnixListener::bind(dir.path().join(".s.PGSQL.5432")).unwrap();
        let is_silent = Arc::new(AtomicBool::new(false));
        let cut = Arc::new(Mutex::new(Vec::new()));
        let (silent, open) = (Arc::clone(&is_silent), Arc::clone(&cut));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(to_server) = UnixStream::connect(&server) else {
                    continue;
                };
                let both = [client.try_clone(), to_server.try_clone()];
                open.lock().unwrap().extend(both.into_iter().flatten());
                let never = Arc::new(AtomicBool::new(false));
                carry(
                    client.try_clone().unwrap(),
                    to_server.try_clone().unwrap(),
                    never,
                );
                carry(to_server, client, Arc::clone(&silent));
            }
        });
        Between {
            dir,
            is_silent,
            cut,
        }
    }

    fn place(&self, schema: &str, dir: PathBuf) -> Place {
        let socket = self.dir.path().to_string_lossy().replace('/', "%2F");
        let url = format!("postgres://mainstay@{socket}/postgres?schema={schema}");
        let server = Server::parse(&url).unwrap();
        Place::Server { server, dir }
    }
}

fn carry(mut from: UnixStream, mut to: UnixStream, is_silent: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut bytes = [0; 16 * 1024];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            if is_silent.load(Ordering::SeqCst) || to.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
    });
}

/// Does something once, when the first commit after it was armed has come to a stage.
struct Once {
    at: Stage,
    armed: AtomicBool,
    what: Box<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Once at {:?}", self.at)
    }
}

impl Ground for Once {
    fn reach(&self, _dir: &Path, stage: Stage) -> io::Result<()> {
        if stage == self.at && self.armed.swap(false, Ordering::SeqCst) {
            (self.what)();
        }
        Ok(())
    }
}

fn soon<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    testkit::until(what, Duration::from_secs(30), look)
}

fn schema_of(url: &str) -> String {
    url.split_once("schema=").unwrap().1.to_owned()
}

#[test]
fn a_commit_whose_answer_is_lost_is_looked_up_and_neither_lost_nor_repeated() {
    let Some(postgres) = Postgres::shared() else {
        return;
    };
    let schema = schema_of(&postgres.url());
    let between = Between::start(postgres);
    let dir = temp();
    let place = between.place(&schema, dir.path().to_owned());
    let (silent, cut) = (Arc::clone(&between.is_silent), Arc::clone(&between.cut));
    let heads = format!("SELECT count(*) FROM {schema}.head");
    let ground = Arc::new(Once {
        at: Stage::Written,
        armed: AtomicBool::new(false),
        what: Box::new(move || {
            silent.store(true, Ordering::SeqCst);
            let (silent, cut, heads) = (Arc::clone(&silent), Arc::clone(&cut), heads.clone());
            // The commit goes through; what the server says of it doesn't, and then the way breaks.
            std::thread::spawn(move || {
                soon("the server has committed", || {
                    (postgres.sql(&heads) == "3").then_some(())
                });
                for end in cut.lock().unwrap().drain(..) {
                    let _closed = end.shutdown(std::net::Shutdown::Both);
                }
                silent.store(false, Ordering::SeqCst);
            });
        }),
    });
    let mut log = Log::open_at(Arc::clone(&ground) as Arc<dyn Ground>, &place, options()).unwrap();
    fill(&mut log, 1);
    ground.armed.store(true, Ordering::SeqCst);
    fill(&mut log, 1);
    assert!(!ground.armed.load(Ordering::SeqCst));
    assert_eq!(
        postgres.sql(&format!("SELECT count(*) FROM {schema}.head")),
        "3"
    );
    fill(&mut log, 1);
    log.close().unwrap();
    store::verify_at(&place, &store::VerifyOptions::default()).unwrap();
}

#[test]
fn a_server_that_goes_before_a_commit_is_waited_for_and_the_batch_is_written_once() {
    let Some(postgres) = Postgres::start(&[]) else {
        return;
    };
    let schema = schema_of(&postgres.url());
    let dir = temp();
    let server = Server::parse(&postgres.url_of(&schema)).unwrap();
    let place = Place::Server {
        server,
        dir: dir.path().to_owned(),
    };
    let postgres = Arc::new(Mutex::new(postgres));
    let (gone, back) = (Arc::clone(&postgres), Arc::clone(&postgres));
    let ground = Arc::new(Once {
        at: Stage::Written,
        armed: AtomicBool::new(false),
        what: Box::new(move || gone.lock().unwrap().crash()),
    });
    let mut log = Log::open_at(Arc::clone(&ground) as Arc<dyn Ground>, &place, options()).unwrap();
    fill(&mut log, 2);
    let before = log.size();
    let health = log.health();
    ground.armed.store(true, Ordering::SeqCst);
    let returns = std::thread::spawn(move || {
        soon("the log says that its server is away", || {
            (health.trouble() == Trouble::Away).then_some(())
        });
        back.lock().unwrap().resume();
    });
    let next = batch(&log, vec![entry(before)]);
    let appended = log.append(&next).unwrap();
    returns.join().unwrap();
    assert_eq!((appended.first_seq, log.size()), (before, before + 1));
    assert_eq!(log.health().trouble(), Trouble::None);
    // The writer's own reads wait as well.
    postgres.lock().unwrap().crash();
    let back = Arc::clone(&postgres);
    let returns = std::thread::spawn(move || back.lock().unwrap().resume());
    assert_eq!(log.read().entry(before).unwrap().unwrap().seq, before);
    returns.join().unwrap();
    log.close().unwrap();
    store::verify_at(&place, &store::VerifyOptions::default()).unwrap();
}

#[test]
fn a_server_without_room_says_so_and_takes_the_same_batch_when_it_has() {
    let Some(home) = Home::server() else { return };
    let mut log = home.open();
    fill(&mut log, 1);
    // What Postgres answers when it can't make a file longer.
    home.sql(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$; \
         CREATE TRIGGER full_disk BEFORE INSERT ON head EXECUTE FUNCTION full_disk()",
    );
    let health = log.health();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            soon("the log says that there is no room", || {
                (health.trouble() == Trouble::Full).then_some(())
            });
            home.sql("DROP TRIGGER full_disk ON head");
        });
        fill(&mut log, 1);
    });
    assert!(!log.low_space().unwrap());
    log.close().unwrap();
    home.examine().unwrap();
}

#[test]
fn a_server_that_has_lost_commits_is_noticed_by_the_heads_of_the_machine_that_made_them() {
    let Some(home) = Home::server() else { return };
    let mut log = home.open();
    fill(&mut log, 2);
    let tables = ["meta", "entry", "payload", "author", "head"];
    let each = |sql: &str| {
        let all = tables.map(|table| sql.replace("NAME", table));
        home.sql(&all.join("; "));
    };
    each("CREATE TABLE copy_NAME AS SELECT * FROM NAME");
    fill(&mut log, 2);
    log.close().unwrap();
    each("TRUNCATE NAME; INSERT INTO NAME SELECT * FROM copy_NAME");
    let error = home.try_open(options()).unwrap_err();
    assert!(
        matches!(error, OpenError::EntriesLost { .. }),
        "{}",
        chain(&error)
    );
    assert!(home.verify(&store::VerifyOptions::default()).is_err());
    // A machine that saw none of it can't know.
    let other = temp();
    open_at(&elsewhere(&home, other.path())).unwrap();
}

#[test]
fn a_newer_schema_is_refused_and_a_role_that_may_make_none_is_told_what_to_ask_for() {
    let Some(home) = Home::server() else { return };
    home.open().close().unwrap();
    home.sql("INSERT INTO migration VALUES (99, now())");
    for refused in [home.try_open(options()).err(), home.reader().err()] {
        assert!(matches!(
            refused,
            Some(OpenError::NewerFormat {
                found: 99,
                known: 1,
                ..
            })
        ));
    }

    let postgres = Postgres::shared().unwrap();
    let role = format!("role_{}", std::process::id());
    postgres.sql(&format!("CREATE ROLE {role} LOGIN"));
    let dir = temp();
    let url = postgres
        .url_of(&role)
        .replace("mainstay@", &format!("{role}@"));
    let place = Place::Server {
        server: Server::parse(&url).unwrap(),
        dir: dir.path().to_owned(),
    };
    assert!(matches!(
        store::Reader::open_at(&place),
        Err(OpenError::NotFound { .. })
    ));
    let error = chain(&open_at(&place).unwrap_err());
    let wanted = format!("CREATE SCHEMA \"{role}\" AUTHORIZATION {role}");
    assert!(error.contains(&wanted), "{error}");
    postgres.sql(&wanted);
    open_at(&place).unwrap();
}

#[test]
fn a_server_elsewhere_is_reached_by_tls_and_its_certificate_is_checked() {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = own.signing_key.serialize_pem();
    let Some(postgres) = Postgres::start_tls(&own.cert.pem(), &key) else {
        return;
    };
    let dir = temp();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, own.cert.pem()).unwrap();
    let at = |host: &str, more: &str| {
        let port = postgres.port();
        let url = format!("postgres://mainstay@{host}:{port}/postgres?schema=by_tls{more}");
        let place = Place::Server {
            server: Server::parse(&url).unwrap(),
            dir: dir.path().join("log"),
        };
        open_at(&place).map_err(|error| chain(&error))
    };
    let trusted = format!("&sslrootcert={}", root.display());
    let mut log = at("localhost", &trusted).unwrap();
    fill(&mut log, 1);
    let sessions = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
        WHERE application_name = 'mainstay' AND NOT ssl";
    assert_eq!(postgres.sql(sessions), "0");
    log.close().unwrap();
    // By nobody's word, and by a certificate of another name.
    let unknown = at("localhost", "").unwrap_err();
    assert!(unknown.contains("certificate"), "{unknown}");
    let other_name = at("127.0.0.1", &trusted).unwrap_err();
    assert!(other_name.contains("certificate"), "{other_name}");
}
