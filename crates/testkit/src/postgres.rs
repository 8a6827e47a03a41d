//! A real Postgres for a test: made in a directory of its own, reached by a socket there, and gone with the process
//! that started it, however that ends.
//!
//! Postgres refuses to run as root, so as root it runs as `nobody`. Where none is installed there is none, and the test
//! says in one line what it left out.

use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// `nobody` and `nogroup` everywhere.
const UNPRIVILEGED: u32 = 65_534;
/// A busy machine makes a database in seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Ends the server when standard input does, then tidies up where it is told to.
const WATCH: &str = r#"directory=$1; shift
"$@" </dev/null & server=$!
read -r _
kill -QUIT $server; wait $server
[ -z "$directory" ] || rm -rf "$directory""#;

/// A server, started.
#[derive(Debug)]
pub struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    /// Its standard input keeps the server alive.
    watch: Option<Child>,
    settings: Vec<String>,
    port: u16,
    owned: Option<TempDir>,
}

impl Postgres {
    /// One that all tests of a process share; each takes a schema or a database. `None` where none is installed.
    pub fn shared() -> Option<&'static Postgres> {
        static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            let bin = installed()?;
            let dir = TempDir::new().expect("a directory for Postgres").keep();
            Some(Postgres::start_in(bin, dir, None, &[]))
        });
        shared.as_ref()
    }

    /// One of a test's own, to be broken. `None` where none is installed.
    pub fn start(settings: &[&str]) -> Option<Postgres> {
        let bin = installed()?;
        let owned = TempDir::new().expect("a directory for Postgres");
        let dir = owned.path().to_owned();
        Some(Postgres::start_in(bin, dir, Some(owned), settings))
    }

    /// One of a test's own on loopback, which has this certificate and key.
    pub fn start_tls(certificate: &str, key: &str) -> Option<Postgres> {
        let bin = installed()?;
        let owned = TempDir::new().expect("a directory for Postgres");
        let dir = owned.path().to_owned();
        for (name, text) in [("certificate", certificate), ("key", key)] {
            let path = dir.join(name);
            std::fs::write(&path, text).expect("a file");
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&path, private).expect("a private file");
            if rustix::process::geteuid().is_root() {
                chown(&path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("nobody's file");
            }
        }
        let settings = [
            "listen_addresses=127.0.0.1",
            "ssl=on",
            &format!("ssl_cert_file={}", dir.join("certificate").display()),
            &format!("ssl_key_file={}", dir.join("key").display()),
        ];
        let port = crate::up::free_port();
        Some(Postgres::start_at(port, bin, dir, Some(owned), &settings))
    }

    fn start_in(bin: PathBuf, dir: PathBuf, owned: Option<TempDir>, settings: &[&str]) -> Postgres {
        // It names the socket and nothing else.
        Postgres::start_at(5432, bin, dir, owned, settings)
    }

    fn start_at(
        port: u16,
        bin: PathBuf,
        dir: PathBuf,
        owned: Option<TempDir>,
        settings: &[&str],
    ) -> Postgres {
        if rustix::process::geteuid().is_root() {
            chown(&dir, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).expect("a directory of nobody's");
        }
        // Its clients are others than its owner; what they may see is the socket.
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(&dir, open).expect("a directory that others pass");
        let mut initdb = command(&bin.join("initdb"), &dir);
        initdb.args([
            "--username=mainstay",
            "--auth=trust",
            "--no-sync",
            "--encoding=UTF8",
        ]);
        initdb
            .args(["--locale=C.UTF-8", "--pgdata"])
            .arg(dir.join("data"));
        let made = initdb.output().expect("initdb runs");
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        let mut server = Postgres {
            bin,
            dir,
            watch: None,
            port,
            settings: settings.iter().map(ToString::to_string).collect(),
            owned,
        };
        server.resume();
        server
    }

    /// Starts it again after [`Postgres::crash`].
    pub fn resume(&mut self) {
        let tidied = if self.owned.is_none() {
            self.dir.as_os_str()
        } else {
            "".as_ref()
        };
        let mut watch = command(Path::new("/bin/sh"), &self.dir);
        watch.args(["-c", WATCH, "watch"]).arg(tidied);
        watch
            .arg(self.bin.join("postgres"))
            .arg("-D")
            .arg(self.dir.join("data"));
        watch
            .arg("-k")
            .arg(&self.dir)
            .args(["-h", "", "-c", "shared_buffers=16MB", "-p"])
            .arg(self.port.to_string());
        for setting in &self.settings {
            watch.args(["-c", setting]);
        }
        let log = std::fs::File::create(self.dir.join("log")).expect("a log");
        watch
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log);
        self.watch = Some(watch.spawn().expect("Postgres starts"));
        let until = Instant::now() + PATIENCE;
        while let Err(error) = self.try_sql("postgres", "SELECT 1") {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            assert!(
                Instant::now() < until,
                "Postgres doesn't answer: {error}\n{log}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// It ends at once, as if its machine had: what it committed is there when it is started again.
    pub fn crash(&mut self) {
        if let Some(mut watch) = self.watch.take() {
            drop(watch.stdin.take());
            let _ended = watch.wait();
        }
    }

    /// A connection string for a schema that nobody else has.
    pub fn url(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let schema = format!(
            "s{}_{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        self.url_of(&schema)
    }

    pub fn url_of(&self, schema: &str) -> String {
        let socket = self.dir.to_string_lossy().replace('/', "%2F");
        format!("postgres://mainstay@{socket}/postgres?schema={schema}")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory it was given, which its socket is in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What `psql` answers, without decoration.
    pub fn sql(&self, sql: &str) -> String {
        self.try_sql("postgres", sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    fn try_sql(&self, database: &str, sql: &str) -> io::Result<String> {
        let mut psql = command(&self.bin.join("psql"), &self.dir);
        psql.args([
            "-XqAt",
            "-p",
            &self.port.to_string(),
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "mainstay",
            "-d",
            database,
            "-c",
            sql,
        ]);
        let answer = psql.arg("-h").arg(&self.dir).output()?;
        if !answer.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&answer.stderr)));
        }
        Ok(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

/// A command that runs as somebody unprivileged.
fn command(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    if rustix::process::geteuid().is_root() {
        command.uid(UNPRIVILEGED).gid(UNPRIVILEGED);
    }
    command
}

/// Where Debian puts the programs, or wherever `initdb` is.
fn installed() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let mut places: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    places.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    places.extend(std::env::split_paths(&path));
    let found = places.into_iter().find(|bin| bin.join("initdb").is_file());
    if found.is_none() {
        eprintln!("left out: no Postgres is installed (`cargo xtask setup` installs it)");
    }
    found
}
