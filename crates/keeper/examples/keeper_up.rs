//! The keeper with a small stand-in for the hub, for the keeper's own tests and for measuring it.
//!
//! `keeper_up up STATE LISTEN [PATH...]` runs the keeper; it starts `keeper_up hub`, which commits
//! what is proposed, answers each client with its pid, and passes lines `send JSON` on to the
//! keeper. Like the real hub it remembers its generation and exits when the keeper is gone.
#![allow(
    clippy::disallowed_methods,
    reason = "a stand-in that is never killed by the machine"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use api::Knowledge;
use contract::Versions;
use contract::frame::{Decoder, encode};
use contract::keeper::{GenerationRef, ListenerPurpose, ToHub, ToKeeper};
use keeper::{HubCommand, Options};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((word, rest)) if word == "up" => up(rest),
        Some((word, _)) if word == "hub" => match hub() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("stand-in hub: {error}");
                ExitCode::from(1)
            }
        },
        _ => {
            eprintln!("usage: keeper_up up STATE LISTEN [PATH...]");
            ExitCode::from(2)
        }
    }
}

fn up(arguments: &[String]) -> ExitCode {
    let (Some(state), Some(listen), Ok(program)) = (
        arguments.first(),
        arguments.get(1).and_then(|listen| listen.parse().ok()),
        std::env::current_exe(),
    ) else {
        return ExitCode::from(2);
    };
    let environment = std::env::vars().filter(|(name, _)| name.starts_with("STAND_IN_"));
    let options = Options {
        state: PathBuf::from(state),
        manifests: arguments.iter().skip(2).map(PathBuf::from).collect(),
        listen,
        metrics: None,
        program: program.clone(),
        hub: HubCommand {
            program,
            arguments: vec!["hub".to_owned()],
            environment: environment.collect(),
        },
        knowledge: Knowledge::nothing(),
        on_ready: Box::new(|ready| {
            println!("ready {} {}", ready.address, ready.isolation);
        }),
    };
    match keeper::up(options) {
        Ok(ended) => ExitCode::from(ended.exit_code()),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}

type Sender = Arc<Mutex<UnixStream>>;

fn send(sender: &Sender, message: &ToKeeper) -> std::io::Result<()> {
    let bytes = encode(message).map_err(std::io::Error::other)?;
    let mut stream = sender
        .lock()
        .map_err(|_| std::io::Error::other("poisoned"))?;
    stream.write_all(&bytes)
}

fn hub() -> std::io::Result<()> {
    if let Ok(code) = std::env::var("STAND_IN_EXIT") {
        std::process::exit(code.parse().unwrap_or(1));
    }
    let link = UnixStream::from(sandbox::descriptors::inherited(3)?);
    let sender: Sender = Arc::new(Mutex::new(link.try_clone()?));
    let (mut decoder, mut descriptors) = (Decoder::default(), Vec::new());
    let mut system = PathBuf::new();
    loop {
        while let Some(message) = decoder.next::<ToHub>().map_err(std::io::Error::other)? {
            match message {
                ToHub::Hello { state_dir, .. } => {
                    system = Path::new(&state_dir).join("system");
                    if system.join("fail").exists() {
                        std::process::exit(1);
                    }
                    let mut key = Vec::new();
                    std::fs::File::from(descriptors.remove(0)).read_to_end(&mut key)?;
                    assert_eq!(key.len(), 32);
                    greet(&sender, &system)?;
                }
                ToHub::Listener { purpose, .. } => {
                    let socket = descriptors.remove(0);
                    if purpose == ListenerPurpose::Facade {
                        let (listener, sender) = (TcpListener::from(socket), sender.clone());
                        std::thread::spawn(move || serve(&listener, &sender));
                    }
                }
                ToHub::GenerationProposed { number, hash } => {
                    while system.join("hold").exists() {
                        std::thread::sleep(std::time::Duration::from_millis(5));
                    }
                    let current = serde_json::to_vec(&GenerationRef { number, hash })?;
                    std::fs::write(system.join("current.json"), current)?;
                    send(&sender, &ToKeeper::GenerationCommitted { number })?;
                }
                ToHub::Instances { instances } => {
                    let new = system.join("instances.new");
                    std::fs::write(&new, serde_json::to_vec(&instances)?)?;
                    std::fs::rename(new, system.join("instances.json"))?;
                }
                applied @ ToHub::Applied { .. } => {
                    let mut file = std::fs::File::options()
                        .create(true)
                        .append(true)
                        .open(system.join("applied.jsonl"))?;
                    writeln!(file, "{}", serde_json::to_string(&applied)?)?;
                }
                ToHub::CredentialFile { path } => {
                    let mut text = String::new();
                    std::fs::File::from(descriptors.remove(0)).read_to_string(&mut text)?;
                    let mut file = std::fs::File::options()
                        .create(true)
                        .append(true)
                        .open(system.join("handed"))?;
                    writeln!(file, "{path}: {text}")?;
                }
                // Another home's.
                ToHub::Pods { .. } => {}
                ToHub::Stop => return Ok(()),
            }
        }
        let mut buffer = [0; 4096];
        match wait_and_receive(&link, &mut buffer, &mut descriptors)? {
            0 => return Ok(()),
            count => decoder.push(&buffer[..count]),
        }
    }
}

fn wait_and_receive(
    link: &UnixStream,
    buffer: &mut [u8],
    descriptors: &mut Vec<std::os::fd::OwnedFd>,
) -> std::io::Result<usize> {
    use std::os::fd::AsFd;
    let mut fds = [rustix::event::PollFd::new(
        link,
        rustix::event::PollFlags::IN,
    )];
    rustix::event::poll(&mut fds, None)?;
    sandbox::descriptors::receive_with(link.as_fd(), buffer, descriptors)
}

fn greet(sender: &Sender, system: &Path) -> std::io::Result<()> {
    let current = std::fs::read(system.join("current.json")).ok();
    let hello = ToKeeper::Hello {
        versions: Versions::OURS,
        pid: std::process::id(),
        current_generation: current.and_then(|text| serde_json::from_slice(&text).ok()),
    };
    send(sender, &hello)?;
    send(sender, &ToKeeper::Ready)
}

/// Answers each client with this process's pid; forwards `send JSON` to the keeper.
fn serve(listener: &TcpListener, sender: &Sender) {
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { return };
        let _client_gone = writeln!(stream, "hub {}", std::process::id());
        let Ok(copy) = stream.try_clone() else {
            continue;
        };
        let mut line = String::new();
        let _client_gone = BufReader::new(copy).read_line(&mut line);
        if let Some(json) = line.strip_prefix("send ")
            && let Ok(message) = serde_json::from_str(json)
        {
            let _keeper_gone = send(sender, &message);
        }
    }
}
