//! The `mainstay` program as a person runs it: arguments, exit code, standard output and error.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a command may take.
pub const BOUND: Duration = Duration::from_secs(120);

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output as JSON; fails the test if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("standard output is no JSON ({error}): {self:?}");
        })
    }

    /// The same, if the command exited with that code.
    #[must_use]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

/// The program under test: `MAINSTAY_BIN`, else the one beside this test's own binary.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("MAINSTAY_BIN") {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("mainstay");
    assert!(
        program.is_file(),
        "{} is missing: cargo build --package mainstay",
        program.display()
    );
    program
}

/// A command of the program in a clean environment: none of ours, none of a provider's.
#[must_use]
pub fn command(state: &Path) -> Command {
    let mut command = Command::new(program());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let prefixes = ["MAINSTAY_", "OPENAI_", "ANTHROPIC_", "OTEL_", "XDG_"];
        if prefixes.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command.env("MAINSTAY_STATE", state).env("NO_COLOR", "1");
    command
}

/// Runs it with these arguments and this standard input, and waits within [`BOUND`].
#[must_use]
pub fn run(state: &Path, arguments: &[&str], stdin: &str) -> Output {
    let mut command = command(state);
    command.args(arguments);
    finish(command, stdin, BOUND)
}

/// Starts a prepared command, feeds it and waits; kills it and fails the test after `bound`.
#[must_use]
pub fn finish(mut command: Command, stdin: &str, bound: Duration) -> Output {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let _ = input.write_all(stdin.as_bytes());
    drop(input);
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let code = wait(&mut child, bound);
    let output = Output {
        code: code.unwrap_or(-1),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    };
    assert!(
        code.is_some(),
        "{shown} ran longer than {bound:?}: {output:?}"
    );
    output
}

fn drain(pipe: Option<impl std::io::Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for a child within a bound, then kills it. `None` if it had to be killed.
pub(crate) fn wait(child: &mut Child, bound: Duration) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let deadline = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let by_signal = status.signal().map(|signal| 128 + signal);
            return Some(status.code().or(by_signal).unwrap_or(-1));
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
