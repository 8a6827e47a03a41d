//! A writer killed at any moment: what it acknowledged is there, and the log is whole.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use store::{Log, Machine, Place, Server};

use crate::fixture::{Home, copy, examine, fill, open, options, temp};

const DIR: &str = "MAINSTAY_TEST_LOG";
const SERVER: &str = "MAINSTAY_TEST_LOG_SERVER";

/// Not a test of its own: what the killed process runs. It says the log's size after each commit.
#[test]
#[ignore = "run by the test below, as the process to kill"]
fn append_until_killed() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let place = match std::env::var(SERVER) {
        Ok(url) => Place::Server {
            server: Server::parse(&url).unwrap(),
            dir: PathBuf::from(&dir),
        },
        Err(_) => Place::Directory(PathBuf::from(&dir)),
    };
    // The one before was killed and has given no lease back.
    let mut log = testkit::until("the log is free", Duration::from_secs(30), || {
        Log::open_at(Arc::new(Machine), &place, options()).ok()
    });
    loop {
        fill(&mut log, 1);
        println!("\nsize {}", log.size());
    }
}

fn start(dir: &Path, server: Option<&str>) -> Child {
    let server = server.map(|url| (SERVER, url));
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "--nocapture",
            "crash::append_until_killed",
        ])
        .env(DIR, dir)
        .envs(server)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn what_a_killed_writer_acknowledged_is_there_and_the_log_is_whole() {
    let dir = temp();
    let mut acknowledged = 0;
    for round in 1..=8 {
        let mut child = start(dir.path(), None);
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let sizes = lines.filter_map(|line| line.strip_prefix("size ")?.parse::<u64>().ok());
        // Kill it while it goes on writing, then read what it still managed to say.
        let mut sizes = sizes.inspect(|size| acknowledged = *size);
        assert!(sizes.nth(round * 3).is_some(), "the writer ended by itself");
        child.kill().unwrap();
        sizes.by_ref().for_each(drop);
        child.wait().unwrap();

        let crashed = copy(dir.path());
        let log = open(crashed.path());
        assert!(
            log.size() >= acknowledged,
            "{} of {acknowledged}",
            log.size()
        );
        assert!(log.healed_heads() <= 1);
        log.close().unwrap();
        examine(crashed.path()).unwrap();
    }
}

#[test]
fn what_a_killed_writer_acknowledged_is_on_its_server_and_the_next_goes_on() {
    let Some(home) = Home::server() else { return };
    for round in 1..=3 {
        let mut child = start(home.dir(), Some(&home.url()));
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let sizes = lines.filter_map(|line| line.strip_prefix("size ")?.parse::<u64>().ok());
        let mut acknowledged = 0;
        let mut sizes = sizes.inspect(|size| acknowledged = *size);
        assert!(sizes.nth(round * 3).is_some(), "the writer ended by itself");
        child.kill().unwrap();
        sizes.by_ref().for_each(drop);
        child.wait().unwrap();
        let size = home.reader().unwrap().size().unwrap();
        assert!(size >= acknowledged, "{size} of {acknowledged}");
        // As with a directory, a start adds the head that the kill kept from the file.
        home.open().close().unwrap();
        home.examine().unwrap();
    }
}
