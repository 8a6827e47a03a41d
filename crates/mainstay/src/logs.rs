//! `mainstay logs`: what an agent's processes wrote, from the instance's files in the state.
//!
//! The files are the shim's: bounded, rotated once. Nothing here needs a hub, so the logs of an
//! agent that brings its hub down can still be read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::agent::instance_or_owner;
use crate::exit::{Exit, Failure, Outcome};
use crate::output::{for_terminal, printable, write_out};
use crate::place::PlaceArgs;

const LOOK_AGAIN: Duration = Duration::from_millis(200);
const MAX_READ_BYTES: u64 = 1024 * 1024;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  mainstay logs researcher -f\n  mainstay logs researcher/researcher-0 --stdout"
)]
pub struct LogsArgs {
    /// An agent, an instance of it, or a tool server as `get instances` shows it
    #[arg(value_name = "AGENT[/INSTANCE]|REGISTRY/TOOL")]
    target: String,
    /// Go on printing what is written
    #[arg(short, long)]
    follow: bool,
    /// Standard output instead of standard error
    #[arg(long)]
    stdout: bool,
}

pub async fn logs(place: &PlaceArgs, args: LogsArgs) -> Outcome {
    let state = place.local_state("the logs")?;
    let file = if args.stdout {
        "stdout.log"
    } else {
        "stderr.log"
    };
    let mut tails = Tails {
        dir: state.join("logs"),
        target: instance_or_owner(&args.target),
        file,
        by_instance: BTreeMap::new(),
    };
    tails.find()?;
    if tails.by_instance.is_empty() {
        let failure = Failure::new(
            Exit::NotFound,
            format!(
                "no logs of `{}` in {}",
                printable(&args.target),
                state.display()
            ),
        );
        return Err(failure.with_hint(
            "mainstay get agents lists the agents; logs begin when a process was started",
        ));
    }
    tails.print_older()?;
    loop {
        tails.print_newer()?;
        if !args.follow {
            return Ok(Exit::Done);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => tails.find()?,
            _signal = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

/// The log files of the instances that are meant, and how far each was read.
struct Tails {
    dir: PathBuf,
    target: String,
    file: &'static str,
    by_instance: BTreeMap<String, Tail>,
}

struct Tail {
    path: PathBuf,
    file: Option<File>,
    inode: u64,
    at_line_start: bool,
}

impl Tails {
    /// Looks for instances; new ones may come while we follow.
    fn find(&mut self) -> Result<(), Failure> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(&self.dir, error)),
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_meant(&name, &self.target) && !self.by_instance.contains_key(&name) {
                let path = entry.path().join(self.file);
                self.by_instance.insert(
                    name,
                    Tail {
                        path,
                        file: None,
                        inode: 0,
                        at_line_start: true,
                    },
                );
            }
        }
        Ok(())
    }

    /// What rotation has put aside.
    fn print_older(&mut self) -> Result<(), Failure> {
        let prefixed = self.by_instance.len() > 1;
        for (name, tail) in &mut self.by_instance {
            let mut old = tail.path.clone().into_os_string();
            old.push(".1");
            if let Ok(mut file) = File::open(&old) {
                tail.copy(&mut file, prefixed.then_some(name.as_str()))?;
            }
        }
        Ok(())
    }

    fn print_newer(&mut self) -> Result<(), Failure> {
        let prefixed = self.by_instance.len() > 1;
        for (name, tail) in &mut self.by_instance {
            tail.print(prefixed.then_some(name.as_str()))?;
        }
        Ok(())
    }
}

impl Tail {
    fn print(&mut self, prefix: Option<&str>) -> Result<(), Failure> {
        if let Some(mut file) = self.file.take() {
            // The rest of a file that was put aside, before the one that took its name.
            self.copy(&mut file, prefix)?;
            self.file = Some(file);
        }
        let found = std::fs::metadata(&self.path).map(|metadata| metadata.ino());
        if self.file.is_none() || found.as_ref().is_ok_and(|inode| *inode != self.inode) {
            match File::open(&self.path) {
                Ok(mut file) => {
                    self.inode = file.metadata().map_or(0, |metadata| metadata.ino());
                    self.copy(&mut file, prefix)?;
                    self.file = Some(file);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(&self.path, error)),
            }
        }
        Ok(())
    }

    fn copy(&mut self, file: &mut File, prefix: Option<&str>) -> Result<(), Failure> {
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        if file
            .stream_position()
            .is_ok_and(|position| position > length)
        {
            // Cut by somebody: begin again.
            let _kept = file.seek(SeekFrom::Start(0));
        }
        loop {
            let mut bytes = Vec::new();
            let read = file.take(MAX_READ_BYTES).read_to_end(&mut bytes);
            read.map_err(|error| unreadable(&self.path, error))?;
            if bytes.is_empty() {
                return Ok(());
            }
            write_out(&self.shown(&bytes, prefix))?;
        }
    }

    fn shown(&mut self, bytes: &[u8], prefix: Option<&str>) -> Vec<u8> {
        let text = for_terminal(&String::from_utf8_lossy(bytes));
        let Some(prefix) = prefix else {
            return text.into_bytes();
        };
        let mut shown = String::new();
        for line in text.split_inclusive('\n') {
            if self.at_line_start {
                shown.push_str(prefix);
                shown.push_str(" | ");
            }
            shown.push_str(line);
            self.at_line_start = line.ends_with('\n');
        }
        shown.into_bytes()
    }
}

/// `researcher` means `researcher-0` and its like, and itself.
fn is_meant(instance: &str, target: &str) -> bool {
    let index = instance
        .strip_prefix(target)
        .and_then(|rest| rest.strip_prefix('-'));
    instance == target
        || index.is_some_and(|index| {
            !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit())
        })
}

fn unreadable(path: &Path, error: std::io::Error) -> Failure {
    let exit = if error.kind() == ErrorKind::PermissionDenied {
        Exit::NotAllowed
    } else {
        Exit::Failed
    };
    Failure::new(exit, format!("failed to read {}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_means_its_instances_and_no_agent_of_a_longer_name() {
        assert!(is_meant("a-0", "a"));
        assert!(is_meant("a-12", "a-12"));
        assert!(!is_meant("a-b-0", "a"));
        assert!(!is_meant("a-", "a"));
    }

    #[test]
    fn every_line_says_whose_it_is() {
        let mut tail = Tail {
            path: PathBuf::new(),
            file: None,
            inode: 0,
            at_line_start: true,
        };
        assert_eq!(tail.shown(b"one\ntw", Some("a-0")), b"a-0 | one\na-0 | tw");
        assert_eq!(tail.shown(b"o\n", Some("a-0")), b"o\n");
    }
}
